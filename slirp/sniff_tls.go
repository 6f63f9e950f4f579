package slirp

const (
	// Record and handshake types of TLS, RFC 8446 §5.1 and §4.
	recordChangeCipher = 20
	recordData         = 23
	recordHandshake    = 22
	typeClientHello    = 1
	extServerName      = 0 // RFC 6066 §3
	nameTypeHost       = 0

	// maxRecord is the most that a record holds, with what ciphers of TLS 1.2 may add.
	maxRecord = 1<<14 + 2048
)

// sniffTLS reads the server's name out of a TLS ClientHello, which may be spread over records (RFC 8446 §5.1). With
// encrypted hellos the outer one counts: it is what the server with this address goes by.
func sniffTLS(b []byte) sniffed {
	switch {
	case b[0]&0x80 != 0:
		return sniffOldHello(b)
	case b[0] < recordChangeCipher || b[0] > recordData:
		return sniffed{stage: stageOther}
	case len(b) >= 2 && b[1] != 3, len(b) >= 3 && b[2] > 4:
		return sniffed{stage: stageOther}
	case len(b) < 5:
		return sniffed{stage: stageOpen}
	}
	hello := make([]byte, 0, min(len(b), maxSniff))
	for len(b) >= 5 {
		if b[0] != recordHandshake || b[1] != 3 || b[2] > 4 {
			return bad("TLS that does not begin with a hello")
		}
		n := int(b[3])<<8 | int(b[4])
		if n == 0 || n > maxRecord {
			return bad("a malformed TLS record")
		}
		whole := len(b) >= 5+n
		hello = append(hello, b[5:min(len(b), 5+n)]...)
		if len(hello) >= 1 && hello[0] != typeClientHello {
			return bad("TLS that does not begin with a hello")
		}
		if len(hello) >= 4 {
			size := int(hello[1])<<16 | int(hello[2])<<8 | int(hello[3])
			if size > maxSniff {
				return bad("a TLS hello that is too long")
			}
			if len(hello) >= 4+size {
				return readHello(hello[4 : 4+size])
			}
		}
		if !whole {
			break
		}
		b = b[5+n:]
	}
	return sniffed{stage: stageHeld}
}

// sniffOldHello looks for a ClientHello in SSL 2's form (RFC 5246 §E.2), which old servers take and which names no host.
func sniffOldHello(b []byte) sniffed {
	switch {
	case len(b) >= 3 && b[2] != typeClientHello, len(b) >= 4 && b[3] != 3 && b[3] != 0, len(b) >= 5 && b[3] == 0 && b[4] != 2:
		return sniffed{stage: stageOther}
	case len(b) < 5:
		return sniffed{stage: stageOpen}
	}
	return bad("a TLS hello in SSL 2's form, which names no host")
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
