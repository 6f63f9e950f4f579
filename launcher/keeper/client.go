package keeper

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/launcher"
	"github.com/whisk-sandbox/whisk/launcher/cgroup"
)

// ErrNoKeeper says that no keeper holds the network, or no longer: nothing runs on it.
var ErrNoKeeper error = &launcher.Error{Message: "the sandbox is not running", Hint: "whisk ps -a", Kind: launcher.KindNotFound, Exit: launcher.ExitWhisk}

// Client speaks to the keeper of one network. It is safe for use by several goroutines.
type Client struct {
	dirs    launcher.Dirs
	network string

	mu    sync.Mutex
	first net.Conn // the connection that a new keeper was born with; used up by the first request

	// again finds or starts a keeper anew; nil for a client that only Dial has made.
	again func(context.Context) (net.Conn, error)
}

// Dial finds the keeper of a network; ErrNoKeeper when there is none.
func Dial(ctx context.Context, dirs launcher.Dirs, network string) (*Client, error) {
	c := &Client{dirs: dirs, network: network}
	conn, err := c.find(ctx)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNoKeeper
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper of network %q: %w", network, err)
	}
	c.first = conn
	return c, nil
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	conn := c.first
	c.first = nil
	c.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	if c.again != nil {
		return c.again(ctx)
	}
	return c.find(ctx)
}

// find connects to a keeper that listens.
func (c *Client) find(ctx context.Context) (net.Conn, error) {
	// A socket's path is limited to 108 bytes, unix(7); its folder's descriptor has a short one.
	dir, err := os.Open(c.dirs.Network(c.network))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", dir.Fd()))
}

// Close gives up the connection that no request has used.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		return nil
	}
	err := c.first.Close()
	c.first = nil
	return err
}

// do sends one request with descriptors and calls each for every event of the reply. The error is an
// *launcher.Error when the keeper sent one. A reply that ends without "done" is an error: the keeper died.
// A keeper that was leaving is replaced, as often as a few may leave in a row.
func (c *Client) do(ctx context.Context, path string, body any, files []*os.File, each func(Event)) error {
	doc, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	for range 10 {
		err = c.try(ctx, path, doc, files, each)
		var e *launcher.Error
		if !errors.As(err, &e) || e.Kind != launcher.KindLeaving {
			return err
		}
		if c.again == nil {
			return ErrNoKeeper
		}
	}
	return err
}

func (c *Client) try(ctx context.Context, path string, doc []byte, files []*os.File, each func(Event)) error {
	conn, err := c.dial(ctx)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return ErrNoKeeper
	}
	if err != nil {
		return fmt.Errorf("connect to the keeper: %w", err)
	}
	var uc *net.UnixConn
	started := func() error { return nil }
	switch c := conn.(type) {
	case *net.UnixConn:
		uc = c
	case *bornConn:
		uc = c.UnixConn
		started = sync.OnceValue(func() error { return <-c.started })
	default:
		conn.Close()
		return fmt.Errorf("connect to the keeper: not a unix socket")
	}
	defer conn.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keeper"+path, bytes.NewReader(doc))
	if err != nil {
		return err
	}
	req.Close = true // one connection, one request
	stop := context.AfterFunc(ctx, func() { _ = uc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	resp, err := ask(req, &sendFiles{UnixConn: uc, files: files})
	if err != nil {
		if err := started(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &launcher.Error{Message: "the keeper ended before it answered", Kind: launcher.KindLeaving, Exit: launcher.ExitWhisk}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return &launcher.Error{Message: "this network's keeper is of an earlier version of whisk, which cannot do that", Hint: "stop its sandboxes and start them again", Exit: launcher.ExitWhisk}
	}
	dec := json.NewDecoder(resp.Body)
	for {
		var ev Event
		if err := dec.Decode(&ev); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) {
				return &launcher.Error{Message: "the keeper of this network was killed; its sandboxes are gone with it", Exit: launcher.ExitWhisk}
			}
			return fmt.Errorf("read the keeper's reply: %w", err)
		}
		switch ev.Type {
		case EventDone:
			return nil
		case EventError:
			if ev.Error == nil {
				return &launcher.Error{Message: ev.Text, Exit: launcher.ExitWhisk}
			}
			return ev.Error
		}
		if each != nil {
			each(ev)
		}
	}
}

// ask is what an http.Transport would do, without the goroutines and timers that it needs for keeping connections: they are a
// noticeable part of a start.
func ask(req *http.Request, conn *sendFiles) (*http.Response, error) {
	out := bufio.NewWriter(conn)
	err := req.Write(out)
	if err == nil {
		err = out.Flush()
	}
	// A keeper that refuses may answer without having read everything.
	resp, rerr := http.ReadResponse(bufio.NewReader(conn), req)
	if rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return resp, nil
}

// sendFiles sends descriptors along with the first bytes written.
type sendFiles struct {
	*net.UnixConn
	files []*os.File
}

