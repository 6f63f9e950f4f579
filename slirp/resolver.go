package slirp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// resolv.conf(5) waits 5 s for each server, twice. An app's own resolver does the same with this one, so a try here
	// must be shorter for a second server to get its turn.
	resolverTry   = 2 * time.Second
	resolverTotal = 5 * time.Second

	// maxServers is MAXNS of resolv.conf(5).
	maxServers = 3
)

var errNoResolver = errors.New("the host has no name server")

// resolver asks the name servers that the host uses now: the file is looked at for every question (a stat), and read
// when it has changed, so a new network of the host's needs nothing of its sandboxes.
type resolver struct {
	path string

	mu      sync.Mutex
	read    os.FileInfo // the file that servers are from
	servers []string    // host:port
}

func (r *resolver) current() ([]string, error) {
	st, err := os.Stat(r.path)
	if err != nil {
		return nil, errNoResolver
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.read == nil || !os.SameFile(r.read, st) || !r.read.ModTime().Equal(st.ModTime()) || r.read.Size() != st.Size() {
		b, err := os.ReadFile(r.path)
		if err != nil {
			return nil, fmt.Errorf("reading the host's resolver: %w", err)
		}
		r.servers, r.read = nameservers(string(b)), st
	}
	if len(r.servers) == 0 {
		return nil, errNoResolver
	}
	return r.servers, nil
}

// nameservers reads the nameserver lines of a resolv.conf(5).
func nameservers(conf string) []string {
	var out []string
	for line := range strings.Lines(conf) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || len(out) == maxServers || strings.ContainsAny(a.Zone(), "[]") { // no interface has such a name that could be written with a port
			continue
		}
		out = append(out, net.JoinHostPort(a.String(), "53"))
	}
	return out
}

// ask forwards a question as it is and returns the first answer, with the question's id. A server that fails itself
// (SERVFAIL, REFUSED) gives way to the next, and its answer stands if no other does better.
func (r *resolver) ask(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	servers, err := r.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, resolverTotal)
	defer cancel()
	out := q.Copy()
	out.Id = dns.Id() // the app's would be easier to guess
	var poor *dns.Msg
	for _, server := range servers {
		m, aerr := exchange(ctx, out, server)
		if aerr != nil {
			err = fmt.Errorf("asking %s: %w", server, aerr)
			continue
		}
		m.Id = q.Id
		if m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused {
			return m, nil
		}
		poor = m
	}
	if poor != nil {
		return poor, nil
	}
	return nil, err
}

// exchange asks one server over UDP, and over TCP if the answer was cut short.
func exchange(ctx context.Context, q *dns.Msg, server string) (*dns.Msg, error) {
	c := dns.Client{Net: "udp", Timeout: resolverTry}
	m, _, err := c.ExchangeContext(ctx, q, server)
	if err == nil && !m.Truncated {
		return m, sameQuestion(q, m)
	}
	if err != nil && !errors.Is(err, dns.ErrBuf) {
		return nil, err
	}
	c.Net = "tcp"
	t, _, terr := c.ExchangeContext(ctx, q, server)
	if terr != nil {
		if m != nil && m.Truncated {
			return m, sameQuestion(q, m) // as good as it gets: the app sees that it is cut short
		}
		return nil, terr
	}
	return t, sameQuestion(q, t)
}

// sameQuestion guards against answers to something else (RFC 5452 §9.1), and to nothing: a server that answers repeats the
// question, RFC 1035 §4.1, unless it could not read it.
func sameQuestion(q, m *dns.Msg) error {
	if len(q.Question) != 1 {
		return errors.New("not one question")
	}
	asked := q.Question[0]
	switch {
	case !m.Response, m.Opcode != q.Opcode:
		return errors.New("not an answer")
	case len(m.Question) == 0 && m.Rcode == dns.RcodeFormatError && len(m.Answer)+len(m.Ns) == 0:
		return nil
	case len(m.Question) != 1:
		return fmt.Errorf("answer to %d questions", len(m.Question))
	case !strings.EqualFold(asked.Name, m.Question[0].Name), asked.Qtype != m.Question[0].Qtype, asked.Qclass != m.Question[0].Qclass:
		return fmt.Errorf("answer to another question, %q", m.Question[0].Name)
	}
	return nil
}
