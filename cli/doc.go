// Package cli is whisk's command line: one file per command, which holds its flags, calls one function of a room and
// prints. It knows no logic that another front end would need.
//
// What goes where: standard output carries data only, so that it can be piped: ids, tables, JSON. Progress, warnings
// and errors go to standard error, a line each, lower case, without a full stop, behind "whisk: "; an error that a
// person can mend is followed by "hint: " and what to type. Text that came from elsewhere (images, registries, apps'
// names) is printed with its control characters quoted, so that none of it steers the terminal.
//
// The way of a call:
//
//	arguments ── find the command ── build its model (kong) ── put the arguments in order ── parse ── run
//	                                                                                                 │
//	                          commands that touch the image store run again, as a stage inside ◀─────┘
//	                          the user namespace, with the same arguments (stage.go)
//
// Only the model of the command that is called is built: all of them take longer than starting a sandbox's process.
package cli
