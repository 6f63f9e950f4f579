package slirp

import (
	"bytes"
	"crypto/sha256"
)

const (
	// Record and handshake types of TLS, RFC 8446 §5.1 and §4.
	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
	recordData         = 23
	typeClientHello    = 1
	typeServerHello    = 2
	alertWarning       = 1
	extServerName      = 0 // RFC 6066 §3
	nameTypeHost       = 0

	// minHello is the least that a hello holds: version, random, and the lengths of session, ciphers and compressions.
	minHello = 2 + 32 + 1 + 2 + 1

	// maxRecord is the most that a record holds, with what ciphers of TLS 1.2 may add.
	maxRecord = 1<<14 + 2048
)

// sniffTLS reads the server's name out of a TLS ClientHello, which may be spread over records (RFC 8446 §5.1). With
// encrypted hellos the outer one counts: it is what the server with this address goes by. The version in a record's header
// says nothing: some servers look at half of it, some do not look at all, as §5.1 tells them.
func sniffTLS(b []byte) sniffed {
	switch {
	case b[0]&0x80 != 0:
		return sniffOldHello(b)
	case b[0] < recordChangeCipher || b[0] > recordData:
		return sniffed{stage: stageOther}
	case len(b) < 5:
		return sniffed{stage: stageOpen}
	}
	if b[1] != 3 {
		if as := oddRecord(b); as != stageHeld {
			return sniffed{stage: as}
		}
	}
	hello := make([]byte, 0, min(len(b), maxSniff))
	for at := 0; len(b) >= at+5; {
		record := b[at:]
		if record[0] != recordHandshake {
			return bad(noHello)
		}
		n := int(record[3])<<8 | int(record[4])
		if n == 0 || n > maxRecord {
			return bad("a malformed TLS record")
		}
		hello = append(hello, record[5:min(len(record), 5+n)]...)
		if len(hello) >= 1 && hello[0] != typeClientHello {
			return bad(noHello)
		}
		at += 5 + n
		if len(hello) >= 4 {
			size := 4 + int(hello[1])<<16 + int(hello[2])<<8 + int(hello[3])
			switch {
			case size > maxSniff:
				return bad("a TLS hello that is too long")
			case len(hello) > size:
				return bad("a TLS record that holds more than the hello")
			case len(hello) == size && len(b) < at:
				return sniffed{stage: stageHeld} // the record holds more, which has not come
			case len(hello) == size:
				s := readHello(hello[4:])
				s.hello = at
				return s
			}
		}
	}
	return sniffed{stage: stageHeld}
}

// oddRecord tells what begins like a record of TLS whose version is none, which is how messages of other protocols with a
// length in front may begin too: it is TLS, stageHeld, if a server that does not look at versions could go on from it.
func oddRecord(b []byte) stage {
	n := int(b[3])<<8 | int(b[4])
	starts := func(kind byte) stage {
		switch {
		case len(b) == 5:
			return stageOpen
		case b[5] != kind:
			return stageOther
		}
		return stageHeld
	}
	switch {
	case b[0] == recordAlert && n == 2: // crypto/tls, for one, waits for what comes after it
		return starts(alertWarning)
	case b[0] == recordChangeCipher && n == 1:
		return starts(1)
	case b[0] != recordHandshake, n > maxRecord:
		return stageOther
	case n == 0:
		return stageHeld
	case n < 4:
		return starts(typeClientHello)
	case starts(typeClientHello) != stageHeld:
		return starts(typeClientHello)
	case len(b) < 9:
		return stageOpen
	case int(b[6])<<16|int(b[7])<<8|int(b[8]) < minHello:
		return stageOther
	}
	return stageHeld
}

// sniffRetry reads the server's name out of the second hello of a connection, from the end of the first on. What a client may say
// before it, a change of ciphers (RFC 8446 §D.4) and early data (§4.2.10), is passed over.
func sniffRetry(b []byte) sniffed {
	rest := b
	for len(rest) >= 5 && (rest[0] == recordChangeCipher || rest[0] == recordData) {
		n := 5 + int(rest[3])<<8 + int(rest[4])
		rest = rest[min(n, len(rest)):]
	}
	s := sniffed{stage: stageHeld}
	if len(rest) >= 5 {
		s = sniffTLS(rest)
	}
	switch {
	case s.stage == stageOther:
		return bad(noHello)
	case s.stage < stageNamed && len(b) >= maxSniff:
		return bad("it says too much before it says again which host it is for")
	}
	return s
}

// helloRetry is what a server says in place of its random number when it asks for another hello, RFC 8446 §4.1.3.
var helloRetry = sha256.Sum256([]byte("HelloRetryRequest"))

