//go:build breach

package wall

import (
	"os"
	"slices"
	"strings"
)

// variable lists the walls that are down, with commas between them.
const variable = "WHISK_BREACH"

// Up reports whether a wall stands.
func Up(n Name) bool { return !slices.Contains(strings.Split(os.Getenv(variable), ","), string(n)) }

// Environment names the variables that whisk's own processes hand on for this package.
func Environment() []string { return []string{variable} }
