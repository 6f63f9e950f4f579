// Command glance fetches a page once and prints what a reader sees at first: its text without tables and folded parts.
// It is for `make demo`, which must not count on curl or a browser.
//
//	glance URL
package main

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: glance URL")
		os.Exit(2)
	}
	if err := glance(os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "glance:", err)
		os.Exit(1)
	}
}

// glance writes the text of the page at url. Any answer but 200 is an error.
func glance(w io.Writer, url string) error {
	// A transport of its own: the default one would obey HTTP_PROXY, and the page is this machine's.
	client := http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const limit = 1 << 20 // the demo's page is some kilobytes
	page, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return fmt.Errorf("reading %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	_, err = io.WriteString(w, text(string(page)))
	return err
}

var (
	hidden = regexp.MustCompile(`(?is)<(style|script|head|table|h3)\b.*?</(style|script|head|table|h3)>|<details\b.*?</details>|<!--.*?-->`)
	blocks = regexp.MustCompile(`(?i)</?(p|div|h[1-6]|li|ul|ol|tr|table|section|article|header|footer|main|dl|br)\b[^>]*>`)
	cells  = regexp.MustCompile(`(?i)</(dt|span)>`)
	tags   = regexp.MustCompile(`<[^>]*>`)
	blanks = regexp.MustCompile(`[ \t]+`)
)

// text is what is left of a page without its markup: one line a block, terms and spans apart by a blank.
func text(page string) string {
	page = hidden.ReplaceAllString(page, "")
	page = strings.ReplaceAll(page, "\n", " ")
	page = blocks.ReplaceAllString(page, "\n")
	page = cells.ReplaceAllString(page, "  ")
	page = tags.ReplaceAllString(page, "")
	var b strings.Builder
	for line := range strings.Lines(html.UnescapeString(page)) {
		if line = strings.TrimSpace(blanks.ReplaceAllString(line, " ")); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}
