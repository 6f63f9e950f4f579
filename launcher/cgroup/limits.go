package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// period is how often the share of processor time is renewed, in microseconds: the kernel's default and docker's.
const period = 100_000

// Limits bound the processes of one sandbox together. Zero values are no limit.
type Limits struct {
	Memory int64 `json:"memory,omitempty"` // bytes
	// MemorySwap bounds memory and swap together, as docker has it; 0: as much again as Memory may be swapped out; -1: no limit.
	MemorySwap int64   `json:"memory_swap,omitempty"`
	CPUs       float64 `json:"cpus,omitempty"`   // processors' worth of time
	Pids       int64   `json:"pids,omitempty"`   // processes and threads
	Weight     int64   `json:"weight,omitempty"` // share of the disks' time beside other groups: 10 to 1000
	Disks      []Disk  `json:"disks,omitempty"`
}

// None says that there is nothing to keep.
func (l Limits) None() bool {
	return l.Memory == 0 && l.CPUs == 0 && l.Pids == 0 && l.Weight == 0 && len(l.Disks) == 0
}

// Setting is a value for one of a control group's files.
type Setting struct {
	File, Value string
	// Optional: the kernel may lack the file, as it does that of swap when it was built or booted without.
	Optional bool
}

// Settings are what the files of a group must say, limits that are off included: a limit may be lifted. Those of Disks are
// not among them, as they need the disks' numbers.
func (l Limits) Settings(controllers []string) []Setting {
	var out []Setting
	if slices.Contains(controllers, "memory") {
		out = append(out, Setting{"memory.max", numberOrMax(l.Memory), false}, Setting{"memory.swap.max", l.swap(), true})
	}
	if slices.Contains(controllers, "cpu") {
		quota := "max"
		if l.CPUs > 0 {
			// The kernel takes no quota below a millisecond.
			quota = strconv.FormatInt(max(1000, int64(math.Round(l.CPUs*period))), 10)
		}
		out = append(out, Setting{"cpu.max", fmt.Sprintf("%s %d", quota, period), false})
	}
	if slices.Contains(controllers, "pids") {
		out = append(out, Setting{"pids.max", numberOrMax(l.Pids), false})
	}
	if slices.Contains(controllers, "io") {
		out = append(out, weights(l.Weight)...)
	}
	return out
}

// swap is what may be swapped out: version 2 bounds it apart from memory, cgroups(7).
func (l Limits) swap() string {
	switch {
	case l.Memory <= 0 || l.MemorySwap < 0:
		return "max"
	case l.MemorySwap == 0:
		return strconv.FormatInt(l.Memory, 10)
	}
	return strconv.FormatInt(max(0, l.MemorySwap-l.Memory), 10)
}

func numberOrMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// Lost says which limit this machine cannot keep, and why; "" when it can keep all. The hint is what to type.
func (l Limits) Lost(m Machine) (lost, hint string) {
	type limit struct{ words, controller string }
	var asked []limit
	if l.Memory > 0 {
		asked = append(asked, limit{"a memory limit", "memory"})
	}
	if l.CPUs > 0 {
		asked = append(asked, limit{"a cpu limit", "cpu"})
	}
	if l.Pids > 0 {
		asked = append(asked, limit{"a limit of processes", "pids"})
	}
	if len(l.Disks) > 0 {
		asked = append(asked, limit{"a limit of a disk's rate", "io"})
	}
	if l.Weight > 0 {
		asked = append(asked, limit{"a share of the disks' time", "io"})
	}
	able := m.Able()
	asked = slices.DeleteFunc(asked, func(a limit) bool { return able && slices.Contains(m.Controllers, a.controller) })
	if len(asked) == 0 {
		return "", ""
	}
	var words, controllers []string
	for _, a := range asked {
		words, controllers = append(words, a.words), append(controllers, a.controller)
	}
	lack := m.LackOf(controllers...)
	if hint = lack.Hint; lack.Anew {
		hint = "log in anew after: " + hint
	}
	return strings.Join(words, " and ") + " cannot be kept: " + lack.What, hint
}

// Kept are the limits that this machine can keep.
func (l Limits) Kept(m Machine) Limits {
	can := func(controller string) bool { return m.Able() && slices.Contains(m.Controllers, controller) }
	if !can("memory") {
		l.Memory, l.MemorySwap = 0, 0
	}
	if !can("cpu") {
		l.CPUs = 0
	}
	if !can("pids") {
		l.Pids = 0
	}
	if !can("io") {
		l.Weight, l.Disks = 0, nil
	}
	return l
}
