//go:build !breach

package wall

// Up reports whether a wall stands: always.
func Up(Name) bool { return true }

// Environment names the variables that whisk's own processes hand on for this package: none.
func Environment() []string { return nil }
