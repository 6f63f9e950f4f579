// Command outside is the internet that scripts reach: a name server that knows the records of its command line and nothing
// else, and a web server on ports 80 and 443 of every address, which says which host it was asked for, redirects
// /to/HOST there and says the name server's address on /where. It serves until it is killed, and prints "listening" once it does.
//
//	outside ADDRESS RECORD...   such as: outside 127.0.0.1 'www.test. 60 A 192.0.2.1'
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: outside ADDRESS RECORD...")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "outside:", err)
		os.Exit(1)
	}
}

// serve answers until one of the sockets fails.
func serve(at string, lines []string) error {
	var records []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			return fmt.Errorf("reading record %q: %w", l, err)
		}
		records = append(records, rr)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if err := w.WriteMsg(answer(records, q)); err != nil {
			fmt.Fprintln(os.Stderr, "outside:", err)
		}
	})
	ctx := context.Background()
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(at, "53"))
	if err != nil {
		return fmt.Errorf("listening for questions: %w", err)
	}
	questions, err := lc.Listen(ctx, "tcp", net.JoinHostPort(at, "53"))
	if err != nil {
		return fmt.Errorf("listening for questions: %w", err)
	}
	plain, err := lc.Listen(ctx, "tcp", ":80")
	if err != nil {
		return fmt.Errorf("listening for requests: %w", err)
	}
	secret, err := lc.Listen(ctx, "tcp", ":443")
	if err != nil {
		return fmt.Errorf("listening for requests: %w", err)
	}
	cert, err := certificate()
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	pages := http.NewServeMux()
	pages.HandleFunc("/", page)
	pages.HandleFunc("/where", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, at) })
	web := &http.Server{Handler: pages, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	failed := make(chan error, 4)
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: questions, Handler: handler}} {
		go func() { failed <- s.ActivateAndServe() }()
	}
	go func() { failed <- web.Serve(plain) }()
	go func() {
		failed <- web.Serve(tls.NewListener(secret, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	}()
	fmt.Println("listening")
	return <-failed
}

// page says who was asked for.
func page(w http.ResponseWriter, r *http.Request) {
	if to, ok := strings.CutPrefix(r.URL.Path, "/to/"); ok {
		http.Redirect(w, r, "http://"+to+"/", http.StatusFound)
		return
	}
	fmt.Fprintln(w, "this is", r.Host)
}

// certificate makes one that nobody trusts.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"outside.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// answer picks the records that a question asks for; the name of none is unknown.
func answer(records []dns.RR, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeNameError)
	for _, rr := range records {
		h := rr.Header()
		if !strings.EqualFold(h.Name, q.Question[0].Name) {
			continue
		}
		m.Rcode = dns.RcodeSuccess
		if h.Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}
