package config

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
)

// DeviceRate bounds what one app reads from and writes to one block device.
type DeviceRate struct {
	Path      string // of the device, absolute
	ReadBPS   int64  `json:",omitempty"` // bytes a second; 0: no limit
	WriteBPS  int64  `json:",omitempty"`
	ReadIOPS  int64  `json:",omitempty"` // operations a second
	WriteIOPS int64  `json:",omitempty"`
}

// RateKind is what of a device is bounded.
type RateKind string

// The kinds of rates, as docker-run(1) calls them.
const (
	ReadBPS   RateKind = "read-bps"
	WriteBPS  RateKind = "write-bps"
	ReadIOPS  RateKind = "read-iops"
	WriteIOPS RateKind = "write-iops"
)

// RateKinds are all of them.
func RateKinds() []RateKind { return []RateKind{ReadBPS, WriteBPS, ReadIOPS, WriteIOPS} }

// AddDeviceRate reads PATH:RATE and lays it over the rates of the same device, which keep their order. RATE is a size a
// second, or a number of operations; 0 is no limit.
func AddDeviceRate(rates []DeviceRate, kind RateKind, s string) ([]DeviceRate, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || !path.IsAbs(s[:i]) || hasControl(s[:i]) {
		return nil, fmt.Errorf("rate %q is not PATH:RATE, such as %s", clip(s), rateExample(kind))
	}
	var n int64
	var err error
	if kind == ReadBPS || kind == WriteBPS {
		n, err = ParseSize(s[i+1:])
	} else if n, err = strconv.ParseInt(s[i+1:], 10, 64); err != nil || n < 0 {
		err = fmt.Errorf("%q is no number of operations a second", clip(s[i+1:]))
	}
	if err != nil {
		return nil, fmt.Errorf("rate %q: %w", clip(s), err)
	}
	device := path.Clean(s[:i])
	at := -1
	for j := range rates {
		if rates[j].Path == device {
			at = j
		}
	}
	if at < 0 {
		rates, at = append(rates, DeviceRate{Path: device}), len(rates)
	}
	switch kind {
	case ReadBPS:
		rates[at].ReadBPS = n
	case WriteBPS:
		rates[at].WriteBPS = n
	case ReadIOPS:
		rates[at].ReadIOPS = n
	case WriteIOPS:
		rates[at].WriteIOPS = n
	}
	return rates, nil
}

func rateExample(kind RateKind) string {
	if kind == ReadBPS || kind == WriteBPS {
		return "/dev/sda:10m"
	}
	return "/dev/sda:500"
}

// The bounds of a weight, docker's.
const (
	minBlkioWeight = 10
	maxBlkioWeight = 1000
)

// ParseBlkioWeight reads a share of the disks' time beside other groups: 10 to 1000, or 0 for the kernel's own.
func ParseBlkioWeight(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n != 0 && (n < minBlkioWeight || n > maxBlkioWeight) || n > math.MaxUint16 {
		return 0, fmt.Errorf("weight %q is not a number from %d to %d, or 0", clip(s), minBlkioWeight, maxBlkioWeight)
	}
	return n, nil
}
