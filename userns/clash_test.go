package userns

import (
	"reflect"
	"testing"
	"testing/fstest"
)

func TestClashesWithOthersRanges(t *testing.T) {
	files := fstest.MapFS{
		"etc/subuid": {Data: []byte("ann:100000:65536\nbob:165535:65536\n1000:300000:10\ncyd:231071:5\n")},
		"etc/subgid": {Data: []byte("ann:100000:65536\nbob:165536:65536\n")},
	}
	s := System{Files: files}
	got, err := s.Clashes(ann)
	if want := []Clash{{File: "/etc/subuid", Other: "bob", First: 165535, Last: 165535}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Clashes = %v, %v, want %v", got, err, want)
	}
	if first, count, err := s.Spare(ann); first != 300010 || count != 65536 || err != nil {
		t.Errorf("Spare = %d, %d, %v, want 300010, 65536", first, count, err)
	}
}

func TestRemedyIsInTheDistributionsWords(t *testing.T) {
	s := System{Files: fstest.MapFS{"etc/os-release": {Data: []byte("ID=alpine\n")}}}
	m, err := s.Find(ann)
	if want := "echo ann:100000:65536 | doas tee -a /etc/subuid /etc/subgid"; err != nil || m.Why == nil || m.Why.Hint() != want {
		t.Errorf("Find on Alpine without ranges: %+v, %v, want the hint %q", m.Why, err, want)
	}
}
