package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/dynidtools"
	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

// ErrNoGetsubids is a directory service that cannot be asked for want of the program that asks it.
var ErrNoGetsubids = errors.New("getsubids is not installed")

// askDirectory asks through getsubids(1), which is shadow's own way to SSSD and its like.
func askDirectory(u User) (uids, gids []idtools.SubIDRange, err error) {
	uids, gids, err = dynidtools.GetSubIDRanges(int(u.UID), u.Name)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, nil, fmt.Errorf("getsubids: %w", exit) // the rest names each of its four calls
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoGetsubids, err)
	}
	return uids, gids, err
}

// fromDirectory takes the place of what the files say with what the directory says. newuidmap asks it, too, and
// does not read the files: a directory without an answer leaves no ranges.
func (g *grants) fromDirectory(ask func(User) (uids, gids []idtools.SubIDRange, err error)) {
	uids, gids, err := ask(g.user)
	g.uidFile, g.gidFile = g.directory, g.directory
	g.uidEntries, g.gidEntries, g.silent = nil, nil, err
	if err == nil {
		g.uidEntries, g.gidEntries = fromSource(uids, g.user), fromSource(gids, g.user)
	}
}

// withoutRange is why a directory leaves the user without ranges; nil where it does not, and where no directory is asked.
func (g grants) withoutRange(uids, gids []Range) *Missing {
	if g.directory == "" || g.silent == nil && len(uids) > 0 && len(gids) > 0 {
		return nil
	}
	who := g.directory + ", which /etc/nsswitch.conf names for sub-ids, "
	m := &Missing{CauseDirectoryNoRange, who + "has no range for " + g.user.String(), oneIDCost, g.distro.DirectoryRange(g.directory, g.user.String(), lent)}
	switch {
	case errors.Is(g.silent, ErrNoGetsubids):
		m.Cause, m.What, m.Remedy = CauseDirectorySilent, who+"cannot be asked: getsubids, which asks it, is not installed", g.distro.InstallGetsubids()
	case g.silent != nil:
		m.Cause, m.What, m.Remedy = CauseDirectorySilent, who+"gave no answer: "+strings.Join(strings.Fields(g.silent.Error()), " "), g.distro.DirectoryAnswer(g.directory, g.user.String())
	case len(uids) > 0:
		m.What = who + "has no range of groups for " + g.user.String()
	}
	return m
}

func fromSource(ranges []idtools.SubIDRange, u User) []entry {
	var out []entry
	for _, r := range ranges {
		if r.Start >= 0 && r.Length > 0 && int64(r.Start)+int64(r.Length) <= maxID {
			out = append(out, entry{owner: strconv.FormatUint(uint64(u.UID), 10), start: uint32(r.Start), size: uint32(r.Length)})
		}
	}
	return out
}

// dynamic is the first source that nsswitch.conf(5) sends questions about sub-ids to, if that is not the files; shadow
// knows only one.
func dynamic(nsswitch string) string {
	for line := range strings.Lines(nsswitch) {
		line, _, _ = strings.Cut(line, "#")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "subid:"); ok {
			if source := strings.Fields(rest); len(source) > 0 && source[0] != "files" {
				return source[0]
			}
			return ""
		}
	}
	return ""
}
