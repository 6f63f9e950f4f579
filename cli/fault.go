package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/image"
	"github.com/whisk-sandbox/whisk/internal/wall"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/mend"
	"github.com/whisk-sandbox/whisk/userns"
)

// fault prints an error and returns the exit code it calls for.
func (c *call) fault(err error) int {
	// Faults of whisk.toml come all at once, each with its line and a caret below.
	if all, ok := errors.AsType[config.Errors](err); ok {
		for _, e := range all {
			fmt.Fprintf(c.err, "whisk: %s\n", multiline(e.Detail()))
		}
		return launcher.ExitWhisk
	}
	e := launcher.AsError(err)
	if none, ok := errors.AsType[*config.NoProjectError](err); ok && e.Hint == "" {
		e.Hint = none.Hint
	}
	if _, ok := errors.AsType[*image.NotFoundError](err); ok && e.Hint == "" {
		e.Hint = "whisk images"
	}
	// What the machine refuses has more to it than one line: the doctor looks at the rest.
	if _, ok := errors.AsType[*userns.Error](err); ok {
		e.Hint = mend.More(e.Hint)
	}
	if e.Hint == "" && isBare(e.Message) {
		e.Hint = "what this machine withholds: whisk doctor"
	}
	c.warn(e.Message)
	c.hint(e.Hint)
	if e.Exit == 0 {
		return launcher.ExitWhisk
	}
	return e.Exit
}

// isBare tells whether an error ends with the kernel's no, which says nothing of whose it is. It may have come from a
// keeper, as text.
func isBare(message string) bool {
	ends := func(errnos ...unix.Errno) bool {
		return slices.ContainsFunc(errnos, func(e unix.Errno) bool { return strings.HasSuffix(message, ": "+e.Error()) })
	}
	if ends(unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EROFS, unix.ENOSPC, unix.EDQUOT) {
		return true
	}
	// Elsewhere these two are of a path or a value that the user has named.
	mounting := slices.ContainsFunc([]string{"mount ", "make namespaces", "make mounts", "change root", "whisk's folder"}, func(s string) bool { return strings.Contains(message, s) })
	return mounting && ends(unix.EACCES, unix.EINVAL)
}

// warn prints one line to standard error.
func (c *call) warn(message string) { fmt.Fprintf(c.err, "whisk: %s\n", printable(message)) }

// warnf is warn with a format.
func (c *call) warnf(format string, args ...any) { c.warn(fmt.Sprintf(format, args...)) }

// hint prints what to type, if anything.
func (c *call) hint(text string) {
	if text != "" {
		fmt.Fprintf(c.err, "hint: %s\n", printable(text))
	}
}

// usage is an error in the command line itself.
func usage(hint, format string, args ...any) error {
	return &launcher.Error{Message: fmt.Sprintf(format, args...), Hint: hint, Exit: launcher.ExitWhisk}
}

// printable keeps text on one line and off the terminal's controls: whatever is not printable is shown as Go would
// quote it.
func printable(text string) string {
	clean := true
	for _, r := range text {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean || !wall.Up("quoting") {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				fmt.Fprintf(&b, `\x%02x`, text[i])
				continue
			}
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// multiline is printable for text whose line ends and tabs are whisk's own.
func multiline(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		parts := strings.Split(line, "\t")
		for j, p := range parts {
			parts[j] = printable(p)
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.Join(lines, "\n")
}
