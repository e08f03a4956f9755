package bucket

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"timehub/hub"
)

// MaxName is the length of the longest name, in bytes.
const MaxName = 1024

// MaxPage is the most that one List returns, unless more is asked for.
const MaxPage = 1000

// CheckName applies the rule of the package comment; an implementation calls it first in each method. Names are valid UTF-8. The error is of kind Invalid.
func CheckName(name string) error {
	switch {
	case name == "":
		return hub.E(hub.Invalid, "a name of a stored object can not be empty")
	case len(name) > MaxName:
		return hub.E(hub.Invalid, "the name %q… is %d bytes long: at most %d can be stored", name[:64], len(name), MaxName)
	case !utf8.ValidString(name):
		return hub.E(hub.Invalid, "the name %q is not UTF-8, so it can not be stored", name)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return hub.E(hub.Invalid, "the name %q can not be stored: no segment may be empty, \".\" or \"..\"", name)
		}
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		return hub.E(hub.Invalid, "the name %q can not be stored: it holds a control character", name)
	}
	return nil
}

// Check applies the rules of PutOptions.
func (o PutOptions) Check() error {
	if o.IfAbsent && o.IfMatch != "" {
		return hub.E(hub.Invalid, "a put can not ask for an absent and for a present object at once")
	}
	return nil
}

// Normal checks options and fills in Max.
func (o ListOptions) Normal() (ListOptions, error) {
	if o.Delimiter != "" && o.Delimiter != "/" {
		return o, hub.E(hub.Invalid, "the delimiter of a listing is %q: it can be \"/\" only", o.Delimiter)
	}
	if o.Max <= 0 {
		o.Max = MaxPage
	}
	return o, nil
}

// Section is the range that a Get of n bytes from offset reads of a blob of some size; the error is of kind RangeInvalid.
func Section(name string, offset, n, size int64) (length int64, err error) {
	if offset < 0 || offset >= size && offset > 0 {
		return 0, hub.E(hub.RangeInvalid, "%s has %d bytes: no byte %d can be read", name, size, offset)
	}
	if n < 0 || n > size-offset {
		return size - offset, nil
	}
	return n, nil
}
