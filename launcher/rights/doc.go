// Package rights decides what an app may do: its capabilities, its seccomp filter, and the paths of /proc and /sys
// that are hidden from it or read-only. It is given what the user asked for; it promises a plan that the launcher
// applies as it is, or an error that names the word that was wrong. It changes nothing itself.
//
// The filter is cBPF for seccomp(2), compiled here without libseccomp. It is a binary search on the number of the
// system call, of instructions that the kernel can follow when the filter is installed: calls that are always
// allowed, which is nearly all that are ever made, then never run it (kernel 5.11, seccomp_cache_prepare).
//
//	architecture ──▶ another one (i386), x32: kill
//	number ──▶ allow │ errno │ look at arguments ──▶ allow │ errno
//	        └▶ above all that the profile knows: ENOSYS, so that a libc newer than the profile falls back
//
// The filters of the default profile are compiled at build time (zfilter_*.go); profiles of the user's own, and
// sets of capabilities that the profile makes exceptions for, when a sandbox is planned.
//
// The second run compiles the filters with the numbers that the first one wrote.
//
//go:generate go test -run TestGeneratedFilesAreCurrent -update .
//go:generate go test -run TestGeneratedFilesAreCurrent -update .
package rights
