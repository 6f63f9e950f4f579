package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rootless-containers/rootlesskit/v3/pkg/parent/idtools"
)

// What a directory service answers decides, and a silent one is never taken for the files: newuidmap would not read them
// either.
func TestDirectoryDecides(t *testing.T) {
	ranges := []idtools.SubIDRange{{Start: 2147483648, Length: 65536}}
	for name, c := range map[string]struct {
		uids, gids []idtools.SubIDRange
		err        error
		os         string
		cause      Cause // "": the map has the ranges
		says       string
		remedy     string
	}{
		"ranges":        {uids: ranges, gids: ranges},
		"no range":      {cause: CauseDirectoryNoRange, says: "sss, which /etc/nsswitch.conf names for sub-ids, has no range for ann", remedy: "ipa subid-generate --owner=ann"},
		"users only":    {uids: ranges, cause: CauseDirectoryNoRange, says: "has no range of groups for ann", remedy: "ipa subid-generate --owner=ann"},
		"silent":        {err: errors.New("exit status 1"), cause: CauseDirectorySilent, says: "gave no answer: exit status 1", remedy: "getsubids ann"},
		"no program":    {err: fmt.Errorf("asking: %w", ErrNoGetsubids), os: "ID=debian\n", cause: CauseDirectorySilent, says: "getsubids, which asks it, is not installed", remedy: "sudo apt-get install -y uidmap"},
		"none, Fedora":  {err: ErrNoGetsubids, os: "ID=fedora\n", cause: CauseDirectorySilent, says: "is not installed", remedy: "sudo dnf install -y shadow-utils-subid"},
		"none, unknown": {err: ErrNoGetsubids, cause: CauseDirectorySilent, says: "is not installed", remedy: "install getsubids"},
		"too small":     {uids: []idtools.SubIDRange{{Start: 100000, Length: 10}}, gids: ranges, cause: CauseRangeTooSmall, says: "range too small: sss", remedy: "range of 65536 ids"},
		"below zero":    {uids: []idtools.SubIDRange{{Start: -5, Length: 70000}}, gids: ranges, cause: CauseDirectoryNoRange, says: "no range for ann", remedy: "getsubids ann"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			s := System{
				Files: fstest.MapFS{
					"etc/nsswitch.conf": {Data: []byte("passwd: files sss\nsubid: sss\n")},
					"etc/os-release":    {Data: []byte(c.os)},
					"etc/subuid":        {Data: []byte("ann:100000:65536\n")}, "etc/subgid": {Data: []byte("ann:100000:65536\n")},
				},
				NewUIDMap: setuid, NewGIDMap: setuid,
				Directory: func(User) (uids, gids []idtools.SubIDRange, err error) { asked++; return c.uids, c.gids, c.err },
			}
			m, err := s.Find(ann)
			if asked != 1 {
				t.Errorf("the directory was asked %d times", asked)
			}
			var cause Cause
			var says, remedy string
			var e *Error
			switch {
			case errors.As(err, &e):
				cause, says, remedy = e.Cause, e.Error(), e.Remedy
			case err != nil:
				t.Fatal(err)
			case m.Single:
				cause, says, remedy = m.Why.Cause, m.Why.String(), m.Why.Remedy
			}
			if cause != c.cause || !strings.Contains(says, c.says) || !strings.Contains(remedy, c.remedy) || strings.Contains(remedy, "usermod") {
				t.Errorf("%s: %q, remedy %q\nwant %s: %q, remedy with %q and without usermod", cause, says, remedy, c.cause, c.says, c.remedy)
			}
			if c.cause == "" && (len(m.UIDs) != 2 || m.UIDs[1].Outside != 2147483648) {
				t.Errorf("the map is %s, not the directory's", m)
			}
		})
	}
}

// Where the files are asked, the directory is not.
func TestFilesAreNoDirectory(t *testing.T) {
	s := System{
		Files:     fstest.MapFS{"etc/nsswitch.conf": {Data: []byte("subid: files\n")}, "etc/subuid": {Data: []byte("ann:100000:65536\n")}, "etc/subgid": {Data: []byte("ann:100000:65536\n")}},
		NewUIDMap: setuid, NewGIDMap: setuid,
		Directory: func(User) (uids, gids []idtools.SubIDRange, err error) { t.Error("asked"); return nil, nil, nil },
	}
	if m, err := s.Find(ann); err != nil || m.Single {
		t.Errorf("%v, %v", m, err)
	}
}

// The program itself: what it prints, what it says when it fails, and none at all.
func TestGetsubids(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GETSUBIDS", "")
	t.Setenv("PATH", dir)
	if _, _, err := askDirectory(ann); !errors.Is(err, ErrNoGetsubids) {
		t.Errorf("without the program: %v", err)
	}
	program := func(body string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "getsubids"), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program("[ \"$1\" = -g ] && { echo \"0: $2 300000 65536\"; exit; }\necho \"0: $1 200000 65536\"\n")
	uids, gids, err := askDirectory(ann)
	if err != nil || len(uids) != 1 || uids[0].Start != 200000 || len(gids) != 1 || gids[0].Start != 300000 {
		t.Errorf("%v, %v, %v", uids, gids, err)
	}
	program("echo Error fetching ranges >&2; exit 1\n")
	if _, _, err := askDirectory(ann); err == nil || errors.Is(err, ErrNoGetsubids) || err.Error() != "getsubids: exit status 1" {
		t.Errorf("a program that fails: %v", err)
	}
	program("echo nonsense\n")
	if _, _, err := askDirectory(ann); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a program that talks nonsense: %v", err)
	}
}
