package demo

import (
	_ "embed" // the style sheet
	"fmt"
	"net/netip"
	"strings"
)

//go:embed page.css
var style string

// fern is the page's icon, so that no browser asks for one.
const fern = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M8 15V3M8 12l5-3M8 12L3 9M8 8l4-3M8 8L4 5M8 4l2-2M8 4L6 2' stroke='%232f7d4f' stroke-width='1.6' stroke-linecap='round' fill='none'/%3E%3C/svg%3E`

// page is the whole document.
func page(r WebReply) markup {
	store := markup("")
	if r.Store != nil {
		store = sandbox(r.Store.Facts, "keeps the counter in its volume; no port of it is published")
	}
	return "<!DOCTYPE html>\n" + el(`html lang="en"`,
		el("head",
			`<meta charset="utf-8">`,
			`<meta name="viewport" content="width=device-width, initial-scale=1">`,
			`<meta name="color-scheme" content="light dark">`,
			`<link rel="icon" href="`, fern, `">`,
			el("title", "whisk demo"),
			el("style", markup(style)), // from this binary, not from a request
		),
		el("body",
			el("header",
				el("h1", "whisk demo"),
				el("p", "Two apps in two sandboxes: no daemon, no image to fetch, and no network but the one between them."),
			),
			el("main",
				visits(r),
				el(`div class="sandboxes"`, sandbox(r.Web, "draws this page; published on this machine"), store),
			),
			el("footer", el("p",
				"Every line was read from inside its sandbox; ids stand as inside → outside. The same as ", el(`a href="/api"`, "JSON"),
				". To stop: ", el("kbd", "whisk demo --stop"), "; the counter stays.")),
		),
	) + "\n"
}

func visits(r WebReply) markup {
	if r.Store == nil {
		return el(`section class="visits" role="alert"`,
			el(`p id="store-error"`, "store does not answer: ", text(r.Error)))
	}
	v := r.Store.Visits
	word := markup("visits")
	if v.Count == 1 {
		word = "visit"
	}
	return el(`section class="visits" aria-label="Visit counter"`,
		el(`p class="count"`, el(`strong id="visits"`, number(v.Count)), " ", word),
		el("p", "since ", el("time", text(v.First.UTC().Format("2006-01-02 15:04:05 UTC"))),
			", kept by ", el("code", "store"), " across runs"),
	)
}

// sandbox is the article about one app.
func sandbox(f Facts, role markup) markup {
	id := text(f.App)
	files, inner := splitMounts(f.Mounts)
	return el(`article id="`+id+`" aria-labelledby="`+id+`-name"`,
		el(`h2 id="`+id+`-name"`, id),
		el(`p class="role"`, role),
		el("dl",
			fact("Address", each(f.Addresses, func(p netip.Prefix) markup { return line(text(p.String())) })),
			fact("Host name", el("code", text(f.Hostname))),
			fact("User ids", idMap(f.UIDMap)),
			fact("Group ids", idMap(f.GIDMap)),
			rights(f.Rights),
		),
		el("h3", "Processes"),
		table("Every process that "+id+" can see", []markup{"PID", "Name", "Command"},
			each(f.Processes, func(p Process) markup {
				return el("tr", el("td", number(p.PID)), el("td", code(p.Name)), el("td", code(p.Args)))
			})),
		el("h3", "Mounts"),
		mounts("The file systems of "+id, files),
		el("details",
			el("summary", number(len(inner)), " more inside /proc, /sys and /dev"),
			mounts("Mounts inside the kernel's file systems of "+id, inner)),
	)
}

func fact(name, value markup) markup {
	if value == "" {
		value = "none"
	}
	return el("div", el("dt", name), el("dd", value))
}

func line(content markup) markup { return el(`span class="line"`, el("code", content)) }

func code(s string) markup {
	if s == "" {
		return ""
	}
	return el("code", text(s))
}

func idMap(ranges []IDRange) markup {
	return each(ranges, func(r IDRange) markup {
		if r.Count == 1 {
			return line(text(fmt.Sprintf("%d → %d", r.Inside, r.Outside)))
		}
		// In 64 bits: the initial namespace maps 4294967295 ids.
		last := func(first uint32) uint64 { return uint64(first) + uint64(r.Count) - 1 }
		return line(text(fmt.Sprintf("%d–%d → %d–%d", r.Inside, last(r.Inside), r.Outside, last(r.Outside))))
	})
}

func rights(r Rights) markup {
	seccomp := text(r.Seccomp)
	if r.SeccompFilters > 0 {
		seccomp += " (" + number(r.SeccompFilters) + ")"
	}
	return join(
		fact("Runs as", text(fmt.Sprintf("uid %d, gid %d", r.UID, r.GID))),
		fact("Capabilities", capabilities(r.Effective)),
		fact("Ambient capabilities", capabilities(r.Ambient)),
		fact("No new privileges", yes(r.NoNewPrivs)),
		fact("Seccomp", seccomp),
	)
}

func capabilities(names []string) markup {
	if len(names) == 0 {
		return "none"
	}
	all := len(strings.Fields(capabilityNames))
	return text(fmt.Sprintf("%d of %d: ", len(names), all)) + el("small", text(strings.ToLower(strings.Join(names, ", "))))
}

func yes(b bool) markup {
	if b {
		return "yes"
	}
	return "no"
}

// splitMounts parts the mounts that hold files from those that only complete or cover a kernel's file system.
func splitMounts(all []Mount) (files, inner []Mount) {
	for _, m := range all {
		if strings.HasPrefix(m.Point, "/proc/") || strings.HasPrefix(m.Point, "/sys/") || strings.HasPrefix(m.Point, "/dev/") {
			inner = append(inner, m)
			continue
		}
		files = append(files, m)
	}
	return files, inner
}

func mounts(caption markup, all []Mount) markup {
	return table(caption, []markup{"Where", "Type", "From", "Access"}, each(all, func(m Mount) markup {
		from := m.Source
		if m.Root != "" {
			from += "[" + m.Root + "]" // as findmnt(8) writes it
		}
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		if m.Options != "" {
			access += "," + m.Options
		}
		return el("tr", el("td", code(m.Point)), el("td", text(m.Type)), el("td", code(from)), el("td", text(access)))
	}))
}

// table scrolls on its own where it is wider than the screen, and can be reached by keyboard for that.
func table(caption markup, head []markup, rows markup) markup {
	return el(`div class="scroll" role="region" tabindex="0" aria-label="`+caption+`"`, el("table",
		el(`caption class="hidden"`, caption),
		el("thead", el("tr", each(head, func(h markup) markup { return el(`th scope="col"`, h) }))),
		el("tbody", rows)))
}
