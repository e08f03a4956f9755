package format

import (
	"errors"

	"timehub/hub"
)

// Stream is a writer: one start of a node on a disk (ENGINE §4).
type Stream struct {
	Ordinal     uint16
	Incarnation uint32
}

// Low says that everything of a stream at or below Mark is decided, as of an epoch. It is logged with each group.
type Low struct {
	Stream Stream
	Epoch  uint64
	Mark   hub.Mark
}

// Flags say how a record came here and what it means.
type Flags uint8

// The flags of a record; the other bits are zero in this version.
const (
	GivenUp     Flags = 1 << iota // a name without data: it hides the key in every read, wherever the data lies, unless it was taken back
	Late                          // came at or below the horizon; confirmed one by one
	Carried                       // copied here from a segment that was emptied
	Replicated                    // came with a key of its own
	MoreFollows                   // the next record belongs to the same request
	Complete                      // no item and no data: everything of the channel up to the key has been written before this record
	Taken                         // an item that stays, whatever names of its key there are

	KnownFlags = GivenUp | Late | Carried | Replicated | MoreFollows | Complete | Taken
)

// Hides reports whether a key is shown by no read, given the flags of all its records.
func (f Flags) Hides() bool { return f&(GivenUp|Taken) == GivenUp }

// Record is one item of a channel, or with GivenUp the name of one. The log keeps Data as it is and never looks inside.
type Record struct {
	Channel string // 1 to 255 bytes
	Key     hub.Key
	Stream  Stream
	Flags   Flags
	Data    []byte
}

// Digest is the fingerprint of a set of keys.
type Digest struct {
	Count int
	Sum   uint64 // sum of the keys' digests
}

// MergeLows keeps the latest low of each stream.
func MergeLows(all map[Stream]Low, lows []Low) {
	for _, n := range lows {
		if old, ok := all[n.Stream]; !ok || old.Mark <= n.Mark {
			n.Epoch = max(n.Epoch, old.Epoch)
			all[n.Stream] = n
		}
	}
}

var errShort = errors.New("the file ends before it should")
