package slirp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// client is a program that speaks to a server.
type client struct {
	name string
	argv []string // %s is the server's port
	from string   // Debian package; empty: it has the program's name
	run  func(port string)
}

func (c client) speak(t *testing.T, port string) {
	t.Helper()
	if c.run != nil {
		c.run(port)
		return
	}
	argv := make([]string, len(c.argv))
	for i, a := range c.argv {
		argv[i] = strings.ReplaceAll(a, "%s", port)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Fatalf("%s is missing: install the package %s", argv[0], cmp.Or(c.from, strings.TrimPrefix(argv[0], "/usr/bin/")))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	_ = cmd.Run() // it is not answered as it would like, and fails
}

// firstBytes is what a client says before it is answered.
func firstBytes(t *testing.T, c client, whole func([]byte) bool) []byte {
	t.Helper()
	host := &namespace{t, mustHostNS(t)}
	l := host.listen("tcp", "127.0.0.1:0")
	got := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var all []byte
		b := make([]byte, 1<<14)
		for {
			n, err := conn.Read(b)
			all = append(all, b[:n]...)
			if err != nil || whole(all) {
				got <- all
				return
			}
		}
	}()
	c.speak(t, fmt.Sprint(portOf(l.Addr())))
	select {
	case b := <-got:
		return b
	case <-time.After(10 * time.Second):
		t.Errorf("%s says nothing", c.name)
		return nil
	}
}

// captureNamed wants the first bytes of real clients taken for what they are.
func captureNamed(t *testing.T, target string, clients []client) {
	internet(t)
	for _, c := range clients {
		b := firstBytes(t, c, func(b []byte) bool { return sniff(b).stage > stageHeld })
		if b == nil {
			continue
		}
		if s := sniff(b); s.stage != stageNamed || s.names[0] != "a.example" {
			t.Errorf("%s: stage %d, names %q, %s: %q", c.name, s.stage, s.names, s.why, b)
		}
		if *update {
			seed(t, target, c.name, b)
		}
	}
}

func TestCaptureHellos(t *testing.T) {
	captureNamed(t, "FuzzSniffTLS", []client{
		{name: "go", run: func(port string) {
			if c, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{ServerName: "a.example"}); err == nil {
				c.Close()
			}
		}},
		{name: "openssl", argv: []string{"openssl", "s_client", "-connect", "127.0.0.1:%s", "-servername", "a.example"}},
		{name: "openssl-tls12", argv: []string{"openssl", "s_client", "-tls1_2", "-connect", "127.0.0.1:%s", "-servername", "a.example"}},
		{name: "openssl-fragments", argv: []string{"openssl", "s_client", "-max_send_frag", "512", "-alpn", "h2,http/1.1", "-connect", "127.0.0.1:%s", "-servername", "a.example"}},
		{name: "gnutls", argv: []string{"gnutls-cli", "--insecure", "--sni-hostname=a.example", "-p", "%s", "127.0.0.1"}, from: "gnutls-bin"},
		{name: "gnutls-tls12", argv: []string{"gnutls-cli", "--insecure", "--priority=NORMAL:-VERS-TLS1.3", "--alpn=h2", "--sni-hostname=a.example", "-p", "%s", "127.0.0.1"}, from: "gnutls-bin"},
		{name: "busybox", argv: []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/%s && exec busybox ssl_client -s 3 -n a.example"}},
		{name: "curl", argv: []string{"curl", "-sk", "--noproxy", "*", "--resolve", "a.example:%s:127.0.0.1", "https://a.example:%s/"}},
		{name: "python", argv: []string{"/usr/bin/python3", "-c", "import socket, ssl; ssl.create_default_context().wrap_socket(socket.create_connection(('127.0.0.1', %s)), server_hostname='a.example')"}},
	})
}

func TestCaptureRequests(t *testing.T) {
	captureNamed(t, "FuzzSniffHTTP", []client{
		{name: "go", run: func(port string) {
			r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+port+"/x?y", nil)
			if err == nil {
				r.Host = "a.example"
				if resp, err := http.DefaultTransport.RoundTrip(r); err == nil {
					resp.Body.Close()
				}
			}
		}},
		{name: "curl", argv: []string{"curl", "-s", "--noproxy", "*", "--resolve", "a.example:%s:127.0.0.1", "http://a.example:%s/"}},
		{name: "curl-post", argv: []string{"curl", "-s", "--noproxy", "*", "--resolve", "a.example:%s:127.0.0.1", "-d", "x=y", "http://a.example:%s/"}},
		{name: "curl-upgrade", argv: []string{"curl", "-s", "--noproxy", "*", "--http2", "--resolve", "a.example:%s:127.0.0.1", "http://a.example:%s/"}},
		{name: "busybox", argv: []string{"busybox", "wget", "-q", "-O", "-", "-Y", "off", "--header", "Host: a.example", "http://127.0.0.1:%s/"}},
		{name: "wget", argv: []string{"wget", "-q", "-t", "1", "-O", "-", "--no-proxy", "--header", "Host: a.example", "http://127.0.0.1:%s/"}},
		{name: "python", argv: []string{"/usr/bin/python3", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open(u.Request('http://127.0.0.1:%s/', headers={'Host': 'a.example'}))"}},
	})
}

// TestCaptureResolvers has real resolvers ask a server, and wants their questions readable and answered.
func TestCaptureResolvers(t *testing.T) {
	internet(t)
	host := &namespace{t, mustHostNS(t)}
	conn := host.listenPacket("udp", "127.0.0.1:53")
	s, e := fuzzServer(t)
	asked := make(chan []byte, 64)
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			asked <- bytes.Clone(b[:n])
			q := new(dns.Msg)
			if q.Unpack(b[:n]) != nil {
				continue
			}
			m := s.answer(q, e)
			if m == nil {
				m = failure(q, dns.RcodeNameError)
			}
			if out, err := packed(q, m, true); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions edns0 timeout:2 attempts:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []client{
		{name: "go", run: func(string) {
			r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:53")
			}}
			if got, err := r.LookupHost(t.Context(), "db.shop."); err != nil || len(got) != 2 {
				t.Errorf("Go's resolver has %q, %v", got, err)
			}
		}},
		{name: "glibc", run: withResolvConf(t, conf, "getent", "ahosts", "db.shop")},
		{name: "python", run: withResolvConf(t, conf, "/usr/bin/python3", "-c", "import socket; socket.getaddrinfo('db.shop', 80)")},
	} {
		c.speak(t, "")
		for n := 0; len(asked) > 0; n++ {
			b := <-asked
			q := new(dns.Msg)
			if err := q.Unpack(b); err != nil || len(q.Question) != 1 {
				t.Errorf("%s asks %x: %v", c.name, b, err)
			}
			if *update {
				seed(t, "FuzzQuestion", c.name, b)
			}
		}
	}
}

// withResolvConf runs a program that must succeed, with a resolv.conf(5) of its own.
func withResolvConf(t *testing.T, conf string, argv ...string) func(string) {
	return func(string) {
		if _, err := exec.LookPath(argv[0]); err != nil {
			t.Fatalf("%s is missing: %v", argv[0], err)
		}
		cmd := exec.Command("/bin/sh", append([]string{"-c", `mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"`, conf}, argv...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", argv, err, out)
		}
	}
}
