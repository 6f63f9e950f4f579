package launcher

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
)

// Network is what whisk network create has said of a network. Others need no such record: a network comes into being
// with its first sandbox and goes with its last.
type Network struct {
	Version   int          `json:"version"`
	Name      string       `json:"name"`
	Egress    string       `json:"egress,omitempty"` // as config.ParseEgress reads it; empty: see Spec.NetworkPolicy
	Isolate   bool         `json:"isolate,omitempty"`
	IPv4      netip.Prefix `json:"ipv4,omitzero"` // subnet; the zero Prefix: whisk chooses
	IPv6      netip.Prefix `json:"ipv6,omitzero"`
	CreatedAt time.Time    `json:"created_at"`
}

// NetworkSettings reads what was said of a network; the zero Network if nothing was.
func NetworkSettings(d Dirs, name string) (Network, error) {
	b, err := os.ReadFile(d.NetworkRecord(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Network{}, nil
	}
	if err != nil {
		return Network{}, fmt.Errorf("read network %q: %w", name, err)
	}
	var n Network
	if err := json.Unmarshal(b, &n); err != nil {
		return Network{}, fmt.Errorf("read network %q: %w", name, err)
	}
	if n.Version != SpecVersion {
		return Network{}, &Error{Message: fmt.Sprintf("network %q was created by another version of whisk (record version %d)", name, n.Version), Hint: "whisk network rm " + name, Exit: ExitWhisk}
	}
	return n, nil
}

// NetworkPolicy is what a network lets out that comes into being with this sandbox, if nobody has described it; empty for a
// sandbox that is on none. An app's own policy (App.Egress) is nobody else's.
func (s *Spec) NetworkPolicy() string {
	if s.Network == "none" {
		return ""
	}
	return cmp.Or(s.NetworkEgress, s.Egress, string(config.EgressAll))
}

// ProjectPolicy is what a project's sandboxes say of its network; empty if there are none.
func ProjectPolicy(d Dirs, project string) (string, error) {
	records, err := Records(d)
	if err != nil {
		return "", err
	}
	for _, r := range slices.Backward(records) { // the latest
		if r.Project == project && r.Network == project {
			return r.Egress, nil
		}
	}
	return "", nil
}

// Networks lists the networks that were created, by name. Records that cannot be read are left out.
func Networks(d Dirs) ([]Network, error) {
	entries, err := os.ReadDir(d.NetworkRecords())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var out []Network
	for _, e := range entries {
		if n, err := NetworkSettings(d, e.Name()); err == nil && n.Name != "" { // others have only an egress log
			out = append(out, n)
		}
	}
	return out, nil
}

// CreateNetwork writes down what a network is to be like. An error when it is there, or runs already.
func CreateNetwork(d Dirs, n Network) error {
	if err := config.ValidName(n.Name); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if config.ReservedNetwork(n.Name) {
		return &Error{Message: fmt.Sprintf("network %q: --network gives that name a meaning of its own", n.Name), Hint: "choose another name", Exit: ExitWhisk}
	}
	unlock, err := lockNetworks(d)
	if err != nil {
		return err
	}
	defer unlock()
	switch _, err := os.Lstat(d.NetworkRecord(n.Name)); {
	case err == nil:
		return &Error{Message: fmt.Sprintf("network %q exists", n.Name), Hint: "whisk network inspect " + n.Name, Exit: ExitWhisk}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("create network %q: %w", n.Name, err)
	}
	if Held(d, n.Name) {
		return &Error{Message: fmt.Sprintf("network %q runs already, and would not change before its last sandbox ends", n.Name), Hint: "stop its sandboxes first; whisk network inspect " + n.Name + " lists them", Exit: ExitWhisk}
	}
	n.Version, n.CreatedAt = SpecVersion, time.Now().UTC()
	if err := os.MkdirAll(d.NetworkData(n.Name), 0o700); err != nil {
		return fmt.Errorf("create network %q: %w", n.Name, err)
	}
	return writeJSON(d.NetworkRecord(n.Name), n, true)
}

// RemoveNetwork forgets a network that was created, with its egress log. Sandboxes that would start on it again, even ones that have ended,
// keep it.
func RemoveNetwork(d Dirs, name string) error {
	unlock, err := lockNetworks(d)
	if err != nil {
		return err
	}
	defer unlock()
	users, err := NetworkUsers(d, name)
	if err != nil {
		return err
	}
	var names []string
	for _, r := range users {
		names = append(names, r.Name)
	}
	if config.ValidName(name) != nil {
		return noNetwork(name)
	}
	switch _, err := os.Lstat(d.NetworkRecord(name)); {
	case errors.Is(err, fs.ErrNotExist) && len(users) > 0:
		return &Error{Message: fmt.Sprintf("network %q was not created: it goes with its last sandbox (%s)", name, strings.Join(names, ", ")), Exit: ExitWhisk}
	case errors.Is(err, fs.ErrNotExist):
		return noNetwork(name)
	case err != nil:
		return fmt.Errorf("remove network %q: %w", name, err)
	case len(users) > 0:
		return &Error{Message: fmt.Sprintf("network %q is used by %s", name, strings.Join(names, ", ")), Hint: "whisk rm " + strings.Join(names, " "), Exit: ExitWhisk}
	}
	if err := os.Remove(d.NetworkRecord(name)); err != nil {
		return fmt.Errorf("remove network %q: %w", name, err)
	}
	if Held(d, name) {
		return nil // its keeper is leaving, and has the log open
	}
	return RemoveEgressLog(d, name)
}

func noNetwork(name string) error {
	return &Error{Message: fmt.Sprintf("no network %q", name), Hint: "whisk network ls", Kind: KindNotFound, Exit: ExitWhisk}
}

// NetworkUsers are the sandboxes of a network, oldest first, with those that have ended.
func NetworkUsers(d Dirs, name string) ([]Record, error) {
	all, err := Records(d)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(r Record) bool { return r.Network != name }), nil
}

// lockNetworks keeps other commands from creating and removing networks.
func lockNetworks(d Dirs) (unlock func(), err error) {
	if err := os.MkdirAll(d.NetworkRecords(), 0o700); err != nil {
		return nil, fmt.Errorf("make networks' folder: %w", err)
	}
	f, err := os.Open(d.NetworkRecords())
	if err != nil {
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock networks: %w", err)
	}
	return func() { f.Close() }, nil
}

// NetworkRecords holds one folder a network of which something is kept; see NetworkData.
func (d Dirs) NetworkRecords() string { return filepath.Join(d.Data, "networks") }

// NetworkRecord is the file of a network that was created.
func (d Dirs) NetworkRecord(name string) string {
	return filepath.Join(d.NetworkData(name), "network.json")
}
