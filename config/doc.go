// Package config holds what a person writes: whisk.toml, the user's config.toml, and the small languages of
// the command line (ports, mounts, sizes, ulimits). It is given bytes and words; it promises values that are
// whole and checked, or one error per fault with file:line:column. It knows no other room and touches no kernel.
//
//	bytes ── parseDocument ──▶ tree of nodes ── table, appKeys … ──▶ App, Volume ── check ──▶ Project
//	             │ syntax,           each with     │ unknown keys, types,       │ between apps: ports,
//	             │ given twice       its place     │ variables, small languages │ dependencies, volumes
//	             └─────────────────────────────────┴────────────────────────────┴──▶ Errors, sorted by place
//
// The small languages are one function each (ParsePort, ParseMount, ParseSize …), from a word to a value, with an error of
// one line. Flags and whisk.toml share them. Nothing here has state: everything is safe for concurrent use.
package config
