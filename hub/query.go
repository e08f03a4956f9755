package hub

import "strings"

// Order is the direction in which an answer lists its keys.
type Order bool

// Ascending is the default; Descending reverses the list that was found, it never changes which keys are found.
const (
	Ascending  Order = false
	Descending Order = true
)

// ParseOrder reads the query parameter order: descending if it starts with d or D, never invalid (spec 01 §4).
func ParseOrder(s string) Order { return Order(len(s) > 0 && s[0]|0x20 == 'd') }

// Epoch divides a historical channel at its mutable time.
type Epoch uint8

// The epochs (spec 01 §4). Ordinary channels are immutable throughout.
const (
	Immutable Epoch = iota
	Mutable
	AllEpochs
)

var epochNames = []string{"IMMUTABLE", "MUTABLE", "ALL"}

func (e Epoch) String() string { return epochNames[e] }

// ParseEpoch reads the query parameter epoch; "" is Immutable.
func ParseEpoch(s string) (Epoch, error) {
	i, err := oneOf("epoch", s, epochNames)
	return Epoch(i), err
}

// Tier restricts the stores that a query asks (spec 02 §3.6).
type Tier uint8

// The tiers. There is one short-term store: AllTiers, Cache and CacheWrite ask it; CacheRead, the original's copy of long-term minutes, is empty here.
const (
	AllTiers Tier = iota
	Cache
	CacheWrite
	CacheRead
	LongTerm
	LongTermSingle
	LongTermBatch
)

var tierNames = []string{"ALL", "CACHE", "CACHE_WRITE", "CACHE_READ", "LONG_TERM", "LONG_TERM_SINGLE", "LONG_TERM_BATCH"}

func (t Tier) String() string { return tierNames[t] }

// ParseTier reads the query parameter location; "" is AllTiers.
func ParseTier(s string) (Tier, error) {
	i, err := oneOf("location", s, tierNames)
	return Tier(i), err
}

// Short and Long say whether the tier takes in the short-term and the long-term store.
func (t Tier) Short() bool { return t == AllTiers || t == Cache || t == CacheWrite }

// Long reports whether the tier takes in long-term storage.
func (t Tier) Long() bool { return t == AllTiers || t >= LongTerm }

func oneOf(name, s string, names []string) (int, error) {
	if s == "" {
		return 0, nil
	}
	for i, n := range names {
		if s == n {
			return i, nil
		}
	}
	return 0, E(Invalid, "%s is %q: it must be one of %s, in upper case", name, clip(s), strings.Join(names, ", "))
}

// Query asks one channel for the keys From ≤ key < To, at most Limit of them (0: all), the nearest to the end at which the search begins: From, or
// To with Reverse. A store answers in the order of the search: ascending, or newest first with Reverse.
type Query struct {
	Channel  string // display name
	From, To Key
	Limit    int
	Reverse  bool
	Stable   bool // nothing above the horizon
	Keyed    bool // items come with keys of their own, in no order that the horizon knows
	Partial  bool // of items that need not be stable: what only stores have that do not answer is left out; otherwise too few answers are an error
	Epoch    Epoch
	Tier     Tier
}

// Page is one sorted, duplicate-free answer, in the order of the search.
type Page struct {
	Keys    []Key
	More    bool // the limit ended the search
	Horizon Key  // up to here the answer can never change; zero if the store has no such thing
	Silent  int  // stores that should have answered and did not
}
