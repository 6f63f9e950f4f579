package cli

import (
	"context"
)

type inspectCmd struct {
	selection
}

// Help is what kong shows below the flags.
func (*inspectCmd) Help() string {
	return `Example:
  whisk inspect web | jq -r '.[0].ipv4'`
}

func (i *inspectCmd) run(_ context.Context, c *call) error {
	records, err := i.find(c)
	if err != nil {
		return err
	}
	return writeJSON(c.out, records)
}
