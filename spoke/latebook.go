package spoke

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/disk"
)

const (
	lateFile  = "late"
	latePiece = 1 << 20 // bytes of the file that are read at once
	lateLine  = 16 << 10
)

// LateItem names an item in which answers of the nodes may have differed for a while: the incarnation that wrote it was closed by force (ENGINE §4).
type LateItem struct {
	Channel string    `json:"channel"`
	Key     string    `json:"key"`
	Stream  string    `json:"incarnation"` // that was closed by force: ordinal.number
	Why     string    `json:"why"`
	Node    string    `json:"node"`  // that found it
	Found   time.Time `json:"found"` // by the clock of that node
}

// Why an item is late.
const (
	// LateOutside: a member that came later has it, and those who closed the incarnation had not. It may have been acknowledged.
	LateOutside = "outside"
	// LatePassed: those who closed the incarnation had it, and a member that came later had given stable answers beyond it, without it.
	LatePassed = "passed"
	// LateGivenUp: those who closed the incarnation had it, and a member that came later had given it up. It was never acknowledged.
	LateGivenUp = "given-up"
)

// lateBook is the file "late": a line of JSON for each late item, in the order in which this disk learned of them. It only grows. Anybody may add and
// read. Positions in it are offsets; what lies below size is durable.
type lateBook struct {
	disk   disk.Disk
	seed   maphash.Seed
	adding chan struct{} // holds a token while somebody adds

	mu    sync.Mutex // guards what follows; never held while anybody waits
	file  disk.File  // nil: nothing was ever late
	size  int64
	known map[uint64]struct{} // channels and keys
}

// openLate reads the file, if there is one.
func openLate(d disk.Disk) (*lateBook, error) {
	b := &lateBook{disk: d, seed: maphash.MakeSeed(), adding: make(chan struct{}, 1), known: map[uint64]struct{}{}}
	f, err := d.Open(lateFile, true)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		b.file = f
		b.size, err = f.Size()
	}
	for at := int64(0); err == nil && at < b.size; {
		var items []LateItem
		var next int64
		if items, next, err = b.page(at, 0); err == nil {
			for _, i := range items {
				b.known[b.sum(i.Channel, i.Key)] = struct{}{}
			}
			if next == at { // a line that was torn: it was not in use yet
				b.size = at
				err = f.Truncate(at)
			}
			at = next
		}
	}
	if err == nil && b.size > 0 {
		err = f.Sync() // what a process that died had written is shown to others
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of late items: %w", errors.Join(err, b.close()))
	}
	return b, nil
}

func (b *lateBook) close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

func (b *lateBook) sum(channel, key string) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	_, _ = h.WriteString(channel)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(key)
	return h.Sum64()
}

// state is how long the durable file is, and how many items it names.
func (b *lateBook) state() (size int64, count int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size, len(b.known)
}

// add makes names durable and returns those that were new.
func (b *lateBook) add(items []LateItem) ([]LateItem, error) {
	b.adding <- struct{}{}
	defer func() { <-b.adding }()
	var fresh []LateItem
	var text []byte
	sums := map[uint64]struct{}{}
	b.mu.Lock()
	for _, i := range items {
		sum := b.sum(i.Channel, i.Key)
		if _, known := b.known[sum]; known {
			continue
		}
		if _, twice := sums[sum]; twice {
			continue
		}
		sums[sum] = struct{}{}
		fresh = append(fresh, i)
	}
	f, at := b.file, b.size
	b.mu.Unlock()
	if len(fresh) == 0 {
		return nil, nil
	}
	for _, i := range fresh {
		line, err := json.Marshal(i)
		if err != nil {
			return nil, err
		}
		text = append(append(text, line...), '\n')
	}
	var err error
	if f == nil {
		if f, err = b.make(); err != nil {
			return nil, fmt.Errorf("make the list of late items: %w", err)
		}
	}
	if err = f.Truncate(at); err == nil { // of what a call before could not write to its end
		if _, err = f.WriteAt(text, at); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		if b.file == nil {
			err = errors.Join(err, f.Close())
		}
		return nil, fmt.Errorf("write the list of late items: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.file, b.size = f, at+int64(len(text))
	for sum := range sums {
		b.known[sum] = struct{}{}
	}
	return fresh, nil
}

// make makes the file, or opens it, if a call before got no further than that.
func (b *lateBook) make() (disk.File, error) {
	f, err := b.disk.Create(lateFile)
	if errors.Is(err, fs.ErrExist) {
		f, err = b.disk.Open(lateFile, true)
	}
	if err != nil {
		return nil, err
	}
	if err := b.disk.SyncDir("."); err != nil { // the name may never become durable: the next call makes another
		return nil, errors.Join(err, f.Close(), b.disk.Remove(lateFile))
	}
	return f, nil
}

// page reads lines from an offset on, at most limit of them (0: as many as a piece holds, but for the beginning of a bulk that goes on behind it). next is where to go on: from itself
// at the end.
func (b *lateBook) page(from int64, limit int) (items []LateItem, next int64, err error) {
	b.mu.Lock()
	f, size := b.file, b.size
	b.mu.Unlock()
	if from < 0 || from >= size {
		return nil, min(max(from, 0), size), nil
	}
	text := make([]byte, min(size-from, latePiece))
	if n, err := f.ReadAt(text, from); n < len(text) && err != io.EOF {
		return nil, from, fmt.Errorf("read the list of late items: %w", err)
	}
	next = from
	begins, first := from, 0 // of the last bulk, or item
	for limit == 0 || len(items) < limit {
		line, rest, whole := bytes.Cut(text, []byte{'\n'})
		if !whole {
			if len(line) > lateLine { // no line is as long as that
				return nil, from, hub.E(hub.Internal, "the list of late items, %s, is damaged at byte %d", b.disk.Path(lateFile), next)
			}
			break
		}
		var i LateItem
		if json.Unmarshal(line, &i) == nil {
			if k := len(items); k == 0 || !together(items[k-1].named(), i.named()) {
				begins, first = next, k
			}
			items = append(items, i)
		}
		text, next = rest, next+int64(len(line))+1
	}
	if limit == 0 && next < size && begins > from {
		return items[:first], begins, nil
	}
	return items, next, nil
}
