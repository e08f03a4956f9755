package deliver

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrContent is in the chain of the error of a call that was not made because the body could not be: the keys or items could not be read. The
// consumer has no part in it, so it is no failed attempt.
var ErrContent = errors.New("the body of the call could not be made")

// Outcome is how one call went.
type Outcome struct {
	Status     int           // of the last answer; 0 if there was none
	Reason     string        // the reason phrase as received, at most 200 bytes
	Err        error         // why there was no answer, or why the answer is of no use; nil otherwise. The cause of ctx if ctx ended
	Answer     []byte        // the first KiB of the answer's body
	Took       time.Duration // without waiting for a free place among the connections
	RetryAfter time.Duration // what the consumer asked for with a status other than 2xx; 0: nothing
}

// OK reports whether the consumer took it: 2xx and nothing else.
func (o Outcome) OK() bool { return o.Err == nil && o.Status >= 200 && o.Status <= 299 }

// Gone reports whether the consumer wants no more calls: 410.
func (o Outcome) Gone() bool { return o.Err == nil && o.Status == http.StatusGone }

// Text is what an error line says of it (spec 03 §2.5): "503 Service Unavailable", or a text that names the host that was tried.
func (o Outcome) Text() string {
	if o.Err != nil {
		return o.Err.Error()
	}
	return strings.TrimSpace(strconv.Itoa(o.Status) + " " + o.Reason)
}
