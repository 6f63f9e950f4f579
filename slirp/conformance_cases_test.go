package slirp

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// conversation is one case of the conformance test. want is what the reference's account must have in it, so that the case
// is about what its name says; "IPv4|IPv6" where families differ.
type conversation struct {
	name string
	run  func(r *trial)
	want string
}

// conversations can be had through any carrier.
func conversations() []conversation {
	return []conversation{
		{"0 bytes, client closes first", func(r *trial) {
			c, s := r.joined()
			c.close()
			s.receive(1)
			s.close()
		}, `server receives "": end`},
		{"0 bytes, server closes first", func(r *trial) {
			c, s := r.joined()
			s.close()
			c.receive(1)
			c.close()
		}, `client receives "": end`},
		{"1 byte each way", func(r *trial) {
			c, s := r.joined()
			c.send("a")
			s.receive(1)
			s.send("b")
			c.receive(1)
			c.close()
			s.receive(1)
			s.close()
		}, `client receives "b": ok`},
		{"server speaks first", func(r *trial) {
			c, s := r.joined()
			s.send("220 hello")
			c.receive(9)
			c.send("quit")
			s.receive(4)
			s.close()
			c.receive(1)
		}, `client receives "220 hello": ok`},
		{"client sends and closes at once", func(r *trial) {
			c, s := r.joined()
			together(func() { c.pour(1<<20, 1); c.close() }, s.drain)
			s.close()
		}, "server receives 1048576 bytes"},
		{"server sends and closes at once", func(r *trial) {
			c, s := r.joined()
			together(func() { s.pour(1<<20, 1); s.close() }, c.drain)
			c.close()
		}, "client receives 1048576 bytes"},
		{"client ends sending, then the server sends", func(r *trial) {
			c, s := r.joined()
			c.send("all")
			c.endSending()
			s.receive(4)
			s.pour(3<<20, 2)
			s.close()
			c.drain()
		}, "client receives 3145728 bytes"},
		{"server ends sending, then the client sends", func(r *trial) {
			c, s := r.joined()
			s.send("all")
			s.endSending()
			c.receive(4)
			c.pour(3<<20, 2)
			c.close()
			s.drain()
		}, "server receives 3145728 bytes"},
		{"both end sending at once", func(r *trial) {
			c, s := r.joined()
			together(c.endSending, s.endSending)
			together(func() { c.receive(1) }, func() { s.receive(1) })
			c.close()
			s.close()
		}, `client receives "": end`},
		{"client waits between its last byte and its end", func(r *trial) {
			c, s := r.joined()
			c.send("x")
			s.receive(1)
			time.Sleep(300 * time.Millisecond)
			c.endSending()
			s.receive(1)
			time.Sleep(300 * time.Millisecond)
			s.send("y")
			s.close()
			c.receive(2)
		}, `client receives "y": end`},

		{"server resets before data", func(r *trial) {
			c, s := r.joined()
			s.abort()
			c.receive(1)
			c.send("late")
			c.receive(1)
		}, `client receives "": ECONNRESET`},
		{"server resets after data", func(r *trial) {
			c, s := r.joined()
			s.send("data")
			c.receive(4)
			s.abort()
			c.receive(1)
			c.send("late")
		}, `client receives "": ECONNRESET`},
		{"server resets behind data that is not read yet", func(r *trial) {
			c, s := r.joined()
			s.send("data")
			time.Sleep(200 * time.Millisecond)
			s.abort()
			time.Sleep(200 * time.Millisecond)
			c.receive(5)
			c.receive(1)
		}, `client receives "data": ECONNRESET`},
		{"server resets with the client's bytes unread", func(r *trial) {
			c, s := r.joined()
			c.send("unread")
			time.Sleep(200 * time.Millisecond)
			s.close() // RFC 1122 §4.2.2.13
			c.receive(1)
		}, `client receives "": ECONNRESET`},
		{"server resets at once behind data", func(r *trial) {
			c, s := r.joined()
			s.send("data")
			s.abort()
			c.drainSome()
		}, "ECONNRESET"},
		{"client resets before data", func(r *trial) {
			c, s := r.joined()
			c.abort()
			s.receive(1)
			s.send("late")
			s.receive(1)
		}, `server receives "": ECONNRESET`},
		{"client resets after data", func(r *trial) {
			c, s := r.joined()
			c.send("data")
			s.receive(4)
			c.abort()
			s.receive(1)
			s.send("late")
		}, `server receives "": ECONNRESET`},
		{"client resets behind data that is not read yet", func(r *trial) {
			c, s := r.joined()
			c.send("data")
			time.Sleep(200 * time.Millisecond)
			c.abort()
			time.Sleep(200 * time.Millisecond)
			s.receive(5)
			s.receive(1)
		}, `server receives "data": ECONNRESET`},
		{"client resets with the server's bytes unread", func(r *trial) {
			c, s := r.joined()
			s.send("unread")
			time.Sleep(200 * time.Millisecond)
			c.close()
			s.receive(1)
		}, `server receives "": ECONNRESET`},

		{"client ends sending, then the server resets", func(r *trial) {
			c, s := r.joined()
			c.endSending()
			s.receive(1)
			s.abort()
			c.receive(1)
		}, `client receives "": ECONNRESET`},
		{"server ends sending, then the client resets", func(r *trial) {
			c, s := r.joined()
			s.endSending()
			c.receive(1)
			c.abort()
			s.receive(1)
		}, `server receives "": ECONNRESET`},
		{"client ends sending, then resets itself", func(r *trial) {
			c, s := r.joined()
			c.endSending()
			s.receive(1)
			c.abort()
			s.hangup()
			s.send("late")
		}, "server is told of an error"},
		{"server ends sending, then resets itself", func(r *trial) {
			c, s := r.joined()
			s.endSending()
			c.receive(1)
			s.abort()
			c.hangup()
			c.send("late")
		}, "client is told of an error"},
		{"client sends to a server that has closed", func(r *trial) {
			c, s := r.joined()
			s.close()
			c.receive(1)
			c.send("late")
			c.hangup()
			c.send("later")
		}, `client sends "later": EPIPE`},
		{"server sends to a client that has closed", func(r *trial) {
			c, s := r.joined()
			c.close()
			s.receive(1)
			s.send("late")
			s.hangup()
			s.send("later")
		}, `server sends "later": EPIPE`},
		{"client closes while the server sends", func(r *trial) {
			c, s := r.joined()
			together(func() {
				_, err := io.Copy(struct{ io.Writer }{s.TCPConn}, stream(1))
				s.saw("sends until it fails: %v", err != nil)
			},
				func() { c.receive(1 << 10 / 64); time.Sleep(50 * time.Millisecond); c.close() })
		}, "server sends until it fails: true"},

		{"server reads late", func(r *trial) {
			c, s := r.joined()
			n := c.fill()
			together(c.endSending, func() { r.slowly(s, n) })
			s.send("thanks")
			s.close()
			c.receive(7)
		}, "client sends until nothing happens"},
		{"client reads late", func(r *trial) {
			c, s := r.joined()
			n := s.fill()
			together(s.endSending, func() { r.slowly(c, n) })
			c.send("thanks")
			c.close()
			s.receive(7)
		}, "server sends until nothing happens"},
		{"client resets while the server does not read", func(r *trial) {
			c, s := r.joined()
			c.fill()
			c.abort()
			s.hangup()
			s.drainSome()
		}, "server is told of an error"},
		{"server resets while the client does not read", func(r *trial) {
			c, s := r.joined()
			s.fill()
			s.abort()
			c.hangup()
			c.drainSome()
		}, "client is told of an error"},
		{"one way is stuck, the other one is not", func(r *trial) {
			c, s := r.joined()
			c.fill()
			together(func() { s.pour(1<<20, 5); s.endSending() }, c.drain)
		}, "client receives 1048576 bytes"},

		{"server accepts late", func(r *trial) {
			l, addr := r.listen(16)
			c := r.dial(addr)
			c.send("early")
			time.Sleep(300 * time.Millisecond)
			s := r.accept(l)
			s.receive(5)
			s.send("late")
			c.receive(4)
		}, `client receives "late": ok`},

		{"100 MB each way at once", func(r *trial) {
			c, s := r.joined()
			for _, e := range []*side{c, s} {
				_ = e.SetDeadline(time.Now().Add(6 * patience))
			}
			var wg sync.WaitGroup
			var sent, got [2]string
			for i, e := range []*side{c, s} {
				wg.Go(func() { sent[i] = e.quietly(func(q *side) { q.pour(100<<20, byte(10+i)); q.endSending() }) })
				wg.Go(func() { got[i] = e.quietly((*side).drain) })
			}
			wg.Wait()
			c.saw("%s; %s", sent[0], got[0])
			s.saw("%s; %s", sent[1], got[1])
		}, "receives 104857600 bytes"},
		{"small writes in both directions", func(r *trial) {
			c, s := r.joined()
			for i := range 300 {
				msg := []byte(fmt.Sprintf("%04d", i))
				for _, way := range [][2]*side{{c, s}, {s, c}} {
					b := make([]byte, 4)
					if _, err := way[0].Write(msg); err != nil {
						way[0].saw("sends: %s", outcome(err))
					}
					if _, err := io.ReadFull(way[1], b); err != nil || string(b) != string(msg) {
						way[1].saw("receives %q, want %q: %s", b, msg, outcome(err))
					}
				}
			}
			c.saw("has talked 300 times")
		}, "client has talked 300 times"},

		{"urgent byte among few", func(r *trial) {
			c, s := r.joined()
			c.send("before ")
			c.urgent()
			c.send("after")
			time.Sleep(200 * time.Millisecond)
			c.endSending()
			s.drainWithoutUrgent()
			s.send("ok")
			c.receive(2)
		}, `server receives "before after"`},
		{"urgent byte amid many, from the client", func(r *trial) { c, s := r.joined(); urgentAmid(c, s) }, "4194304 bytes beside the urgent one"},
		{"urgent byte amid many, from the server", func(r *trial) { c, s := r.joined(); urgentAmid(s, c) }, "4194304 bytes beside the urgent one"},
		{"keep-alive", func(r *trial) {
			c, s := r.joined()
			for _, e := range []*side{c, s} {
				err := e.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2})
				e.saw("keeps alive: %s", outcome(err))
			}
			time.Sleep(3500 * time.Millisecond)
			c.send("still")
			s.receive(5)
			s.send("here")
			c.receive(4)
		}, `client receives "here": ok`},
		{"200 connections at once", func(r *trial) {
			l, addr := r.listen(256)
			go serveEchoTCP(l)
			var wg sync.WaitGroup
			var good sync.Map
			for i := range 200 {
				wg.Go(func() {
					conn, err := r.over.client.dialFor(patience, addr)
					if err != nil {
						r.note(&r.client, "connection fails: %s", outcome(err))
						return
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(patience))
					msg := fmt.Sprintf("connection %03d", i)
					_, _ = io.WriteString(conn, msg)
					b := make([]byte, len(msg))
					if _, err := io.ReadFull(conn, b); err != nil || string(b) != msg {
						r.note(&r.client, "receives %q: %s", b, outcome(err))
						return
					}
					good.Store(i, nil)
				})
			}
			wg.Wait()
			n := 0
			good.Range(func(any, any) bool { n++; return true })
			r.note(&r.client, "has its own bytes back from %d", n)
		}, "client has its own bytes back from 200"},
	}
}

