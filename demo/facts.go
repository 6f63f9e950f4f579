package demo

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Facts are what an app can find out about the sandbox it is in, from within and with no help from whisk.
type Facts struct {
	App       string         `json:"app"`
	Hostname  string         `json:"hostname"`
	Addresses []netip.Prefix `json:"addresses"` // without loopback, IPv4 first
	UIDMap    []IDRange      `json:"uid_map"`
	GIDMap    []IDRange      `json:"gid_map"`
	Mounts    []Mount        `json:"mounts"`    // in the order they were made
	Processes []Process      `json:"processes"` // by pid
	Rights    Rights         `json:"rights"`
}

// gather reads the facts of the process that calls it. The proc file system is given so that tests can bring their own.
func gather(app string, proc fs.FS) (Facts, error) {
	f := Facts{App: app}
	var err error
	if f.Hostname, err = os.Hostname(); err != nil {
		return Facts{}, fmt.Errorf("reading host name: %w", err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return Facts{}, fmt.Errorf("reading addresses: %w", err)
	}
	f.Addresses = ownAddresses(addrs)
	for _, from := range []struct {
		name  string
		parse func([]byte) error
	}{
		{"self/uid_map", func(b []byte) (err error) { f.UIDMap, err = parseIDMap(b); return err }},
		{"self/gid_map", func(b []byte) (err error) { f.GIDMap, err = parseIDMap(b); return err }},
		{"self/mountinfo", func(b []byte) (err error) { f.Mounts, err = parseMounts(b); return err }},
		{"self/status", func(b []byte) (err error) { f.Rights, err = parseRights(b); return err }},
	} {
		text, err := fs.ReadFile(proc, from.name)
		if err != nil {
			return Facts{}, fmt.Errorf("reading own sandbox: %w", err)
		}
		if err := from.parse(text); err != nil {
			return Facts{}, fmt.Errorf("reading /proc/%s: %w", from.name, err)
		}
	}
	if f.Processes, err = processes(proc); err != nil {
		return Facts{}, fmt.Errorf("reading processes: %w", err)
	}
	return f, nil
}

// ownAddresses keeps what others can reach this sandbox by.
func ownAddresses(addrs []net.Addr) []netip.Prefix {
	var own []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		own = append(own, p)
	}
	slices.SortFunc(own, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return own
}

// Process is one process that the sandbox can see.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"` // at most 15 bytes, comm in proc_pid_comm(5)
	Args string `json:"args"` // joined by blanks; empty for kernel threads
}

// processes lists what is in proc. A process that ends meanwhile is left out.
func processes(proc fs.FS) ([]Process, error) {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := fs.ReadFile(proc, e.Name()+"/comm")
		if err != nil {
			continue
		}
		args, err := fs.ReadFile(proc, e.Name()+"/cmdline")
		if err != nil {
			continue
		}
		all = append(all, Process{
			PID:  pid,
			Name: strings.TrimSuffix(string(name), "\n"),
			Args: string(bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '})),
		})
	}
	slices.SortFunc(all, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	return all, nil
}
