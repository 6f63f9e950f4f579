// Package config holds what a person writes: whisk.toml, the user's config.toml, and the small languages of
// the command line (ports, mounts, sizes, ulimits). It is given bytes and words; it promises values that are
// whole and checked, or one error per fault with file:line:column. It knows no other room and touches no kernel.
package config