func (s *sendFiles) Write(b []byte) (int, error) {
	if len(s.files) == 0 {
		return s.UnixConn.Write(b)
	}
	fds := make([]int, len(s.files))
	for i, f := range s.files {
		fds[i] = int(f.Fd())
	}
	n, _, err := s.UnixConn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	if err == nil {
		s.files = nil
	}
	return n, err
}

// Streams are the three standard streams of a command in the foreground.
type Streams struct {
	Stdin, Stdout, Stderr *os.File
	// Terminal is called, for a sandbox with a terminal, with the master of its pty once the app runs. The
	// caller relays it and closes it. The three files are not used then.
	Terminal func(master *os.File)
}

// Run makes and starts one sandbox in the foreground. It returns when the app has ended, or when ctx is done,
// which kills the app. The exit code comes as EventExited.
func (c *Client) Run(ctx context.Context, spec launcher.Spec, s Streams, each func(Event)) error {
	return c.withStreams(ctx, "/v1/run", spec, spec.App.TTY, s, each)
}

// RunDetached makes and starts one sandbox and returns when it runs. Its output goes to its log.
func (c *Client) RunDetached(ctx context.Context, spec launcher.Spec, each func(Event)) error {
	return c.do(ctx, "/v1/run-detached", spec, nil, each)
}

// Exec runs a further command in a running sandbox; like Run.
func (c *Client) Exec(ctx context.Context, id string, spec launcher.ExecSpec, s Streams, each func(Event)) error {
	return c.withStreams(ctx, "/v1/exec?id="+id, spec, spec.TTY, s, each)
}

// ExecDetached starts a further command in a running sandbox and does not wait for it.
func (c *Client) ExecDetached(ctx context.Context, id string, spec launcher.ExecSpec, each func(Event)) error {
	return c.do(ctx, "/v1/exec-detached?id="+id, spec, nil, each)
}

func (c *Client) withStreams(ctx context.Context, path string, spec any, tty bool, s Streams, each func(Event)) error {
	if !tty {
		return c.do(ctx, path, spec, []*os.File{s.Stdin, s.Stdout, s.Stderr}, each)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make terminal channel: %w", err)
	}
	here, there := os.NewFile(uintptr(fds[0]), "terminal"), os.NewFile(uintptr(fds[1]), "terminal")
	defer here.Close()
	defer there.Close()
	return c.do(ctx, path, spec, []*os.File{there}, func(ev Event) {
		if ev.Type == EventStarted && s.Terminal != nil {
			if master, err := receiveFile(here); err == nil {
				s.Terminal(master)
			}
		}
		if each != nil {
			each(ev)
		}
	})
}

// Detach lets a foreground sandbox live on without the command that asked for it; its output goes to its log.
func (c *Client) Detach(ctx context.Context, id string) error {
	return c.do(ctx, "/v1/detach?id="+id, nil, nil, nil)
}

// Signal sends a signal to the app of a sandbox.
func (c *Client) Signal(ctx context.Context, id string, signal int) error {
	return c.do(ctx, fmt.Sprintf("/v1/signal?id=%s&signal=%d", id, signal), nil, nil, nil)
}

// SignalExec sends a signal to a further command, which EventStarted has named.
func (c *Client) SignalExec(ctx context.Context, id, exec string, signal int) error {
	return c.do(ctx, fmt.Sprintf("/v1/signal?id=%s&exec=%s&signal=%d", id, exec, signal), nil, nil, nil)
}

// StartSandbox starts a sandbox that has ended, detached.
func (c *Client) StartSandbox(ctx context.Context, id string, each func(Event)) error {
	return c.do(ctx, "/v1/start?id="+id, nil, nil, each)
}

// Update sets the limits of a running sandbox anew.
func (c *Client) Update(ctx context.Context, id string, l cgroup.Limits) error {
	return c.do(ctx, "/v1/update?id="+id, l, nil, nil)
}

// Up makes and starts the sandboxes of a project; see UpRequest.
func (c *Client) Up(ctx context.Context, r UpRequest, each func(Event)) error {
	return c.do(ctx, "/v1/up", r, nil, each)
}

// Down ends sandboxes, dependents first; see DownRequest.
func (c *Client) Down(ctx context.Context, r DownRequest, each func(Event)) error {
	return c.do(ctx, "/v1/down", r, nil, each)
}

// WaitGone returns when the keeper has let go of its network, with its namespaces and files, or when it has been given
// another sandbox meanwhile and stays.
func (c *Client) WaitGone(ctx context.Context) error {
	for launcher.Held(c.dirs, c.network) && !launcher.Busy(c.dirs, c.network) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// receiveFile takes one descriptor from a socket.
func receiveFile(sock *os.File) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var b [1]byte
	_, n, _, _, err := unix.Recvmsg(int(sock.Fd()), b[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	fds, err := rights(oob[:n])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive terminal: %d descriptors: %w", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "pty"), nil
}

// rights reads the descriptors of a control message, cmsg(3).
func rights(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
