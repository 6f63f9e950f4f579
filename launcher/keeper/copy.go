package keeper

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/whisk-sandbox/whisk/launcher"
)

// handleCopyOut writes an archive of what is at a path of a sandbox to the descriptor that came along.
func (s *server) handleCopyOut(r *http.Request, _ *reply) error {
	return s.copying(r, func(sb *launcher.Sandbox, f *os.File) error {
		return sb.CopyOut(r.URL.Query().Get("path"), r.URL.Query().Get("as"), f)
	})
}

// handleCopyIn reads an archive from the descriptor that came along into a sandbox.
func (s *server) handleCopyIn(r *http.Request, _ *reply) error {
	var to launcher.CopyIn
	if err := readBody(r, &to); err != nil {
		return err
	}
	return s.copying(r, func(sb *launcher.Sandbox, f *os.File) error { return sb.CopyIn(to, f) })
}

// copying calls each with the sandbox's file system: that of one that runs, or of one that has ended, put together for as
// long as it takes.
func (s *server) copying(r *http.Request, each func(*launcher.Sandbox, *os.File) error) error {
	files := takeFiles(r)
	defer closeAll(files)
	if len(files) != 1 {
		return fmt.Errorf("read request: %d descriptors came and 1 is needed", len(files))
	}
	id := r.URL.Query().Get("id")
	s.mu.Lock()
	m := s.sandboxes[id]
	s.mu.Unlock()
	if m != nil {
		m.mu.Lock()
		sb, over := m.sb, m.finished
		m.mu.Unlock()
		if sb != nil && !over {
			return each(sb, files[0])
		}
		select {
		case <-m.gone:
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	rec, err := launcher.ReadRecord(s.doc.Dirs, id)
	if err != nil {
		return notFound(id)
	}
	if m, err = s.resume(r.Context(), rec, true); err != nil {
		return err
	}
	defer m.drop()
	sb, err := launcher.Prepare(&m.rec.Spec, launcher.Options{Dirs: s.doc.Dirs, Base: m.base, MaxID: s.doc.MaxID, Volumes: m.rec.Volumes})
	if err != nil {
		return err
	}
	defer sb.Close()
	if err := sb.Built(r.Context()); err != nil {
		return err
	}
	return each(sb, files[0])
}

// CopyOut has what is at a path of a sandbox written to w as an archive; see launcher.Sandbox.CopyOut. w is closed.
func (c *Client) CopyOut(ctx context.Context, id, path, as string, w *os.File) error {
	defer w.Close()
	q := url.Values{"id": {id}, "path": {path}, "as": {as}}
	return c.do(ctx, "/v1/copy-out?"+q.Encode(), nil, []*os.File{w}, nil)
}

// CopyIn has an archive read from r into a sandbox; see launcher.Sandbox.CopyIn. r is closed.
func (c *Client) CopyIn(ctx context.Context, id string, to launcher.CopyIn, r *os.File) error {
	defer r.Close()
	return c.do(ctx, "/v1/copy-in?id="+url.QueryEscape(id), to, []*os.File{r}, nil)
}
