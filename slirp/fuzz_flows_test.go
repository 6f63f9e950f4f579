package slirp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/whisk-sandbox/whisk/config"
)

// FuzzAnswer reads a resolver's answer for a sandbox that may ask for everything. What it learns is what the answer says of
// the name that was asked for, and what the sandbox gets can be read and fits.
func FuzzAnswer(f *testing.F) {
	for _, lines := range [][]string{
		{"a.test. 60 A 8.0.0.1", "a.test. 60 A 127.0.0.1"},
		{"a.test. 60 CNAME b.test.", "b.test. 60 CNAME c.test.", "c.test. 60 AAAA 2600::1", "c.test. 60 AAAA ::ffff:10.0.0.1"},
		{"a.test. 60 CNAME a.test.", "a.test. 1 TXT x", `a.test. 1 HTTPS 1 . alpn="h3" ipv4hint="127.0.0.1"`},
	} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS} {
			_, m := message(f, "a.test", kind, lines...)
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add("a.test.", kind, uint16(0), b)
			f.Add("a.test.", kind, uint16(1232), b)
		}
	}
	s, _ := fuzzServer(f)
	f.Fuzz(func(t *testing.T, name string, kind, size uint16, b []byte) {
		m := new(dns.Msg)
		if _, valid := dns.IsDomainName(name); !valid || m.Unpack(b) != nil {
			return
		}
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), kind)
		if size > 0 {
			q.SetEdns0(size, false)
		}
		if _, err := q.Pack(); err != nil || sameQuestion(q, m) != nil {
			return
		}
		m.Id = q.Id
		for _, mode := range []config.EgressMode{config.EgressAll, config.EgressInternet} {
			e := &Endpoint{egress: config.Egress{Mode: mode}}
			got := s.take(q, m.Copy(), e)
			said := make(map[netip.Addr]bool)
			for _, rr := range m.Answer {
				if a, ok := addressOf(rr); ok {
					said[a] = true
				}
			}
			for a := range e.known.of {
				if !said[a] || !slices.Equal(e.known.names(time.Now(), a), []string{canonical(name)}) {
					t.Errorf("%s is learned as %q", a, e.known.of[a])
				}
			}
			for _, udp := range []bool{true, false} {
				out, err := packed(q, got.Copy(), udp)
				if err != nil {
					t.Fatalf("the answer cannot be sent: %v", err)
				}
				if limit := max(plainUDP, int(size)); udp && len(out) > limit {
					t.Fatalf("an answer of %d bytes for who takes %d", len(out), limit)
				}
				back := new(dns.Msg)
				if err := back.Unpack(out); err != nil {
					t.Fatalf("the answer cannot be read: %v", err)
				}
				if back.Id != q.Id || !back.Response {
					t.Fatalf("answer %d to question %d", back.Id, q.Id)
				}
			}
		}
	})
}

// scripted is a connection that says what it was given in pieces, and keeps what it is told.
type scripted struct {
	net.Conn
	pieces [][]byte
	ends   bool // after the pieces, or it waits for its deadline

	mu    sync.Mutex
	told  []byte
	wakes chan struct{}
	once  sync.Once
	hangs chan struct{} // closed, and the connection with it, when it has been told a TLS hello
	hung  sync.Once
}

func (s *scripted) Read(b []byte) (int, error) {
	for len(s.pieces) > 0 && len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	if len(s.pieces) > 0 {
		n := copy(b, s.pieces[0])
		s.pieces[0] = s.pieces[0][n:]
		return n, nil
	}
	if s.ends {
		return 0, io.EOF
	}
	select {
	case <-s.wakes:
		return 0, os.ErrDeadlineExceeded
	case <-s.hangs:
		return 0, unix.ECONNRESET
	}
}

func (s *scripted) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, b...)
	if sniff(s.told).hello > 0 && s.hangs != nil {
		s.hung.Do(func() { close(s.hangs) })
	}
	return len(b), nil
}

func (s *scripted) SetReadDeadline(at time.Time) error {
	if !at.IsZero() {
		s.once.Do(func() { close(s.wakes) })
	}
	return nil
}

func (*scripted) SetWriteDeadline(time.Time) error      { return nil }
func (*scripted) CloseWrite() error                     { return nil }
func (*scripted) SyscallConn() (syscall.RawConn, error) { return nil, unix.ENOTSUP }
func (s *scripted) Close() error                        { return s.SetReadDeadline(time.Unix(1, 0)) }

