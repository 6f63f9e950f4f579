package launcher

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/internal/wall"
)

// Guard says what of the user's own no mount brings into a sandbox by accident. The folders of the whisk that mounts need no
// mention: no mount ever brings them.
type Guard struct {
	// Own are folders that whisk keeps under other settings, see OtherDirs. No mount brings them either.
	Own []string `json:"own,omitempty"`
	// Home is the user's home directory; a mount that holds it must be asked for by name (config.App.Home).
	Home string `json:"home,omitempty"`
	// Secrets are absolute paths that a mount of a folder above shows empty. One that is mounted itself is shown.
	Secrets []string `json:"secrets,omitempty"`
}

// guardKind is what is done about a guarded place.
type guardKind int

const (
	guardOwn    guardKind = iota // whisk's store and sockets: never
	guardHome                    // asked for by name
	guardSecret                  // hidden, unless mounted itself
)

type guarded struct {
	kind guardKind
	*found
}

// view is a part of a mount source that is one mount of the host's.
type view struct {
	place  place
	rest   string // from the source
	fstype string
}

// hiding is a place in a mount source that is shown empty.
type hiding struct {
	rest string   // from the source
	of   *guarded // nil: a whole mount
}

// mountVerdict is what becomes of a mount source.
type mountVerdict struct {
	own     bool // it is whisk's own
	proc    bool // it is a view of the host's processes
	home    bool // it is or holds the home directory
	hidings []hiding
}

// judgeMount decides about a source, given the host's mounts and the places to guard. Other mounts below the source
// come along with it, so each is looked at.
func judgeMount(source *found, mounts []mountPoint, guards []guarded) mountVerdict {
	var v mountVerdict
	views := []view{{place: source.place}}
	for _, m := range mounts {
		if m.id == source.mount {
			views[0].fstype = m.fstype
		}
		if rest, ok := pathUnder(m.at, source.path); ok && rest != "" {
			views = append(views, view{m.place, rest, m.fstype})
		}
	}
	for _, w := range views {
		if w.fstype == "proc" {
			// It leads, by /proc/PID/root, into the other sandboxes of the user namespace.
			if w.rest == "" {
				v.proc = true
			} else {
				v.hidings = append(v.hidings, hiding{rest: w.rest})
			}
		}
		for i := range guards {
			g := &guards[i]
			rest, holds := g.place.under(w.place)
			_, within := w.place.under(g.place)
			switch {
			case g.kind == guardHome:
				v.home = v.home || holds
			case holds && rest != "":
				v.hidings = append(v.hidings, hiding{path.Join(w.rest, rest), g})
			case !within:
			case w.rest != "":
				v.hidings = append(v.hidings, hiding{rest: w.rest})
			case g.kind == guardOwn:
				v.own = true
			}
		}
	}
	v.hidings = outermost(v.hidings)
	return v
}

// outermost drops what another hiding covers.
func outermost(all []hiding) []hiding {
	slices.SortStableFunc(all, func(a, b hiding) int { return cmp.Compare(a.rest, b.rest) })
	var out []hiding
	for _, h := range all {
		covered := slices.ContainsFunc(out, func(o hiding) bool { _, ok := pathUnder(h.rest, o.rest); return ok })
		if !covered {
			out = append(out, h)
		}
	}
	return out
}

// guards opens what is to be guarded and is there.
func (b *builder) guards(mounts []mountPoint) ([]guarded, error) {
	var out []guarded
	add := func(kind guardKind, name string) error {
		f, err := find(name, mounts)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EACCES), errors.Is(err, errNoPlace):
			return nil
		case err != nil:
			return fmt.Errorf("look for what mounts must not show: %w", err)
		}
		out = append(out, guarded{kind, f})
		return nil
	}
	var err error
	if wall.Up("whisk's own files") {
		for _, dir := range append(b.dirs.besides(), b.guard.Own...) {
			err = errors.Join(err, add(guardOwn, dir))
		}
	}
	if b.guard.Home != "" && wall.Up("home by name") {
		err = errors.Join(err, add(guardHome, b.guard.Home))
	}
	if wall.Up("hidden secrets") {
		for _, s := range b.guard.Secrets {
			err = errors.Join(err, add(guardSecret, s))
		}
	}
	if err != nil {
		closeGuards(out)
		return nil, err
	}
	return out, nil
}

func closeGuards(guards []guarded) {
	for _, g := range guards {
		g.close()
	}
}

