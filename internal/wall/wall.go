// Package wall lets whisk's attack suite prove its own attacks: each is tried once against whisk as it is, and once
// against a whisk whose wall against it has been taken down, where it must succeed. Only a binary built with the tag
// "breach" can take walls down; in any other Up is the constant true.
package wall

// Name is one wall, in the words of docs/security.md.
type Name string
