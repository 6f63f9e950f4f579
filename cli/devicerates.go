package cli

import (
	"slices"

	"github.com/whisk-sandbox/whisk/config"
)

// deviceRateFlags bound what an app moves to and from block devices.
type deviceRateFlags struct {
	DeviceReadBPS   []string `name:"device-read-bps" group:"Rights and limits" sep:"none" placeholder:"PATH:RATE" help:"Limit bytes read from a disk in a second: bytes, or with k, m or g."`
	DeviceWriteBPS  []string `name:"device-write-bps" group:"Rights and limits" sep:"none" placeholder:"PATH:RATE" help:"Limit bytes written to a disk in a second."`
	DeviceReadIOPS  []string `name:"device-read-iops" group:"Rights and limits" sep:"none" placeholder:"PATH:RATE" help:"Limit how often a disk is read from in a second."`
	DeviceWriteIOPS []string `name:"device-write-iops" group:"Rights and limits" sep:"none" placeholder:"PATH:RATE" help:"Limit how often a disk is written to in a second."`
}

func (f *deviceRateFlags) rates() ([]config.DeviceRate, error) { return f.over(nil) }

// over lays them over the rates that are there, which stay as they are.
func (f *deviceRateFlags) over(rates []config.DeviceRate) ([]config.DeviceRate, error) {
	all := slices.Clone(rates)
	asked := map[config.RateKind][]string{config.ReadBPS: f.DeviceReadBPS, config.WriteBPS: f.DeviceWriteBPS, config.ReadIOPS: f.DeviceReadIOPS, config.WriteIOPS: f.DeviceWriteIOPS}
	for _, kind := range config.RateKinds() {
		for _, s := range asked[kind] {
			var err error
			if all, err = config.AddDeviceRate(all, kind, s); err != nil {
				return nil, flagFault("--device-"+string(kind), err)
			}
		}
	}
	return all, nil
}
