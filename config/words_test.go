package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// small is a case for a small language: what comes out as text, or what the error says.
type small struct{ name, in, want, says string }

func try[T any](t *testing.T, cases []small, parse func(string) (T, error), show func(T) string) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, err := parse(c.in)
			if c.says != "" {
				refuses(t, c.in, c.says, err)
			} else if err != nil || show(v) != c.want {
				t.Errorf("%q is %s, %v; want %s", c.in, show(v), err, c.want)
			}
		})
	}
}

func same(s string) string { return s }

func TestSplitWords(t *testing.T) {
	try(t, []small{
		{name: "nothing", in: "  ", want: ""},
		{name: "plain", in: " a  b\tc\n", want: "a|b|c"},
		{name: "quotes", in: `sh -c 'echo "$HOME"'`, want: `sh|-c|echo "$HOME"`},
		{name: "double quotes", in: `a "b \"c\" \n \$d"`, want: `a|b "c" \n $d`},
		{name: "joined", in: `a'b'"c"d`, want: "abcd"},
		{name: "empty words", in: `'' ""`, want: "|"},
		{name: "backslash", in: `a\ b \'c`, want: "a b|'c"},
		{name: "joined lines", in: "a\\\nb \\\n c", want: "ab|c"},
		{name: "no comments or operators", in: "a #b | c > d", want: "a|#b|||c|>|d"},
		{name: "open quote", in: `a 'b`, says: "is not closed"},
		{name: "open double quote", in: `a "b\"`, says: "is not closed"},
		{name: "last backslash", in: `a \`, says: "backslash"},
	}, SplitWords, func(w []string) string { return strings.Join(w, "|") })
	if w, err := SplitWords(""); err != nil || w == nil || len(w) != 0 {
		t.Errorf("no words are %#v, %v; want an empty list that is not nil", w, err)
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1023: "1023", 1 << 10: "1k", 64 << 20: "64m", 3 << 29: "1536m", 1<<20 + 1: "1048577", 5 << 50: "5p"} {
		got := SizeText(n)
		if back, err := ParseSize(got); got != want || back != n || err != nil {
			t.Errorf("%d: %q, which reads as %d (%v), want %q", n, got, back, err, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	var n []small
	for in, want := range map[string]string{"0": "0", "512m": "512M", "1.5g": "1536M", "1GiB": "1024M", "1 GiB": "1024M", "2M": "2M", "1024k": "1M", "1kb": "1K",
		"7": "7", "7b": "7", "0.5k": "512", "1t": "1048576M", "9223372036854775807": "9223372036854775807"} {
		n = append(n, small{name: in, in: in, want: want})
	}
	for in, says := range map[string]string{"": "not a number", "m": "not a number", "-1": "not a number", "1x": "not a number", "1ib": "not a number", "1mm": "not a number",
		"1e3": "not a number", "0x10": "not a number", "1.2.3m": "not a number", "inf": "not a number", "8388608t": "too large", "99999999999999999999": "too large", "1bb": "not a number"} {
		n = append(n, small{name: "refuse " + in, in: in, says: says})
	}
	try(t, n, ParseSize, func(n int64) string {
		switch {
		case n == 0 || n%1024 != 0:
			return itoa(n)
		case n%(1<<20) == 0:
			return itoa(n>>20) + "M"
		}
		return itoa(n>>10) + "K"
	})
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestParseUlimit(t *testing.T) {
	try(t, []small{
		{name: "soft and hard", in: "nofile=1024:2048", want: "nofile=1024:2048"},
		{name: "one for both", in: "nproc=5", want: "nproc=5:5"},
		{name: "none", in: "core=0:-1", want: "core=0:-1"},
		{name: "spelled out", in: "RLIMIT_MEMLOCK=unlimited", want: "memlock=-1:-1"},
		{name: "soft above hard", in: "nofile=2:1", says: "above the hard limit"},
		{name: "none above some", in: "nofile=-1:5", says: "above the hard limit"},
		{name: "no value", in: "nofile", says: "want name=soft"},
		{name: "nearly right", in: "nofiles=1", says: `did you mean "nofile"?`},
		{name: "unknown", in: "zzzzzz=1", says: "want one of"},
		{name: "several names", in: "nofile nproc=1", says: "no such limit"},
		{name: "word", in: "nofile=many", says: "is not a number"},
		{name: "sign", in: "nofile=+5", says: "is not a number"},
		{name: "empty hard", in: "nofile=5:", says: "is not a number"},
	}, ParseUlimit, Ulimit.String)
	if u, err := ParseUlimit("core=-1"); err != nil || u.Soft != math.MaxUint64 {
		t.Errorf("unlimited is %v, %v", u, err)
	}
}

func TestParseDuration(t *testing.T) {
	try(t, []small{
		{name: "seconds", in: "10", want: "10s"},
		{name: "part of a second", in: "0.5", want: "500ms"},
		{name: "Go's form", in: "1m30s", want: "1m30s"},
		{name: "nothing", in: "0", want: "0s"},
		{name: "negative", in: "-1s", says: "is negative"},
		{name: "negative number", in: "-1", says: "not a length of time"},
		{name: "word", in: "soon", says: "not a length of time"},
		{name: "empty", in: "", says: "not a length of time"},
		{name: "too long", in: "99999999999999", says: "too long"},
	}, ParseDuration, time.Duration.String)
}

func TestParseRestart(t *testing.T) {
	try(t, []small{
		{name: "no", in: "no", want: "no"},
		{name: "always", in: "always", want: "always"},
		{name: "unless-stopped", in: "unless-stopped", want: "unless-stopped"},
		{name: "on-failure", in: "on-failure", want: "on-failure"},
		{name: "on-failure, limited", in: "on-failure:3", want: "on-failure:3"},
		{name: "limit of zero", in: "on-failure:0", says: "number of times"},
		{name: "limit elsewhere", in: "always:3", says: "only on-failure"},
		{name: "nearly right", in: "on-failur", says: "did you mean"},
		{name: "other", in: "x", says: "want no, always"},
	}, ParseRestart, Restart.String)
}

func TestParseSignal(t *testing.T) {
	for _, c := range []struct {
		in, name string
		number   int
	}{
		{"TERM", "SIGTERM", 15}, {"SIGTERM", "SIGTERM", 15}, {"sigint", "SIGINT", 2}, {"9", "SIGKILL", 9}, {"CLD", "SIGCHLD", 17}, {"IOT", "SIGABRT", 6},
		{"POLL", "SIGIO", 29}, {"RTMIN", "SIGRTMIN", 34}, {"SIGRTMIN+3", "SIGRTMIN+3", 37}, {"RTMAX-1", "SIGRTMAX-1", 63}, {"64", "SIGRTMAX", 64}, {"33", "33", 33},
		{"WINCH", "SIGWINCH", 28}, {"RTMIN+30", "SIGRTMAX", 64},
	} {
		if name, n, err := ParseSignal(c.in); err != nil || name != c.name || n != c.number {
			t.Errorf("%q is %s, %d, %v; want %s, %d", c.in, name, n, err, c.name, c.number)
		}
	}
	for n := 1; n <= 64; n++ {
		name, m, err := ParseSignal(itoa(int64(n)))
		if again, k, err2 := ParseSignal(name); err != nil || err2 != nil || m != n || k != n || again != name {
			t.Errorf("signal %d: %s, %d, %v; again %s, %d, %v", n, name, m, err, again, k, err2)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "TERMINATE", "SIG", "RTMIN+", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN5"} {
		_, _, err := ParseSignal(in)
		refuses(t, in, "want a name", err)
	}
}

func TestParseCap(t *testing.T) {
	try(t, []small{
		{name: "plain", in: "NET_RAW", want: "NET_RAW"},
		{name: "with CAP_", in: "cap_net_raw", want: "NET_RAW"},
		{name: "all", in: "all", want: "ALL"},
		{name: "nearly right", in: "SYS_PTRCE", says: `did you mean "SYS_PTRACE"?`},
		{name: "unknown", in: "ROOT", says: "is not known"},
		{name: "nothing", in: "", says: "is not known"},
	}, ParseCap, same)
	if n := len(strings.Fields(capabilityNames)); n != 41 {
		t.Errorf("%d capabilities are listed; Linux 6.12 has 41 (CAP_LAST_CAP is 40)", n)
	}
}

func TestParseHost(t *testing.T) {
	try(t, []small{
		{name: "IPv4", in: "api.test:192.0.2.7", want: "api.test=192.0.2.7"},
		{name: "equals", in: "a=192.0.2.7", want: "a=192.0.2.7"},
		{name: "IPv6", in: "a:::1", want: "a=::1"},
		{name: "IPv6 in brackets", in: "a=[::1]", want: "a=::1"},
		{name: "the host", in: "gw:host-gateway", want: "gw=host-gateway"},
		{name: "no address", in: "a", says: "want name:address"},
		{name: "no name", in: ":1.2.3.4", says: "a host name is missing"},
		{name: "name for address", in: "a:b", says: "neither an IP address"},
		{name: "bad name", in: "a b:1.2.3.4", says: "holds ' '"},
		{name: "line end", in: "a\nb:1.2.3.4", says: "holds"},
		{name: "zone", in: "a=fe80::1%eth0", says: "neither an IP address"},
	}, ParseHost, Host.String)
}

func TestParseEnv(t *testing.T) {
	lookup := env("SET", "yes", "EMPTY", "")
	for _, c := range []struct {
		name, in, want string
	}{
		{"pair", "A=1", "A=1"},
		{"empty value", "A=", "A="},
		{"value with =", "A=b=c", "A=b=c"},
		{"value with a line end", "A=b\nc", "A=b\nc"},
		{"from the environment", "SET", "SET=yes"},
		{"empty in the environment", "EMPTY", "EMPTY="},
		{"not in the environment", "UNSET", "UNSET"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := ParseEnv(c.in, lookup); err != nil || got != c.want {
				t.Errorf("%q is %q, %v; want %q", c.in, got, err, c.want)
			}
		})
	}
	for in, says := range map[string]string{"": "without a name", "=x": "without a name", "A B=1": "no blank", "A\n=1": "control", "A=\x00": "zero byte"} {
		refuses(t, in, says, second(ParseEnv(in, lookup)))
	}
}

func TestValidName(t *testing.T) {
	valid := func(s string) (string, error) { return "valid", ValidName(s) }
	try(t, []small{
		{name: "plain", in: "web-1.test_X", want: "valid"},
		{name: "digit first", in: "9", want: "valid"},
		{name: "longest", in: strings.Repeat("a", 63), want: "valid"},
		{name: "too long", in: strings.Repeat("a", 64), says: "at most 63"},
		{name: "nothing", in: "", says: "missing"},
		{name: "dash first", in: "-a", says: "must begin"},
		{name: "up", in: "..", says: "must begin"},
		{name: "slash", in: "a/b", says: "holds '/'"},
		{name: "line end", in: "a\n", says: `holds '\n'`},
		{name: "umlaut", in: "aä", says: "holds 'ä'"},
	}, valid, same)
	valid = func(s string) (string, error) { return "valid", ValidAppName(s) }
	try(t, []small{
		{name: "app", in: "web-1", want: "valid"},
		{name: "app with underscore", in: "my_DB", says: `"my-db" would do`},
		{name: "app with a dash at the end", in: "a-", says: "inner dashes"},
		{name: "localhost", in: "localhost", says: "the sandbox itself"},
	}, valid, same)
	valid = func(s string) (string, error) { return "valid", ValidHostname(s) }
	try(t, []small{
		{name: "host", in: "web.test", want: "valid"},
		{name: "host with an empty part", in: "a..b", says: "empty part"},
		{name: "host with a dash first", in: "-a", says: "dash"},
		{name: "long host", in: strings.Repeat("a.", 33), says: "at most 64"},
	}, valid, same)
}

func TestDefaultName(t *testing.T) {
	for in, want := range map[string]string{"/src/shop": "shop", "/src/My Shop!": "my-shop", "/": "project", "/src/.hidden": "hidden", "/src/日本": "project",
		"/src/a--b": "a--b", "/src/a  b ": "a-b", "/src/x.": "x", "/" + strings.Repeat("a", 70): strings.Repeat("a", 63), "/src/-x-": "x"} {
		got := DefaultName(in)
		if got != want || ValidName(got) != nil {
			t.Errorf("%q makes %q, %v; want %q", in, got, ValidName(got), want)
		}
	}
}

func TestSuggest(t *testing.T) {
	words := []string{"image", "ports", "mounts", "env", "env_file"}
	for in, want := range map[string]string{"imge": "image", "port": "ports", "prots": "ports", "Image": "image", "evn": "env", "x": "", "colour": "", "envfile": "env_file"} {
		if got := suggest(in, words); got != want {
			t.Errorf("for %q it suggests %q, want %q", in, got, want)
		}
	}
}

func TestParsePlatformUserWorkdir(t *testing.T) {
	try(t, []small{
		{name: "whole", in: "linux/arm/v7", want: "linux/arm/v7"},
		{name: "upper case", in: "Linux/ARM64", want: "linux/arm64"},
		{name: "variant that goes without saying", in: "linux/arm64/v8", want: "linux/arm64"},
		{name: "the other one", in: "x86-64/v1", says: "does not run here"},
		{name: "baseline", in: "linux/x86-64/v1", want: "linux/amd64"},
		{name: "better than baseline", in: "linux/amd64/v3", want: "linux/amd64/v3"},
		{name: "architecture alone", in: "arm64", want: "linux/arm64"},
		{name: "uname's word", in: "linux/x86_64", want: "linux/amd64"},
		{name: "other system", in: "windows/amd64", says: "does not run here"},
		{name: "too long", in: "linux/a/b/c", says: "want linux/"},
		{name: "empty part", in: "linux/", says: "want linux/"},
	}, ParsePlatform, same)
	try(t, []small{
		{name: "user", in: "www-data", want: "www-data"},
		{name: "numbers", in: "1000:1000", want: "1000:1000"},
		{name: "no group", in: "a:", says: "user[:group]"},
		{name: "no user", in: ":a", says: "user[:group]"},
		{name: "three parts", in: "a:b:c", says: "user[:group]"},
	}, ParseUser, same)
	try(t, []small{
		{name: "workdir", in: "/srv/../x/", want: "/x"},
		{name: "relative workdir", in: "srv", says: "absolute"},
	}, ParseWorkdir, same)
	try(t, []small{
		{name: "no memory limit", in: "0", want: "0"},
		{name: "unit forgotten", in: "512", says: "below 6m"},
	}, ParseMemory, itoa)
	try(t, []small{
		{name: "no limit of processes", in: "-1", want: "0"},
		{name: "pids", in: "100", want: "100"},
		{name: "negative pids", in: "-2", says: "number of processes"},
	}, ParsePids, itoa)
	for in, says := range map[string]string{"-1": "not a number", "x": "not a number", "0.001": "below 0.01", "99999999": "too large", "1e3": "not a number"} {
		refuses(t, in, says, second(ParseCPUs(in)))
	}
}

func TestParseDetachKeys(t *testing.T) {
	for in, want := range map[string][]byte{"": nil, "ctrl-p,ctrl-q": {16, 17}, "a,ctrl-@": {'a', 0}, "ctrl-A": {1}, "ctrl-[": {27}} {
		if got, err := ParseDetachKeys(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"ctrl-", "ctrl-1", "ab", ",", "ctrl-p,"} {
		refuses(t, in, "detach key", second(ParseDetachKeys(in)))
	}
}
