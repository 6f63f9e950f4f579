package launcher

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/mend"
)

// builder makes the root file system of one sandbox. All its methods run on the sandbox's own thread, in the
// sandbox's mount, network, ipc, uts and cgroup namespaces, before the pivot.
type builder struct {
	dirs   Dirs
	id     string
	plan   *plan
	base   *Base
	single bool // one-id map: no other owner can be given
	// readOnly asks for a root that nothing can be written to, but for mounts that say otherwise. With the image "host" it is
	// made of many mounts.
	readOnly bool

	root root

	guard     *Guard
	home      string   // config.App.Home
	hidden    []string // what mounts of the host show empty
	anonymous []string // volumes made for this sandbox
	parts     []int    // of a root that is many mounts, for close: a descriptor of each but the top
	devpts    int      // mount descriptor; the terminal is made from it
}

// file is the path of one of the sandbox's own files on the host.
func (b *builder) file(name string) string { return filepath.Join(b.dirs.Sandbox(b.id), name) }

// build leaves b.root open on the finished tree, mounted at the sandbox's folder "root".
func (b *builder) build() error {
	if err := b.overlay(); err != nil {
		return err
	}
	for _, part := range []struct {
		what string
		do   func() error
	}{
		{"make /proc", func() error { return b.plainDir("proc") }},
		{"mount /sys", b.sys},
		{"mount /dev", b.dev},
		{"mount generated files", b.generated},
		{"mount the image's files", b.binds},
	} {
		if err := part.do(); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	for i := range b.plan.mounts {
		if err := b.mount(&b.plan.mounts[i]); err != nil {
			return err
		}
	}
	return b.close()
}

// close makes the mounts read-only that the root is made of, last of all: in them are the places of all others.
func (b *builder) close() error {
	if !b.readOnly {
		return nil
	}
	if checkWorkdir(b.plan.workdir) == nil {
		if fd, err := b.root.mkdirAll(b.plan.workdir, 0o755); err == nil { // else the start says why
			unix.Close(fd)
		}
	}
	for _, fd := range append([]int{b.root.fd}, b.parts...) {
		if err := makeReadOnly(fd); err != nil {
			return fmt.Errorf("make root read-only: %w", err)
		}
	}
	for _, fd := range b.parts {
		unix.Close(fd)
	}
	b.parts = nil
	return nil
}

// makeReadOnly waits while a file of the mount is open for writing, EBUSY: not here any more, but a child of another sandbox, forked
// while it was, has a copy until it closes what is not its own.
func makeReadOnly(mount int) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		if err != unix.EBUSY || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

// overlay mounts the image's layers below a layer of the sandbox's own.
func (b *builder) overlay() error {
	merged := b.file("root")
	upper, work := b.file("upper"), b.file("work")
	if b.base.Host {
		return b.hostRoot(upper, work, merged)
	}
	if b.base.Dir != "" {
		// This thread's own working directory: it has unshared its file system attributes.
		if err := unix.Chdir(b.base.Dir); err != nil {
			return fmt.Errorf("enter the image's layers: %w", err)
		}
	}
	for _, p := range append([]string{upper, work}, b.base.Layers...) {
		if strings.ContainsAny(p, ",:\\") {
			return &Error{Message: fmt.Sprintf("cannot mount layers in %q: overlayfs takes no comma, colon or backslash in a path", p), Hint: "set XDG_DATA_HOME to a plain path", Exit: ExitWhisk}
		}
	}
	data := "userxattr,lowerdir=" + strings.Join(b.base.Layers, ":") + ",upperdir=" + upper + ",workdir=" + work
	if len(data) >= os.Getpagesize() {
		return &Error{Message: fmt.Sprintf("image %q has too many layers (%d) for one overlay mount", b.base.Name, len(b.base.Layers)), Exit: ExitWhisk}
	}
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_NODEV, data); err != nil {
		return overlayError(upper, err)
	}
	return b.openRoot(merged)
}

// overlayError names the file system that refused.
func overlayError(upper string, err error) error {
	var st unix.Statfs_t
	if e := unix.Statfs(upper, &st); e != nil {
		return fmt.Errorf("mount overlay: %w", errors.Join(err, e))
	}
	kind, _ := mend.FileSystem(int64(st.Type))
	return &Error{Message: fmt.Sprintf("%s: %v", mend.NoOverlay(upper, kind), err), Hint: "set XDG_DATA_HOME to a folder on ext4, xfs, btrfs or tmpfs; what to type: whisk doctor", Exit: ExitWhisk}
}

func (b *builder) openRoot(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	b.root = root{fd}
	return nil
}

// plainDir makes sure that a folder of the root is a real one: a link there would lead a mount astray
// (CVE-2025-31133 and its family).
func (b *builder) plainDir(name string) error {
	fd, err := b.plainDirFD(name)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func (b *builder) plainDirFD(name string) (int, error) {
	fd, err := b.root.openat2(name, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ENOENT):
		if err := unix.Mkdirat(b.root.fd, name, 0o755); err != nil {
			return -1, err
		}
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		// The image's own link or file has no meaning here: the mount replaces it.
		if err := unix.Unlinkat(b.root.fd, name, 0); err != nil {
			return -1, err
		}
		if err := unix.Mkdirat(b.root.fd, name, 0o755); err != nil {
			return -1, err
		}
	default:
		return -1, err
	}
	return b.root.openat2(name, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS)
}

const quiet = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

