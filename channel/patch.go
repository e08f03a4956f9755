package channel

import "time"

// ChannelPatch is a parsed body of POST, PUT or PATCH of a channel: what was said, before any rule about values is looked at. Members that it does
// not name, creationDate among them, are ignored (spec 01 §3.4).
type ChannelPatch struct {
	Empty bool // the body was empty or white space

	Name                      Member[string] // only POST looks at it
	Owner                     Member[string]
	Description               Member[string]
	ReplicationSource         Member[string]
	Storage                   Member[string]
	TTLDays                   Member[int64]
	MaxItems                  Member[int64]
	KeepForever               Member[bool]
	Protect                   Member[bool]
	AllowZeroBytes            Member[bool]
	SecondaryMetricsReporting Member[bool]
	MutableTime               Member[time.Time] // the zero time: "", unset
	Tags                      Member[[]string]
}

// Member is one member of a JSON object: absent (the zero value), null, or a value.
type Member[T any] struct {
	Present bool
	Null    bool // present, and null
	Value   T
}

// Said makes a member that is present.
func Said[T any](v T) Member[T] { return Member[T]{Present: true, Value: v} }

// ParsePatch reads a body. Everything wrong is of kind Invalid: syntax ("invalid JSON at byte 14: expected ':' after a member name"), a document that
// is no object, a member of the wrong type, an unreadable mutableTime. Numbers may be strings (spec 01 §3.3).
func ParsePatch(body []byte) (ChannelPatch, error) { return ChannelPatch{}, errUnwritten }