// helloReply reads what a server says to a hello. The zero value has read nothing.
type helloReply struct {
	retry bool // it asks for another hello; valid once known

	known  bool
	record []byte // of the record at hand, its header and what has come
	hello  []byte // what has come of the ServerHello
}

// read takes more of what the server says, and closes known when it is clear.
func (r *helloReply) read(b []byte, known chan struct{}) {
	const random = 4 + 2 // in a ServerHello
	for ; len(b) > 0 && !r.known; b = b[1:] {
		if r.record = append(r.record, b[0]); len(r.record) <= 5 {
			if r.record[0] != recordHandshake && r.record[0] != recordAlert {
				r.end(known)
			}
			continue
		}
		if r.record[0] == recordHandshake {
			if r.hello = append(r.hello, b[0]); len(r.hello) == random+len(helloRetry) {
				r.retry = r.hello[0] == typeServerHello && bytes.Equal(r.hello[random:], helloRetry[:])
				r.end(known)
			}
		}
		if len(r.record) == 5+int(r.record[3])<<8+int(r.record[4]) {
			r.record = r.record[:0]
		}
	}
}

// end says that nothing more will be read. It may be called twice, by the same goroutine.
func (r *helloReply) end(known chan struct{}) {
	if !r.known {
		r.known = true
		close(known)
	}
}

// noHello is why a connection that speaks TLS otherwise is refused.
const noHello = "TLS that does not begin with a hello"

// sniffOldHello looks for a ClientHello in SSL 2's form (RFC 5246 §E.2), which old servers take, whatever version it says,
// and which names no host.
func sniffOldHello(b []byte) sniffed {
	const old = "a TLS hello in SSL 2's form, which names no host"
	switch {
	case len(b) >= 3 && b[2] != typeClientHello:
		return sniffed{stage: stageOther}
	case len(b) < 5:
		return sniffed{stage: stageOpen}
	case b[3] == 3, b[3] == 0 && b[4] == 2:
		return bad(old)
	case len(b) < 11:
		return sniffed{stage: stageOpen}
	}
	size := int(b[0]&0x7f)<<8 | int(b[1])
	for at := 5; at < 11; at += 2 { // ciphers, session, challenge
		size -= int(b[at])<<8 | int(b[at+1])
	}
	if size != 9 {
		return sniffed{stage: stageOther} // those lengths do not add up
	}
	return bad(old)
}

// fields cuts length-prefixed parts off a TLS structure. After a fault it is empty and says so.
type fields struct {
	rest   []byte
	broken bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.broken = nil, true
		return nil
	}
	out := f.rest[:n]
	f.rest = f.rest[n:]
	return out
}

func (f *fields) number(bytes int) (n int) {
	for _, b := range f.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

// vector takes a vector with a length of so many bytes.
func (f *fields) vector(lengthBytes int) []byte { return f.take(f.number(lengthBytes)) }

// readHello finds the server's name in the body of a ClientHello, RFC 8446 §4.1.2.
func readHello(b []byte) sniffed {
	const none = "a TLS hello without a server name"
	f := &fields{rest: b}
	f.take(2 + 32) // version, random
	f.vector(1)    // session id
	f.vector(2)    // cipher suites
	f.vector(1)    // compression methods
	if f.broken {
		return bad("a malformed TLS hello")
	}
	if len(f.rest) == 0 {
		return bad(none) // extensions are not there at all
	}
	extensions := &fields{rest: f.vector(2)}
	if f.broken || len(f.rest) > 0 {
		return bad("a malformed TLS hello")
	}
	var name string
	found := false
	for len(extensions.rest) > 0 {
		kind := extensions.number(2)
		body := extensions.vector(2)
		if extensions.broken {
			return bad("a malformed TLS hello")
		}
		if kind != extServerName {
			continue
		}
		if found {
			return bad("a TLS hello with several server names")
		}
		found = true
		outer := &fields{rest: body}
		list := &fields{rest: outer.vector(2)}
		// One name: RFC 6066 allows a type each, and there is only one type.
		nameType, host := list.number(1), list.vector(2)
		if outer.broken || list.broken || len(outer.rest) > 0 || nameType != nameTypeHost {
			return bad("a malformed server name in a TLS hello")
		}
		if len(list.rest) > 0 {
			return bad("a TLS hello with several server names")
		}
		var ok bool
		if name, ok = serverName(string(host)); !ok {
			return bad("a server name in a TLS hello that is no host name")
		}
	}
	if !found {
		return bad(none)
	}
	return sniffed{stage: stageNamed, names: []string{name}}
}
