// Package launcher gives a sandbox its life: it plans and builds the root file system, mounts, rights and
// process 1 of a sandbox, starts commands in it and keeps its record on disk.
//
// It is given a Spec (data that came from whisk.toml or from flags) and an image's layers, inside whisk's own
// user namespace, where it is root. It promises that a sandbox is either whole or an error that names the part,
// and that nothing of a sandbox outlives the process that made it.
//
// A sandbox's life:
//
//	created ── start ──▶ running ── the app ends, stop, kill ──▶ exited ── start ──▶ running …
//	   └──────────────────────────── rm ───────────────────────────┘
//
// How a sandbox starts (see sandbox.go, and sandboxes(7) in docs/architecture.md):
//
//	keeper's thread, locked for the sandbox's life         process 1
//	────────────────────────────────────────────           ─────────────────────────────
//	unshare mount, net, ipc, uts, cgroup
//	overlay, binds, volumes, /dev, /sys, hosts
//	pivot_root
//	clone(CLONE_NEWPID), no exec  ───────────────────────▶ a list of system calls made beforehand:
//	                                                       /proc, masks
//	fork twice, no exec  ──▶ the app: descriptors, ids,
//	                         capabilities, seccomp, execve
//	wait for process 1 ◀─────────────────────────────────  reap, pass signals on, end as the app does
package launcher
