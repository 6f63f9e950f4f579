package cli

import (
	"slices"
	"strings"

	"github.com/whisk-sandbox/whisk/launcher"
)

// machineFlags give up what this machine does not have. They are flags of every command that starts something and no keys
// of whisk.toml, which goes to other machines: each gives up for itself.
type machineFlags struct {
	AllowMissing []string `group:"Rights and limits" placeholder:"WALL,…" help:"Do without a wall that this machine cannot build: seccomp, landlock."`
	BestEffort   bool     `group:"Rights and limits" help:"Warn about a limit that this machine cannot keep, and start without it."`
}

func (f *machineFlags) apply(spec *launcher.Spec) error {
	for _, wall := range f.AllowMissing {
		if !slices.Contains(launcher.Dispensable[:], wall) {
			return usage("one of "+strings.Join(launcher.Dispensable[:], ", "), "--allow-missing: %q is no wall that can be done without", wall)
		}
	}
	spec.AllowMissing, spec.BestEffort = f.AllowMissing, f.BestEffort
	return nil
}
