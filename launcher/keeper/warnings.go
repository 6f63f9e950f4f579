package keeper

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// maxWarnings bounds what is kept; what a network warns of, it warns of once.
const maxWarnings = 20

// warnings keep what a network warns of, for whisk network inspect. They are a slog.Handler, safe for use by several
// goroutines.
type warnings struct {
	mu    sync.Mutex
	lines []string
}

// Enabled reports whether a level is one of warnings and errors.
func (w *warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle keeps one warning as a line: "message: err; hint".
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	var hint string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "hint":
			hint = "; " + a.Value.String()
		case "err":
			line += ": " + a.Value.String()
		default:
			line += " (" + a.Key + " " + a.Value.String() + ")"
		}
		return true
	})
	line = strings.ReplaceAll(line+hint, "\n", " ")
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) < maxWarnings && !slices.Contains(w.lines, line) {
		w.lines = append(w.lines, line)
	}
	return nil
}

// WithAttrs returns the same handler: slirp's log has no attributes of its own.
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler { return w }

// WithGroup returns the same handler.
func (w *warnings) WithGroup(string) slog.Handler { return w }

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}
