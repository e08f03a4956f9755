// Package log is the on-disk engine of the short-term store: one append-only log of all channels on one disk (ENGINE §3).
//
// Records are appended to one active segment by one committer, which writes what has gathered as one group, syncs once and answers everyone. A segment
// that is full or a minute old is rolled: the next one, prepared beforehand, takes over, and a footer (sorted entries, a directory of channels, digests
// per minute) is appended to the old one in the background; from then on the file never changes. Reads merge the segments that may hold a channel in a
// range; they never wait for the committer and never see what is not on disk. A sweep removes segments that long-term storage has taken over.
//
// What can go wrong has one answer each. A torn tail is cut, unless it is known that it was whole (Options.Reached). Damage to acknowledged data is reported and kept as a hole; a damaged record is absent,
// never wrong. A file on which a write or a sync failed is never touched again; the next segment fixes its length before the writers learn that their
// records are lost. A full disk refuses writes and serves reads. docs/formats.md has the bytes and the argument for every crash.
//
// The package knows nothing of minting, quorum and horizon, and never looks inside Record.Data. It starts no goroutine but in Run and Sweep, which wait
// for what they started.
package log
