// Package spoke is the short-term store: it takes every write, gives it its key, and holds the recent past of all channels.
//
// A Node is one start of a hub process on a disk: an incarnation, the writer of one ordered stream. Minting a key and registering it as in flight are
// one step under one lock; the records go into the disk's own log (package log below this one) in that order. When a quorum has synced them, the write
// is committed. The node's low, the position just below the smallest undecided key, is logged with each group; the horizon, the key up to which
// this node holds everything that was ever acknowledged, is the smallest low of all streams that are not settled. On a single disk there is one stream,
// n = W = R = 1, and the same code decides.
//
// What a node never does: it does not look into sealed bytes, does not know what a channel's configuration says, and asks nobody for a stable answer.
package spoke
