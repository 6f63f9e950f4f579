package prefault

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// present counts the pages of a range that are mapped, by /proc/self/pagemap (proc(5)).
func present(t *testing.T, start, end uintptr) (mapped, all int) {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := uintptr(os.Getpagesize())
	for a := start &^ (size - 1); a < end; a += size {
		var b [8]byte
		if _, err := io.ReadFull(io.NewSectionReader(f, int64(a/size*8), 8), b[:]); err != nil {
			t.Fatal(err)
		}
		all++
		if binary.NativeEndian.Uint64(b[:])>>63 != 0 {
			mapped++
		}
	}
	return mapped, all
}

func TestRangesAreMapped(t *testing.T) {
	fresh, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(fresh)
	if err := unix.Madvise(fresh, populateWrite); err == unix.EINVAL {
		return // a kernel before 5.14, where init has done nothing
	}
	for _, r := range []struct {
		name       string
		start, end uintptr
	}{{"text", at(text).start, at(text).end}, {"data", at(data).start, at(data).end}, {"heap", advised.near.start, advised.near.end}} {
		// Not all: the kernel may take a page of code back at any time.
		if mapped, all := present(t, r.start, r.end); all < 16 && r.name != "heap" || mapped < all*9/10 {
			t.Errorf("%s: %d of %d pages are mapped", r.name, mapped, all)
		}
	}
}

func at(f func() (uintptr, uintptr)) region {
	start, end := f()
	return region{start, end}
}

// What small allocations come from once the near region is full is one huge page, wherever the heap begins.
func TestHeapGoesOnInAHugePage(t *testing.T) {
	want := "2048 kB huge"
	if b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil || strings.Contains(string(b), "[never]") {
		want = " kB huge" // whatever there is: this machine has switched them off
	}
	for range 10 { // each with a heap of its own
		cmd := exec.Command(os.Args[0], "-test.run=^TestFillHeap$", "-test.v")
		cmd.Env = append(os.Environ(), fill+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

const fill = "WHISK_TEST_FILL_HEAP"

func TestFillHeap(t *testing.T) {
	if os.Getenv(fill) == "" {
		return // it is the child of the test above
	}
	var keep [][]byte
	for range 600 {
		b := make([]byte, 2048)
		b[0] = 1
		keep = append(keep, b)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside, got := false, ""
	for line := range strings.Lines(string(smaps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n == 2 {
			inside = from <= advised.next.start && advised.next.start < to
		}
		if inside && strings.HasPrefix(line, "AnonHugePages:") {
			got = strings.Fields(line)[1]
		}
	}
	fmt.Printf("%s kB huge\n", got)
	runtime.KeepAlive(keep)
}

// What the package is for is lost if it comes after those that fill the heap.
func TestInitialisedBeforeTheHeapIsUsed(t *testing.T) {
	bin := t.TempDir() + "/whisk"
	if out, err := exec.Command("go", "build", "-o", bin, "../..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(bin, "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var before []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "init" {
			continue
		}
		if strings.HasSuffix(f[1], "internal/prefault") {
			if len(before) > 12 {
				t.Errorf("%d packages come first: %s", len(before), strings.Join(before, " "))
			}
			return
		}
		before = append(before, f[1])
	}
	t.Errorf("it is not initialised:\n%s", out)
}
