package main

import (
	"fmt"
	"net"
	"net/http"

	"github.com/miekg/dns"
)

// page is what every web server of the local network answers.
const page = "hello from the local network\n"

// serveLAN answers names and pages on this IPv4 address until one of the two fails.
func serveLAN(address string) error {
	ip := net.ParseIP(address).To4()
	if ip == nil {
		return fmt.Errorf("serving the local network: %q is no IPv4 address", address)
	}
	failed := make(chan error, 2)
	names := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		var m dns.Msg
		m.SetReply(q)
		for _, question := range q.Question {
			if question.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: ip})
			}
		}
		_ = w.WriteMsg(&m) // who asks asks again
	})
	go func() {
		failed <- (&dns.Server{Addr: net.JoinHostPort(address, "53"), Net: "udp", Handler: names}).ListenAndServe()
	}()
	go func() {
		failed <- http.ListenAndServe(net.JoinHostPort(address, "80"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, page)
		}))
	}()
	return <-failed
}