// cutInto cuts bytes into pieces of these lengths, the last of what is left.
func cutInto(b, lengths []byte) (pieces [][]byte) {
	for _, n := range lengths {
		if int(n) >= len(b) {
			break
		}
		pieces, b = append(pieces, b[:n]), b[n:]
	}
	return append(pieces, b)
}

// FuzzInspection has an app speak in pieces while the host speaks too. A host that another name is meant for learns
// nothing that it could act on; one that is meant gets every byte, and so does the app.
func FuzzInspection(f *testing.F) {
	hello := clientHello(f, &tls.Config{ServerName: "a.example"})
	for _, b := range [][]byte{hello, records(hello, 40), clientHello(f, &tls.Config{ServerName: "b.example"}),
		[]byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\nbody"), []byte("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"), []byte("EHLO a.example\r\n"), {0, 0, 0, 8, 4}} {
		f.Add(b, []byte{1, 4, 50}, []byte("220 ready\r\n"))
		f.Add(b, []byte{}, []byte{})
	}
	reply := append([]byte{22, 3, 3, 0, 38, 2, 0, 0, 34, 3, 3}, helloRetry[:]...)
	f.Add(slices.Concat(hello, hello), []byte{200}, reply)
	f.Add(slices.Concat(hello, []byte{20, 3, 3, 0, 1, 1}, clientHello(f, &tls.Config{ServerName: "b.example"})), []byte{}, reply)
	reply = bytes.Clone(reply)
	reply[20] ^= 1
	f.Add(slices.Concat(hello, []byte{20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 1, 9}), []byte{9}, reply)
	f.Fuzz(func(t *testing.T, says, lengths, greeting []byte) {
		app := &scripted{pieces: cutInto(bytes.Clone(says), lengths), ends: true, wakes: make(chan struct{})}
		host := &scripted{pieces: cutInto(bytes.Clone(greeting), lengths), wakes: make(chan struct{}), hangs: make(chan struct{})}
		look := &inspection{app: app, host: host, allowed: func(name string) bool { return name == "a.example" }}
		why := look.run(t.Context())
		if look.err != nil && !errors.Is(look.err, unix.ECONNRESET) {
			t.Fatalf("failed: %v", look.err)
		}
		if !bytes.HasPrefix(says, host.told) || int64(len(host.told)) != look.sent {
			t.Fatalf("the host got %d bytes %q, %d are counted", len(host.told), host.told, look.sent)
		}
		if got := append(bytes.Clone(app.told), look.rest...); !bytes.HasPrefix(greeting, got) || int64(len(app.told)) != look.received {
			t.Fatalf("the app got %q of %q, %d bytes are counted", got, greeting, look.received)
		}
		if first := sniff(host.told); first.hello > 0 && first.hello < len(host.told) && look.reply.retry {
			if second := sniffRetry(host.told[first.hello:]); second.stage != stageNamed || second.names[0] != "a.example" {
				t.Errorf("the host reads a second hello at stage %d for %q", second.stage, second.names)
			}
		}
		name, isTLS := serverReads(host.told)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(host.told, "\r\n"))))
		switch {
		case isTLS && (why != "" && !look.reply.retry || canonical(name) != "a.example"):
			t.Errorf("the host reads a hello for %q, and why is %q", name, why)
		case err == nil && (why != "" || canonical(withoutPort(r.Host)) != "a.example"):
			t.Errorf("the host reads a request for %q, and why is %q", r.Host, why)
		}
	})
}

