// Package attacks keeps the list of attacks in docs/security.md: every line "attack NAME WALL …" of
// testdata/scripts/attack-*.txtar, and every Go test called TestAttack… with the names of its parts. Its test fails where
// the page is not what the sources say; go test ./internal/attacks -update writes it.
package attacks