func (b *builder) sys() error {
	target, err := b.plainDirFD("sys")
	if err != nil {
		return err
	}
	attrs := quiet | unix.MOUNT_ATTR_RDONLY
	if !wall.Up("read-only sysfs") {
		attrs = quiet
	}
	sys, err := newMount("sysfs", attrs)
	if err != nil {
		unix.Close(target)
		if !wall.Up("network namespace") { // sysfs is of a network that one must own
			return nil
		}
		return err
	}
	if err := b.root.settle("sys", sys, target, unix.SYSFS_MAGIC); err != nil {
		return err
	}
	// The control groups of this sandbox's own namespace, where the machine has the unified tree (cgroups(7)).
	cg, err := newMount("cgroup2", attrs)
	if err == nil {
		at, err := b.root.openat2("sys/fs/cgroup", unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			unix.Close(cg)
			return nil
		}
		return b.root.settle("sys/fs/cgroup", cg, at, unix.CGROUP2_SUPER_MAGIC)
	}
	return nil
}

const mqueueMagic = 0x19800202 // MQUEUE_MAGIC in the kernel's ipc/mqueue.c

// devices are the only nodes of the host that a sandbox sees.
var devices = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

func (b *builder) dev() error {
	if !wall.Up("a /dev of its own") {
		return nil
	}
	target, err := b.plainDirFD("dev")
	if err != nil {
		return err
	}
	tmp, err := newTmpfs(unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 64<<10, 0o755)
	if err != nil {
		unix.Close(target)
		return err
	}
	if err := b.root.settle("dev", tmp, target, unix.TMPFS_MAGIC); err != nil {
		return err
	}
	dev, err := b.root.openat2("dev", unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, name := range devices {
		fd, err := unix.Openat(dev, name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_RDONLY, 0o666)
		if err != nil {
			return fmt.Errorf("make %s: %w", name, err)
		}
		node, err := cloneTree(unix.AT_FDCWD, "/dev/"+name, 0)
		if err != nil {
			unix.Close(fd)
			return err
		}
		if err := isDevice(node, name); err != nil {
			unix.Close(node)
			unix.Close(fd)
			return err
		}
		if err := put(node, fd); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx", "core": "/proc/kcore"} {
		if err := unix.Symlinkat(to, dev, name); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	pts := []string{"newinstance", "", "ptmxmode", "0666", "mode", "0620"}
	if !b.single {
		pts = append(pts, "gid", "5") // group tty, as every distribution numbers it
	}
	for _, m := range []struct {
		name, fstype string
		magic        int64
		attrs        int
		options      []string
	}{
		{"pts", "devpts", unix.DEVPTS_SUPER_MAGIC, unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, pts},
		{"shm", "tmpfs", unix.TMPFS_MAGIC, quiet, []string{"mode", "1777", "size", "65536k", "nr_inodes", tmpfsFiles(64 << 20)}},
		{"mqueue", "mqueue", mqueueMagic, quiet, nil},
	} {
		fd, err := newMount(m.fstype, m.attrs, m.options...)
		if err != nil {
			return err
		}
		if m.name == "pts" {
			if b.devpts, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
				unix.Close(fd)
				return err
			}
		}
		if err := unix.Mkdirat(dev, m.name, 0o755); err != nil {
			unix.Close(fd)
			return fmt.Errorf("make %s: %w", m.name, err)
		}
		at, err := unix.Openat(dev, m.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			unix.Close(fd)
			return err
		}
		if err := b.root.settle("dev/"+m.name, fd, at, m.magic); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// generatedFiles are written by whisk and mounted over the image's own.
var generatedFiles = [...]string{"hosts", "resolv.conf", "hostname"}

func (b *builder) generated() error {
	for _, name := range generatedFiles {
		if b.covered("/etc/" + name) {
			continue
		}
		if err := b.bind(b.file(name), "/etc/"+name, false, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	return nil
}

// covered says whether a mount of the user's takes this place.
func (b *builder) covered(target string) bool {
	return slices.ContainsFunc(b.plan.mounts, func(m config.Mount) bool { return m.Target == target })
}

func (b *builder) binds() error {
	for _, src := range slices.Sorted(maps.Keys(b.base.Binds)) {
		if err := b.bind(src, b.base.Binds[src], false, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
			return err
		}
	}
	return nil
}

// bind mounts a file or folder of the host.
func (b *builder) bind(src, target string, dir bool, attrs uint64) error {
	at, err := b.root.target(target, dir)
	if err != nil {
		return err
	}
	m, err := cloneTree(unix.AT_FDCWD, src, attrs)
	if err != nil {
		unix.Close(at)
		return err
	}
	if err := b.root.place(target, m, at); err != nil {
		return fmt.Errorf("mount %s on %s: %w", src, target, err)
	}
	return nil
}

// mount makes one mount that the user or the image asked for.
func (b *builder) mount(m *config.Mount) error {
	attrs := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if m.ReadOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	switch m.Kind {
	case config.MountTmpfs:
		mode := m.Mode
		if mode == 0 {
			mode = 0o1777
		}
		if m.NoExec {
			attrs |= unix.MOUNT_ATTR_NOEXEC
		}
		at, err := b.root.target(m.Target, true)
		if err != nil {
			return err
		}
		tmp, err := newTmpfs(int(attrs), m.Size, mode)
		if err != nil {
			unix.Close(at)
			return err
		}
		if err := b.root.place(m.Target, tmp, at); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", m.Target, err)
		}
		return nil
	case config.MountBind:
		return b.bindHost(m, attrs)
	case config.MountVolume:
		return b.volume(m, attrs)
	}
	return fmt.Errorf("mount %s: unknown kind %q", m.Target, m.Kind)
}

func mountSourceError(m *config.Mount, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &Error{Message: fmt.Sprintf("mount source %q does not exist", m.Source), Hint: "mkdir -p " + m.Source, Exit: ExitWhisk}
	}
	return &Error{Message: fmt.Sprintf("mount source %q: %v", m.Source, errors.Unwrap(err)), Exit: ExitWhisk}
}
