package cli

import (
	"fmt"
	"os"
	"os/user"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

// control is what this login may do with control groups.
func (c *call) control() cgroup.Machine {
	return cgroup.Probe(os.Getuid(), c.getenv("XDG_RUNTIME_DIR"))
}

// limits refuses a limit that this machine cannot keep, or says that it goes on without.
func (c *call) limits(spec *launcher.Spec) error {
	_, lost, err := launcher.KeepLimits(spec, c.control())
	if err == nil && lost != "" {
		if spec.Project != "" {
			lost = spec.App.Name + ": " + lost
		}
		c.warn(lost + "; going on without")
	}
	return err
}

// sayLinger says, once to each user, what becomes of sandboxes in the background when the last login session ends.
func (c *call) sayLinger() {
	if !c.control().Able() {
		return
	}
	who, err := user.LookupId(fmt.Sprint(os.Getuid()))
	if err != nil || cgroup.Lingers(who.Username) {
		return
	}
	const said = "said-linger"
	if c.said(said, "off") {
		return
	}
	// In the words of whisk doctor.
	c.warn("lingering is off: sandboxes in the background end with your last session")
	c.hint("loginctl enable-linger")
	c.keepSaid(said, "off")
}
