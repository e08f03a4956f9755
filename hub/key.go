package hub

import (
	"strings"
	"time"
)

// Key is the identity of an item within its channel: a UTC millisecond and a hash (spec 01 §1). Keys are totally ordered, comparable and usable in
// maps. The zero Key sorts before every key that can be written and stands for "none".
type Key struct {
	ms   int64
	hash string
}

const (
	minMillis  = -62167219200000 // 0000-01-01T00:00:00.000Z
	maxMillis  = 253402300799999 // 9999-12-31T23:59:59.999Z
	timeLayout = "2006/01/02/15/04/05/000"
	timeLen    = len("2006/01/02/15/04/05/000")
	lastHash   = "~ZZZZZZZZZZZZZZZZ" // sorts after every hash that can be minted; never stored
)

// Alphabet holds the symbols of minted hashes, in their order.
const Alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// MinKey and MaxKey enclose every key that can be written.
var (
	MinKey = Key{ms: minMillis}
	MaxKey = Key{ms: maxMillis, hash: lastHash}
)

// NewKey makes a key of an instant, cut to the millisecond, and a hash.
func NewKey(t time.Time, hash string) Key { return Key{t.UnixMilli(), hash} }

// KeyAt makes a key of milliseconds since the Unix epoch and a hash.
func KeyAt(ms int64, hash string) Key { return Key{ms, hash} }

// First is the fence before every key of t's millisecond.
func First(t time.Time) Key { return Key{ms: t.UnixMilli()} }

// Last is the fence after every key of t's millisecond: the sentinel of spec 01 §1.2.
func Last(t time.Time) Key { return Key{t.UnixMilli(), lastHash} }

// ParseKey reads yyyy/MM/dd/HH/mm/ss/SSS/hash as the original does (spec 01 §1.1): by position, separators are not looked at. It fails, with kind
// Invalid, on text shorter than 24 characters, on fields that are not numbers and on impossible dates. The hash may be empty.
func ParseKey(s string) (Key, error) {
	if len(s) <= timeLen {
		return Key{}, E(Invalid, "%q is not a key: want yyyy/MM/dd/HH/mm/ss/SSS/hash", clip(s))
	}
	var f [7]int
	for i, at := range [7][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}, {20, 23}} {
		for _, c := range []byte(s[at[0]:at[1]]) {
			if c < '0' || c > '9' {
				return Key{}, E(Invalid, "%q is not a key: want yyyy/MM/dd/HH/mm/ss/SSS/hash", clip(s))
			}
			f[i] = f[i]*10 + int(c-'0')
		}
	}
	t, err := instant(f)
	if err != nil {
		return Key{}, err
	}
	return Key{t.UnixMilli(), s[timeLen+1:]}, nil
}

// Time is the instant of the key, in UTC.
func (k Key) Time() time.Time { return time.UnixMilli(k.ms).UTC() }

// Millis is the instant of the key in milliseconds since the Unix epoch.
func (k Key) Millis() int64 { return k.ms }

// Hash is what tells keys of one millisecond apart.
func (k Key) Hash() string { return k.hash }

// IsZero reports whether k is the zero Key.
func (k Key) IsZero() bool { return k == Key{} }

// Compare orders keys by time, then by hash in ASCII order (spec 01 §1.5).
func (k Key) Compare(o Key) int {
	switch {
	case k.ms < o.ms:
		return -1
	case k.ms > o.ms:
		return 1
	}
	return strings.Compare(k.hash, o.hash)
}

// Less reports whether k sorts before o.
func (k Key) Less(o Key) bool { return k.ms < o.ms || k.ms == o.ms && k.hash < o.hash }

// After is the smallest key above k: the exclusive end of a range that includes k, the start of one that excludes it.
func (k Key) After() Key { return Key{k.ms, k.hash + "\x00"} }

// String is the canonical form, yyyy/MM/dd/HH/mm/ss/SSS/hash.
func (k Key) String() string { return string(k.AppendTo(make([]byte, 0, timeLen+1+len(k.hash)))) }

// AppendTo appends the canonical form to b.
func (k Key) AppendTo(b []byte) []byte {
	b = AppendTimePath(b, k.ms)
	b = append(b, '/')
	return append(b, k.hash...)
}

// Digest is 64 bits of the key. Minutes are compared, between nodes and between tiers, by the number of their distinct keys and the sum of the digests
// (ENGINE §3, §6). Its values are part of the format of segments.
func (k Key) Digest() uint64 { return DigestOf(k.ms, k.hash) }

// DigestOf is Digest of the key with this millisecond and hash.
func DigestOf[T string | []byte](ms int64, hash T) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := 56; i >= 0; i -= 8 {
		h = (h ^ uint64(byte(ms>>i))) * 1099511628211
	}
	for i := range len(hash) {
		h = (h ^ uint64(hash[i])) * 1099511628211
	}
	h ^= h >> 33 // FNV's high bits depend on few of the last bytes; sums want all of them
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// AppendTimePath appends yyyy/MM/dd/HH/mm/ss/SSS of an instant in milliseconds since the Unix epoch.
func AppendTimePath(b []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(b, byte('0'+year/1000%10), byte('0'+year/100%10))
	b = append2(b, year%100)
	for _, v := range [5]int{int(month), day, hour, minute, second} {
		b = append2(append(b, '/'), v)
	}
	milli := t.Nanosecond() / 1e6
	return append2(append(b, '/', byte('0'+milli/100)), milli%100)
}

func append2(b []byte, v int) []byte { return append(b, byte('0'+v/10), byte('0'+v%10)) }

// ISO is an instant as every answer shows it: UTC, milliseconds, a literal Z (spec 01).
func ISO(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// clip keeps echoes of a stranger's text short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
