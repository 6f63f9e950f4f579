package keeper

import (
	"fmt"
	"strings"
	"testing"

	"github.com/whisk-sandbox/whisk/config"
)

func TestRangesAreSpreadOut(t *testing.T) {
	for text, want := range map[string]string{
		"8080:80":               "127.0.0.1:8080:80/tcp",
		"[::1]:8000-8001:80-81": "[::1]:8000:80/tcp [::1]:8001:81/tcp",
		"0:80-82":               "127.0.0.1::80/tcp 127.0.0.1::81/tcp 127.0.0.1::82/tcp",
		"53:53/udp":             "127.0.0.1:53:53/udp",
	} {
		p, err := config.ParsePort(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range singles([]config.Port{p}) {
			got = append(got, fmt.Sprint(one))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: got %q, want %q", text, s, want)
		}
	}
}
