// Package hub holds the words of the product; every other room speaks them.
//
// A channel is a named, append-only sequence of items. An item is immutable bytes with a content type; its key, a UTC millisecond and a hash, is its
// address for ever and gives all items of a channel one total order. A window is a second, minute, hour or day of a channel. Keys, windows and what to
// do with them are written as time paths, for which there is one grammar: ParsePath.
//
// Writes go to the short-term store (Spoke) and are acknowledged when a quorum has them; behind that, jobs carry them to long-term storage. Queries see
// both tiers merged. The stable horizon is the key up to which a node holds everything that was ever acknowledged: stable answers, and everything that
// follows a channel, stop there and can never change. Historical channels have a mutable epoch, up to their mutable time, into which items may be
// inserted at keys of the client's choice; the immutable epoch follows it.
//
// The package imports the standard library only, knows no network and no disk, and takes the time as an argument.
package hub
