package slirp

import (
	"bytes"
	"strings"
)

// sniffHTTP reads the server's name out of the head of an HTTP/1 request, RFC 9112. Bytes are another protocol's as soon as
// they cannot begin one, or when their first line does not speak of HTTP.
func sniffHTTP(b []byte) sniffed {
	rest := b
	for len(rest) > 0 && (rest[0] == '\r' || rest[0] == '\n') {
		rest = rest[1:] // servers skip empty lines before a request, §2.2
	}
	line, head, whole := bytes.Cut(rest, []byte("\n"))
	if !couldBeRequest(line) {
		return sniffed{stage: stageOther}
	}
	if !whole {
		return sniffed{stage: stageOpen} // no server acts on a part of a line
	}
	if !bytes.Contains(bytes.ToUpper(line), []byte("HTTP/")) {
		return sniffed{stage: stageOther}
	}
	end := headEnd(head)
	if end < 0 {
		return sniffed{stage: stageHeld}
	}
	return readHead(line, head[:end])
}

// couldBeRequest reports whether a line, or a part of one, may begin a request: a token, a blank, and no zero byte.
func couldBeRequest(line []byte) bool {
	for i, c := range line {
		switch {
		case isToken(c):
		case (c == ' ' || c == '\t') && i > 0:
			return bytes.IndexByte(line, 0) < 0
		case c == '\r' && i == len(line)-1:
		default:
			return false
		}
	}
	return true
}

// isToken reports whether a character may be in a method or a field's name, RFC 9110 §5.6.2.
func isToken(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// headEnd finds the end of the fields, an empty line; -1 if it has not come.
func headEnd(b []byte) int {
	for at := 0; ; {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return -1
		}
		if line := b[at : at+n]; len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return at
		}
		at += n + 1
	}
}

// readHead reads a whole request head: its first line and its fields.
func readHead(first, head []byte) sniffed {
	const malformed = "a malformed HTTP request"
	line := strings.TrimSuffix(string(first), "\r")
	parts := strings.Split(line, " ")
	if len(parts) != 3 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return bad(malformed)
	}
	method, target, version := parts[0], parts[1], parts[2]
	switch version {
	case "HTTP/1.1", "HTTP/1.0":
	case "HTTP/2.0":
		return bad("HTTP/2 without TLS, which hides the host")
	default:
		return bad(malformed)
	}
	var hosts []string
	for line := range strings.Lines(string(head)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		name, value, ok := strings.Cut(line, ":")
		switch {
		case line[0] == ' ' || line[0] == '\t':
			return bad("an HTTP field that goes on in a second line")
		case !ok, name == "", strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 || !isToken(byte(r)) }), strings.ContainsAny(value, "\r\x00"):
			return bad(malformed)
		case strings.EqualFold(name, "host"):
			hosts = append(hosts, strings.Trim(value, " \t"))
		}
	}
	if len(hosts) > 1 {
		return bad("an HTTP request with several Host fields")
	}
	// A target may name a server too, and servers differ in which they go by (RFC 9112 §3.2.2): both must be allowed.
	switch scheme, after, absolute := strings.Cut(target, "://"); {
	case method == "CONNECT":
		hosts = append(hosts, target)
	case strings.HasPrefix(target, "/"), target == "*":
	case absolute && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "ws") || strings.EqualFold(scheme, "wss")):
		end := strings.IndexAny(after, "/?#")
		if end < 0 {
			end = len(after)
		}
		hosts = append(hosts, after[:end])
	default:
		return bad(malformed)
	}
	if len(hosts) == 0 {
		return bad("an HTTP request without a Host field")
	}
	s := sniffed{stage: stageNamed}
	for _, h := range hosts {
		name, ok := serverName(withoutPort(h))
		if !ok {
			return bad("an HTTP request whose host is not a name")
		}
		s.names = append(s.names, name)
	}
	return s
}

// withoutPort cuts the port off a host. What is no port stays, and is no part of a name.
func withoutPort(h string) string {
	host, port, found := strings.Cut(h, ":")
	if found && strings.Trim(port, "0123456789") == "" {
		return host
	}
	return h
}
