package slirp

import (
	"net/netip"
	"strings"
)

// maxSniff is how much a client may say before it has said which server it means: web servers take 8 to 64 KB of request
// head, and a TLS hello with keys of several kinds has a few.
const maxSniff = 64 << 10

// stage is how far the first bytes of a connection have come.
type stage uint8

const (
	// stageOpen: it could still be anything, and is not yet so much that a server could act on it.
	stageOpen stage = iota
	// stageHeld: it is TLS or HTTP, and does not say yet which server is meant.
	stageHeld
	// stageNamed: it names the servers in sniffed.names.
	stageNamed
	// stageOther: it is neither TLS nor HTTP.
	stageOther
	// stageBad: it is TLS or HTTP, and leaves in doubt which server is meant; sniffed.why says how.
	stageBad
)

// sniffed is what the first bytes of a connection say.
type sniffed struct {
	stage stage
	names []string // canonical; all of them must be allowed
	why   string
	hello int // how many bytes are the TLS hello that names them; 0: it is not TLS
}

func bad(why string) sniffed { return sniffed{stage: stageBad, why: why} }

// sniff reads the first bytes that a client has sent, all of them at each call. It reads what servers would, in doubt more
// strictly: what two readers could take for two things is bad. A client that sends byte by byte has all of them read again
// each time; searches are all that grows with it, and maxSniff ends them.
func sniff(b []byte) sniffed {
	if len(b) == 0 {
		return sniffed{}
	}
	s := sniffTLS(b)
	if s.stage == stageOther {
		s = sniffHTTP(b)
	}
	if s.stage <= stageHeld && len(b) >= maxSniff {
		return bad("it says too much before it says which host it is for")
	}
	return s
}

// serverName returns a name that a client gave for a server in its canonical form. An address is not a name.
func serverName(s string) (string, bool) {
	s = canonical(s)
	if s == "" || len(s) > 253 {
		return "", false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
		for i := range len(label) {
			c := label[i]
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return "", false
			}
		}
	}
	return s, true
}
