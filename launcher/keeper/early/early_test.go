package early

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/whisk-sandbox/whisk/internal/testuser"
	"github.com/whisk-sandbox/whisk/userns/birth"
)

// TestMain is the keeper's stage, too, when this binary is executed as one: it tells on its connection how it was admitted.
func TestMain(m *testing.M) {
	if os.Args[0] != StageName {
		os.Exit(testuser.Main(m, testuser.WithSubIDs))
	}
	conn, doc := os.NewFile(3, "control"), os.NewFile(4, "document")
	if _, err := birth.Await(); err != nil {
		conn.WriteString(err.Error())
		os.Exit(1)
	}
	b := make([]byte, 64)
	n, _ := doc.Read(b)
	conn.WriteString(os.Args[1] + " " + string(b[:n]))
	os.Exit(0)
}

func TestWanted(t *testing.T) {
	for line, want := range map[string]bool{
		"whisk run busybox true":                        true,
		"whisk run --rm -it busybox":                    true,
		"whisk run --network none busybox":              true,
		"whisk run --network=none busybox":              true,
		"/opt/whisk run -p 8080:80 nginx":               true,
		"whisk run --network shop busybox":              false,
		"whisk run --network=shop busybox":              false,
		"whisk run --network":                           false,
		"whisk run --network none --network=shop x":     false,
		"whisk run --help":                              false,
		"whisk run -h":                                  false,
		"whisk":                                         false,
		"whisk ps":                                      false,
		"whisk exec run ls":                             false,
		"whisk-keeper run":                              false, // the keeper of a network of that name
		"whisk up -d":                                   false,
		"whisk run --network-alias db --name x busybox": false,
	} {
		if got := wanted(strings.Fields(line)); got != want {
			t.Errorf("%s: got %v", line, got)
		}
	}
}

func TestKeeperAwaitsAdmission(t *testing.T) {
	k, err := New("net")
	if err != nil {
		t.Fatal(err)
	}
	k.Process, err = k.Stage.Begin(func(int) {})
	k.Begun()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Document.WriteString("document"); err != nil {
		t.Fatal(err)
	}
	k.Document.Close()
	if err := k.Process.Admit(true); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	n, err := k.Conn.Read(b)
	if got := string(b[:n]); got != "net document" {
		t.Errorf("the keeper says %q, %v", got, err)
	}
	if status, err := k.Process.Wait(); err != nil || status != 0 {
		t.Errorf("it ended with %v, %v", status, err)
	}
	if err := k.Process.Admit(true); err == nil {
		t.Error("it could be admitted twice")
	}
}

func TestUnwantedKeeperIsGone(t *testing.T) {
	k, err := New("net")
	if err != nil {
		t.Fatal(err)
	}
	if k.Process, err = k.Stage.Begin(func(int) {}); err != nil {
		t.Fatal(err)
	}
	pid := k.Process.Pid
	if err := k.End(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d is there still: %v", pid, err)
	}
}

func TestCommandHasItsKeeperOnce(t *testing.T) {
	b := begin([]string{"whisk", "run", "busybox"})
	if len(b.network) != 12 || strings.Trim(b.network, "0123456789abcdef") != "" {
		t.Errorf("the network is called %q", b.network)
	}
	if k := b.take("another"); k != nil {
		t.Error("it is handed over for another network")
	}
	k := b.take(b.network)
	if k == nil {
		t.Fatal("there is none")
	}
	defer k.End()
	if b.take(b.network) != nil {
		t.Error("it is handed over twice")
	}
	if other := begin([]string{"whisk", "ps"}); other.take("") != nil || other.network != "" {
		t.Error("whisk ps has one")
	}
}
