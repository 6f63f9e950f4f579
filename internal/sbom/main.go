// Command sbom writes which Go modules a binary is made of, as a CycloneDX document (ECMA-424), from what the linker has
// put in it. The same binary gives the same document.
//
//	sbom [-version VERSION] -o FILE BINARY
package main

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	out := flag.String("o", "", "`file` to write")
	version := flag.String("version", "", "`version` of the binary's own module; without it the one that the linker knows")
	flag.Parse()
	if *out == "" || flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: sbom [-version VERSION] -o FILE BINARY")
		os.Exit(2)
	}
	if err := write(*out, flag.Arg(0), *version); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func write(out, binary, version string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("reading the modules of %s: %w", binary, err)
	}
	if version != "" {
		info.Main.Version = version
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	e := cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true)
	if err := e.Encode(document(filepath.Base(binary), info)); err != nil {
		return fmt.Errorf("writing %s: %w", out, err)
	}
	return f.Close()
}

func document(name string, info *debug.BuildInfo) *cyclonedx.BOM {
	bom := cyclonedx.NewBOM()
	main := component(&info.Main)
	main.Type, main.Name = cyclonedx.ComponentTypeApplication, name
	properties := []cyclonedx.Property{}
	for _, s := range info.Settings {
		properties = append(properties, cyclonedx.Property{Name: "build:" + s.Key, Value: s.Value})
	}
	main.Properties = &properties
	bom.Metadata = &cyclonedx.Metadata{Component: &main}

	std := component(&debug.Module{Path: "std", Version: info.GoVersion})
	components, needs := []cyclonedx.Component{std}, []string{std.BOMRef}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := component(m)
		components, needs = append(components, c), append(needs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: &needs}}
	return bom
}

// component describes one module by its package URL.
func component(m *debug.Module) cyclonedx.Component {
	url := "pkg:golang/" + m.Path
	if m.Version != "" {
		url += "@" + m.Version
	}
	return cyclonedx.Component{Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url, BOMRef: url}
}
