// Package attacks keeps the list of attacks in docs/security.md: every line "attack NAME …" of
// testdata/scripts/attack-*.txtar, and of the other commands in Kinds; and every Go test called TestAttack… with the names of
// its parts. Each has the verdict that its test comes to, or the test would fail. The package's own test fails where
// the page is not what the sources say; go test ./internal/attacks -update writes it.
package attacks
