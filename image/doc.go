// Package image holds references, registries and the store.
//
// It is given names, registries and archives; it promises images whose every blob was checked against its digest,
// kept in a containers/storage store, and the list of folders to lay a sandbox's root over. All of a Store's
// methods must be called inside whisk's user namespace, where the owners that a layer names can be given.
//
//	registry ──▶ fetch (side by side) ──▶ verify digest ──▶ unpack (in order) ──▶ verify diff id ──▶ image record
//	archive  ──▶ ───────────────────────────────┘                                    last of all: no half image
package image
