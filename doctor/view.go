package doctor

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher/rights"
	"github.com/whisk-sandbox/whisk/remedy"
	"github.com/whisk-sandbox/whisk/userns"
)

// View is all that probes know of a machine.
type View struct {
	Machine userns.Machine // with the root directory that probes read
	User    userns.User
	Groups  []uint32 // of this process, the first being its own
	Whisk   string   // version
	Kernel  string   // uname -r
	Arch    string   // uname -m

	Refusal *userns.Refusal // of a user namespace; nil: there is one
	Inside  *Tried          // what was tried inside; nil: could not be
	Entry   string          // why Inside is nil though there was no Refusal

	Store string // whisk's data folder
	Disk  FileSystem

	Seccomp     string // why the kernel takes no filters; empty: it does
	UserNotify  bool   // seccomp_unotify(2)
	LandlockABI int    // 0: none
	Landlock    string // why the kernel does not even tell; empty: it does
	Descriptors uint64 // hard limit of RLIMIT_NOFILE

	Now, Built time.Time // the clock, and the time that whisk's file has
}

// FileSystem is what statfs(2) says of the store's.
type FileSystem struct {
	Type uint32 // magic number, linux/magic.h
	Free uint64 // bytes that this user may still write
	Path string // the folder that was asked: the store, or the nearest one above it that is there
}

func (v View) system() remedy.System { return remedy.Read(v.Machine.Root) }

// sysctl is a setting by its path below /proc/sys; empty where there is none.
func (v View) sysctl(name string) string { return userns.Sysctl(v.Machine.Root, name) }

func (v View) exists(path string) bool {
	_, err := fs.Stat(v.Machine.Root, path)
	return err == nil
}

func (v View) read(path string) string {
	text, err := fs.ReadFile(v.Machine.Root, path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// Look makes the View of this machine, all but Inside and Entry. store is whisk's data folder, which need not be there.
func Look(whisk, store string) View {
	v := View{
		Machine: userns.Here(), User: userns.Current(), Whisk: whisk, Store: store, Refusal: userns.Try(),
		Groups: []uint32{uint32(os.Getegid())}, Now: time.Now(),
	}
	if groups, err := os.Getgroups(); err == nil {
		for _, g := range groups {
			v.Groups = append(v.Groups, uint32(g))
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		v.Kernel, v.Arch = unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])
	}
	v.Disk = statfs(store)
	if err := rights.CheckSeccomp(); err != nil {
		v.Seccomp = err.Error()
	}
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	v.UserNotify = errno == 0
	abi, err := rights.LandlockABI()
	if v.LandlockABI = abi; err != nil {
		v.Landlock = err.Error()
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		v.Descriptors = limit.Max
	}
	if st, err := os.Stat(v.Machine.Binary); err == nil {
		v.Built = st.ModTime()
	}
	return v
}

// statfs asks of the folder, or the nearest above it that is there.
func statfs(dir string) FileSystem {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return FileSystem{Type: uint32(st.Type), Free: st.Bavail * uint64(st.Bsize), Path: dir}
		}
		if up := filepath.Dir(dir); up != dir {
			dir = up
			continue
		}
		return FileSystem{Path: dir}
	}
}
