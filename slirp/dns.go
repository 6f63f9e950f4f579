package slirp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/whisk-sandbox/whisk/config"
)

const (
	// localTTL is how long an app may remember where another is, in seconds: addresses change when apps are restarted.
	localTTL = 5

	// maxForwarded bounds questions at the host's resolver. Each waits for resolverTotal at most.
	maxForwarded = 256

	// maxDNSConns bounds connections of TCP, each of which may ask many questions.
	maxDNSConns = 256

	// dnsIdle closes a TCP connection that asks nothing more (RFC 7766 §6.2.3 asks for a few seconds).
	dnsIdle = 8 * time.Second

	// plainUDP is the size of an answer to who did not say how much it can take (RFC 1035 §2.3.4).
	plainUDP = 512
)

// nameServer answers on the gateway's addresses: the network's own names itself, the rest from the host's resolver.
type nameServer struct {
	log      *slog.Logger
	names    *names
	resolver resolver
	gateway  [2]netip.Addr
	subnets  [2]netip.Prefix
	isHost   func(netip.Addr) bool
	flowlog  *flowLog

	ctx     context.Context
	asking  shares // questions at the host's resolver
	conns   shares // connections of TCP
	servers []*dns.Server
	wg      sync.WaitGroup
}

// listen opens the sockets. It runs on the router's thread.
func (s *nameServer) listen(ctx context.Context) error {
	s.ctx = ctx
	s.asking = shares{limit: maxForwarded, share: maxForwarded / 4}
	s.conns = shares{limit: maxDNSConns, share: maxDNSConns / 4}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(w, q) })
	for _, gw := range s.gateway {
		at := net.JoinHostPort(gw.String(), "53")
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // nothing between these two kernels that it could route around
		pc, err := lc.ListenPacket(ctx, "udp", at)
		if err != nil {
			return fmt.Errorf("serving DNS: %w", err)
		}
		s.servers = append(s.servers, &dns.Server{PacketConn: pc, Handler: handler, UDPSize: dns.DefaultMsgSize})
		l, err := lc.Listen(ctx, "tcp", at)
		if err != nil {
			return fmt.Errorf("serving DNS: %w", err)
		}
		s.servers = append(s.servers, &dns.Server{Listener: &sharedListener{l, &s.conns}, Handler: handler, IdleTimeout: func() time.Duration { return dnsIdle }})
	}
	return nil
}

func (s *nameServer) start() {
	for _, srv := range s.servers {
		s.wg.Go(func() {
			if err := srv.ActivateAndServe(); err != nil && s.ctx.Err() == nil {
				s.log.Error("name server ended", "err", err)
			}
		})
	}
}

func (s *nameServer) close() {
	for _, srv := range s.servers {
		// Shutdown would wait for questions under way, and fails on a server that has not begun.
		if srv.PacketConn != nil {
			srv.PacketConn.Close()
		}
		if srv.Listener != nil {
			srv.Listener.Close()
		}
		_ = srv.Shutdown()
	}
	s.wg.Wait()
}

func (s *nameServer) serve(w dns.ResponseWriter, q *dns.Msg) {
	e := s.asker(w.RemoteAddr())
	m := s.answer(q, e)
	if m == nil {
		if s.asking.take(e.v4) {
			m = s.ask(q, e)
			s.asking.give(e.v4)
		} else {
			m = failure(q, dns.RcodeServerFailure)
		}
	}
	_, udp := w.LocalAddr().(*net.UDPAddr)
	b, err := packed(q, m, udp)
	if err == nil {
		_, err = w.Write(b)
	}
	if err != nil && s.ctx.Err() == nil {
		s.log.Debug("name not answered", "err", err)
	}
}

// packed writes an answer as its asker can take it. What a resolver has said and cannot be said again is a failure of its.
func packed(q, m *dns.Msg, udp bool) ([]byte, error) {
	size := dns.MaxMsgSize - 1 // RFC 7766 §8: its length is told in 16 bits
	if udp {
		size = plainUDP
		if opt := q.IsEdns0(); opt != nil && int(opt.UDPSize()) > size {
			size = int(opt.UDPSize())
		}
	}
	m.Truncate(size)
	b, err := m.Pack()
	if err != nil || len(b) > size {
		return failure(q, dns.RcodeServerFailure).Pack()
	}
	return b, nil
}

