// Package channel is the write path and the merged query layer: everything that people do with channels and their items, over a short-term and a long-term
// store that it describes here and does not know.
//
// Service holds the rules: of configurations (validate.go), of inserts (insert.go, bulk.go, historical.go, large.go), and of who may see what, and when
// which store is asked (query.go, which states the policy). What is clever is pure: plan, mergeKeys, mergeItems, union, merge, check, protected.
//
// It owns one kind of document, Document in the catalog. It speaks no HTTP (channel/rest does), lays nothing out (channel/longterm does), moves nothing between the
// stores (channel/archive does), starts no goroutine that outlives a call, and keeps no item. DESIGN.md has the decisions and the wrinkles.
package channel

import (
	"context"
	"io"
	"iter"
	"time"

	"timehub/hub"
)

// ShortTerm is what the service needs of the store that takes writes and answers for the recent past; spoke.Node is it. Channels are named by
// their display name. Errors carry kinds: Unavailable (no quorum, not started, a hole), Full, NotFound, TooLarge.
type ShortTerm interface {
	Writer
	Read(ctx context.Context, channel string, key hub.Key) (hub.Sealed, error)
	// Keys and Items answer a query; Page.Horizon is set. A stable query is cut at that horizon. Items answers from what the store held at the
	// first step. An error that is about one item comes with its key: the item may be elsewhere. Where Keys counts Page.Silent, Items is Unavailable,
	// unless the query is Partial.
	Keys(ctx context.Context, q hub.Query) (hub.Page, error)
	Items(ctx context.Context, q hub.Query) iter.Seq2[hub.Sealed, error]
	// Horizon is the key up to which this node holds everything that was ever acknowledged (ENGINE §5). It never retreats.
	Horizon(ctx context.Context) (hub.Key, error)
	// Floor is the key from which on the store holds everything of the channel that was ever written through it; below it, ask long-term.
	// It rises before anything is removed: a query that began when it stood where it still stands has seen everything above it.
	Floor(channel string) hub.Key
	// Watch wakes when the channel has a new key that the horizon has reached. The returned channel holds one token.
	Watch(channel string) (wake <-chan struct{}, stop func())
}

// Writer is the writing half of ShortTerm.
type Writer interface {
	// Write mints a key for sealed bytes and returns it when a quorum has them on disk. Of an Unavailable write nothing is known; the item may
	// show up or not, but to every reader the same. After an error the store may still hold sealed: do not use that memory again.
	Write(ctx context.Context, channel string, sealed []byte) (hub.Key, error)
	// WriteBulk mints one shared key and writes part i under hub.BulkKey(key, i): all or none. It returns the shared key.
	WriteBulk(ctx context.Context, channel string, sealed [][]byte) (hub.Key, error)
	// WriteKeyed writes items under keys of their own (replication); one that is there already is not written again. A key at or below the marker of
	// the channel (Replicas) is noted as late.
	WriteKeyed(ctx context.Context, channel string, items ...hub.Sealed) error
	// Now returns a key with the hash "initial" in the present millisecond of the clock that mints: every key that this node minted before lies below it,
	// every key that it mints after Now has returned lies above it, after a restart too. Whoever begins here gets what is written from now on
	// (spec 03 §1.3). Unavailable: the clock cannot be moved at the moment.
	Now(ctx context.Context) (hub.Key, error)
}

// Sequel is what a ShortTerm may have beside: it moves its clock to a key that was minted elsewhere, so that whatever it mints later lies above (ENGINE §5).
// Invalid: the key lies too far ahead. It may wait for a clock; ctx ends that.
type Sequel interface {
	After(ctx context.Context, key hub.Key) error
}

// Others is what a ShortTerm may have beside: how far ahead of this node's clock another one may have minted that wrote before now. 0: there are no others.
type Others interface {
	Ahead() time.Duration
}

// Elsewhere is what a ShortTerm may have beside: it looks for an item of a replicated channel on all nodes, whatever its age. NotFound: so many have answered that it would be
// known; Unavailable: too few.
type Elsewhere interface {
	ReadElsewhere(ctx context.Context, channel string, key hub.Key) (hub.Sealed, error)
}

// Replicas is what replication needs of the short-term store beside ShortTerm (ENGINE §7); spoke.Node is it.
type Replicas interface {
	// WriteComplete writes the channel's marker: everything of its source up to a key is here. It follows what WriteKeyed has written before.
	WriteComplete(ctx context.Context, channel string, upTo hub.Key) error
	// Marker is the highest marker of the channel; false: it has none. Whoever replicates goes on from there.
	Marker(channel string) (upTo hub.Key, ok bool)
	// Complete is up to where readers may go: the Marker, or less while what it relies on is still on its way to this node.
	Complete(channel string) (upTo hub.Key, ok bool)
}

// LongTerm is what the service needs of the store that keeps items for good; longterm.Store is it.
type LongTerm interface {
	// Write stores one item durably as a SINGLE object, replacing one of the same key.
	Write(ctx context.Context, ch *hub.Channel, item hub.Sealed) error
	Read(ctx context.Context, ch *hub.Channel, key hub.Key) (hub.Sealed, error)
	// Keys and Items answer a query from the layouts of the channel's storage that q.Tier takes in. Seeking costs a few listings, however sparse
	// the history (ENGINE §6).
	Keys(ctx context.Context, ch *hub.Channel, q hub.Query) (hub.Page, error)
	Items(ctx context.Context, ch *hub.Channel, q hub.Query) iter.Seq2[hub.Sealed, error]
	// Delete removes single items and their large bodies, durably; a key that does not exist is no error.
	Delete(ctx context.Context, ch *hub.Channel, keys ...hub.Key) error
	// WriteLarge stores the body of a large item before its index item is written (spec 01 §1.6). It reads body once and returns the bytes it took.
	WriteLarge(ctx context.Context, ch *hub.Channel, key hub.Key, contentType string, body io.Reader) (size int64, err error)
	// ReadLarge reads n bytes (n < 0: the rest) of such a body from offset.
	ReadLarge(ctx context.Context, ch *hub.Channel, key hub.Key, offset, n int64) (body io.ReadCloser, err error)
}
