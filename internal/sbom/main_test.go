package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

func TestDocumentNamesModules(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Path: "example.com/app", Version: "v1.2.3"}, Deps: []*debug.Module{
		{Path: "example.com/a", Version: "v1.0.0"},
		{Path: "example.com/b", Version: "v2.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v2.0.1"}},
	}}
	bom := document("app", info)
	var got []string
	for _, c := range *bom.Components {
		got = append(got, c.PackageURL)
	}
	want := "pkg:golang/std@go1.26.8 pkg:golang/example.com/a@v1.0.0 pkg:golang/example.com/fork@v2.0.1"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("components %s, want %s", s, want)
	}
	if bom.Metadata.Component.Name != "app" || bom.Metadata.Timestamp != "" || bom.SerialNumber != "" {
		t.Errorf("document of %+v: want the binary's name, and nothing that changes from run to run", bom.Metadata)
	}
}

// TestWrite reads the test's own binary.
func TestWrite(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "bom.json")
	if err := write(out, self, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(f, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if v := bom.Metadata.Component.Version; v != "1.2.3" {
		t.Errorf("version %q, want the one that was given", v)
	}
	if bom.Components == nil || len(*bom.Components) < 2 {
		t.Errorf("%+v: want the modules of the test", bom.Components)
	}
	if err := write(out, "main.go", ""); err == nil {
		t.Error("took a file that is no binary")
	}
}