// asker is the sandbox that a question is from; nil if no sandbox has that address.
func (s *nameServer) asker(from net.Addr) *Endpoint {
	ap, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return nil
	}
	return s.names.endpoint(ap.Addr().Unmap())
}

// ask asks the host's resolver for a sandbox, and remembers what the answer calls its addresses.
func (s *nameServer) ask(q *dns.Msg, e *Endpoint) *dns.Msg {
	out := q
	if e.egress.Mode == config.EgressList {
		out = plainQuestion(q)
	}
	m, err := s.resolver.ask(s.ctx, out)
	if err != nil {
		s.log.Debug("name not resolved", "name", q.Question[0].Name, "err", err)
		return failure(q, dns.RcodeServerFailure)
	}
	return s.take(q, m, e)
}

// take reads the resolver's answer m to a sandbox's question, and returns what the sandbox gets of it.
func (s *nameServer) take(q, m *dns.Msg, e *Endpoint) *dns.Msg {
	if e.egress.Mode == config.EgressList {
		m = filterAnswer(q, m, func(a netip.Addr) bool { return answerable(e.egress.Rules, a, s.isHost) })
	}
	addrs, ttl := addressesOf(q, m)
	e.known.learn(time.Now(), canonical(q.Question[0].Name), ttl, addrs...)
	return m
}

// answer answers what the network itself knows or the sandbox's policy forbids; nil means that the host's resolver is to
// be asked.
func (s *nameServer) answer(q *dns.Msg, e *Endpoint) *dns.Msg {
	if e == nil {
		return failure(q, dns.RcodeRefused)
	}
	if q.Opcode != dns.OpcodeQuery || q.Response {
		return failure(q, dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 {
		return failure(q, dns.RcodeFormatError)
	}
	question := q.Question[0]
	name := canonical(question.Name)
	if question.Qclass != dns.ClassINET {
		return failure(q, dns.RcodeRefused)
	}
	if v4, v6, ok := s.lookup(name, e); ok {
		if len(v4) == 0 {
			return prohibitedName(q, "the app may not reach it")
		}
		return addresses(q, v4, v6)
	}
	if a, ok := reverseName(name); ok && (s.subnets[0].Contains(a) || s.subnets[1].Contains(a)) {
		return s.pointer(q, a, e)
	}
	if name == "whisk.internal" || strings.HasSuffix(name, ".whisk.internal") {
		return failure(q, dns.RcodeNameError)
	}
	return s.forbid(q, e)
}

func (s *nameServer) lookup(name string, e *Endpoint) (v4, v6 []netip.Addr, ok bool) {
	if name == hostName {
		return s.gateway[:1], s.gateway[1:], true
	}
	return s.names.lookup(name, e)
}

// addresses answers with records of the type asked for; other types exist, and are empty (NODATA).
func addresses(q *dns.Msg, v4, v6 []netip.Addr) *dns.Msg {
	m := reply(q)
	head := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: localTTL}
	switch q.Question[0].Qtype {
	case dns.TypeA:
		head.Rrtype = dns.TypeA
		for _, a := range v4 {
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
		}
	case dns.TypeAAAA:
		head.Rrtype = dns.TypeAAAA
		for _, a := range v6 {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
		}
	}
	return m
}

func (s *nameServer) pointer(q *dns.Msg, a netip.Addr, e *Endpoint) *dns.Msg {
	name, ok := s.names.reverse(a, e)
	if a == s.gateway[0] || a == s.gateway[1] {
		name, ok = hostName, true
	}
	if !ok {
		return failure(q, dns.RcodeNameError)
	}
	m := reply(q)
	if q.Question[0].Qtype == dns.TypePTR {
		m.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Rrtype: dns.TypePTR, Ttl: localTTL}, Ptr: dns.Fqdn(name)}}
	}
	return m
}

func reply(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, opt.Do())
	}
	return m
}

func failure(q *dns.Msg, code int) *dns.Msg {
	m := reply(q)
	m.Rcode = code
	return m
}

// reverseName reads an address out of a canonical name under in-addr.arpa or ip6.arpa.
func reverseName(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(s, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil && a.Is4()
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var text []byte
	for i := 62; i >= 0; i -= 2 {
		if i > 0 && s[i-1] != '.' {
			return netip.Addr{}, false
		}
		text = append(text, s[i])
		if n := 32 - i/2; n%4 == 0 && n < 32 {
			text = append(text, ':')
		}
	}
	a, err := netip.ParseAddr(string(text))
	return a, err == nil && a.Zone() == ""
}
