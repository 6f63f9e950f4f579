package launcher

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestDropsRoot(t *testing.T) {
	const same = uint64(^uint32(0))
	for _, c := range []struct {
		what   string
		number int32
		args   [6]uint64
		uid    uint32
		want   bool
	}{
		{"setuid to a user", unix.SYS_SETUID, [6]uint64{999}, 999, true},
		{"setuid to root", unix.SYS_SETUID, [6]uint64{0}, 0, false},
		{"the kernel reads 32 bits", unix.SYS_SETUID, [6]uint64{1 << 32}, 0, false},
		{"seteuid can go back", unix.SYS_SETRESUID, [6]uint64{same, 33, same}, 0, false},
		{"a saved root can go back", unix.SYS_SETRESUID, [6]uint64{33, 33, 0}, 0, false},
		{"setresuid for good", unix.SYS_SETRESUID, [6]uint64{33, 33, 33}, 33, true},
		{"setreuid for good", unix.SYS_SETREUID, [6]uint64{33, 34, 0}, 33, true},
		{"setreuid of one", unix.SYS_SETREUID, [6]uint64{same, 34, 0}, 0, false},
		{"groups", unix.SYS_SETRESGID, [6]uint64{33, 33, 33}, 0, false},
	} {
		n := idNotice{number: c.number, args: c.args}
		if uid, ok := n.dropsRoot(); uid != c.uid || ok != c.want {
			t.Errorf("%s: %d, %v, want %d, %v", c.what, uid, ok, c.uid, c.want)
		}
	}
}

func TestStartTime(t *testing.T) {
	if a, b := startTime(uint32(unix.Getpid())), startTime(uint32(unix.Getpid())); a == "" || a != b {
		t.Errorf("of this process: %q, then %q", a, b)
	}
	if s := startTime(1 << 30); s != "" {
		t.Errorf("of a process that cannot be: %q", s)
	}
}
