// Package doctor examines the machine for what sandboxes need. It is given a user's folders and whisk's version; it
// promises a report: for each thing what was found, what is lost without it and the command that mends it, the worst
// first, and a script for root that mends all that root can mend.
//
//	Look ──▶ Machine ──▶ Examine ──▶ Report ──▶ table, JSON, script
//	 │
//	 └─▶ stage in fresh user, mount and network namespaces: overlay on the store's file system, nftables, the store
//
// All that is tried is tried in Look, which leaves nothing behind; Examine is a pure function of what it found, so
// every finding is tested on machines that are only written down (testdata). The words of a remedy are package mend's
// and those of a refused user namespace package userns's, as in every other error of whisk.
package doctor
