package slirp

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// clientHello captures the first bytes that crypto/tls sends.
func clientHello(tb testing.TB, c *tls.Config) []byte {
	tb.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go func() { _ = tls.Client(there, c).Handshake() }()
	b := make([]byte, 1<<16)
	n, err := here.Read(b)
	if err != nil {
		tb.Fatalf("capturing a hello: %v", err)
	}
	return b[:n]
}

// echConfigs is a list with one configuration for encrypted hellos, whose public name is given.
func echConfigs(tb testing.TB, public string) []byte {
	tb.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	var c []byte
	c = append(c, 7)          // id
	c = append(c, 0x00, 0x20) // DHKEM(X25519, HKDF-SHA256)
	c = binary.BigEndian.AppendUint16(c, 32)
	c = append(c, key.PublicKey().Bytes()...)
	c = append(c, 0, 4, 0, 1, 0, 1) // HKDF-SHA256, AES-128-GCM
	c = append(c, 32, byte(len(public)))
	c = append(append(c, public...), 0, 0)
	one := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(c)))
	one = append(one, c...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(one))), one...)
}

// records spreads one record's content over records of so many bytes.
func records(hello []byte, size int) []byte {
	var out []byte
	for part := range slices.Chunk(hello[5:], size) {
		out = append(out, hello[0], hello[1], hello[2], byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

// version writes another version into each record.
func version(recs []byte, major, minor byte) []byte {
	out := slices.Clone(recs)
	for at := 0; at < len(out); at += 5 + int(binary.BigEndian.Uint16(out[at+3:])) {
		out[at+1], out[at+2] = major, minor
	}
	return out
}

// wider puts a second message into the record of a hello.
func wider(hello []byte) []byte {
	out := append(slices.Clone(hello), hello[5:]...)
	binary.BigEndian.PutUint16(out[3:], uint16(2*(len(hello)-5)))
	return out
}

// helloOf writes a ClientHello with these extensions, as they are.
func helloOf(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	if all := bytes.Join(extensions, nil); extensions != nil {
		body = append(binary.BigEndian.AppendUint16(body, uint16(len(all))), all...)
	}
	hs := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(hs) >> 8), byte(len(hs))}, hs...)
}

// sni is a server_name extension with these names.
func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0, byte(len(n)>>8), byte(len(n))), n...)
	}
	out := []byte{0, 0, byte((len(list) + 2) >> 8), byte(len(list) + 2), byte(len(list) >> 8), byte(len(list))}
	return append(out, list...)
}

