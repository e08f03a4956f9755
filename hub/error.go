package hub

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of failure an error is, in words of the domain. hub/web owns the only table between kinds and HTTP statuses.
type Kind uint8

// The kinds. Internal is the zero value: an error that nobody classified is our own fault.
const (
	Internal        Kind = iota
	Invalid              // the request breaks a rule that it could have kept
	Unauthenticated      // nobody knows who asks
	Forbidden            // known, and not allowed
	NotFound             // no such channel, item, path
	NotAllowed           // the path exists, the method does not apply to it
	Conflict             // somebody else was first
	NotAcceptable        // Accept excludes what there is
	Unsupported          // Content-Type is none that is read here
	TooLarge             // over a limit of size
	TooMany              // over a limit of rate
	Unavailable          // no quorum, draining, a store silent: try again
	Timeout              // did not end in time
	Full                 // no space left on the disk
	SlowBody             // the request's body came too slowly
	RangeInvalid         // no byte of the asked range exists
	ShuttingDown         // /health only
	Starting             // /health only
	Canceled             // the client went away
	kinds                // how many there are
)

var kindNames = [kinds]string{
	"internal", "invalid", "unauthenticated", "forbidden", "not found", "not allowed", "conflict", "not acceptable",
	"unsupported", "too large", "too many", "unavailable", "timeout", "full", "slow body", "range invalid",
	"shutting down", "starting", "canceled",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Kinds returns every kind, for tables that have to be total.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Error is a failure with a kind. Msg is written for the person who sent the request: it names the field, the rule and the remedy, and holds no
// inner text. Err, if any, is the cause; it goes to the log only.
type Error struct {
	Kind       Kind
	Msg        string
	Err        error
	Verbatim   bool          // Msg is the whole body, bare: clients compare it (spec 02 §1.6)
	RetryAfter time.Duration // when trying again may help; 0: not said
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Msg
	case e.Msg == "":
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// E makes an error of a kind; Because adds a cause.
func E(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// Because returns a copy of e with err as its cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// KindOf returns the kind of the outermost *Error in err's chain; the context errors count as Canceled and Timeout, anything else as Internal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
