// Package bucket is the contract of everything that is kept for long: named blobs, as S3 has them. Implementations are folders of this one; each is
// finished when buckettest passes.
//
// A name is 1 to 1,024 bytes of slash-separated non-empty segments, none of them "." or "..", without control characters. Blobs are immutable: a Put
// replaces the whole blob, a Get that has begun goes on reading the one it found, or fails.
//
// Errors carry a kind of package hub: NotFound (Get, Stat), Conflict (a condition did not hold), Invalid (a name no store could hold), RangeInvalid, Full,
// Unavailable (try again: nothing is known about what happened).
package bucket

import (
	"context"
	"io"
	"time"
)

// Bucket is a flat space of named blobs. All methods are safe for concurrent use and honour ctx.
type Bucket interface {
	// Put stores size bytes of body under name. When it returns nil, the blob is durable, and every Get, Stat and List that starts later sees it.
	// When it fails, the blob may or may not be there; it is never there in part. After a Conflict, what is there is durable. size -1: not known before.
	Put(ctx context.Context, name string, body io.Reader, size int64, opt PutOptions) (Info, error)
	// Get reads n bytes from offset, or to the end if n < 0. An offset at or after the end is RangeInvalid, unless offset is 0. ifMatch, if
	// not "", is the Version that must still be there (else Conflict).
	Get(ctx context.Context, name string, offset, n int64, ifMatch string) (io.ReadCloser, Info, error)
	Stat(ctx context.Context, name string) (Info, error)
	// List returns names that begin with opt.Prefix, in byte order of the whole names. It never lags behind Put and Delete: once the short-term store has let go
	// of items, what is listed here is all that anybody knows of their keys, so a listing without one is an answer without an acknowledged item. S3 promises
	// it (since 2020), as directories do; a store that does not cannot be used (docs/reliability.md).
	List(ctx context.Context, opt ListOptions) (Listing, error)
	// Delete removes names durably; a name that does not exist is no error.
	Delete(ctx context.Context, names ...string) error
}

// PutOptions are the conditions and the description of a Put.
type PutOptions struct {
	IfAbsent    bool   // Conflict if the name exists
	IfMatch     string // Conflict unless the name exists in this Version
	ContentType string
	// Meta is written for others who read the store. A store that has no place for it drops it.
	Meta map[string]string
}

// Info describes a blob.
type Info struct {
	Name     string
	Size     int64
	Version  string // differs for every Put with other content; never ""
	Modified time.Time
	Meta     map[string]string // keys in lower case; nil where the store keeps none, and in listings
}

// ListOptions choose names.
type ListOptions struct {
	Prefix string
	// Delimiter: names that hold it after the prefix are rolled up into one entry of Prefixes each, which ends with the delimiter. "" or "/".
	Delimiter string
	After     string // only names, and rolled up prefixes, above it
	Max       int    // names and prefixes together; 0: 1,000. A store that gives no more than 1,000 at once does so here, too
}

// Listing is one page. Names and Prefixes are each sorted; Next, if not "", is the After of the page that follows.
type Listing struct {
	Blobs    []Info
	Prefixes []string
	Next     string
}

// Expirer is an optional second contract: a store that removes blobs by age on its own, by rules.
type Expirer interface {
	// SetRules replaces the rules whose ID begins with owner; the others stay.
	SetRules(ctx context.Context, owner string, rules []Rule) error
}

// Rule lets blobs whose names begin with Prefix expire after Days.
type Rule struct {
	ID, Prefix string
	Days       int
}