func TestSniff(t *testing.T) {
	plain := clientHello(t, &tls.Config{ServerName: "API.example.com"})
	for _, c := range []struct {
		name string
		b    []byte
		want stage
		host string // names, joined by blanks
	}{
		{"nothing", nil, stageOpen, ""},
		{"TLS", plain, stageNamed, "api.example.com"},
		{"TLS in small records", records(plain, 7), stageNamed, "api.example.com"},
		{"TLS, and more behind it", append(slices.Clone(plain), plain...), stageNamed, "api.example.com"},
		{"TLS 1.2", clientHello(t, &tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12}), stageNamed, "a.example"},
		{"TLS with an encrypted hello", clientHello(t, &tls.Config{ServerName: "secret.example", EncryptedClientHelloConfigList: echConfigs(t, "front.example")}), stageNamed, "front.example"},
		{"TLS without a name", clientHello(t, &tls.Config{InsecureSkipVerify: true}), stageBad, ""},
		{"TLS to an address", clientHello(t, &tls.Config{ServerName: "192.0.2.1"}), stageBad, ""},
		{"TLS without extensions", helloOf(), stageBad, ""},
		{"TLS with one name", helloOf(sni("a.example")), stageNamed, "a.example"},
		{"TLS with a last dot", helloOf(sni("a.example.")), stageNamed, "a.example"},
		{"TLS with two names in one extension", helloOf(sni("a.example", "b.example")), stageBad, ""},
		{"TLS with two extensions", helloOf(sni("a.example"), sni("b.example")), stageBad, ""},
		{"TLS with an empty name", helloOf(sni("")), stageBad, ""},
		{"TLS with a zero byte", helloOf(sni("a.example\x00.b")), stageBad, ""},
		{"TLS with an address", helloOf(sni("127.0.0.1")), stageBad, ""},
		{"TLS with a cut extension", helloOf(sni("a.example")[:8]), stageBad, ""},
		{"TLS, half of it", plain[:len(plain)/2], stageHeld, ""},
		{"TLS, its first header only", plain[:5], stageHeld, ""},
		{"TLS, its first bytes only", plain[:3], stageOpen, ""},
		{"TLS after an alert", append([]byte{21, 3, 3, 0, 2, 1, 0}, plain...), stageBad, ""},
		{"TLS with an empty record before it", append([]byte{22, 3, 3, 0, 0}, plain...), stageBad, ""},
		{"TLS, a server's hello", []byte{22, 3, 3, 0, 5, 2, 0, 0, 1, 0}, stageBad, ""},
		{"TLS in SSL 2's form", []byte{0x80, 0x2e, 1, 3, 1, 0, 0}, stageBad, ""},
		{"TLS in SSL 2's form, its beginning", []byte{0x80}, stageOpen, ""},
		{"TLS in a record of version 1.0, which is none", version(plain, 1, 0), stageNamed, "api.example.com"},
		{"TLS in a record of version 3.9", version(plain, 3, 9), stageNamed, "api.example.com"},
		{"TLS in a record of version 255.255", version(plain, 255, 255), stageNamed, "api.example.com"},
		{"TLS in small records of version 9.9", version(records(plain, 3), 9, 9), stageNamed, "api.example.com"},
		{"TLS in records of many versions", append(version(records(plain, 100), 3, 1)[:105], version(records(plain, 100), 15, 0)[105:]...), stageNamed, "api.example.com"},
		{"TLS after a warning of version 9.9", append([]byte{21, 9, 9, 0, 2, 1, 0}, plain...), stageBad, ""},
		{"TLS after a change of ciphers of version 9.9", append([]byte{20, 9, 9, 0, 1, 1}, plain...), stageBad, ""},
		{"TLS with an empty record of version 9.9 before it", append([]byte{22, 9, 9, 0, 0}, plain...), stageBad, ""},
		{"TLS of version 9.9, its beginning", version(plain, 9, 9)[:8], stageOpen, ""},
		{"TLS of version 9.9, a tenth", version(plain, 9, 9)[:20], stageHeld, ""},
		{"TLS with more in the hello's record", wider(plain), stageBad, ""},
		{"TLS in SSL 2's form, of version 9.9", []byte{0x80, 28, 1, 9, 9, 0, 3, 0, 0, 0, 16, 1, 2, 3}, stageBad, ""},
		{"not TLS in SSL 2's form", []byte{0x80, 28, 1, 9, 9, 0, 3, 0, 0, 0, 17, 1, 2, 3}, stageOpen, ""},
		{"MongoDB", []byte{22, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0}, stageOpen, ""},
		{"MongoDB, another question", []byte{22, 1, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0}, stageOpen, ""},

		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: API.example.com:8080\r\n\r\n"), stageNamed, "api.example.com"},
		{"HTTP with bare line ends", []byte("GET / HTTP/1.1\nhost:a.example\n\n"), stageNamed, "a.example"},
		{"HTTP after empty lines", []byte("\r\n\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageNamed, "a.example"},
		{"HTTP with a method of its own", []byte("frob / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageNamed, "a.example"},
		{"HTTP, absolute", []byte("GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageNamed, "a.example b.example"},
		{"HTTP, absolute with a user", []byte("GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP, absolute with a query only", []byte("GET http://b.example?x HTTP/1.0\r\n\r\n"), stageNamed, "b.example"},
		{"HTTP, CONNECT", []byte("CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageNamed, "a.example b.example"},
		{"HTTP, OPTIONS", []byte("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageNamed, "a.example"},
		{"HTTP, two hosts", []byte("GET / HTTP/1.1\r\nHost: a.example\r\nhost: b.example\r\n\r\n"), stageBad, ""},
		{"HTTP, folded host", []byte("GET / HTTP/1.1\r\nHost: a.example\r\n .b.example\r\n\r\n"), stageBad, ""},
		{"HTTP, folded first line", []byte("GET / HTTP/1.1\r\n Host: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP, blank before the colon", []byte("GET / HTTP/1.1\r\nHost : b.example\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP, a line without a colon", []byte("GET / HTTP/1.1\r\nHost\r\n\r\n"), stageBad, ""},
		{"HTTP, no host", []byte("GET / HTTP/1.0\r\n\r\n"), stageBad, ""},
		{"HTTP, empty host", []byte("GET / HTTP/1.1\r\nHost:\r\n\r\n"), stageBad, ""},
		{"HTTP, an address", []byte("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"), stageBad, ""},
		{"HTTP, an IPv6 address", []byte("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), stageBad, ""},
		{"HTTP, two names in one field", []byte("GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n"), stageBad, ""},
		{"HTTP, a bare carriage return", []byte("GET / HTTP/1.1\r\nX: y\rHost: b.example\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP, two blanks", []byte("GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP, tabs", []byte("GET\t/\tHTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP, another version", []byte("GET / HTTP/1.2\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP/2 in clear", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), stageBad, ""},
		{"HTTP, the head goes on", []byte("GET / HTTP/1.1\r\nHost: a.example\r\n"), stageHeld, ""},
		{"HTTP, the first line goes on", []byte("GET / HTTP/1.1"), stageOpen, ""},
		{"HTTP, too long a head", []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxSniff)), stageBad, ""},
		{"HTTP, too long a line", []byte("GET /" + strings.Repeat("x", maxSniff)), stageBad, ""},
		{"HTTP/0.9", []byte("GET /\r\n"), stageBad, ""},
		{"HTTP/0.9 after a tab", []byte("\tGET  /x\n"), stageBad, ""},
		{"HTTP after a blank", []byte(" GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP after a tab", []byte("\tGET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP after a vertical tab", []byte("\x0bGET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP after a form feed and lines", []byte("\r\n\x0c\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP after a zero byte", []byte("\x00GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP after a blank of Latin 1", []byte("\xa0GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP with a zero byte", []byte("GET /\x00 HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP with a zero byte in its method", []byte("GET\x00 / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP with brackets in its method", []byte("(GET) / HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP with a vertical tab behind its method", []byte("GET\x0b/ HTTP/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP in small letters", []byte("get / http/1.1\r\nHost: a.example\r\n\r\n"), stageBad, ""},
		{"HTTP after a blank, the first line goes on", []byte(" GET / HTTP/1.1"), stageOpen, ""},
		{"HTTP with half a line end", []byte("GET / HTTP/1.1\rHost: a.example\r\r"), stageBad, ""},
		{"blanks only", []byte(" \t\r\n"), stageOpen, ""},
		{"another protocol with a long line", append([]byte{0, 1, 2}, bytes.Repeat([]byte("x"), maxSniff)...), stageOther, ""},

		{"ssh", []byte("SSH-2.0-OpenSSH_10.0\r\n"), stageOther, ""},
		{"PostgreSQL", []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}, stageOpen, ""},
		{"Redis", []byte("*1\r\n$4\r\nPING\r\n"), stageOther, ""},
		{"SMTP", []byte("EHLO client.example\r\n"), stageOther, ""},
		{"git", []byte("003agit-upload-pack /x.git\x00host=a.example\x00"), stageOpen, ""},
		{"AMQP", []byte("AMQP\x00\x00\x09\x01"), stageOpen, ""},
		{"memcached", []byte("get x\r\n"), stageOther, ""},
		{"a word", []byte("hello"), stageOpen, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := sniff(c.b)
			if s.stage != c.want || strings.Join(s.names, " ") != c.host {
				t.Errorf("got stage %d, names %v, why %q; want stage %d, names %q", s.stage, s.names, s.why, c.want, c.host)
			}
			if (s.stage == stageBad) != (s.why != "") {
				t.Errorf("stage %d has the reason %q", s.stage, s.why)
			}
		})
	}
}

// TestSniffHoldsUntilItKnows holds what the inspection relies on: before a whole hello or head nothing is let through that
// could name a server, and what is settled stays so when more comes.
func TestSniffHoldsUntilItKnows(t *testing.T) {
	for _, b := range [][]byte{
		clientHello(t, &tls.Config{ServerName: "a.example"}),
		records(clientHello(t, &tls.Config{ServerName: "a.example"}), 50),
		[]byte("\r\nPOST /x?y HTTP/1.1\r\nUser-Agent: z\r\nHost: a.example\r\n\r\n"),
	} {
		for n := range b {
			if s := sniff(b[:n]); s.stage > stageHeld {
				t.Fatalf("%d of %d bytes %q are taken for stage %d", n, len(b), b[:n], s.stage)
			}
		}
		if s := sniff(b); s.stage != stageNamed {
			t.Errorf("the whole is stage %d, %q", s.stage, s.why)
		}
	}
}

func FuzzSniffTLS(f *testing.F) {
	f.Add(clientHello(f, &tls.Config{ServerName: "api.example.com"}))
	f.Add(clientHello(f, &tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}))
	f.Add(clientHello(f, &tls.Config{ServerName: "secret.example", EncryptedClientHelloConfigList: echConfigs(f, "front.example")}))
	f.Add(records(clientHello(f, &tls.Config{ServerName: "a.example"}), 30))
	f.Add(helloOf(sni("a.example"), sni("b.example")))
	f.Add([]byte{0x80, 0x2e, 1, 3, 1})
	f.Add(version(records(clientHello(f, &tls.Config{ServerName: "a.example"}), 90), 9, 9))
	f.Add(append([]byte{21, 9, 9, 0, 2, 1, 0}, clientHello(f, &tls.Config{ServerName: "a.example"})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkSniff(t, b)
		// What crypto/tls takes for the server's name is what was found; and what it takes for a hello is never another protocol.
		name, ok := serverReads(b)
		switch s := sniff(b); {
		case ok && s.stage != stageNamed && s.stage != stageBad:
			t.Errorf("crypto/tls reads a hello for %q, sniff is at stage %d", name, s.stage)
		case ok && s.stage == stageNamed && canonical(name) != s.names[0]:
			t.Errorf("crypto/tls reads the name %q, sniff %q", name, s.names)
		}
	})
}

// serverReads is the server's name in the first hello that crypto/tls reads, if it reads one.
func serverReads(b []byte) (name string, ok bool) {
	_ = tls.Server(&readOnly{r: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, net.ErrClosed
	}}).Handshake()
	return name, ok
}

// readOnly is a connection whose other end has said all, and hears nothing.
type readOnly struct {
	net.Conn
	r io.Reader
}

func (c *readOnly) Read(b []byte) (int, error)  { return c.r.Read(b) }
func (c *readOnly) Write(b []byte) (int, error) { return len(b), nil }
func (c *readOnly) Close() error                { return nil }

func FuzzSniffHTTP(f *testing.F) {
	for _, target := range []string{"http://a.example/x?y", "http://a.example:8080"} {
		r, err := http.NewRequest(http.MethodPost, target, strings.NewReader("body"))
		if err != nil {
			f.Fatal(err)
		}
		var direct, proxied bytes.Buffer
		if err := r.Clone(f.Context()).Write(&direct); err != nil {
			f.Fatal(err)
		}
		r.Body, r.ContentLength = nil, 0
		if err := r.WriteProxy(&proxied); err != nil {
			f.Fatal(err)
		}
		f.Add(direct.Bytes())
		f.Add(proxied.Bytes())
	}
	f.Add([]byte("CONNECT a.example:443 HTTP/1.1\r\nHost: b.example\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkSniff(t, b)
		s := sniff(b)
		if s.stage == stageBad {
			return
		}
		// What Python's http.server serves is a clean request or refused.
		if line, _, whole := bytes.Cut(b[:min(len(b), maxSniff)], []byte("\n")); whole {
			words := pythonSplit(line)
			if n := len(words); n >= 3 && strings.HasPrefix(words[n-1], "HTTP/") && s.stage == stageOther ||
				n == 2 && words[0] == "GET" && words[1][0] == '/' {
				t.Errorf("http.server reads the request %q, sniff is at stage %d", words, s.stage)
			}
		}
		// A request that net/http understands is never taken for another protocol or without its host.
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(b, "\r\n"))))
		if err != nil {
			return
		}
		host, ok := serverName(withoutPort(r.Host))
		if s.stage != stageNamed || ok && !slices.Contains(s.names, host) {
			t.Errorf("net/http reads a request for %q, sniff is at stage %d with %q", r.Host, s.stage, s.names)
		}
	})
}

// pythonSplit is str.split of a line read as Latin 1, as http.server does.
func pythonSplit(line []byte) []string {
	return strings.FieldsFunc(string(runesOf(line)), func(r rune) bool {
		return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
	})
}

// runesOf reads Latin 1.
func runesOf(b []byte) []rune {
	out := make([]rune, len(b))
	for i, c := range b {
		out[i] = rune(c)
	}
	return out
}

// checkSniff holds what must be so of any bytes.
func checkSniff(t *testing.T, b []byte) {
	s := sniff(b)
	if (s.stage == stageNamed) != (len(s.names) > 0) || (s.stage == stageBad) != (s.why != "") {
		t.Fatalf("stage %d with names %q and reason %q", s.stage, s.names, s.why)
	}
	for _, name := range s.names {
		if again, ok := serverName(name); !ok || again != name {
			t.Errorf("name %q", name)
		}
	}
	if len(b) >= maxSniff && s.stage <= stageHeld {
		t.Errorf("%d bytes are not enough", len(b))
	}
	for n := range min(len(b), 512) {
		if early := sniff(b[:n]); early.stage == stageNamed && (s.stage != stageNamed || !slices.Equal(early.names, s.names)) ||
			early.stage == stageOther && s.stage != stageOther {
			t.Fatalf("after %d bytes stage %d %q, after %d stage %d %q", n, early.stage, early.names, len(b), s.stage, s.names)
		}
	}
}
