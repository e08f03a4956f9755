package dir

import (
	"context"
	"path"
	"strings"
	"sync"
)

// doubts are the folders of which a sync has failed, and how often. There is no end to a doubt: what such a sync lost, no later one writes.
type doubts struct {
	mu      sync.Mutex // guards the fields; never held during a sync
	folders map[string]int
	others  int // failures in folders that found no room in the map; they count for all
	making  map[*making]struct{}
}

// making is a folder that is being made, which may sync its parents.
type making struct {
	folder string
	done   chan struct{}
}

const maxDoubts = 10_000

// add notes that a sync of a folder failed. It is called before anybody hears of a later sync of that folder.
func (d *doubts) add(folders ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range folders {
		if d.folders[f] == 0 && len(d.folders) >= maxDoubts {
			d.others++
			continue
		}
		d.folders[f]++
	}
}

// has says whether a sync of the folder itself ever failed.
func (d *doubts) has(folder string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.others > 0 || d.folders[folder] > 0
}

// count is how many syncs of the folder or of one above it have failed.
func (d *doubts) count(folder string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.others
	if len(d.folders) == 0 {
		return n
	}
	for f := folder; ; {
		n += d.folders[f]
		slash := strings.LastIndexByte(f, '/')
		if slash < 0 {
			return n
		}
		f = f[:slash]
	}
}

// begin notes that a folder is being made, until end is called with the folders whose sync may have failed.
func (d *doubts) begin(folder string) (end func(failed []string)) {
	m := &making{folder: folder, done: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.making[m] = struct{}{}
	return func(failed []string) {
		d.add(failed...)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.making, m)
		close(m.done)
	}
}

// settled waits for the folders that are being made below a folder or beside it: a sync of it or of its parent may have failed that nobody knows of yet.
func (d *doubts) settled(ctx context.Context, folder string) error {
	for _, m := range d.below(path.Dir(folder)) {
		select {
		case <-m.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (d *doubts) below(folder string) (all []*making) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for m := range d.making {
		if len(m.folder) > len(folder) && m.folder[len(folder)] == '/' && strings.HasPrefix(m.folder, folder) {
			all = append(all, m)
		}
	}
	return all
}
