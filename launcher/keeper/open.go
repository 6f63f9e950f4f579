package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
	"github.com/whisk-sandbox/whisk/launcher/keeper/early"
	"github.com/whisk-sandbox/whisk/userns"
)

// StageName is argv[0] of the keeper's stage.
const StageName = early.StageName

// stageVersion is the version of the document that a keeper is started with.
const stageVersion = 1

// maxStageEgress is how long a policy may be to go with the document, in bytes: see the limit on that.
const maxStageEgress = 16 << 10

// stage is that document.
type stage struct {
	Version int           `json:"version"`
	Dirs    launcher.Dirs `json:"dirs"`
	Network string        `json:"network"`
	Self    string        `json:"self"`             // the path of whisk's own program
	Egress  string        `json:"egress,omitempty"` // of the network, if it is known already
	Single  bool          `json:"single"`           // a one-id map
	MaxID   int           `json:"max_id"`           // the highest id that is mapped
	Env     []string      `json:"env"`              // what the libraries read: HOME, PATH, TMPDIR
	// UID is the user's, as the host has it, and Machine what this user may do with control groups.
	UID     int            `json:"uid"`
	Machine cgroup.Machine `json:"machine"`
}

// Open connects to the keeper of a network, or starts one with this id map. The client starts another if that
// one leaves before it has taken a request. egress is the policy that the first sandbox will ask for, so that the
// network is made while the request is on its way; empty if there may be none.
func Open(ctx context.Context, dirs launcher.Dirs, network string, m userns.Map, egress string) (*Client, error) {
	if err := config.ValidName(network); err != nil {
		return nil, launcher.AsError(fmt.Errorf("network: %w", err))
	}
	again := func(ctx context.Context) (net.Conn, error) { return connect(ctx, dirs, network, m, egress) }
	conn, err := again(ctx)
	if err != nil {
		return nil, err
	}
	return &Client{dirs: dirs, network: network, first: conn, again: again}, nil
}

// connect finds a keeper that listens, or starts one that is born with a connection. A keeper on its way out holds
// the network for a few milliseconds more: connect waits for it.
func connect(ctx context.Context, dirs launcher.Dirs, network string, m userns.Map, egress string) (net.Conn, error) {
	if err := dirs.Make(); err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		c := &Client{dirs: dirs, network: network}
		conn, err := c.find(ctx)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, fmt.Errorf("connect to the keeper of network %q: %w", network, err)
		}
		if !launcher.Held(dirs, network) {
			return start(ctx, dirs, network, m, egress)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func start(ctx context.Context, dirs launcher.Dirs, network string, m userns.Map, egress string) (net.Conn, error) {
	if len(egress) > maxStageEgress {
		egress = "" // it comes with the request
	}
	doc := stage{Version: stageVersion, Dirs: dirs, Network: network, Egress: egress, Single: m.Single, Env: early.Environment(), UID: os.Getuid()}
	var err error
	if doc.Self, err = os.Readlink("/proc/self/exe"); err != nil {
		return nil, fmt.Errorf("find whisk's own binary: %w", err)
	}
	doc.Machine = cgroup.Probe(doc.UID, os.Getenv("XDG_RUNTIME_DIR"))
	for _, r := range m.UIDs {
		doc.MaxID = max(doc.MaxID, int(r.Inside+r.Size-1))
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode stage document: %w", err)
	}
	if len(b) > os.Getpagesize()*15 { // a pipe takes 16 pages without a reader, pipe(7)
		return nil, errors.New("encode stage document: too long")
	}
	k := early.Take(network)
	start := func() error { return m.Admit(ctx, k.Process, StageName) }
	if k == nil {
		if k, err = early.New(network); err != nil {
			return nil, err
		}
		start = func() error {
			_, err := m.Start(ctx, k.Stage)
			k.Begun()
			return err
		}
	}
	conn, err := give(k, b)
	if err != nil {
		return nil, errors.Join(err, k.End())
	}
	// The request is made and sent while the keeper comes up: it waits in the socket.
	c := &bornConn{UnixConn: conn, started: make(chan error, 1)}
	go func() { c.started <- start() }()
	return c, nil
}

// give writes a keeper's document, and returns the first connection to it.
func give(k *early.Keeper, document []byte) (*net.UnixConn, error) {
	if _, err := k.Document.Write(document); err != nil {
		return nil, fmt.Errorf("write stage document: %w", err)
	}
	k.Document.Close()
	conn, err := net.FileConn(k.Conn)
	if err != nil {
		return nil, fmt.Errorf("use control connection: %w", err)
	}
	k.Conn.Close()
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("use control connection: not a unix socket")
	}
	return uc, nil
}

// bornConn is the connection that a keeper is born with. If the keeper cannot be started it ends, and started says
// why.
type bornConn struct {
	*net.UnixConn
	started chan error
}