// bindHost mounts a file or folder of the host that the user named. The source is opened once: what is judged is
// what is mounted, whatever becomes of its name in between.
func (b *builder) bindHost(m *config.Mount, attrs uint64) error {
	mounts, err := mountTable()
	if err != nil {
		return err
	}
	guards, err := b.guards(mounts)
	if err != nil {
		return err
	}
	defer closeGuards(guards)
	source, err := find(m.Source, mounts)
	if errors.Is(err, os.ErrNotExist) && m.Create {
		if err = makeSource(m.Source, mounts, guards); err == nil {
			source, err = find(m.Source, mounts)
		}
	}
	if fault, ok := errors.AsType[*Error](err); ok {
		return fault
	}
	if err != nil {
		return mountSourceError(m, err)
	}
	defer source.close()
	verdict := judgeMount(source, mounts, guards)
	switch {
	case verdict.own:
		return ownFiles(m.Source)
	case verdict.proc && wall.Up("no view of the host's processes"):
		return &Error{Message: fmt.Sprintf("mount source %q is a view of the host's processes", m.Source), Hint: "a sandbox has a /proc of its own; leave the mount away", Exit: ExitWhisk}
	case verdict.home && b.home == "":
		return homeUnasked(m, source, b.guard.Home)
	case verdict.home && b.home == config.HomeReadOnly:
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	return b.bindFound(m, source, verdict.hidings, attrs)
}

func ownFiles(source string) error {
	return &Error{Message: fmt.Sprintf("mount source %q is whisk's own: no sandbox gets at images, records and control sockets", source), Hint: "keep shared files in a volume (-v NAME:/path), or outside of whisk's folders", Exit: ExitWhisk}
}

func homeUnasked(m *config.Mount, source *found, home string) error {
	what := "is your whole home directory"
	if h, err := filepath.EvalSymlinks(home); err != nil || h != source.path {
		what = "holds your whole home directory"
	}
	return &Error{Message: fmt.Sprintf("mount source %q %s", m.Source, what), Hint: "mount a folder in it, or ask for it by name: --home ro, or home = \"ro\" in whisk.toml", Exit: ExitWhisk}
}

// makeSource makes a missing source folder, but not among whisk's own.
func makeSource(name string, mounts []mountPoint, guards []guarded) error {
	for above := filepath.Dir(name); ; above = filepath.Dir(above) {
		f, err := find(above, mounts)
		if errors.Is(err, os.ErrNotExist) && above != "/" {
			continue
		}
		if err != nil {
			return err
		}
		own := judgeMount(f, mounts, guards).own
		f.close()
		if own {
			return ownFiles(name)
		}
		return os.MkdirAll(name, 0o755)
	}
}

// bindFound mounts an open source and hides what is to be hidden in it.
func (b *builder) bindFound(m *config.Mount, source *found, hidings []hiding, attrs uint64) error {
	at, err := b.mountOn(m, source.dir)
	if err != nil {
		return err
	}
	tree, err := cloneTree(source.fd, "", attrs)
	if err != nil {
		unix.Close(at)
		return err
	}
	inside, err := unix.FcntlInt(uintptr(tree), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(at)
		unix.Close(tree)
		return err
	}
	defer unix.Close(inside)
	if err := b.root.place(m.Target, tree, at); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
	}
	for _, h := range hidings {
		if err := b.conceal(root{inside}, h); err != nil {
			return fmt.Errorf("hide %s of mount %s: %w", h.rest, m.Source, err)
		}
		b.hidden = append(b.hidden, path.Join(m.Target, h.rest))
	}
	return nil
}

// mountOn opens or makes the place in the sandbox.
func (b *builder) mountOn(m *config.Mount, dir bool) (at int, err error) {
	at, err = b.root.target(m.Target, dir)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) {
		err = &Error{Message: fmt.Sprintf("cannot mount %q on %q: one is a file and the other a folder", m.Source, m.Target), Exit: ExitWhisk}
	}
	return at, err
}

// conceal mounts emptiness over a place in a tree, after making sure that it is still the one that was judged.
func (b *builder) conceal(tree root, h hiding) error {
	fd, err := tree.openat2(h.rest, unix.O_PATH, 0, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return err
	}
	if h.of != nil && (st.Dev != h.of.dev || st.Ino != h.of.ino) {
		unix.Close(fd)
		return errors.New("it was put elsewhere while it was being mounted")
	}
	const empty = quiet | unix.MOUNT_ATTR_RDONLY
	var over int
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		over, err = newTmpfs(empty, 4096, 0o555)
	} else if err = os.WriteFile(b.file("empty"), nil, 0o444); err == nil || errors.Is(err, os.ErrPermission) {
		over, err = cloneTree(unix.AT_FDCWD, b.file("empty"), empty)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return tree.settle(h.rest, over, fd, 0)
}

// homeMounts adds the home directory at its own path, where it was asked for and no mount of the user's brings it.
func homeMounts(app *config.App, guard *Guard) ([]config.Mount, error) {
	if app.Home == "" {
		return app.Mounts, nil
	}
	if guard.Home == "" {
		return nil, &Error{Message: "home: there is no home directory to mount", Hint: "export HOME=/home/you", Exit: ExitWhisk}
	}
	for _, m := range app.Mounts {
		if _, ok := pathUnder(guard.Home, m.Source); ok && m.Kind == config.MountBind {
			return app.Mounts, nil
		}
	}
	home := config.Mount{Kind: config.MountBind, Source: guard.Home, Target: strings.TrimSuffix(guard.Home, "/"), ReadOnly: app.Home == config.HomeReadOnly}
	return append([]config.Mount{home}, app.Mounts...), nil
}