// outbound are the conversations that need a destination outside.
func outbound() []conversation {
	connect := func(v4, v6 string) func(*trial) {
		return func(r *trial) { r.dial(at(r.pick(v4, v6), 80)) }
	}
	return []conversation{
		{"refused", func(r *trial) { r.dial(at(r.remote, 9)) }, "ECONNREFUSED"},
		{"no route", connect("203.0.114.1", "2001:db8:dead::1"), "ENETUNREACH"},
		{"unreachable by decree", func(r *trial) {
			if r.over.name == "direct" && r.six() {
				// The kernel says "no route" for such a route of a router's, and "no host" for the machine's own (ip6_pkt_discard).
				// whisk dials from the machine.
				r.over.client = &namespace{r.t, mustHostNS(r.t)}
			}
			connect("203.0.113.129", "2001:db8:bad::1")(r)
		}, "EHOSTUNREACH"},
		{"no such host", connect("198.51.100.77", "2001:db8::77"), "EHOSTUNREACH"},
		{"filtered", connect("203.0.113.1", "2001:db8:f11::1"), "connects: EHOSTUNREACH|connects: EACCES"},
		{"server's queue is full for a while", func(r *trial) {
			l, addr := r.listen(0)
			var queued []*side
			for range 1 { // a queue of 0 holds one
				queued = append(queued, r.dial(addr))
			}
			var late *side
			together(func() { late = r.dial(addr) }, func() {
				time.Sleep(1500 * time.Millisecond) // the first SYN of the second connection has been dropped, and one more
				for range queued {
					s := r.accept(l)
					s.close()
				}
			})
			s := r.accept(l)
			if late == nil {
				return
			}
			late.send("patient")
			s.receive(7)
			s.close()
			late.receive(1)
		}, `server receives "patient": ok`},
		{"listener closes with a connection in its queue", func(r *trial) {
			l, addr := r.listen(4)
			c := r.dial(addr)
			time.Sleep(100 * time.Millisecond)
			l.Close()
			if c != nil {
				c.receive(1)
			}
		}, `client receives "": ECONNRESET`},
		{"host appears while its name is being called", func(r *trial) {
			// Nobody answers for the address at first, so that the SYN waits for more than a second.
			ip := map[string][2]string{"direct": {"198.51.100.101", "2001:db8::101"}, "fast path": {"198.51.100.102", "2001:db8::102"},
				"netstack": {"198.51.100.103", "2001:db8::103"}}[r.over.name]
			addr := ip[0]
			if r.six() {
				addr = ip[1]
			}
			together(func() {
				time.Sleep(1300 * time.Millisecond)
				err := r.over.server.do(func() error { return setUp("inet", addr+map[bool]string{false: "/24", true: "/64"}[r.six()]) })
				if err != nil {
					r.t.Errorf("adding the late address: %v", err)
				}
			}, func() { r.dial(at(addr, 9)) })
			_ = r.over.server.do(func() error {
				l, err := netlink.LinkByName("inet")
				if err == nil {
					a, _ := netlink.ParseAddr(addr + map[bool]string{false: "/24", true: "/64"}[r.six()])
					err = netlink.AddrDel(l, a)
				}
				return err
			})
		}, "ECONNREFUSED"},
	}
}

