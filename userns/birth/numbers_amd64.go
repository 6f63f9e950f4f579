package birth

const sysExecveat = 322
