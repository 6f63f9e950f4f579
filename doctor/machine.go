package doctor

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"

	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/userns"
)

// Machine is what was found on one: files, and what no file tells.
type Machine struct {
	Files fs.FS `json:"-"` // the root directory

	Whisk  string      `json:"whisk"`  // version
	Kernel string      `json:"kernel"` // release, uname(2)
	Arch   string      `json:"arch"`
	User   userns.User `json:"user"`
	Groups []uint32    `json:"groups,omitempty"` // the user's further ones
	Exe    string      `json:"exe"`              // whisk's own file
	Built  time.Time   `json:"built"`            // the commit that it is of; zero where nobody wrote that down
	Now    time.Time   `json:"now"`

	NewUIDMap  userns.Helper `json:"newuidmap"`
	NewGIDMap  userns.Helper `json:"newgidmap"`
	NoNewPrivs bool          `json:"no_new_privs,omitempty"`

	RuntimeDir string `json:"runtime_dir,omitempty"` // XDG_RUNTIME_DIR

	ReadOnlyEtc bool   `json:"read_only_etc,omitempty"` // what a mend writes there fails
	Pod         bool   `json:"pod,omitempty"`           // Kubernetes has started this
	Ping        string `json:"ping,omitempty"`          // error of a socket for echo requests, icmp(7)

	// NoData is why Data could not be made, or is not for this whisk; nil: it is there.
	NoData *Refusal   `json:"no_data,omitempty"`
	Data   string     `json:"data"`  // where images, volumes and sandboxes are kept
	Store  FileSystem `json:"store"` // of Data, or of the nearest folder above it that exists

	// Refused is a user namespace that the kernel did not give; nil: it did.
	Refused *userns.Facts `json:"refused,omitempty"`
	// Stage is a stage that could not be started although Refused is nil; nil: it ran, and found Inside.
	Stage  *Refusal `json:"stage,omitempty"`
	Inside *Inside  `json:"inside,omitempty"`

	Seccomp  string `json:"seccomp,omitempty"` // error; empty: filters can be installed
	Landlock int    `json:"landlock"`          // ABI; 0: none
	Fence    string `json:"fence,omitempty"`   // error of a kernel that has Landlock and refuses it

	Descriptors uint64 `json:"descriptors"`         // hard limit of open files, RLIMIT_NOFILE
	Leftovers   bool   `json:"leftovers,omitempty"` // of killed keepers and commands

	// Directory is what a directory service answers; nil where none is asked for sub-ids.
	Directory *Answer `json:"directory,omitempty"`
}

// Answer is a directory service's, of the user's sub-ids.
type Answer struct {
	UIDs      []idtools.SubIDRange `json:"uids,omitempty"`
	GIDs      []idtools.SubIDRange `json:"gids,omitempty"`
	NoProgram bool                 `json:"no_program,omitempty"` // getsubids(1) is not installed
	Error     string               `json:"error,omitempty"`
}

// ask gives the answer as userns asks for it.
func (a *Answer) ask(userns.User) (uids, gids []idtools.SubIDRange, err error) {
	switch {
	case a.NoProgram:
		return nil, nil, userns.ErrNoGetsubids
	case a.Error != "":
		return nil, nil, errors.New(a.Error)
	}
	return a.UIDs, a.GIDs, nil
}

// FileSystem is statfs(2) of a folder.
type FileSystem struct {
	At        string `json:"at"`
	Magic     int64  `json:"magic"` // statfs(2), f_type
	Free      uint64 `json:"free"`  // bytes that an ordinary user may have
	Inodes    uint64 `json:"inodes"`
	NoInodes  bool   `json:"no_inodes,omitempty"` // it does not count them, as btrfs does not
	ReadOnly  bool   `json:"read_only,omitempty"`
	Forbidden bool   `json:"forbidden,omitempty"` // the user may not write there
}

// Refusal is an error with its words.
type Refusal struct {
	Cause   userns.Cause `json:"cause,omitempty"`
	Message string       `json:"message"`
	Remedy  string       `json:"remedy,omitempty"`
}

// Inside is what a stage found in namespaces of its own. Each field but Store is an error, empty where all is well.
type Inside struct {
	Namespaces string `json:"namespaces,omitempty"` // all those of a sandbox at once
	Proc       string `json:"proc,omitempty"`       // a /proc of its own
	Overlay    string `json:"overlay,omitempty"`
	Tables     string `json:"tables,omitempty"`
	TProxy     string `json:"tproxy,omitempty"`
	Socket     string `json:"socket,omitempty"`
	Apart      string `json:"apart,omitempty"`
	// Notify and Trace are tried with one id only: a filter that whisk itself answers for, and a process that is stopped
	// to be moved.
	Notify  string         `json:"notify,omitempty"`
	Trace   string         `json:"trace,omitempty"`
	Store   *Refusal       `json:"store,omitempty"`
	Images  int            `json:"images"`
	Damaged []image.Damage `json:"damaged,omitempty"`
}

// text reads a file of the machine, trimmed; empty where it is not there or may not be read.
func (m *Machine) text(path string) string {
	b, err := fs.ReadFile(m.Files, strings.TrimPrefix(path, "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// sysctl reads a kernel parameter; empty where the kernel has none of that name.
func (m *Machine) sysctl(name string) string {
	return m.text("proc/sys/" + strings.ReplaceAll(name, ".", "/"))
}

func (m *Machine) has(path string) bool {
	_, err := fs.Stat(m.Files, strings.TrimPrefix(path, "/"))
	return err == nil
}

// name is the user's, or the number of one without.
func (m *Machine) name() string { return m.User.String() }

// system is what userns decides the id map on.
func (m *Machine) system() userns.System {
	s := userns.System{Files: m.Files, NewUIDMap: m.NewUIDMap, NewGIDMap: m.NewGIDMap, NoNewPrivs: m.NoNewPrivs}
	if m.Directory != nil {
		s.Directory = m.Directory.ask
	}
	return s
}
