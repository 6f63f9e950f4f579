// Package doctor looks at a machine for what a sandbox needs, and says of each thing what it found, what is lost without
// it and the command that mends it.
//
//	View (what the machine is) ──▶ Examine: probes, pure functions ──▶ []Finding ──▶ Report: table, JSON, script
//
// Look makes the View of this machine from its files and a few harmless tries outside of a user namespace; what can only
// be tried inside one, a mount on the store's file system and nf_tables rules, is done by Try, in a stage that ends at
// once. Nothing is ever changed on the host, and nothing is done as root. The words for causes and remedies are those of
// userns and remedy, so other commands say the same.
package doctor
