package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2/unstable"
)

// LoadOptions is what a file's meaning depends on besides its bytes.
type LoadOptions struct {
	LookupEnv Lookup // the environment, os.LookupEnv; it wins over .env. Nil: empty
	Home      string // what ~ stands for; empty: ~ is a fault
	Egress    string // Project.Egress where whisk.toml says nothing, as ParseEgress reads it; empty: "all"
}

// maxFile bounds what is read: a whisk.toml is written by hand.
const maxFile = 1 << 20

// Load reads and checks the whisk.toml at path, with the .env beside it and the env_files it names. The error is
// Errors, with every fault found, or that of reading path itself. Faults name path as it is given. Load is safe for
// concurrent use and reads nothing but these files; it does not ask whether mount sources exist.
func Load(path string, opts LoadOptions) (*Project, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading project: %w", err)
	}
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading project: %w", err)
	}
	src := newSource(path, data)
	lookup, dotenvFaults := withDotenv(filepath.Join(filepath.Dir(path), ".env"), opts.LookupEnv)
	l := newLoader(file, src, LoadOptions{LookupEnv: lookup, Home: opts.Home, Egress: opts.Egress})
	l.load()
	if faults := append(src.errs, dotenvFaults...); len(faults) > 0 {
		return nil, faults.sorted(path)
	}
	return l.project, nil
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening it: that would wait at a pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(data) > maxFile {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is larger than 1 MiB")}
	}
	return data, err
}

// fileFault says what is wrong with a file that the sentence around it names.
func fileFault(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return err.Error()
}

// withDotenv returns a lookup that asks env first and then the .env file at path, which may be missing.
func withDotenv(path string, env Lookup) (Lookup, Errors) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return env, nil
	}
	var entries []string
	var faults Errors
	if err == nil {
		entries, faults = parseEnvFile(path, data, env) // what is right stands in spite of what is not
	} else {
		faults = Errors{{File: path, Line: 1, Column: 1, Msg: fileFault(err)}}
	}
	values := make(map[string]string, len(entries))
	for _, e := range entries {
		k, v := cutEntry(e)
		values[k] = v
	}
	return func(name string) (string, bool) {
		if env != nil {
			if v, ok := env(name); ok {
				return v, true
			}
		}
		v, ok := values[name]
		return v, ok
	}, faults
}

// loader reads one whisk.toml.
type loader struct {
	decoder
	project *Project
	nameDir string // the file's folder as faults name it
	named   bool   // the file gives the project a name
	broken  bool   // after a syntax fault, nothing is said to be missing
	apps    []*appPlaces
	volumes *node // the table [volume], or nil

	volumeAt map[string]int // where each declared volume stands
}

// newLoader prepares to read src as the whisk.toml at the absolute path file.
func newLoader(file string, src *source, opts LoadOptions) *loader {
	dir := filepath.Dir(file)
	return &loader{
		decoder: decoder{source: src, dir: dir, home: opts.Home, lookup: opts.LookupEnv},
		project: &Project{Name: DefaultName(dir), File: file, Dir: dir, Egress: cmp.Or(opts.Egress, "all")},
		nameDir: filepath.Dir(src.name), volumeAt: map[string]int{},
	}
}

// load fills the project, or the source's faults.
func (l *loader) load() {
	doc := parseDocument(l.source)
	l.broken = doc.broken
	l.file(doc.root)
	l.check()
	doc.conform()
}

// file reads the tables of the whole file.
func (l *loader) file(root *node) {
	if len(root.fields) == 0 && !l.broken {
		l.fail(0, "whisk init writes an example", "the file is empty; an app is a table [app.NAME] with an image")
		return
	}
	table(&l.decoder, root, FileName, fileKeys(), l)
	if root.index["app"] == nil && !l.broken {
		l.fail(0, "whisk init writes an example", "there is no app; an app is a table [app.NAME] with an image")
	}
}

// fileKeys are the keys and tables at the top of whisk.toml.
func fileKeys() []key[loader] {
	return []key[loader]{
		{"name", func(d *decoder, n *node, l *loader) {
			if s, ok := d.str(n, "name"); ok {
				if err := ValidName(s); err != nil {
					d.fail(n.offset, "", "project %v", err)
				} else if ReservedNetwork(s) {
					d.fail(n.offset, "choose another name", "the project is called %q, and so is its network: the name means something else there", s)
				}
				l.project.Name, l.named = s, true
			}
		}},
		{"app", func(d *decoder, n *node, l *loader) { l.appTables(n) }},
		{"network", func(d *decoder, n *node, l *loader) {
			table(d, n, "[network]", networkKeys(), l.project)
		}},
		{"volume", func(d *decoder, n *node, l *loader) { l.volumeTables(n) }},
	}
}

// networkKeys are the keys of [network].
func networkKeys() []key[Project] {
	return []key[Project]{
		{"egress", func(d *decoder, n *node, p *Project) { d.egress(n, &p.Egress) }},
		{"isolate", func(d *decoder, n *node, p *Project) { d.boolean(n, "isolate", &p.Isolate) }},
		{"host_ports", func(d *decoder, n *node, p *Project) { d.hostPorts(n, &p.HostPorts) }},
	}
}

// volumeTables reads [volume.NAME].
func (l *loader) volumeTables(n *node) {
	if !l.is(n, unstable.Table, "volume", "tables [volume.NAME]") {
		return
	}
	l.volumes = n
	for _, f := range n.fields {
		if err := ValidName(f.key); err != nil {
			l.fail(f.offset, "", "volume %v", err)
		}
		v := Volume{Name: f.key}
		l.volumeAt[f.key] = f.offset
		table(&l.decoder, f.value, fmt.Sprintf("[volume.%s]", clip(f.key)), volumeKeys(), &v)
		l.project.Volumes = append(l.project.Volumes, v)
	}
}

// volumeKeys are the keys of [volume.NAME].
func volumeKeys() []key[Volume] {
	return []key[Volume]{
		{"labels", func(d *decoder, n *node, v *Volume) { d.labels(n, &v.Labels) }},
		{"external", func(d *decoder, n *node, v *Volume) { d.boolean(n, "external", &v.External) }},
	}
}
