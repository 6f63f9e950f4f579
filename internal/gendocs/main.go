// Gendocs writes what a release carries besides the binary, made from the command line's own model: completions for
// bash, zsh and fish below completions/, and the manual page below man/.
//
//	go run ./internal/gendocs [-date RFC3339] [FOLDER]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"github.com/whisk-sandbox/whisk/cli"
)

func main() {
	date := flag.String("date", "", "date on the manual page, RFC 3339; a release gives its commit's, so that it can be built twice")
	flag.Parse()
	if err := run(flag.Arg(0), *date); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

func run(folder, date string) error {
	day := time.Now()
	if date != "" {
		var err error
		if day, err = time.Parse(time.RFC3339, date); err != nil {
			return fmt.Errorf("reading -date: %w", err)
		}
	}
	k, err := cli.Model()
	if err != nil {
		return err
	}
	for name, text := range files(k.Model, day.UTC()) {
		name = filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// files maps each name to its text. The names are those that the shells and man(1) look for.
func files(app *kong.Application, day time.Time) map[string]string {
	root := commands(app.Node)
	return map[string]string{
		"completions/" + root.name + ".bash": bash(root),
		"completions/_" + root.name:          zsh(root),
		"completions/" + root.name + ".fish": fish(root),
		"man/" + root.name + ".1":            manPage(app, day),
	}
}
