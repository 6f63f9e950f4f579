package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// release is a folder such as goreleaser makes, with this machine's archive in it.
func release(t *testing.T, version string) (dir, archive string) {
	t.Helper()
	dir = t.TempDir()
	archive = fmt.Sprintf("whisk_%s_linux_%s.tar.gz", version, runtime.GOARCH)
	f, err := os.Create(filepath.Join(dir, archive))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, sum))
	w := tar.NewWriter(z)
	binary, err := os.ReadFile(os.Getenv(envBinary))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"whisk", 0o755, binary}, {"README.md", 0o644, []byte("readme")}, {"man/whisk.1", 0o644, []byte("manual")},
		{"completions/whisk.bash", 0o644, []byte("bash")}, {"completions/_whisk", 0o644, []byte("zsh")}, {"completions/whisk.fish", 0o644, []byte("fish")},
	} {
		top := strings.TrimSuffix(archive, ".tar.gz")
		if err := w.WriteHeader(&tar.Header{Name: top + "/" + file.name, Mode: file.mode, Size: int64(len(file.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(file.data); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	other := strings.ReplaceAll(archive, runtime.GOARCH, "mips64")
	sums := fmt.Sprintf("%x  %s\n%x  %s\n%x  %s\n", sum.Sum(nil), archive, sha256.Sum256(nil), other, sha256.Sum256(nil), strings.TrimSuffix(archive, ".tar.gz")+".deb")
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, archive
}

// installer runs install.sh in a home of its own, with only the programs that it may count on.
type installer struct {
	t    *testing.T
	home string
	path string
}

func newInstaller(t *testing.T, programs ...string) *installer {
	t.Helper()
	i := &installer{t, t.TempDir(), t.TempDir()}
	for _, name := range append(programs, "sh", "uname", "mktemp", "rm", "sed", "grep", "cut", "sha256sum", "tar", "gzip", "mkdir", "dirname", "cp", "chmod", "mv") {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(i.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

func (i *installer) run(base string, args ...string) (string, error) {
	script, err := filepath.Abs("install.sh")
	if err != nil {
		i.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(i.path, "sh"), append([]string{script}, args...)...)
	cmd.Dir, cmd.Env = i.home, []string{"HOME=" + i.home, "PATH=" + i.path, "TMPDIR=" + i.home + "/tmp", "WHISK_BASE_URL=" + base}
	if err := os.MkdirAll(i.home+"/tmp", 0o700); err != nil {
		i.t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// files are all below the home directory, with their modes.
func (i *installer) files() string {
	var all []string
	err := filepath.WalkDir(i.home, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(i.home, path)
		all = append(all, fmt.Sprintf("%s %o", rel, info.Mode().Perm()))
		return err
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

const installed = `.local/bin/whisk 755
.local/share/bash-completion/completions/whisk 644
.local/share/fish/vendor_completions.d/whisk.fish 644
.local/share/man/man1/whisk.1 644
.local/share/zsh/site-functions/_whisk 644`

func TestInstall(t *testing.T) {
	dir, archive := release(t, "1.2.3")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for name, c := range map[string]struct {
		base     string
		programs []string
	}{"curl": {server.URL, []string{"curl"}}, "wget": {server.URL + "/", []string{"wget"}}, "folder": {dir, nil}} {
		t.Run(name, func(t *testing.T) {
			i := newInstaller(t, c.programs...)
			for range 2 { // the second time over the first
				out, err := i.run(c.base, "--version", "v1.2.3")
				if err != nil || !strings.Contains(out, "whisk 0.0.0-test") || !strings.Contains(out, "your PATH lacks it") {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if got := i.files(); got != installed {
				t.Errorf("installed:\n%s\nwant:\n%s", got, installed)
			}
			if out, err := i.run(c.base, "--uninstall"); err != nil || i.files() != "" {
				t.Errorf("--uninstall: %v: %sleft: %s", err, out, i.files())
			}
			if out, err := i.run(c.base, "--uninstall"); err == nil || !strings.Contains(out, "no whisk in") {
				t.Errorf("--uninstall again: %v: %s", err, out)
			}
		})
	}
	t.Run("elsewhere", func(t *testing.T) {
		i := newInstaller(t)
		if out, err := i.run(dir, "--prefix", "here"); err != nil || !strings.Contains(i.files(), "here/bin/whisk 755") {
			t.Errorf("%v: %s%s", err, out, i.files())
		}
	})

	refused := func(name, base, says string, programs []string, args ...string) {
		t.Run(name, func(t *testing.T) {
			i := newInstaller(t, programs...)
			out, err := i.run(base, args...)
			if err == nil || !strings.Contains(out, says) {
				t.Errorf("%v: %s; want %q", err, out, says)
			}
			if left := i.files(); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
	refused("another version", dir, "names no archive for linux/"+runtime.GOARCH+" of version 9.9.9", nil, "--version", "9.9.9")
	refused("no such place", server.URL+"/nothing", "cannot fetch", []string{"curl"})
	refused("no such folder", dir+"/nothing", "has no SHA256SUMS", nil)
	refused("nothing to fetch with", server.URL, "neither curl nor wget", nil)
	refused("unknown argument", dir, "unknown argument: --force", nil, "--force")
	refused("a value is missing", dir, "--version needs a value", nil, "--version")
	f, err := os.OpenFile(filepath.Join(dir, archive), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	refused("another archive", dir, "is not what SHA256SUMS says", nil)
	if err := os.Remove(filepath.Join(dir, archive)); err != nil {
		t.Fatal(err)
	}
	refused("no archive", dir, "has no "+archive, nil)
}
