package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// links reads the apps that this one may reach on a network that isolates.
func (d *decoder) links(n *node, a *appPlaces) {
	d.list(n, "links", "names of apps", func(item *node) {
		s, ok := d.str(item, "an entry of links")
		switch {
		case !ok:
		case s == a.app.Name:
			d.fail(item.offset, "", "app %q links to itself", s)
		case slices.Contains(a.app.Links, s):
			d.fail(item.offset, "", "%q is named twice", s)
		default:
			a.app.Links = append(a.app.Links, s)
			a.links = append(a.links, item.offset)
		}
	})
}

// groups reads the groups of the project's network that an app is in.
func (d *decoder) groups(n *node, into *[]string) {
	d.list(n, "networks", "names", func(item *node) {
		var s string
		name := func(s string) (string, error) {
			if err := ValidName(s); err != nil {
				return "", fmt.Errorf("networks: %w", err)
			}
			return s, nil
		}
		if parsed(d, item, "an entry of networks", "a string", name, &s, unstable.String); s == "" {
			return
		}
		if slices.Contains(*into, s) {
			d.fail(item.offset, "", "%q is named twice", s)
			return
		}
		*into = append(*into, s)
	})
	if n.kind == unstable.Array && len(n.items) == 0 {
		d.fail(n.offset, `leave it away for the group "default"`, "networks is empty: the app could reach nobody")
	}
}

// aliases reads further names of an app.
func (d *decoder) aliases(n *node, a *appPlaces) {
	d.list(n, "aliases", "names", func(item *node) {
		var s string
		if parsed(d, item, "an alias", "a string", ParseAlias, &s, unstable.String); s == "" {
			return
		}
		if slices.Contains(a.app.Aliases, s) || s == a.app.Name {
			d.fail(item.offset, "", "%q is named twice", s)
			return
		}
		a.app.Aliases = append(a.app.Aliases, s)
		a.aliases = append(a.aliases, item.offset)
	})
}

// ParseAlias reads a further name of a sandbox on its network: a host name, which is returned in lower case.
func ParseAlias(s string) (string, error) {
	if err := ValidHostname(s); err != nil {
		return "", err
	}
	s = strings.ToLower(s)
	switch {
	case s == "localhost", strings.HasSuffix(s, ".localhost"):
		return "", errors.New("in a sandbox, localhost is the sandbox itself")
	case s == "whisk.internal", strings.HasSuffix(s, ".whisk.internal"):
		return "", fmt.Errorf("alias %q is a name of whisk's own", s)
	}
	return s, nil
}

// reach looks at what links, networks and aliases of apps say about each other.
func (l *loader) reach() {
	if l.broken {
		return
	}
	names := make([]string, len(l.apps))
	for i, a := range l.apps {
		names[i] = a.app.Name
	}
	for _, a := range l.apps {
		for i, name := range a.app.Links {
			at := slices.Index(names, name)
			switch {
			case at < 0:
				l.fail(a.links[i], didYouMean(name, names), "there is no app %q", clip(name))
			case !a.app.meets(&l.apps[at].app):
				l.fail(a.links[i], "give both an entry of networks in common", "apps %q and %q share no network", a.app.Name, name)
			}
		}
		for i, alias := range a.app.Aliases {
			if slices.Contains(names, alias) {
				l.fail(a.aliases[i], "", "alias %q is the name of an app", alias)
			}
		}
	}
}

// meets reports whether two apps are in a group of the network together.
func (a *App) meets(b *App) bool {
	if len(a.Networks) == 0 && len(b.Networks) == 0 {
		return true
	}
	return slices.ContainsFunc(a.groups(), func(g string) bool { return slices.Contains(b.groups(), g) })
}

func (a *App) groups() []string {
	if len(a.Networks) == 0 {
		return []string{"default"}
	}
	return a.Networks
}
