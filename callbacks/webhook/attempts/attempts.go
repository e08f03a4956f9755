// Package attempts remembers the last calls of each webhook on the node that made them: in files below a folder of the data directory, at most 1,000 for a
// webhook and 256 MiB in all, so that a person can see what a consumer answered. It is a diary, not a register: nothing is synced, a call that
// could not be written down in time is dropped and counted, and no delivery waits for it.
//
// A webhook's attempts lie in segments of up to 256, each a file; the oldest segment goes when the rest holds enough, or when all files together grow too
// large and no segment of another webhook ends earlier. At most 64 files are open, however many webhooks there are. The bytes are in docs/formats.md.
package attempts

import (
	"slices"
	"strings"
	"time"
)

// Attempt is one call. Texts and answers that are too long are cut.
type Attempt struct {
	Time    time.Time // when it began; kept to the millisecond
	Path    string    // key path, or period path
	Number  int       // from 1
	Status  int       // 0: no answer
	Reason  string    // reason phrase as received
	Error   string    // why there was no usable answer
	Latency time.Duration
	Answer  []byte // first KiB
	Replay  bool   // it was called again because somebody asked
}

// What is kept of the parts of an attempt, in bytes.
const (
	maxPath   = 2 << 10
	maxText   = 500
	maxAnswer = 1 << 10
)

// OK reports whether the consumer took it.
func (a Attempt) OK() bool { return a.Error == "" && a.Status >= 200 && a.Status <= 299 }

// cut returns the attempt as it is kept.
func (a Attempt) cut() Attempt {
	a.Time = time.UnixMilli(a.Time.UnixMilli()).UTC()
	a.Latency = max(a.Latency.Truncate(time.Microsecond), 0)
	a.Number, a.Status = max(a.Number, 0), max(a.Status, 0)
	a.Path, a.Reason, a.Error = head(a.Path, maxPath), head(a.Reason, maxText), head(a.Error, maxText)
	if a.Answer = a.Answer[:min(len(a.Answer), maxAnswer)]; len(a.Answer) == 0 {
		a.Answer = nil
	}
	return a
}

// head is the beginning of s, not cut within a character.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// weight is about what an attempt needs in memory.
func (a Attempt) weight() int {
	return 200 + len(a.Path) + len(a.Reason) + len(a.Error) + len(a.Answer)
}

// Filter chooses attempts; its zero value chooses all.
type Filter struct {
	Path   string // this path, or one within it: a minute chooses all its items
	Status int    // this status
	Silent bool   // those without an answer
	Failed bool   // those that the consumer did not take
}

func (f Filter) takes(a Attempt) bool {
	return (f.Path == "" || a.Path == f.Path || strings.HasPrefix(a.Path, strings.TrimSuffix(f.Path, "/")+"/")) &&
		(f.Status == 0 || a.Status == f.Status) && (!f.Silent || a.Status == 0) && (!f.Failed || !a.OK())
}

// List returns attempts of a webhook, newest first, those that were added just now too. Attempts of before the start are there as soon as Run has read
// them; until then it waits, and fails with kind Unavailable after ten seconds.
func (s *Store) List(name string, f Filter) ([]Attempt, error) {
	all, err := s.all(name)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a Attempt) bool { return !f.takes(a) }), nil
}

// Failed returns the paths whose newest attempt failed, ascending, as far as attempts are kept. It fails like List.
func (s *Store) Failed(name string) ([]string, error) {
	all, err := s.all(name)
	if err != nil {
		return nil, err
	}
	var failed []string
	seen := map[string]bool{}
	for _, a := range all {
		if !seen[a.Path] && !a.OK() {
			failed = append(failed, a.Path)
		}
		seen[a.Path] = true
	}
	slices.Sort(failed)
	return failed, nil
}
