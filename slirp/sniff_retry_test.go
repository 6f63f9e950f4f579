package slirp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// selfSigned is a certificate that nobody trusts.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// relabel writes another name of the same length into the hellos from the second on.
type relabel struct {
	net.Conn
	from, to string
	hellos   int
}

func (c *relabel) Write(b []byte) (int, error) {
	if at := bytes.Index(b, []byte(c.from)); at >= 0 {
		if c.hellos++; c.hellos > 1 {
			b = bytes.Clone(b)
			copy(b[at:], c.to)
		}
	}
	return c.Conn.Write(b)
}

// TestEgressSecondHello has a server ask for another hello, and a client that says another name then. OpenSSL's server takes it.
func TestEgressSecondHello(t *testing.T) {
	_, conf := serveZone(t)
	inet := internet(t)
	names := make(chan string, 16)
	serve := &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		return nil, nil
	}, Certificates: []tls.Certificate{selfSigned(t)}}
	l := inet.listen("tcp", at(sharedV4, 8443))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s := tls.Server(c, serve)
				if s.Handshake() == nil {
					b := make([]byte, 5)
					_, _ = s.Read(b)
					_, _ = s.Write(b)
				}
			}()
		}
	}()
	for _, slow := range []bool{false, true} {
		app, n, log := restricted(t, "allowed.test", conf, slow)
		_ = ask(t, app, n, "udp4", "allowed.test", dns.TypeA)
		for _, curves := range [][]tls.CurveID{{tls.X25519, tls.CurveP384}, {tls.CurveP384}} { // with and without a second hello
			c := &relabel{Conn: app.mustDial("tcp", l.Addr().String()), from: "allowed.test", to: "allowed.test"}
			client := tls.Client(c, &tls.Config{ServerName: "allowed.test", InsecureSkipVerify: true, CurvePreferences: curves})
			roundTrip(t, client, []byte("hello"))
			if want := len(curves); c.hellos != want {
				t.Errorf("%d hellos, want %d: this test shows nothing", c.hellos, want)
			}
			<-names
		}
		c := &relabel{Conn: app.mustDial("tcp", l.Addr().String()), from: "allowed.test", to: "deniedd.test"}
		err := tls.Client(c, &tls.Config{ServerName: "allowed.test", InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384}}).Handshake()
		if c.hellos != 2 || err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("slow %v: after %d hellos: %v, want it reset", slow, c.hellos, err)
		}
		if len(log.about(sharedV4, "it is for deniedd.test")) == 0 {
			t.Errorf("slow %v: the second name is not in the log", slow)
		}
		<-names
	}
}

func TestSniffRetry(t *testing.T) {
	hello := clientHello(t, &tls.Config{ServerName: "a.example"})
	compat, early := []byte{20, 3, 3, 0, 1, 1}, []byte{23, 3, 3, 0, 3, 7, 7, 7}
	for _, c := range []struct {
		name string
		b    []byte
		want stage
	}{
		{"nothing", nil, stageHeld},
		{"a hello", hello, stageNamed},
		{"a hello behind a change of ciphers", append(bytes.Clone(compat), hello...), stageNamed},
		{"a hello behind early data", append(append(bytes.Clone(early), early...), hello...), stageNamed},
		{"early data, a part", early[:6], stageHeld},
		{"half a hello", append(bytes.Clone(compat), hello[:60]...), stageHeld},
		{"an alert", []byte{21, 3, 3, 0, 2, 2, 40}, stageBad},
		{"no end of early data", bytes.Repeat(early, maxSniff/len(early)+1), stageBad},
	} {
		if got := sniffRetry(c.b); got.stage != c.want {
			t.Errorf("%s: stage %d, %q", c.name, got.stage, got.why)
		}
	}
}

func TestHelloReply(t *testing.T) {
	asks := append([]byte{2, 0, 0, 50, 3, 3}, helloRetry[:]...)
	asks = append([]byte{22, 3, 3, 0, byte(len(asks))}, asks...)
	plain := bytes.Clone(asks)
	plain[20] ^= 1
	for _, c := range []struct {
		name         string
		b            []byte
		known, retry bool
	}{
		{"another hello", asks, true, true},
		{"another hello in small records", records(asks, 3), true, true},
		{"another hello after a warning", append([]byte{21, 3, 3, 0, 2, 1, 112}, asks...), true, true},
		{"a hello of the server's", plain, true, false},
		{"a part", asks[:30], false, false},
		{"a greeting", []byte("220 ready"), true, false},
	} {
		var r helloReply
		known := make(chan struct{})
		for i := range c.b {
			r.read(c.b[i:i+1], known)
		}
		if r.known != c.known || r.retry != c.retry {
			t.Errorf("%s: known %v, retry %v", c.name, r.known, r.retry)
		}
	}
}
