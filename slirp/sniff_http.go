package slirp

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// sniffHTTP reads the server's name out of the head of an HTTP/1 request, RFC 9112. Bytes are another protocol's when their
// first line is whole and does not speak of HTTP. One that does and is no clean request is bad: what comes before the
// method, is in it or ends the line is something else to each server.
func sniffHTTP(b []byte) sniffed {
	first := b[:min(len(b), maxSniff)]
	line := bytes.TrimLeftFunc(first, func(r rune) bool { return r <= ' ' })
	before := first[:len(first)-len(line)]
	line, _, whole := bytes.Cut(line, []byte("\n"))
	clean := len(bytes.Trim(before, "\r\n")) == 0 && couldBeRequest(line) // servers skip empty lines before a request, §2.2
	if !whole {
		switch {
		case speaksHTTP(line) && bytes.ContainsRune(bytes.TrimSuffix(line, []byte("\r")), '\r'):
			return bad("an HTTP request whose line ends in half a line end")
		case len(b) >= maxSniff && !clean:
			return sniffed{stage: stageOther} // a line that long is only taken of requests that are in order
		}
		return sniffed{stage: stageOpen} // no server acts on a part of a line
	}
	switch {
	case !speaksHTTP(line) && isSimple(line):
		return bad("an HTTP/0.9 request, which names no host")
	case !speaksHTTP(line):
		return sniffed{stage: stageOther}
	case !clean:
		return bad(malformed)
	}
	head := b[len(before)+len(line)+1:]
	end := headEnd(head)
	if end < 0 {
		return sniffed{stage: stageHeld}
	}
	return readHead(line, head[:end])
}

// malformed is why a request is refused that servers read in different ways.
const malformed = "a malformed HTTP request"

// speaksHTTP reports whether a line holds "HTTP/", in letters of any case.
func speaksHTTP(line []byte) bool {
	for {
		i := bytes.IndexByte(line, '/')
		if i < 0 {
			return false
		}
		if i >= 4 && bytes.EqualFold(line[i-4:i], []byte("http")) {
			return true
		}
		line = line[i+1:]
	}
}

// isSimple reports whether a line is a request of HTTP/0.9: GET and a path.
func isSimple(line []byte) bool {
	words := bytes.FieldsFunc(line, func(r rune) bool { return r <= ' ' || r == utf8.RuneError }) // bytes that are no letters of ASCII's, too
	return len(words) == 2 && bytes.EqualFold(words[0], []byte("GET")) && (words[1][0] == '/' || bytes.Contains(words[1], []byte("://")))
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
	if bytes.HasPrefix(b, []byte("\n")) || bytes.HasPrefix(b, []byte("\r\n")) {
		return 0
	}
	end := -1 // of the last field, before its line end
	for _, empty := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(b, []byte(empty)); i >= 0 && (end < 0 || i < end) {
			end = i
		}
	}
	if end < 0 {
		return -1
	}
	return end + 1
}

// readHead reads a whole request head: its first line and its fields.
func readHead(first, head []byte) sniffed {
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