// slowly reads everything, with pauses, and says whether it was what was sent by fill.
func (r *trial) slowly(s *side, n int64) {
	want := stream(3)
	got, b, w := int64(0), make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		m, err := s.Read(b)
		_, _ = io.ReadFull(want, w[:m])
		if string(b[:m]) != string(w[:m]) {
			s.saw("receives wrong bytes")
			return
		}
		got += int64(m)
		if err != nil {
			s.saw("receives all: %v, then %s", got == n, outcome(err))
			return
		}
		if got < 8<<20 {
			time.Sleep(time.Millisecond)
		}
	}
}

// quietly runs f with a log of its own and returns that.
func (s *side) quietly(f func(*side)) string {
	var log []string
	f(&side{s.TCPConn, s.trial, &log})
	return fmt.Sprint(log)
}

// urgent sends one byte out of band (send(2), MSG_OOB).
func (s *side) urgent() {
	s.control(func(fd int) {
		s.saw("sends an urgent byte: %s", outcome(unix.Sendto(fd, []byte("!"), unix.MSG_OOB, nil)))
	})
}

// drainWithoutUrgent reads to the end. The urgent byte may arrive among the others or not at all: what uses it is older
// than TCP's agreement on where it points (RFC 6093).
func (s *side) drainWithoutUrgent() {
	b, err := io.ReadAll(struct{ io.Reader }{s.TCPConn})
	if err == nil {
		err = io.EOF
	}
	var rest []byte
	for _, c := range b {
		if c != '!' {
			rest = append(rest, c)
		}
	}
	s.trial.t.Logf("%s: the urgent byte arrives in line: %v", s.trial.over.name, len(rest) < len(b))
	s.saw("receives %q: %s", rest, outcome(err))
}

func urgentAmid(from, to *side) {
	const half = 2 << 20
	block := make([]byte, half)
	together(func() {
		for i := range 2 {
			if _, err := from.Write(block); err != nil {
				from.saw("sends: %s", outcome(err))
			}
			if i == 0 {
				from.urgent()
			}
		}
		time.Sleep(200 * time.Millisecond)
		from.endSending()
	}, func() {
		n, urgent := 0, 0
		b := make([]byte, 64<<10)
		for {
			m, err := to.Read(b)
			for _, c := range b[:m] {
				if c == '!' {
					urgent++
				}
			}
			n += m
			if err != nil {
				to.saw("receives %d bytes beside the urgent one: %s", n-urgent, outcome(err))
				break
			}
		}
		to.send("ok")
	})
	from.receive(2)
}
