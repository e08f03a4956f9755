package longterm

import (
	"context"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"

	"timehub/hub/bucket"
)

// span asks for blobs below a root whose rest of the name, a time path, is in [lo, hi), in byte order, which is that of time.
type span struct {
	root    string
	lo, hi  string
	minutes bool // names end with the minute (BATCH); else they are keys (SINGLE)
	limit   int  // a hint: how many blobs are wanted; 0: all
}

// blobs yields the blobs of a span, newest first with reverse.
func (s *Store) blobs(ctx context.Context, sp span, reverse bool) iter.Seq2[bucket.Info, error] {
	return func(yield func(bucket.Info, error) bool) {
		if sp.lo >= sp.hi {
			return
		}
		if reverse {
			b := &back{span: sp, ctx: ctx, bucket: s.bucket, yield: yield}
			b.run()
			return
		}
		opt := bucket.ListOptions{Prefix: sp.root, After: sp.root + before(sp.lo), Max: bucket.MaxPage}
		if sp.limit > 0 {
			opt.Max = min(sp.limit+1, bucket.MaxPage)
		}
		for {
			page, err := s.bucket.List(ctx, opt)
			if err != nil {
				yield(bucket.Info{}, err)
				return
			}
			for _, i := range page.Blobs {
				switch rest := i.Name[len(sp.root):]; {
				case rest >= sp.hi:
					return
				case rest >= sp.lo && !yield(i, nil):
					return
				}
			}
			if page.Next == "" || page.Next >= sp.root+sp.hi {
				return
			}
			opt.After, opt.Max = page.Next, bucket.MaxPage
		}
	}
}

// before returns a text that sorts before s with nothing, or next to nothing, that a name could be in between: for a listing that has to include s.
func before(s string) string {
	if bad := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }); bad >= 0 {
		return s[:bad] // no name goes on like that; what is above the part before is above it
	}
	if s == "" || s[len(s)-1] == '/' {
		return s // names are longer
	}
	last := s[len(s)-1]
	if last > ' '+1 && last < 0x7f {
		return s[:len(s)-1] + string(rune(last-1)) + "~"
	}
	_, n := utf8.DecodeLastRuneInString(s)
	return s[:len(s)-n]
}

// back searches a span from its end. Listings go forward only, so it climbs from the window that holds the end up to the first that holds anything earlier,
// by listing the windows in a window, and descends again. Ten empty years cost no more than ten empty minutes.
type back struct {
	span
	ctx    context.Context
	bucket bucket.Bucket
	yield  func(bucket.Info, error) bool
	found  int
	done   bool
}

// Lengths of window prefixes: "2026/", "2026/11/", … A channel's SINGLE blobs are listed by the minute or second, its zips by half a day.
const (
	yearLen   = 5
	dayLen    = 11
	minuteLen = 17
	// sparse is the number of blobs in a window below which the rest of its parent is tried in one listing.
	sparse = 64
)

func (b *back) run() {
	from := minuteLen
	if b.minutes {
		from = dayLen
	}
	if len(b.hi) < from {
		b.fail(corrupt("the time path %q is too short", b.hi))
		return
	}
	at := b.hi[:from]
	b.visit(at)
	for at != "" && !b.done && b.lo < at {
		up := parent(at)
		b.children(up, at)
		at = up
	}
}

// parent cuts the last part off a prefix.
func parent(prefix string) string {
	return prefix[:strings.LastIndexByte(strings.TrimSuffix(prefix, "/"), '/')+1]
}

func (b *back) fail(err error) {
	if !b.done {
		b.done = true
		b.yield(bucket.Info{}, err)
	}
}

// emit yields blobs, last first.
func (b *back) emit(all []bucket.Info) {
	for i := len(all) - 1; i >= 0 && !b.done; i-- {
		b.found++
		b.done = !b.yield(all[i], nil)
	}
}

// visit yields what a window holds.
func (b *back) visit(prefix string) {
	switch {
	case b.done || prefix >= b.hi || prefix+"~" < b.lo:
	case b.minutes && len(prefix) >= dayLen:
		// A day has up to 1,440 zips and a listing 1,000: the second half is most often enough.
		noon := prefix + "12"
		b.flat(prefix, max(noon, b.lo), b.hi, false)
		b.flat(prefix, b.lo, min(noon, b.hi), false)
	case len(prefix) > minuteLen:
		b.flat(prefix, b.lo, b.hi, false)
	case len(prefix) == minuteLen && b.flat(prefix, b.lo, b.hi, true):
	default:
		b.children(prefix, "")
	}
}

// children visits the windows of a window, last first; those at or after below, if that is not "", have been.
func (b *back) children(prefix, below string) {
	var all []string
	opt := bucket.ListOptions{Prefix: b.root + prefix, Delimiter: "/"}
	for !b.done {
		page, err := b.bucket.List(b.ctx, opt)
		if err != nil {
			b.fail(err)
			return
		}
		for _, p := range page.Prefixes {
			if p = p[len(b.root):]; windowOf(p, prefix) && (below == "" || p < below) {
				all = append(all, p)
			}
		}
		if opt.After = page.Next; page.Next == "" || below != "" && page.Next >= b.root+below {
			break
		}
	}
	for i := len(all) - 1; i >= 0 && !b.done; i-- {
		before := b.found
		b.visit(all[i])
		// Where little is found and more is wanted, all that is left of the window may fit into one listing.
		if prefix != "" && i > 0 && b.found-before < sparse && b.found > before && b.flat(prefix, b.lo, min(all[i], b.hi), true) {
			return
		}
	}
}

// windowOf reports whether p is a window in prefix: digits of the right number and a slash.
func windowOf(p, prefix string) bool {
	digits := strings.TrimSuffix(p[len(prefix):], "/")
	want := 2
	if prefix == "" {
		want = yearLen - 1
	}
	return len(digits) == want && strings.Trim(digits, "0123456789") == ""
}

// flat yields the blobs in [lo, hi) that begin with prefix. With once it gives up, having yielded nothing, unless one listing holds them all; it reports
// whether it did its work.
func (b *back) flat(prefix, lo, hi string, once bool) bool {
	if b.done || lo >= hi {
		return true
	}
	opt := bucket.ListOptions{Prefix: b.root + prefix, Max: bucket.MaxPage}
	if lo > prefix {
		opt.After = b.root + before(lo)
	}
	var all []bucket.Info
	for {
		page, err := b.bucket.List(b.ctx, opt)
		if err != nil {
			b.fail(err)
			return true
		}
		for _, i := range page.Blobs {
			if rest := i.Name[len(b.root):]; rest >= lo && rest < hi {
				all = append(all, i)
			}
		}
		if page.Next == "" || page.Next >= b.root+hi {
			break
		}
		if once {
			return false
		}
		if keep := b.limit + bucket.MaxPage; b.limit > 0 && len(all) > 2*keep { // only the last ones are wanted
			all = append(all[:0], all[len(all)-keep:]...)
		}
		opt.After = page.Next
	}
	b.emit(all)
	return true
}
