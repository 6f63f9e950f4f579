package userns

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

var (
	ann    = User{Name: "ann", UID: 1000, GID: 100}
	setuid = Helper{Path: "/usr/bin/newxidmap", SetUID: true}
)

func TestPlan(t *testing.T) {
	usual := []entry{{"ann", 100000, 65536}}
	everything := []Range{{0, 0, 4294967295}}
	for name, c := range map[string]struct {
		grants
		uids, gids []Range // nil: one id
		cause      Cause   // of the error, or of the one-id map
		says       string  // part of the message or of the remedy
	}{
		"a range each": {grants: grants{user: ann, uidEntries: usual, gidEntries: usual, uidHelper: setuid, gidHelper: setuid},
			uids: []Range{{0, 1000, 1}, {1, 100000, 65536}}, gids: []Range{{0, 100, 1}, {1, 100000, 65536}}},
		"by number, file capabilities": {grants: grants{user: ann, uidEntries: []entry{{"1000", 100000, 65536}}, gidEntries: usual, uidHelper: Helper{Path: "/n", Caps: true}, gidHelper: Helper{Path: "/n", Caps: true}},
			uids: []Range{{0, 1000, 1}, {1, 100000, 65536}}, gids: []Range{{0, 100, 1}, {1, 100000, 65536}}},
		"several ranges, one after the other": {grants: grants{user: ann, uidEntries: []entry{{"ann", 300000, 65536}, {"bob", 200000, 65536}, {"ann", 100000, 1000}}, gidEntries: usual, uidHelper: setuid, gidHelper: setuid},
			uids: []Range{{0, 1000, 1}, {1, 100000, 1000}, {1001, 300000, 64536}}, gids: []Range{{0, 100, 1}, {1, 100000, 65536}}},
		"by name and by number: once": {grants: grants{user: ann, uidEntries: []entry{{"ann", 100000, 65536}, {"1000", 100000, 65536}}, gidEntries: usual, uidHelper: setuid, gidHelper: setuid},
			uids: []Range{{0, 1000, 1}, {1, 100000, 65536}}, gids: []Range{{0, 100, 1}, {1, 100000, 65536}}},
		"a range around oneself and root": {grants: grants{user: ann, uidEntries: []entry{{"ann", 0, 70000}}, gidEntries: usual, uidHelper: setuid, gidHelper: setuid},
			uids: []Range{{0, 1000, 1}, {1, 1, 999}, {1000, 1001, 64537}}, gids: []Range{{0, 100, 1}, {1, 100000, 65536}}},

		"no entry":       {grants: grants{user: ann, uidFile: "/etc/subuid", uidEntries: []entry{{"bob", 100000, 65536}}, uidHelper: setuid, gidHelper: setuid}, cause: CauseNoRange, says: "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann"},
		"no group entry": {grants: grants{user: ann, gidFile: "/etc/subgid", uidEntries: usual, uidHelper: setuid, gidHelper: setuid}, cause: CauseNoRange, says: "/etc/subgid has no range for ann"},
		"no name": {grants: grants{user: User{UID: 1000, GID: 100}, uidFile: "/etc/subuid", uidEntries: []entry{{"", 1, 2}}}, cause: CauseNoRange,
			says: "/etc/subuid has no range for 1000"},
		"no helper": {grants: grants{user: ann, uidEntries: usual, gidEntries: usual, uidHelper: setuid}, cause: CauseHelperMissing, says: "newgidmap is not installed"},

		"too small":          {grants: grants{user: ann, uidFile: "/etc/subuid", uidEntries: []entry{{"ann", 100000, 1000}}, gidEntries: usual, uidHelper: setuid, gidHelper: setuid}, cause: CauseRangeTooSmall, says: "range too small: /etc/subuid gives ann 1000 ids, and a sandbox needs 65536"},
		"helper not setuid":  {grants: grants{user: ann, uidEntries: usual, gidEntries: usual, uidHelper: setuid, gidHelper: Helper{Path: "/usr/bin/newgidmap"}}, cause: CauseHelperPowerless, says: "/usr/bin/newgidmap is neither setuid root nor has file capabilities"},
		"helper on nosuid":   {grants: grants{user: ann, uidEntries: usual, gidEntries: usual, uidHelper: Helper{Path: "/n", SetUID: true, NoSUID: "/usr"}, gidHelper: setuid}, cause: CauseHelperPowerless, says: "nosuid (/usr)"},
		"under no_new_privs": {grants: grants{user: ann, uidEntries: usual, gidEntries: usual, uidHelper: setuid, gidHelper: setuid, noNewPrivs: true}, cause: CauseHelperPowerless, says: "no_new_privs"},
		"root":               {grants: grants{uidEntries: usual, ownUIDs: everything, ownGIDs: everything}, uids: []Range{{0, 0, 1}, {1, rootBase, 65536}}, gids: []Range{{0, 0, 1}, {1, rootBase, 65536}}},
		"root, the place taken": {grants: grants{uidEntries: []entry{{"x", rootBase + 5, 10}}, ownUIDs: everything, ownGIDs: everything},
			uids: []Range{{0, 0, 1}, {1, rootBase + 15, 65536}}, gids: []Range{{0, 0, 1}, {1, rootBase + 15, 65536}}},
		"root in a container": {grants: grants{ownUIDs: []Range{{0, 100000, 200000}}, ownGIDs: []Range{{0, 100000, 200000}}},
			uids: []Range{{0, 0, 1}, {1, 134464, 65536}}, gids: []Range{{0, 0, 1}, {1, 134464, 65536}}},
		"root in a small container": {grants: grants{ownUIDs: []Range{{0, 1000, 1}, {1, 100000, 65536}}, ownGIDs: []Range{{0, 1000, 1}, {1, 100000, 65536}}}, cause: CauseNoRange, says: "no 65536 ids to spare"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := plan(c.grants)
			var e *Error
			switch {
			case c.uids != nil:
				if err != nil || m.Single || !reflect.DeepEqual(m.UIDs, c.uids) || !reflect.DeepEqual(m.GIDs, c.gids) {
					t.Errorf("plan = %+v, %v\nwant %v / %v", m, err, c.uids, c.gids)
				}
			case err == nil:
				if !m.Single || len(m.UIDs) != 1 || m.Why.Cause != c.cause || !strings.Contains(m.Why.String()+m.Why.Hint(), c.says) {
					t.Errorf("plan = %v, why %+v\nwant one id, %s %q", m, m.Why, c.cause, c.says)
				}
			case !errors.As(err, &e) || e.Cause != c.cause || !strings.Contains(e.Error(), c.says):
				t.Errorf("plan: %v\nwant %s %q", err, c.cause, c.says)
			}
		})
	}
}

