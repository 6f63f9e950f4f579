package launcher

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDropsGroup(t *testing.T) {
	const same = uint64(^uint32(0))
	for _, c := range []struct {
		what   string
		number int32
		args   [6]uint64
		gid    uint32
		want   bool
	}{
		{"setgid", unix.SYS_SETGID, [6]uint64{33}, 33, true},
		{"the kernel reads 32 bits", unix.SYS_SETGID, [6]uint64{1<<32 | 7}, 7, true},
		{"setresgid", unix.SYS_SETRESGID, [6]uint64{34, 34, 34}, 34, true},
		{"setregid", unix.SYS_SETREGID, [6]uint64{35, 35}, 35, true},
		{"setegid leaves the real group", unix.SYS_SETRESGID, [6]uint64{same, 34, same}, 0, false},
		{"a user", unix.SYS_SETUID, [6]uint64{33}, 0, false},
	} {
		n := idNotice{number: c.number, args: c.args}
		if gid, ok := n.dropsGroup(); ok != c.want || ok && gid != c.gid {
			t.Errorf("%s: %d, %v, want %d, %v", c.what, gid, ok, c.gid, c.want)
		}
	}
}

func TestCapabilitiesThatAreKept(t *testing.T) {
	a := asker{permitted: 0xf0, effective: 0x30}
	for _, c := range []struct {
		what                 string
		securebits           int64
		permitted, effective uint64
	}{
		{"none as a rule", 0, 0, 0},
		{"those that may be taken up again", 1 << 4, 0xf0, 0},
		{"all, where ids do not matter", 1 << 2, 0xf0, 0x30},
		{"locks keep nothing", 1<<5 | 1<<3, 0, 0},
	} {
		if p, e := a.kept(c.securebits); p != c.permitted || e != c.effective {
			t.Errorf("%s: permitted %#x, effective %#x, want %#x, %#x", c.what, p, e, c.permitted, c.effective)
		}
	}
}

func TestCapabilitiesAreLookedAtAfterwards(t *testing.T) {
	for _, c := range []struct {
		what string
		left asker
		ok   bool
	}{
		{"as they were to be", asker{permitted: 0xf0, effective: 0x30}, true},
		{"more permitted", asker{permitted: 0xf1, effective: 0x30}, false},
		{"more effective", asker{permitted: 0xf0, effective: 0xf0}, false},
		{"some to inherit", asker{permitted: 0xf0, effective: 0x30, inheritable: 1}, false},
	} {
		if err := c.left.has(0xf0, 0x30); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestAskerOf(t *testing.T) {
	a, err := askerOf(uint32(unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	if a.tgid != os.Getpid() || a.parent != os.Getppid() {
		t.Errorf("this thread: %+v, want process %d of %d", a, os.Getpid(), os.Getppid())
	}
	if _, err := askerOf(1 << 30); err == nil {
		t.Error("of a process that cannot be: no error")
	}
	if belowKeeper(uint32(os.Getpid())) {
		t.Error("this process is said to be in a user namespace below its own")
	}
}

func TestIDCallsThatNeedACapability(t *testing.T) {
	const setgid, setuid = 1 << unix.CAP_SETGID, 1 << unix.CAP_SETUID
	for _, c := range []struct {
		what   string
		number int32
		args   [6]uint64
		needs  uint64
	}{
		{"another user", unix.SYS_SETUID, [6]uint64{33}, setuid},
		{"root stays root", unix.SYS_SETUID, [6]uint64{0}, 0},
		{"another group", unix.SYS_SETRESGID, [6]uint64{33, 33, 33}, setgid},
		{"the same group", unix.SYS_SETGID, [6]uint64{0}, 0},
		{"groups", unix.SYS_SETGROUPS, [6]uint64{0}, setgid},
	} {
		n := idNotice{number: c.number, args: c.args}
		if !n.allowed(c.needs) {
			t.Errorf("%s: refused with %#x", c.what, c.needs)
		}
		if got := n.allowed((setgid | setuid) &^ c.needs); got != (c.needs == 0) {
			t.Errorf("%s: allowed %v with all but %#x", c.what, got, c.needs)
		}
	}
}