// FuzzStack sends an established connection of the user-mode stack any segments, and the stack any packets: it must stand.
func FuzzStack(f *testing.F) {
	segment := func(flags header.TCPFlags, seq, ack uint32, payload string) []byte {
		b := make([]byte, 3+header.TCPMinimumSize+len(payload))
		binary.BigEndian.PutUint16(b, uint16(len(b)-2))
		header.TCP(b[3:]).Encode(&header.TCPFields{SeqNum: seq, AckNum: ack, DataOffset: header.TCPMinimumSize, Flags: flags, WindowSize: 1000})
		copy(b[3+header.TCPMinimumSize:], payload)
		return b
	}
	const ack, fin, rst = header.TCPFlagAck, header.TCPFlagFin, header.TCPFlagRst
	f.Add(false, slices.Concat(segment(ack, 0, 0, "hello"), segment(ack|fin, 5, 0, "")))
	f.Add(true, slices.Concat(segment(ack, 5, 0, "late"), segment(ack, 0, 0, "hello"), segment(rst, 9, 0, "")))
	f.Add(true, segment(header.TCPFlagSyn, 0, 0, ""))
	src4, dst4 := pair4()
	whole := synPacket(src4, dst4)
	f.Add(false, slices.Concat([]byte{0, byte(1 + len(whole)), 1}, whole))
	f.Fuzz(func(t *testing.T, six bool, b []byte) {
		src, dst := pair4()
		if six {
			src, dst = pair6()
		}
		stack := newFuzzStack(t, flow{protoTCP, src, dst})
		defer stack.close()
		for len(b) >= 3 {
			n := min(2+int(binary.BigEndian.Uint16(b)), len(b))
			if n < 3 {
				break
			}
			kind, piece := b[2], b[3:n]
			b = b[n:]
			if kind&1 == 0 {
				piece = stack.ofFlow(piece)
			}
			if p, err := parsePacket(bytes.Clone(piece)); err == nil && p.proto == protoTCP {
				stack.netstack.segment(p.ip)
			}
		}
	})
}

// fuzzStack is a user-mode stack with a connection, on an uplink that is a socket of the test's.
type fuzzStack struct {
	*netstack
	flow     flow
	link     int
	seq, ack uint32
	app      halfCloser
}

func newFuzzStack(t *testing.T, fl flow) *fuzzStack {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "uplink")
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{ctx: t.Context(), log: slog.New(slog.DiscardHandler), up: &uplink{file, raw}}
	g.tcp.init(g, nil, nil)
	s := &fuzzStack{netstack: &netstack{flows: &g.tcp}, flow: fl, link: fds[1], seq: 1000}
	waiting := &tcpFlow{passed: true, app: make(chan halfCloser, 1)}
	waiting.ctx, waiting.cancel = context.WithCancel(t.Context())
	g.tcp.flows[fl] = waiting
	s.netstack.syn(s.packet(header.TCPFields{SeqNum: s.seq, Flags: header.TCPFlagSyn, DataOffset: header.TCPMinimumSize, WindowSize: 1000}, nil))
	answer := make([]byte, maxFrame)
	poll := []unix.PollFd{{Fd: int32(fds[1]), Events: unix.POLLIN}}
	_, _ = unix.Poll(poll, 10_000)
	n, err := unix.Read(fds[1], answer)
	if err != nil || n <= frameHeader {
		t.Fatalf("the stack does not answer a SYN: %v", err)
	}
	p, err := parsePacket(answer[frameHeader:n])
	if err != nil {
		t.Fatalf("the stack answers a SYN with %x: %v", answer[:n], err)
	}
	s.seq, s.ack = s.seq+1, header.TCP(p.transport).SequenceNumber()+1
	s.netstack.segment(s.packet(header.TCPFields{SeqNum: s.seq, AckNum: s.ack, Flags: header.TCPFlagAck, DataOffset: header.TCPMinimumSize, WindowSize: 1000}, nil))
	select {
	case s.app = <-waiting.app:
	case <-time.After(10 * time.Second):
		t.Fatal("the handshake does not end")
	}
	return s
}

func (s *fuzzStack) packet(f header.TCPFields, payload []byte) []byte {
	f.SrcPort, f.DstPort = s.flow.src.Port(), s.flow.dst.Port()
	ip, t := ipPacket(protoTCP, s.flow.src.Addr(), s.flow.dst.Addr(), header.TCPMinimumSize+len(payload))
	header.TCP(t).Encode(&f)
	copy(t[header.TCPMinimumSize:], payload)
	return ip
}

// ofFlow makes any bytes a segment of the connection, its numbers counted from where that is.
func (s *fuzzStack) ofFlow(b []byte) []byte {
	if len(b) < header.TCPMinimumSize {
		return nil
	}
	ip, t := ipPacket(protoTCP, s.flow.src.Addr(), s.flow.dst.Addr(), min(len(b), 60000))
	copy(t, b)
	binary.BigEndian.PutUint16(t, s.flow.src.Port())
	binary.BigEndian.PutUint16(t[2:], s.flow.dst.Port())
	binary.BigEndian.PutUint32(t[4:], s.seq+header.TCP(b).SequenceNumber())
	binary.BigEndian.PutUint32(t[8:], s.ack+header.TCP(b).AckNumber())
	return ip
}

func (s *fuzzStack) close() {
	reset(s.app)
	s.netstack.close()
	s.netstack.flows.gate.up.close()
	unix.Close(s.link)
}
