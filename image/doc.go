// Package image names, fetches, keeps, reads and writes container images: references as Docker reads them, registries,
// archives, and the user's store (go.podman.io/storage, overlay). It makes no namespaces and mounts nothing: every
// call on a Store runs as root of whisk's user namespace (uid 0 is the user, 1 and up are its subordinate ids), in a
// private mount namespace, with CAP_SYS_ADMIN there. Parsing references needs nothing.
//
// It promises that an image is in the store whole or not at all. A layer's way in:
//
//	registry, archive          staging/ID (own lock)              the store (its lock, milliseconds)
//	─────────────────          ─────────────────────              ──────────────────────────────────
//	blob ──▶ sha256 ──▶ gunzip ──▶ sha256 ──▶ tar ──▶ files ─┐
//	         (digest)              (diff id)   └──▶ tar-split ┴──▶ rename into place, parents first ──▶ image record
//
// Layers are fetched and unpacked side by side, each straight from the network to its files; nothing is committed
// before both digests are right. A process that dies leaves a staging folder that nobody holds the lock of; the next
// pull or load removes it. Two processes that want the same layer share the work: the second waits for the first.
//
// Layers are unpacked by this package, not by the store: each path is resolved by openat2(2) with RESOLVE_IN_ROOT, so
// that no name and no link in a layer reaches beyond its own folder.
package image
