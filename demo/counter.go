package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Visits is the counter's state, and the content of visits.json.
type Visits struct {
	Count uint64    `json:"count"`
	First time.Time `json:"first,omitzero"` // of the first visit, UTC
}

// counter counts visits in a file. It is safe for use by several goroutines of one process; a second process on the
// same folder would lose counts.
type counter struct {
	dir string

	mu    sync.Mutex
	value Visits
}

// openCounter reads the counter that an earlier run left in dir, or begins at zero.
func openCounter(dir string) (*counter, error) {
	c := &counter{dir: dir}
	text, err := os.ReadFile(c.path())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading visits: %w", err)
	}
	if err := json.Unmarshal(text, &c.value); err != nil {
		return nil, fmt.Errorf("reading visits from %q: %w", c.path(), err)
	}
	return c, nil
}

func (c *counter) path() string { return filepath.Join(c.dir, "visits.json") }

// read returns the visits counted so far.
func (c *counter) read() Visits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// add counts one visit at now and returns the new state, which is on disk by then.
func (c *counter) add(now time.Time) (Visits, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.value
	next.Count++
	if next.First.IsZero() {
		next.First = now.UTC().Truncate(time.Second)
	}
	text, err := json.Marshal(next)
	if err != nil {
		return Visits{}, fmt.Errorf("encoding visits: %w", err)
	}
	if err := replace(c.path(), append(text, '\n')); err != nil {
		return Visits{}, fmt.Errorf("keeping visits: %w", err)
	}
	c.value = next
	return next, nil
}

// replace writes a file so that, whenever the machine stops, either the old or the new content is there whole. The
// temporary name is always the same: what a crash leaves behind is overwritten by the next visit.
func replace(name string, content []byte) (err error) {
	temp := name + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	// The rename itself is durable only once the folder is.
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
