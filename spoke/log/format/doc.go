// Package format is the bytes of the log of the short-term store: heads, links, groups, records, footers and the file floor, and the index of a segment,
// in memory while it grows and on pages of its footer afterwards. docs/formats.md has the tables.
//
// Whatever it parses it checks first: nothing that it returns without an error is wrong, and no input makes it panic or use memory beyond the input's
// size. It reads through io.ReaderAt, writes through what it is given, has no goroutines, no clock and no policy; when to write, what to keep and
// what to serve is decided by spoke/log.
package format