func TestParseEntries(t *testing.T) {
	got := parseEntries("# people\nann:100000:65536\n\nbob:x:1\nbroken\n:1:2\ncyd:4294967290:100\n1000:7:0\n1001:5:6\n")
	if want := []entry{{"ann", 100000, 65536}, {"1001", 5, 6}}; !reflect.DeepEqual(got, want) {
		t.Errorf("parseEntries = %v, want %v", got, want)
	}
}

func TestDynamic(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "",
		"passwd: files\n":             "",
		"subid: files\n":              "",
		"subid: files sss\n":          "",
		"passwd: files\nsubid: sss\n": "sss",
		"subid:\tsss files # IPA\n":   "sss",
		"# subid: sss\n":              "",
	} {
		if got := dynamic(text); got != want {
			t.Errorf("dynamic(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestMapLooksUp(t *testing.T) {
	m := Map{UIDs: []Range{{0, 1000, 1}, {1, 100000, 65536}}, GIDs: []Range{{0, 100, 1}}}
	if got, want := m.String(), "0→1000 1-65536→100000-165535 / 0→100"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	for _, c := range []struct {
		inside, outside uint32
		ok              bool
	}{{0, 1000, true}, {1, 100000, true}, {65536, 165535, true}, {65537, 0, false}} {
		if got, ok := m.HostUID(c.inside); got != c.outside || ok != c.ok {
			t.Errorf("HostUID(%d) = %d, %v, want %d, %v", c.inside, got, ok, c.outside, c.ok)
		}
		if !c.ok {
			continue
		}
		if got, ok := m.InsideUID(c.outside); got != c.inside || !ok {
			t.Errorf("InsideUID(%d) = %d, %v, want %d", c.outside, got, ok, c.inside)
		}
	}
	if _, ok := m.InsideGID(1000); ok {
		t.Error("InsideGID(1000) is mapped")
	}
}

func TestNamesThatAreMoreThanAName(t *testing.T) {
	for name, want := range map[string]bool{
		"ann": true, "ann.b@example.org": true, `EXAMPLE\ann`: true, "ann b": true, "änn": true,
		"": false, "ann:0:65536": false, "ann\nbob:1:65536": false, " ann": false, "-ann": false, "#ann": false, "a\x1bnn": false, "a\xffnn": false,
	} {
		if got := plausible(name); got != want {
			t.Errorf("plausible(%q) = %v, want %v", name, got, want)
		}
	}
}
