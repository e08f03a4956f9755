// Package replicate keeps channels that have a replicationSource equal to their sources (spec 03 §7): same keys, content types and bytes.
//
// It pulls. The Replicator watches the configurations; of each channel with a source one node in the cluster runs a follower (coord.Lead), which reads the
// source with hub/client through the public interface alone and hands what it reads to channel.Service under the source's keys. Nothing is registered at
// the source, so any hub will do: another one, the original's, a channel of this very hub, or one that follows us.
//
// A round of a follower: list the stable keys after the cursor; read them in one bulk answer, whose parts have to be those keys; ask singly for what it left out,
// and leave out only what the source itself says is gone; write; move the marker of the channel and then the cursor. When the list is exhausted the marker
// goes on to the source's own horizon and the follower rests until an event, or the next tick, says that there is more. The bytes always come from reads,
// never from events, which cannot carry all of them unchanged.
//
// The cursor is a register of the coordinator, written after the items and the marker are durable: whoever dies in between reads some items again, and
// the store knows them by their keys. What is wrong in an answer ends the round with nothing of it written; rounds that fail come again, after pauses that grow
// to half a minute. The channel's status says what is wrong.
package replicate
