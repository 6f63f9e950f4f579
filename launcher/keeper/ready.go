package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whisk-sandbox/whisk/config"
	"github.com/whisk-sandbox/whisk/launcher"
)

// Defaults of config.Ready.
const (
	defaultReadyInterval = 200 * time.Millisecond
	defaultReadyTimeout  = 60 * time.Second
)

// tryTime bounds one try of a check: a quarter of the time in all, so that one that gets no answer is made again, and no
// less than 5 s, in which an app that answers at all does.
func tryTime(r *config.Ready) time.Duration {
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultReadyTimeout
	}
	return max(timeout/4, 5*time.Second)
}

// watchLog prepares a readiness check that reads the app's output; it must be called before the app starts.
func (m *managed) watchLog() (<-chan struct{}, error) {
	r := m.rec.App.Ready
	if r == nil || r.Log == "" {
		return nil, nil
	}
	re, err := regexp.Compile(r.Log)
	if err != nil {
		return nil, fmt.Errorf("app %s: ready: %w", m.rec.App.Name, err)
	}
	seen := make(chan struct{})
	var once sync.Once
	m.lines = func(l launcher.LogLine) {
		if re.MatchString(l.Text) {
			once.Do(func() { close(seen) })
		}
	}
	return seen, nil
}

// awaitReady returns when the app serves, has ended, or has not served in time.
func (m *managed) awaitReady(ctx context.Context, logged <-chan struct{}) error {
	r := m.rec.App.Ready
	if r == nil {
		return nil
	}
	timeout, interval := r.Timeout, r.Interval
	if timeout <= 0 {
		timeout = defaultReadyTimeout
	}
	if interval <= 0 {
		interval = defaultReadyInterval
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var last error
	// The first tries follow each other closely: most apps are up within milliseconds.
	for wait := min(interval, 5*time.Millisecond); ; wait = min(interval, wait*2) {
		m.mu.Lock()
		ready := m.rec.Ready // after a restart becomeReady has seen it
		m.mu.Unlock()
		if ready {
			return nil
		}
		if r.Log == "" {
			if last = m.check(ctx, r); last == nil {
				break
			}
		}
		select {
		case <-logged:
			last = nil
		case <-m.ended:
			return m.endedEarly()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				why := "no line of its output matches " + strconv.Quote(r.Log)
				if last != nil {
					why = last.Error()
				}
				return &launcher.Error{Message: fmt.Sprintf("app %q is not ready after %s: %s", m.rec.App.Name, timeout, why), Hint: "whisk logs " + m.rec.Project + "/" + m.rec.App.Name, Exit: launcher.ExitWhisk}
			}
			return ctx.Err()
		case <-time.After(wait):
			continue
		}
		break
	}
	m.mu.Lock()
	sb := m.sb
	m.mu.Unlock()
	return m.nowReady(ctx, sb)
}

// nowReady opens the published ports and says so, unless the app has ended meanwhile and another run of it goes on.
func (m *managed) nowReady(ctx context.Context, sb *launcher.Sandbox) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rec.Ready || m.sb != sb {
		return nil
	}
	if err := m.open(ctx); err != nil {
		return err
	}
	m.rec.Ready = true
	return m.rec.Write(m.s.doc.Dirs)
}

// becomeReady is awaitReady for an app that nobody waits for: started by whisk start or whisk run, or again after it had
// ended. It tries as long as the app runs. logged is watchLog's.
func (m *managed) becomeReady(logged <-chan struct{}) {
	r := m.rec.App.Ready
	if r == nil {
		return
	}
	m.mu.Lock()
	sb := m.sb
	m.mu.Unlock()
	interval := r.Interval
	if interval <= 0 {
		interval = defaultReadyInterval
	}
	for wait := min(interval, 5*time.Millisecond); ; wait = min(interval, wait*2) {
		ready := r.Log == "" && m.check(m.s.ctx, r) == nil
		if !ready {
			select {
			case <-logged:
				ready = true
			case <-sb.Exited():
				return
			case <-m.s.ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		if !ready {
			continue
		}
		if err := m.nowReady(m.s.ctx, sb); err != nil {
			m.mu.Lock()
			m.rec.Error = err.Error()
			_ = m.rec.Write(m.s.doc.Dirs) // the next change writes it again
			m.mu.Unlock()
		}
		return
	}
}

// endedEarly words the end of an app that was to become ready, with the last line it wrote.
func (m *managed) endedEarly() error {
	if _, err := m.end(); err != nil {
		return appError(m.rec.App.Name, err)
	}
	m.mu.Lock()
	stopping := m.stopping
	m.mu.Unlock()
	if stopping {
		return &launcher.Error{Message: fmt.Sprintf("app %q was stopped before it was ready", m.rec.App.Name), Exit: launcher.ExitWhisk}
	}
	msg := fmt.Sprintf("app %q ended with exit code %d before it was ready", m.rec.App.Name, m.code())
	var last string
	_ = launcher.ReadLog(context.Background(), m.s.doc.Dirs, m.rec.ID, launcher.LogOptions{Tail: 1}, func(l launcher.LogLine) error {
		last = strings.TrimSpace(l.Text)
		return nil
	})
	if last != "" {
		msg += "; its last line: " + strconv.Quote(last)
	}
	return &launcher.Error{Message: msg, Hint: "whisk logs " + m.rec.Project + "/" + m.rec.App.Name, Exit: launcher.ExitWhisk}
}

// check makes one try.
func (m *managed) check(ctx context.Context, r *config.Ready) error {
	ctx, cancel := context.WithTimeout(ctx, tryTime(r))
	defer cancel()
	m.mu.Lock()
	sb, address := m.sb, m.rec.IPv4
	m.mu.Unlock()
	if sb == nil {
		return errStarting
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	switch {
	case r.TCP != 0:
		c, err := sb.Dial(ctx, netip.AddrPortFrom(addr, r.TCP))
		if err != nil {
			return err
		}
		return c.Close()
	case r.HTTP != "":
		return checkHTTP(ctx, sb, addr, r.HTTP)
	case len(r.Cmd) > 0:
		return checkCommand(ctx, sb, r.Cmd)
	}
	return nil
}

// checkHTTP asks for ":80/health", or "http://:80/health".
func checkHTTP(ctx context.Context, sb *launcher.Sandbox, addr netip.Addr, what string) error {
	hostport, path, _ := strings.Cut(strings.TrimPrefix(what, "http://"), "/")
	_, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return fmt.Errorf("ready: http = %q: %w", what, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("ready: http = %q: %w", what, err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return sb.Dial(ctx, netip.AddrPortFrom(addr, uint16(n)))
		},
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(addr.String(), port)+"/"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return errors.Unwrap(err)
	}
	resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("GET /%s answered %s", path, resp.Status)
	}
	return nil
}

func checkCommand(ctx context.Context, sb *launcher.Sandbox, argv []string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := sb.Exec(&launcher.ExecSpec{Version: launcher.SpecVersion, Argv: argv}, launcher.Stdio{null, null, null})
	if err != nil {
		return err
	}
	select {
	case <-p.Exited():
	case <-ctx.Done():
		_ = p.Signal(unix.SIGKILL)
		<-p.Exited()
		return fmt.Errorf("%q took too long", argv[0])
	}
	if p.ExitCode() != 0 {
		return fmt.Errorf("%q exited with %d", argv[0], p.ExitCode())
	}
	return nil
}
