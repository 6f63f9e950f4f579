// Package cgroup keeps limits of memory, processor time and processes with control groups, cgroups(7), version 2, as
// an ordinary user may: below a scope that the user's own systemd makes and delegates.
//
//	user@1000.service/app.slice/whisk-NETWORK-PID.scope    made by StartTransientUnit, over the user's D-Bus
//	├─ keeper                                              the keeper: a group with groups below it holds no processes
//	├─ 0123456789ab                                        one sandbox: limits written, figures read, here
//	└─ ba9876543210
//
// A scope for each keeper and not for each sandbox: one question to systemd for a network's whole life, and none
// while a sandbox starts or a further command does. It also is the only way for a process of a login session to have
// children in the user's tree: moving one there by hand takes write access to a group that is root's.
//
// Probe says what a machine offers and Limits.Lost what cannot be kept on it and why; both only look. When the last
// process of a scope has ended, however it did, systemd removes the scope with all below.
package cgroup
