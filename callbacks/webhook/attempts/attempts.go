// Package attempts remembers the last calls of each webhook on the node that made them: in files below a folder of the data directory, at most 1,000 for a
// webhook and 256 MiB in all, so that a person can see what a consumer answered. It is a diary, not a register: nothing is synced, a call that
// could not be written down in time is dropped and counted, and no delivery waits for it.
package attempts

import (
	"context"
	"log/slog"
	"time"

	"timehub/hub/disk"
)

// Options are the parts of a Store.
type Options struct {
	Disk       disk.Disk // required
	Folder     string    // below the root of Disk; "": attempts
	MaxBytes   int64     // of all files; 0: 256 MiB
	PerWebhook int       // 0: 1,000
	Log        *slog.Logger
}

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

// OK reports whether the consumer took it.
func (a Attempt) OK() bool { return a.Error == "" && a.Status >= 200 && a.Status <= 299 }

// Filter chooses attempts; its zero value chooses all.
type Filter struct {
	Path   string // this path, or one within it: a minute chooses all its items
	Status int    // this status
	Silent bool   // those without an answer
	Failed bool   // those that the consumer did not take
}

// Store holds the attempts. All methods are safe for concurrent use; only Run writes to the disk.
type Store struct{ opt Options }

// Open makes the folder. It reads and starts nothing: that is Run.
func Open(o Options) (*Store, error) { panic("") }

// Run writes what Add brings until ctx ends; then it writes what is left. A disk that fails is logged, once while it lasts.
func (s *Store) Run(ctx context.Context) error { panic("") }

// Add hands over an attempt of a webhook. It never waits: when the disk is too slow, the attempt is dropped and counted.
func (s *Store) Add(name string, a Attempt) {}

// Dropped is how many attempts were lost because the disk was slow or full.
func (s *Store) Dropped() int64 { return 0 }

// List returns attempts of a webhook, newest first, those that were added just now too.
func (s *Store) List(name string, f Filter) ([]Attempt, error) { return nil, nil }

// Failed returns the paths whose newest attempt failed, ascending, as far as attempts are kept.
func (s *Store) Failed(name string) ([]string, error) { return nil, nil }

// Remove forgets a webhook.
func (s *Store) Remove(name string) {}
