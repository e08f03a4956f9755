package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Result is what is known of an operation.
type Result string

// The results. Unknown means that it may have happened or not; it never counts as a loss, but what was seen of it once has to stay.
const (
	OK      Result = "ok"
	Fail    Result = "fail"
	Unknown Result = "unknown"
)

// Kind says what an operation was.
type Kind string

// The kinds. Post and Bulk write; Get reads an item; List is every answer that lists keys; Follow is what a socket, a stream of events or a long-poll
// brought; Deliver is a call of a webhook; Final is a list that was read after everything was healed, Walk one that was walked item by item; Stored is
// what lies in the bucket.
const (
	Post    Kind = "post"
	Bulk    Kind = "bulk"
	Get     Kind = "get"
	List    Kind = "list"
	Follow  Kind = "follow"
	Deliver Kind = "deliver"
	Final   Kind = "final"
	Walk    Kind = "walk"
	Stored  Kind = "stored"
	Hurt    Kind = "fault" // from its first effect to its end, and until the hubs are healthy again
)

// Item is one item as somebody sent or saw it. What was not seen is empty.
type Item struct {
	Key string `json:"key,omitempty"`
	ID  string `json:"id,omitempty"`  // the first word of its body: who sent it, and the how manieth it is
	Sum string `json:"sum,omitempty"` // of the body
}

// Op is one line of a history. Times are nanoseconds since the run began, by the monotonic clock of the test.
type Op struct {
	Proc    string `json:"proc"` // who did it, one at a time
	Kind    Kind   `json:"op"`
	Channel string `json:"channel,omitempty"`
	Node    int    `json:"node"` // which was asked, -1: none
	Begin   int64  `json:"begin"`
	End     int64  `json:"end"`
	Result  Result `json:"result"`
	Status  int    `json:"status,omitempty"`
	Error   string `json:"error,omitempty"`
	Path    string `json:"path,omitempty"`
	After   string `json:"after,omitempty"` // Hub-After as it was sent
	Seen    string `json:"seen,omitempty"`  // Hub-Horizon as it was sent

	Stable  bool   `json:"stable,omitempty"`
	Horizon string `json:"horizon,omitempty"` // Hub-Horizon as it was told
	Silent  bool   `json:"silent,omitempty"`  // the answer says that it may lack something; of a call of a webhook: it was not answered
	Lo      string `json:"lo,omitempty"`      // the answer says everything about keys from here …
	Hi      string `json:"hi,omitempty"`      // … to below here; with Hi "" it says nothing about what is not in it

	Items []Item `json:"items,omitempty"` // in the order in which they came
}

// beyond is above every key.
const beyond = "~"

// after is the least text above a key.
func after(key string) string { return key + "\x00" }

// History is a run as it was written down.
type History struct {
	Start time.Time // the wall clock at 0
	Hubs  int
	Ops   []Op // each Proc's in its order
}

// Recorder writes histories into a folder, a file for each Proc. Its methods may be called at any time.
type Recorder struct {
	dir   string
	start time.Time

	mu    sync.Mutex // guards what follows
	files map[string]*file
	err   error
}

type file struct {
	f *os.File
	w *bufio.Writer
}

// head is the file that says when 0 was.
type head struct {
	Start time.Time `json:"start"`
	Hubs  int       `json:"hubs"`
}

const headName = "run.json"

// NewRecorder begins a history in a folder, now.
func NewRecorder(dir string, hubs int) (*Recorder, error) {
	r := &Recorder{dir: dir, start: time.Now(), files: map[string]*file{}}
	b, err := json.Marshal(head{r.start, hubs})
	if err == nil {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, headName), b, 0o644))
	}
	return r, err
}

// Now is the time of the run.
func (r *Recorder) Now() int64 { return int64(time.Since(r.start)) }

// Add writes an operation down.
func (r *Recorder) Add(op Op) {
	line, err := json.Marshal(op)
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.files[op.Proc]
	if f == nil && err == nil {
		f = &file{}
		if f.f, err = os.Create(filepath.Join(r.dir, op.Proc+".jsonl")); err == nil {
			f.w = bufio.NewWriterSize(f.f, 1<<16)
			r.files[op.Proc] = f
		}
	}
	if err == nil {
		_, err = f.w.Write(append(line, '\n'))
	}
	r.err = errors.Join(r.err, err)
}

// Flush writes what was noted so far.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		r.err = errors.Join(r.err, f.w.Flush())
	}
	return r.err
}

// Close finishes the files; it reports whatever went wrong since the beginning.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		r.err = errors.Join(r.err, f.w.Flush(), f.f.Close())
	}
	clear(r.files)
	return r.err
}

// Load reads the histories of a folder.
func Load(dir string) (*History, error) {
	b, err := os.ReadFile(filepath.Join(dir, headName))
	if err != nil {
		return nil, err
	}
	var top head
	if err := json.Unmarshal(b, &top); err != nil {
		return nil, fmt.Errorf("%s: %w", headName, err)
	}
	h := &History{Start: top.Start, Hubs: top.Hubs}
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := h.read(name); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return h, nil
}

func (h *History) read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for dec := json.NewDecoder(bufio.NewReaderSize(f, 1<<20)); ; {
		var op Op
		switch err := dec.Decode(&op); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		h.Ops = append(h.Ops, op)
	}
}

// keyTime is the millisecond that a key names.
func keyTime(key string) (time.Time, error) {
	parts := strings.SplitN(key, "/", 8)
	if len(parts) < 7 {
		return time.Time{}, fmt.Errorf("%q is no key", key)
	}
	return time.Parse("2006/01/02/15/04/05.000", strings.Join(parts[:6], "/")+"."+parts[6])
}
