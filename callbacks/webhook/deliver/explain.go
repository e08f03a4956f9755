package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"unicode"
)

const causeKept = 300

// explain turns an error of a request into the text of an error line. It names the host and nothing else of the address, which may hold secrets.
func (a *attempt) explain(err error, u *url.URL) error {
	if a.ctx.Err() != nil {
		switch cause := context.Cause(a.ctx); {
		case errors.Is(cause, errConnect):
			return fmt.Errorf("connect %s: no connection within %v", u.Host, a.connect)
		case errors.Is(cause, errAnswer):
			return fmt.Errorf("call %s: no answer within %v", u.Host, a.answer)
		default:
			return cause
		}
	}
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		return fmt.Errorf("lookup %s: %s", lookup.Name, oneLine(lookup.Err, causeKept))
	}
	verb := "call"
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		verb = "connect"
	}
	return fmt.Errorf("%s %s: %s", verb, u.Host, oneLine(cause(err), causeKept))
}

// cause is what remains of a chain of errors when what the reader knows already (which call of the system, which addresses) is left out.
func cause(err error) string {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed before there was an answer"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	}
	return err.Error()
}

// oneLine makes text of strangers fit for a line: no control characters, at most n bytes.
func oneLine(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return strings.TrimSpace(s)
}
