package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParsePort(t *testing.T) {
	local, all := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("0.0.0.0")
	for _, c := range []struct {
		name, in string
		want     Port
	}{
		{"host and app", "8080:80", Port{local, 8080, 80, 1, "tcp"}},
		{"app alone", "80", Port{local, 0, 80, 1, "tcp"}},
		{"empty host", ":80", Port{local, 0, 80, 1, "tcp"}},
		{"zero host", "0:80", Port{local, 0, 80, 1, "tcp"}},
		{"udp", "53:53/udp", Port{local, 53, 53, 1, "udp"}},
		{"upper-case protocol", "53:53/UDP", Port{local, 53, 53, 1, "udp"}},
		{"address", "0.0.0.0:80:80", Port{all, 80, 80, 1, "tcp"}},
		{"address and free port", "127.0.0.1::80", Port{local, 0, 80, 1, "tcp"}},
		{"IPv6", "[::1]:8080:80", Port{netip.MustParseAddr("::1"), 8080, 80, 1, "tcp"}},
		{"IPv6 and free port", "[::]::80/tcp", Port{netip.IPv6Unspecified(), 0, 80, 1, "tcp"}},
		{"IPv4 written as IPv6", "[::ffff:127.0.0.1]:1:2", Port{local, 1, 2, 1, "tcp"}},
		{"range", "8000-8009:80-89", Port{local, 8000, 80, 10, "tcp"}},
		{"range of free ports", "80-89", Port{local, 0, 80, 10, "tcp"}},
		{"the whole range", "1-65535:1-65535/udp", Port{local, 1, 1, 65535, "udp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParsePort(c.in)
			if err != nil || got != c.want {
				t.Errorf("ParsePort(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
			}
		})
	}
}

func TestParsePortRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, says string }{
		{"nothing", "", "is missing"},
		{"word", "http:80", `"http" is not a number`},
		{"above the last", "8080:65536", "65536 is above 65535"},
		{"zero app port", "8080:0", "must be 1 to 65535"},
		{"sign", "+80:80", "is not a number"},
		{"unequal ranges", "8000-8001:80-82", "must be equally long"},
		{"range to one port", "8000-8001:80", "must be equally long"},
		{"backwards", "81-80:81-80", "runs backwards"},
		{"other protocol", "80:80/sctp", `"sctp" is not tcp or udp`},
		{"empty protocol", "80:80/", "is not tcp or udp"},
		{"address without app port", "127.0.0.1:80", "127.0.0.1::80 for a free host port"},
		{"bare IPv6", "::1:8080:80", "needs brackets"},
		{"name for address", "localhost:8080:80", "not an IP address"},
		{"open bracket", "[::1:80:80", "closing bracket"},
		{"bracket and one port", "[::1]:80", "app's port is missing"},
		{"zone", "[fe80::1%eth0]:80:80", "not an IP address"},
		{"too many", "a:b:c:d:e", "too many colons"},
		{"range from zero", "0-1:80-81", "cannot begin with 0"},
		{"blank", "8080: 80", "is not a number"},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, c.in, c.says, second(ParsePort(c.in))) })
	}
}

// second drops a value, for calls that matter for their error.
func second[T any](_ T, err error) error { return err }

// refuses checks that an error is one line and says something.
func refuses(t *testing.T, in, says string, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%q is accepted; want an error with %q", in, says)
	case !strings.Contains(err.Error(), says) || strings.ContainsAny(err.Error(), "\n\r\x00"):
		t.Errorf("%q: the error is %q; want one line with %q", in, err, says)
	}
}

func TestPortOverlaps(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		want       bool
	}{
		{"same", "80:1", "80:2", true},
		{"other protocol", "80:1", "80:2/udp", false},
		{"other port", "80:1", "81:1", false},
		{"ranges that meet", "80-90:1-11", "90:1", true},
		{"ranges side by side", "80-89:1-10", "90:1", false},
		{"all addresses and one", "0.0.0.0:80:1", "127.0.0.1:80:1", true},
		{"all IPv6 takes IPv4 too", "[::]:80:1", "127.0.0.1:80:1", true},
		{"all IPv4 leaves IPv6", "0.0.0.0:80:1", "[::1]:80:1", false},
		{"two addresses", "127.0.0.1:80:1", "127.0.0.2:80:1", false},
		{"free ports", "80", "80", false},
		{"the end of the range", "65535:1", "65535:2", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, errA := ParsePort(c.a)
			b, errB := ParsePort(c.b)
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
				t.Errorf("%s and %s: %v and %v, want %v", a, b, a.Overlaps(b), b.Overlaps(a), c.want)
			}
		})
	}
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"8080:80", "80", ":80", "127.0.0.1::80", "[::1]:8080:80/udp", "1-65535:1-65535", "[::ffff:1.2.3.4]:0:1", "[fe80::1%a]:1:1", "0-0:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the error of %q has several lines: %q", s, err)
			}
			return
		}
		if p.App == 0 || p.Count == 0 || int(p.App)+int(p.Count) > 1<<16 || int(p.Host)+int(p.Count) > 1<<16 || !p.HostIP.IsValid() {
			t.Fatalf("%q is %+v, which cannot be", s, p)
		}
		again, err := ParsePort(p.String())
		if err != nil || again != p {
			t.Errorf("%q is %+v, but its own form %q is %+v, %v", s, p, p, again, err)
		}
	})
}
