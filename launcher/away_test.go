package launcher

import (
	"slices"
	"testing"
)

func TestMemoryThatACommandKeeps(t *testing.T) {
	const maps = `00400000-00a00000 r-xp 00000000 fe:01 77                         /bin/whisk
00a00000-01500000 r--p 00600000 fe:01 77                         /bin/whisk
01500000-01600000 rw-p 01100000 fe:01 77                         /bin/whisk
01600000-03800000 rw-p 00000000 00:00 0
c000000000-c000400000 rw-p 00000000 00:00 0
7f0000000000-7f0000001000 r--p 00000000 fe:01 78                 /lib/other
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                  [stack]
7ffc00030000-7ffc00034000 r--p 00000000 00:00 0                  [vvar]
7ffc00034000-7ffc00036000 r-xp 00000000 00:00 0                  [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]
`
	got, err := fixedIn(maps, 0x500000)
	want := []span{{0x400000, 0xa00000}, {0xa00000, 0x1500000}, {0x7ffc00030000, 0x7ffc00034000}, {0x7ffc00034000, 0x7ffc00036000}}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%x, %v; want %x", got, err, want)
	}
	if _, err := fixedIn(maps, 0x1234); err == nil {
		t.Error("a program that is not there was found")
	}

	a := &away{}
	a.nKept = copy(a.kept[:], append(got, span{0x7f1000000000, 0x7f1002000000}))
	a.plan(0xc000123f00)
	kept := 0
	next := uintptr(0)
	for _, g := range a.gaps[:a.nGaps] {
		if g.from < next || g.to <= g.from {
			t.Errorf("the gaps %x are not in order", a.gaps[:a.nGaps])
		}
		if g.from > next {
			kept++
		}
		next = g.to
	}
	// The program, the script, the stack, and the kernel's pages.
	if kept != 4 || next != topOfMemory&^(pageSize-1) {
		t.Errorf("%d parts are kept, up to %x: gaps %x", kept, next, a.gaps[:a.nGaps])
	}
	in := func(at uintptr) bool {
		return !slices.ContainsFunc(a.gaps[:a.nGaps], func(g span) bool { return g.from <= at && at < g.to })
	}
	for at, want := range map[uintptr]bool{0xc000123f00: true, 0xc000123f00 - 800: true, 0xc000110000: false, 0x1600000: false, 0x1500000: false, 0x7ffc00000000: false, 0x7f1000000000: true} {
		if in(at) != want {
			t.Errorf("%x is kept: %v, want %v", at, in(at), want)
		}
	}
}
