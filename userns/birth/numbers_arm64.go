package birth

const sysExecveat = 281
