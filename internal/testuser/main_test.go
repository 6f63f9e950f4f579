package testuser

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestRunsAsOrdinaryUserWithFreshFolders(t *testing.T) {
	if os.Getuid() == 0 {
		t.Fatal("tests run as root")
	}
	for _, key := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"} {
		dir := os.Getenv(key)
		if dir == "" && key != "HOME" {
			continue // the user's own session may do without
		}
		f, err := os.CreateTemp(dir, "probe")
		if err != nil {
			t.Errorf("%s=%q: %v", key, dir, err)
			continue
		}
		f.Close()
		os.Remove(f.Name())
	}
	if err := exec.Command("true").Run(); err != nil {
		t.Errorf("PATH=%q: %v", os.Getenv("PATH"), err)
	}
}

func TestOnlyRootMakesUsers(t *testing.T) {
	if _, err := Ensure(WithoutSubIDs, false); err == nil {
		t.Error("Ensure as an ordinary user: got nil, want an error")
	}
}

func TestScan(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		owned bool
		free  uint64
	}{
		"no file":        {"", false, 100000},
		"somebody else":  {"dev:100000:65536\n", false, 165536},
		"by name":        {"dev:100000:65536\nwhisktest:165536:65536\n", true, 231072},
		"by uid":         {"1001:200000:10", true, 200010},
		"below the rest": {"dev:1000:10\n# a comment\nx:y:z\n", false, 100000},
	} {
		if owned, free := scan(c.text, "whisktest", "1001"); owned != c.owned || free != c.free {
			t.Errorf("%s: scan = %v, %d, want %v, %d", name, owned, free, c.owned, c.free)
		}
	}
}

func TestRedirect(t *testing.T) {
	args, r := redirect(strings.Fields("-test.v=true -test.testlogfile=/root/b/testlog.txt -test.coverprofile=/root/b/cover.out -test.run=X name=y"), "/d")
	if want := strings.Fields("-test.v=true -test.coverprofile=/d/test.coverprofile -test.run=X name=y"); !reflect.DeepEqual(args, want) {
		t.Errorf("args = %q, want %q", args, want)
	}
	if want := map[string]string{"/d/test.coverprofile": "/root/b/cover.out"}; !reflect.DeepEqual(r.files, want) {
		t.Errorf("files = %q, want %q", r.files, want)
	}
}

func TestUnreachableDirIsCopied(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed") // TMPDIR itself is closed to others, too
	if err := os.MkdirAll(filepath.Join(closed, "testdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(closed, "testdata/x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(closed)
	dir, err := reachableDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "testdata/x")); string(got) != "x" {
		t.Errorf("testdata/x in %s: %q, %v", dir, got, err)
	}
}
