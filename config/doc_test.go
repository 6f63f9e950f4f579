package config

import (
	"os"
	"strings"
	"testing"
)

func names[T any](keys []key[T]) []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = k.name
	}
	return all
}

// TestEveryKeyIsDocumented holds the schema and docs/whisk.toml.md together: each key has a row of its section's table
// with a type, a default, a meaning and an example, and each row has a key.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/whisk.toml.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string][]string{
		"The project":              names(fileKeys()),
		"Apps: `[app.NAME]`":       names(appKeys()),
		"Readiness: `ready`":       names(readyKeys()),
		"Network: `[network]`":     names(networkKeys()),
		"Volumes: `[volume.NAME]`": names(volumeKeys()),
		"The user's config.toml":   names(userKeys()),
	}
	documented := map[string]map[string]bool{}
	section, inKeys := "", false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			section = heading
			documented[section] = map[string]bool{}
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			inKeys = false
		case line == "| key | type | default | meaning | example |":
			inKeys = true
		case inKeys && !strings.HasPrefix(line, "|---"):
			if len(cells) != 5 {
				t.Errorf("in %q this row has %d cells, not 5: %s", section, len(cells), line)
				continue
			}
			documented[section][strings.Trim(cells[0], "`")] = true
		}
	}
	for section, keys := range sections {
		for _, k := range keys {
			if !documented[section][k] {
				t.Errorf("key %q has no row in section %q", k, section)
			}
			delete(documented[section], k)
		}
		for k := range documented[section] {
			t.Errorf("section %q documents %q, which is no key", section, k)
		}
	}
}

// TestDocumentedExampleLoads loads the example that the page begins with.
func TestDocumentedExampleLoads(t *testing.T) {
	text, err := os.ReadFile("../docs/whisk.toml.md")
	if err != nil {
		t.Fatal(err)
	}
	var example strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "* [") {
			break
		}
		if code, ok := strings.CutPrefix(line, "    "); ok {
			example.WriteString(code)
		}
	}
	if p := load(t, example.String()); len(p.Apps) != 2 || len(p.Volumes) != 2 || p.Apps[1].Env[0] != "POSTGRES_PASSWORD=dev" {
		t.Errorf("the example loads as %+v", p)
	}
}

// TestDocumentedExamplesOfKeys puts each row's example behind its key.
func TestDocumentedExamplesOfKeys(t *testing.T) {
	text, err := os.ReadFile("../docs/whisk.toml.md")
	if err != nil {
		t.Fatal(err)
	}
	_, apps, _ := strings.Cut(string(text), "## Apps")
	apps, _, _ = strings.Cut(apps, "### Ports")
	rows := 0
	for line := range strings.Lines(apps) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		if len(cells) != 5 || !strings.HasPrefix(cells[4], "`") {
			continue
		}
		rows++
		key, example := strings.Trim(cells[0], "`"), strings.Trim(cells[4], "`")
		files := map[string]string{"app.env": "A=1", FileName: "[app.db]\nimage = 'x'\n[app.web]\n" + key + " = " + example + "\n"}
		if key != "image" {
			files[FileName] += "image = 'x'\n"
		}
		path := write(t, files)
		home := path[:len(path)-len(FileName)]
		if err := os.WriteFile(home+"secrets.env", []byte("B=2"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, LoadOptions{Home: home}); err != nil {
			t.Errorf("the example of %q does not load:\n%v", key, err)
		}
	}
	if rows != len(appKeys()) {
		t.Errorf("%d rows were tried, %d are the keys", rows, len(appKeys()))
	}
}
