package cli

import (
	"context"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

type updateCmd struct {
	Memory      string `short:"m" placeholder:"SIZE" help:"Limit memory: bytes, or with b, k, m or g; 0 for no limit."`
	MemorySwap  string `placeholder:"SIZE" help:"Limit memory and swap together; -1 for no limit of swap, 0 for twice the memory limit."`
	CPUs        string `name:"cpus" placeholder:"NUMBER" help:"Limit processor time to so many processors; 0 for no limit."`
	PidsLimit   *int64 `placeholder:"NUMBER" help:"Limit the number of processes; -1 for no limit."`
	BlkioWeight string `placeholder:"NUMBER" help:"Share of the disks' time beside other sandboxes: 10 to 1000; 0 for the usual one."`
	updateRates
	File      string   `placeholder:"FILE" help:"The project's whisk.toml."`
	Sandboxes []string `arg:"" placeholder:"SANDBOX" help:"Sandboxes that run."`
}

// updateRates are deviceRateFlags that begin with the rates a sandbox has.
type updateRates struct {
	DeviceReadBPS   []string `name:"device-read-bps" sep:"none" placeholder:"PATH:RATE" help:"Limit bytes read from a disk in a second: bytes, or with k, m or g; 0 for no limit."`
	DeviceWriteBPS  []string `name:"device-write-bps" sep:"none" placeholder:"PATH:RATE" help:"Limit bytes written to a disk in a second; 0 for no limit."`
	DeviceReadIOPS  []string `name:"device-read-iops" sep:"none" placeholder:"PATH:RATE" help:"Limit how often a disk is read from in a second; 0 for no limit."`
	DeviceWriteIOPS []string `name:"device-write-iops" sep:"none" placeholder:"PATH:RATE" help:"Limit how often a disk is written to in a second; 0 for no limit."`
}

// over lays the rates that were named over others.
func (r *updateRates) over(rates []config.DeviceRate) ([]config.DeviceRate, error) {
	return (&deviceRateFlags{r.DeviceReadBPS, r.DeviceWriteBPS, r.DeviceReadIOPS, r.DeviceWriteIOPS}).over(rates)
}

// Help is what kong shows below the flags.
func (*updateCmd) Help() string {
	return `Limits that are not named stay as they are. What is changed holds until the
sandbox is removed, also when it is started again. The app is not restarted; one
that uses more memory than a new limit allows may be killed.

Examples:
  whisk update --memory 512m --cpus 1.5 web
  whisk update --pids-limit -1 web
  whisk update --device-write-bps /dev/sda:10m web`
}

func (u *updateCmd) run(ctx context.Context, c *call) error {
	var change config.App
	var err error
	if change.DeviceRates, err = u.over(nil); err != nil {
		return err
	}
	if u.Memory == "" && u.MemorySwap == "" && u.CPUs == "" && u.PidsLimit == nil && u.BlkioWeight == "" && change.DeviceRates == nil {
		return usage("name a limit: --memory, --memory-swap, --cpus, --pids-limit, --blkio-weight or one of --device-…", "nothing to change")
	}
	if u.MemorySwap != "" {
		if change.MemorySwap, err = config.ParseMemorySwap(u.MemorySwap); err != nil {
			return flagFault("--memory-swap", err)
		}
	}
	if u.Memory != "" {
		if change.Memory, err = config.ParseMemory(u.Memory); err != nil {
			return flagFault("--memory", err)
		}
	}
	if u.CPUs != "" {
		if change.CPUs, err = config.ParseCPUs(u.CPUs); err != nil {
			return flagFault("--cpus", err)
		}
	}
	if u.PidsLimit != nil {
		if *u.PidsLimit < -1 {
			return usage("-1 means no limit", "--pids-limit: %d is below -1", *u.PidsLimit)
		}
		change.Pids = *u.PidsLimit
	}
	if u.BlkioWeight != "" {
		if change.BlkioWeight, err = config.ParseBlkioWeight(u.BlkioWeight); err != nil {
			return flagFault("--blkio-weight", err)
		}
	}
	records, err := c.records(u.Sandboxes, u.File)
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := u.apply(ctx, c, r, change); err != nil {
			return err
		}
	}
	return nil
}

// apply lays the limits that were named over those of one sandbox.
func (u *updateCmd) apply(ctx context.Context, c *call, r *launcher.Record, change config.App) error {
	app := r.App
	if u.Memory != "" {
		app.Memory = change.Memory
	}
	if u.MemorySwap != "" {
		app.MemorySwap = change.MemorySwap
	}
	if err := config.CheckMemorySwap(app.Memory, app.MemorySwap); err != nil {
		return usage("say both: --memory and --memory-swap", "%s: %v", displayName(r), err)
	}
	var err error
	if app.DeviceRates, err = u.over(app.DeviceRates); err != nil {
		return err
	}
	if u.CPUs != "" {
		app.CPUs = change.CPUs
	}
	if u.PidsLimit != nil {
		app.Pids = change.Pids
	}
	if u.BlkioWeight != "" {
		app.BlkioWeight = change.BlkioWeight
	}
	client, err := c.keeperOf(ctx, r)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Update(ctx, r.ID, launcher.ControlLimits(&app))
}
