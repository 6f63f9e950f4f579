package launcher

import (
	"time"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

// SpecVersion is the version of the JSON form of Spec and Record. A keeper refuses any other.
const SpecVersion = 1

// Spec is all that is asked of one sandbox. It is the document that a command hands to a keeper.
type Spec struct {
	Version int        `json:"version"`
	ID      string     `json:"id"`                // 12 hex digits, chosen by the command (NewID)
	Name    string     `json:"name"`              // unique among this user's sandboxes; empty: the keeper makes one
	Project string     `json:"project,omitempty"` // empty for whisk run
	App     config.App `json:"app"`
	// Network is the network's name; "none" for loopback only. Each network has one keeper.
	Network string `json:"network"`
	// Egress is what the sandbox may reach outside, as config.ParseEgress reads it, where App.Egress says nothing; empty: as
	// the network says.
	Egress string `json:"egress"`
	// NetworkEgress is the network's policy if it comes into being with this sandbox, and is not described; empty: Egress.
	NetworkEgress string `json:"network_egress,omitempty"`
	// Isolate keeps the sandbox from others of its network, but for those that App.DependsOn and App.Links say of either.
	Isolate bool `json:"isolate,omitempty"`
	Remove  bool `json:"remove,omitempty"` // forget the sandbox when it has ended
	Stdin   bool `json:"stdin,omitempty"`  // keep standard input open
	// PublishAll publishes what the image exposes, besides App.Ports; see ExposedPorts.
	PublishAll bool `json:"publish_all,omitempty"`
	// Guard keeps the user's secrets out of mounts.
	Guard Guard `json:"guard,omitzero"`
	// BestEffort goes on, with a warning, where a limit cannot be kept.
	BestEffort bool `json:"best_effort,omitempty"`
	// Aliases are further DNS names of the sandbox on its network.
	Aliases []string `json:"aliases,omitempty"`
	// Seccomp is "" for the default profile, "unconfined", or the text of an OCI seccomp profile.
	Seccomp string `json:"seccomp,omitempty"`
	// NoLandlock leaves Landlock away (--security-opt landlock=unconfined).
	NoLandlock bool `json:"no_landlock,omitempty"`
	// AllowMissing names walls that the user does without where this machine cannot build them: "seccomp", "landlock".
	AllowMissing []string `json:"allow_missing,omitempty"`
	// OOMScore is from -1000 to 1000, proc_pid_oom_score_adj(5): the higher, the sooner the kernel ends the app when
	// memory runs out. nil: as the login's.
	OOMScore *int `json:"oom_score_adj,omitempty"`
	// NewPrivileges lets setuid programs and file capabilities raise rights (--security-opt no-new-privileges=false).
	NewPrivileges bool `json:"new_privileges,omitempty"`
}

// State is where a sandbox is in its life; see the package comment.
type State string

// The states of a sandbox.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Record is what whisk knows of a sandbox; record.json in the sandbox's folder. Only the keeper that holds the
// sandbox's network writes it.
type Record struct {
	Spec
	ImageID     string          `json:"image_id"`
	ImageDigest string          `json:"image_digest,omitempty"`
	State       State           `json:"state"`
	Ready       bool            `json:"ready"`
	CreatedAt   time.Time       `json:"created_at"`
	StartedAt   time.Time       `json:"started_at,omitzero"`
	FinishedAt  time.Time       `json:"finished_at,omitzero"`
	ExitCode    int             `json:"exit_code"` // 0-255; 128+n when signal n ended the app
	Error       string          `json:"error,omitempty"`
	Restarts    int             `json:"restarts,omitempty"`
	PID         int             `json:"pid,omitempty"` // of process 1, as the host sees it; 0 when not running
	IPv4        string          `json:"ipv4,omitempty"`
	IPv6        string          `json:"ipv6,omitempty"`
	Ports       []PublishedPort `json:"ports,omitempty"`
	// AskedPorts take the place of App.Ports once whisk port has changed them; nil: it has not. Each is a single port.
	AskedPorts []config.Port `json:"asked_ports,omitzero"`
	// AskedLimits are those that the spec asked for before whisk update changed App's; nil: it has not.
	AskedLimits *cgroup.Limits `json:"asked_limits,omitempty"`
	// Volumes are the anonymous volumes made for this sandbox, or handed on to it by the one whose place it took; rm -v
	// and --rm remove them.
	Volumes []string `json:"volumes,omitempty"`
	// Hidden are the paths in the sandbox where a mount shows something empty that the host has: see Guard.
	Hidden []string `json:"hidden,omitempty"`
	// Argv, Env, User and Workdir are what was started, after the image's defaults.
	Argv    []string `json:"argv,omitempty"`
	Env     []string `json:"env,omitempty"`
	User    string   `json:"user,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	// Walls are those that stand round the app, in the words of docs/security.md.
	Walls []string `json:"walls,omitempty"`
	// ControlGroup is the sandbox's own, below /sys/fs/cgroup, while it runs; empty: it has none.
	ControlGroup string `json:"control_group,omitempty"`
	// StopSignal is the signal's number after the image's default.
	StopSignal int `json:"stop_signal,omitempty"`
}

// AskedSpec is the sandbox's spec as it was asked for, without what whisk update has changed since.
func (r *Record) AskedSpec() *Spec {
	s := r.Spec
	if r.AskedLimits != nil {
		SetLimits(&s.App, *r.AskedLimits)
	}
	return &s
}

// PublishedPort is one host port that reaches a sandbox.
type PublishedPort struct {
	HostIP   string `json:"host_ip"`
	HostPort uint16 `json:"host_port"`
	AppPort  uint16 `json:"app_port"`
	Protocol string `json:"protocol"` // "tcp" or "udp"
}

// ExecSpec is a further command in a running sandbox.
type ExecSpec struct {
	Version int      `json:"version"`
	Argv    []string `json:"argv"`
	Env     []string `json:"env,omitempty"` // KEY=VALUE, added to the sandbox's own
	User    string   `json:"user,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	TTY     bool     `json:"tty,omitempty"`
	Stdin   bool     `json:"stdin,omitempty"`
}
