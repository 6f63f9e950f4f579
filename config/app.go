package config

import (
	"net/netip"
	"time"
)

// App describes one sandbox before it is planned: a table [app.NAME] of whisk.toml, or the flags of whisk run.
// The zero value of a field means "as the image says", or the documented default.
type App struct {
	Name       string            // DNS label; unique in its project
	Image      string            // reference, or one of the built-in images "host" and "demo"
	Platform   string            // os/arch[/variant]; empty: this machine's
	Command    []string          // replaces CMD; nil: the image's
	Entrypoint []string          // replaces ENTRYPOINT; nil: the image's; empty and not nil: none
	Env        []string          // KEY=VALUE, later entries win; KEY alone takes the image's away
	User       string            // user[:group], names or numbers
	Workdir    string            // absolute path in the sandbox
	Hostname   string            // default: the app's name, else the sandbox's id
	Ports      []Port            // published ports
	Mounts     []Mount           // binds, volumes and tmpfs, in the order written
	Home       string            // the user's home directory as a mount: "" (none), HomeReadOnly or HomeReadWrite
	ReadOnly   bool              // root file system read-only
	CapAdd     []string          // capability names without CAP_, upper case, or ALL
	CapDrop    []string          // the same
	Ulimits    []Ulimit          // resource limits, getrlimit(2)
	Labels     map[string]string // free words for the user's own use
	StopSignal string            // signal name or number; empty: the image's, else SIGTERM
	// StopTimeout is how long stop waits before SIGKILL; nil: 10 s; negative: for ever.
	StopTimeout *time.Duration
	Init        *bool // nil or true: whisk's init is process 1; false: the app is
	TTY         bool  // a terminal on a pty of the sandbox's own
	Memory      int64 // bytes; 0: no limit
	MemorySwap  int64 `json:",omitempty"` // bytes of Memory and swap together; 0: twice Memory; -1: no limit of swap
	CPUs        float64
	Pids        int64
	BlkioWeight int64        // share of the disks' time beside others, 10 to 1000; 0: the kernel's own
	DeviceRates []DeviceRate `json:",omitempty"`
	Restart     Restart
	ExtraHosts  []Host
	DependsOn   []string // names of apps that must be ready first
	Links       []string // names of apps that it reaches, besides DependsOn, where its network isolates
	Networks    []string // groups of its network; apps reach each other if they share one; empty: "default"
	Aliases     []string // further names on its network, in lower case
	Ready       *Ready   // nil: ready as soon as it runs
	// Egress is what the app may reach outside its network, as ParseEgress reads it; empty: as the network says.
	Egress string
	// HostPorts are ports of the host's loopback that the app reaches as host.whisk.internal; nil: as the network says.
	HostPorts []uint16
}

// The values of App.Home.
const (
	HomeReadOnly  = "ro"
	HomeReadWrite = "rw"
)

// Port is one published port or a range of equal length on both sides.
type Port struct {
	HostIP   netip.Addr // default 127.0.0.1
	Host     uint16     // first host port; 0: the kernel picks a free one
	App      uint16     // first port in the sandbox, 1-65535
	Count    uint16     // length of the range, at least 1
	Protocol string     // "tcp" or "udp"
}

// MountKind says what stands behind a mount.
type MountKind string

// The kinds of mounts.
const (
	MountBind   MountKind = "bind"   // a file or folder of the host
	MountVolume MountKind = "volume" // a named or anonymous volume in whisk's data directory
	MountTmpfs  MountKind = "tmpfs"  // memory
)

// Mount is one thing mounted into a sandbox.
type Mount struct {
	Kind     MountKind
	Source   string // absolute host path, or a volume's name; empty: an anonymous volume, or tmpfs
	Target   string // absolute path in the sandbox
	ReadOnly bool
	NoCopy   bool   // volume: do not fill it with the image's content on first use
	Size     int64  // tmpfs: bytes; 0: half of memory
	Mode     uint32 // tmpfs: permission bits; 0: 01777
	NoExec   bool   // tmpfs: nothing in it can be executed
	Create   bool   // bind: make a missing source folder (docker's -v does; --mount and whisk.toml do not)
}

// Ulimit is one resource limit; see getrlimit(2). Unlimited is math.MaxUint64.
type Ulimit struct {
	Name       string // lower case, without RLIMIT_: "nofile"
	Soft, Hard uint64
}

// Restart says when an app that ended is started again.
type Restart struct {
	Policy string // "no" (default), "on-failure", "always", "unless-stopped"
	Max    int    // on-failure: at most so many times; 0: no limit
}

// Host is one line of /etc/hosts.
type Host struct {
	Name string
	Addr string // an IP address, or "host-gateway"
}

// Ready says how whisk finds out that an app serves. Exactly one of TCP, HTTP, Cmd and Log is set.
type Ready struct {
	TCP      uint16        // a port that accepts
	HTTP     string        // ":80/health": a GET answered with a status below 400
	Cmd      []string      // a command in the sandbox that exits 0
	Log      string        // a regular expression that a line of its output matches
	Interval time.Duration // between tries; default 200 ms
	Timeout  time.Duration // in all; default 60 s
}

// Project is a whole whisk.toml.
type Project struct {
	Name   string
	File   string // absolute path of whisk.toml
	Dir    string // its folder; relative paths in it start here
	Apps   []App  // in the order of the file
	Egress string // what the apps may reach outside their network, as ParseEgress reads it; default "all"
	// HostPorts are ports of the host's loopback that the apps reach as host.whisk.internal.
	HostPorts []uint16
	// Isolate keeps the apps from each other, but for what DependsOn and Links say.
	Isolate bool
	Volumes []Volume
}

// Volume is a table [volume.NAME].
type Volume struct {
	Name   string // as written; on disk PROJECT_NAME unless External
	Labels map[string]string
	// External volumes are not prefixed by the project's name and never made or removed by it.
	External bool
}
