package config

import (
	"errors"
	"strings"
)

// SplitWords cuts a command into words as sh(1) does: white space separates, '…' is literal, in "…" a backslash
// escapes \, ", $ and `, elsewhere any character; a backslash before a line end joins the lines. There are no variables,
// globs, operators or comments: what needs a shell says ["sh", "-c", …].
func SplitWords(s string) ([]string, error) {
	words := []string{}
	var word strings.Builder
	open, quote := false, byte(0) // a word has begun; the quote it is in
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == '\'' && c != quote, quote == '"' && c != quote && c != '\\':
			word.WriteByte(c)
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\':
			if i++; i == len(s) {
				return nil, errors.New("it ends in a backslash; write \\\\ for a backslash")
			}
			if s[i] == '\n' {
				continue
			}
			open = true
			if quote == '"' && !strings.ContainsRune("\\\"$`", rune(s[i])) {
				word.WriteByte('\\')
			}
			word.WriteByte(s[i])
		case c == '\'' || c == '"':
			quote, open = c, true
		case strings.IndexByte(" \t\r\n", c) >= 0:
			if open {
				words = append(words, word.String())
				word.Reset()
			}
			open = false
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a " + string(quote) + " is not closed")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
