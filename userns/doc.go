// Package userns decides which ids of the host a sandbox's ids stand for, and starts whisk's hidden stages as root
// of a user namespace of their own (user_namespaces(7)). It is given the user, subuid(5), subgid(5) and what the
// kernel answers; it promises a stage that is root inside with every capability there, or an error that names what
// stands in the way and the command that mends it. It needs no privilege but that of newuidmap(1) and newgidmap(1).
//
// The three maps:
//
//	ordinary user with ranges   0 → the user    1…65536 → the user's ranges, one after the other
//	ordinary user without       0 → the user    (one id: Map.Single; Map.Why says why)
//	root                        0 → root        1…65536 → ids above all that distributions hand out
//
// A stage enters its namespace without a third exec. A child that is cloned into a user namespace and not mapped
// yet loses its capabilities at exec, unless they are ambient; so they are made ambient, and the child starts the
// Go runtime while the parent maps it:
//
//	Start (parent, on a thread of its own)        the stage
//	──────────────────────────────────────        ─────────────────────────────────────
//	clone(NEWUSER, NEWNS, …) ──────────────────▶  ambient capabilities, parent-death signal
//	newuidmap PID …  ┐ side by side               a read-only mount of whisk's own file, exec
//	newgidmap PID …  ┘                            Go start-up, package init
//	                                              Enter: read the pipe
//	one byte on a pipe ────────────────────────▶  groups, ids, inheritable and ambient capabilities cleared
//	wait                                          the stage's own work, as root of its namespace
//
// A parent that dies closes the pipe, and the stage ends. Package birth is the part of this that needs no map: a stage can be
// begun before it is known which it will have, and admitted later.
package userns
