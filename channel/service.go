package channel

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"timehub/hub"
	"timehub/hub/metrics"
	"timehub/hub/seal"
)

// Catalog keeps one Document for each channel name, under hub.ChannelID; hub/catalog.Catalog[Document] is it. Documents it hands out are shared:
// nobody changes them.
type Catalog interface {
	// Get answers from the node's memory: NotFound if there is no document.
	Get(ctx context.Context, id string) (*Document, error)
	// Fresh answers from the store, and brings the memory up to date.
	Fresh(ctx context.Context, id string) (*Document, error)
	// List reads all documents from the store; Cached lists those in memory. Both are complete and in no particular order.
	List(ctx context.Context) ([]*Document, error)
	Cached(ctx context.Context) ([]*Document, error)
	// Update changes a document in one conditional step: change gets the present one, nil if there is none, and may be called again when somebody
	// else was first. It returns the new one; nil removes the document; an error ends the update and is returned. Returning the very document
	// it was given writes nothing. When Update returns, the change is durable and Get sees it.
	Update(ctx context.Context, id string, change func(now *Document) (*Document, error)) (*Document, error)
	// Refresh reads everything that has changed.
	Refresh(ctx context.Context) error
}

// Options are what a Service stands on. Short, Long and Catalog are required.
type Options struct {
	Short   ShortTerm
	Long    LongTerm
	Catalog Catalog
	// Replicas keeps the markers of replicated channels; it is Short, seen from another side. nil: nothing is replicated here.
	Replicas Replicas
	Sealer   *seal.Sealer // nil: one of its own
	// Changed is called after a channel was made, changed or removed, durably, and before that is answered; also when a request changed nothing, so that who
	// repeats it repairs what failed the first time. before and after are shared, nil if there was or is no channel. Its error is the answer. nil: nobody is told.
	Changed func(ctx context.Context, before, after *hub.Channel) error

	Clock    hub.Clock   // nil: time.Now
	Horizon  hub.Horizon // how stable answers are cut (app.stable_seconds)
	Birthday time.Time   // app.birthDay; zero: 2015-01-01

	ProtectChannels bool  // hub.protect.channels
	LargeBytes      int64 // app.large.payload.MB in bytes: items of this size and more are large; 0: 40 MiB
	MaxItemBytes    int64 // app.maxItemSizeMB in bytes; 0: 1 GiB
	MaxCount        int   // app.directionCountLimit: n is clamped to it; 0: 10,000
	MaxParts        int   // app.bulk.maxParts; 0: hub.MaxBulk, which is also the most there can be
	TagParallel     int   // channels that one tag query asks at the same time; 0: 8

	Random  func() uint64 // draws hashes; nil: math/rand/v2
	Log     *slog.Logger  // nil: nothing
	Metrics metrics.Registry
}

// Service is the write path and the merged query layer: everything that can be done with channels and their items, over a short-term and a long-term
// store. It is safe for concurrent use, keeps no item, and starts nothing. Methods that take a *hub.Channel want one that Channel, Fresh or another
// method of the same Service returned; nobody may change it.
type Service struct {
	opt     Options
	meters  meters
	buffers sync.Pool // *[]byte: sealed bytes of items being written
	chunks  sync.Pool // *[bulkChunk]byte: the same of bulks
	shown   atomic.Pointer[shown]
}

// New checks the options and returns a Service.
func New(opt Options) (*Service, error) {
	if opt.Short == nil || opt.Long == nil || opt.Catalog == nil {
		return nil, hub.E(hub.Internal, "channel.New needs Short, Long and Catalog")
	}
	for _, n := range []int64{opt.LargeBytes, opt.MaxItemBytes, int64(opt.MaxCount), int64(opt.MaxParts), int64(opt.TagParallel), opt.Horizon.Seconds} {
		if n < 0 {
			return nil, hub.E(hub.Internal, "channel.New: a limit is negative: %d", n)
		}
	}
	fillDefaults(&opt)
	s := &Service{opt: opt}
	s.meters.open(opt.Metrics)
	return s, nil
}

func fillDefaults(opt *Options) {
	if opt.Sealer == nil {
		opt.Sealer = seal.New(seal.Options{})
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Birthday.IsZero() {
		opt.Birthday = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if opt.LargeBytes == 0 {
		opt.LargeBytes = 40 << 20
	}
	if opt.MaxItemBytes == 0 {
		opt.MaxItemBytes = 1 << 30
	}
	if opt.MaxCount == 0 {
		opt.MaxCount = 10000
	}
	if opt.MaxParts == 0 || opt.MaxParts > hub.MaxBulk {
		opt.MaxParts = hub.MaxBulk
	}
	if opt.TagParallel == 0 {
		opt.TagParallel = 8
	}
	if opt.Random == nil {
		opt.Random = rand.Uint64
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Metrics = metrics.OrDiscard(opt.Metrics)
}

// MaxItemBytes is the size above which Insert and InsertAt answer TooLarge; LargeBytes the one from which on an item is large.
func (s *Service) MaxItemBytes() int64 { return s.opt.MaxItemBytes }

// LargeBytes is the size from which on an item is large.
func (s *Service) LargeBytes() int64 { return s.opt.LargeBytes }

// MaxParts is the number of parts above which InsertBulk answers TooLarge.
func (s *Service) MaxParts() int { return s.opt.MaxParts }

// MaxCount is what the n of a Search is clamped to.
func (s *Service) MaxCount() int { return s.opt.MaxCount }

// Sealer is what opens the envelopes that this service hands out.
func (s *Service) Sealer() *seal.Sealer { return s.opt.Sealer }
