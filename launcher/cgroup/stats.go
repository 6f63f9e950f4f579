package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats are the figures of one group. What the kernel or the delegation does not give is zero.
type Stats struct {
	CPU         time.Duration `json:"cpu_ns"`       // processor time used so far
	Throttled   time.Duration `json:"throttled_ns"` // waited for processor time, because of the limit
	Memory      int64         `json:"memory"`       // bytes, without file pages that can be dropped at once
	MemoryPeak  int64         `json:"memory_peak"`  // bytes, with them; kernel 5.19
	MemoryLimit int64         `json:"memory_limit"` // bytes; 0: none
	Swap        int64         `json:"swap"`         // bytes
	Pids        int64         `json:"pids"`
	PidsLimit   int64         `json:"pids_limit"` // 0: none
	ReadBytes   int64         `json:"read_bytes"`
	WriteBytes  int64         `json:"write_bytes"`
	OOMKills    int64         `json:"oom_kills"` // processes ended because the memory limit was reached
}

// Stats reads the group's figures. A group that is gone is fs.ErrNotExist.
func (g *Group) Stats() (Stats, error) {
	return readStats(func(file string) (string, error) {
		b, err := os.ReadFile(filepath.Join(g.dir, file))
		return string(b), err
	})
}

// OOMKills is how many processes of the group the kernel has ended for want of memory.
func (g *Group) OOMKills() int64 {
	b, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return 0
	}
	return keyed(string(b))["oom_kill"]
}

// readStats reads a group's files, which are described in the kernel's admin-guide/cgroup-v2.rst.
func readStats(read func(string) (string, error)) (Stats, error) {
	var s Stats
	cpu, err := read("cpu.stat") // every group has it
	if err != nil {
		return s, fmt.Errorf("reading cpu.stat: %w", err)
	}
	use := keyed(cpu)
	s.CPU = time.Duration(use["usage_usec"]) * time.Microsecond
	s.Throttled = time.Duration(use["throttled_usec"]) * time.Microsecond
	for file, to := range map[string]*int64{
		"memory.current": &s.Memory, "memory.peak": &s.MemoryPeak, "memory.max": &s.MemoryLimit, "memory.swap.current": &s.Swap,
		"pids.current": &s.Pids, "pids.max": &s.PidsLimit,
	} {
		text, err := read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return s, fmt.Errorf("reading %s: %w", file, err)
		}
		*to, _ = strconv.ParseInt(strings.TrimSpace(text), 10, 64) // "max" is 0, none
	}
	if text, err := read("memory.stat"); err == nil {
		s.Memory = max(0, s.Memory-keyed(text)["inactive_file"])
	}
	if text, err := read("memory.events"); err == nil {
		s.OOMKills = keyed(text)["oom_kill"]
	}
	if text, err := read("io.stat"); err == nil {
		s.ReadBytes, s.WriteBytes = ioBytes(text)
	}
	return s, nil
}

// keyed reads lines of a word and a number.
func keyed(text string) map[string]int64 {
	out := map[string]int64{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[k], _ = strconv.ParseInt(v, 10, 64)
		}
	}
	return out
}

// ioBytes sums up lines as "8:0 rbytes=1 wbytes=2 rios=3 …".
func ioBytes(text string) (read, written int64) {
	for _, word := range strings.Fields(text) {
		k, v, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseInt(v, 10, 64)
		switch k {
		case "rbytes":
			read += n
		case "wbytes":
			written += n
		}
	}
	return read, written
}
