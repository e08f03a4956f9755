package web

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"timehub/hub"
)

// maxWindow bounds what a zstd frame may make us remember; RFC 8878 asks senders to stay at or below it.
const maxWindow = 8 << 20

// decoders keeps decompressors between requests.
type decoders struct{ gzip, zstd sync.Pool }

// Content is the body of a request without the content codings that we take off: gzip, deflate and zstd (spec 02 §1.4). A body under any other
// coding comes as it was sent. The memory of the decoder is bounded, its output is not: the reader's owner limits it (Limit). Close it.
func Content(r *http.Request) (io.ReadCloser, error) {
	names := r.Header["Content-Encoding"]
	if len(names) == 0 || r.Body == nil {
		if r.Body == nil {
			return http.NoBody, nil
		}
		return r.Body, nil
	}
	var wanted []Coding
	for name := range strings.SplitSeq(strings.Join(names, ","), ",") {
		name = strings.TrimSpace(name)
		if name == "" || strings.EqualFold(name, "identity") {
			continue
		}
		c := codingNamed(name)
		if c == Identity || name == "*" {
			return r.Body, nil
		}
		wanted = append(wanted, c)
	}
	if len(wanted) > 2 {
		return nil, hub.E(hub.Unsupported, "Content-Encoding names %d codings: at most 2 are taken off", len(wanted))
	}
	x := exchangeOf(r)
	if x == nil {
		return nil, errors.New("web: a request with a content coding that came through no Router")
	}
	body := r.Body
	for i := len(wanted) - 1; i >= 0; i-- {
		d, err := x.rt.coders.decoders.open(wanted[i], body)
		if err != nil {
			return nil, err
		}
		body = d
	}
	return body, nil
}

// decoder is one decompressor at work.
type decoder struct {
	io.Reader
	source *source
	name   string
	give   func()
	failed error
}

// source remembers what the body itself said, so that a slow or cut body is not reported as a broken stream.
type source struct {
	io.Reader
	err  error
	some bool // a byte came
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.some = s.some || n > 0
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (d *decoders) open(c Coding, body io.Reader) (io.ReadCloser, error) {
	src := &source{Reader: body}
	out := &decoder{source: src, name: c.String(), give: func() {}}
	var err error
	switch c {
	case Zstd:
		err = d.openZstd(out, src)
	case Gzip, XGzip:
		err = d.openGzip(out, src)
	default:
		err = openDeflate(out, src)
	}
	if err != nil {
		return nil, out.explain(err)
	}
	return out, nil
}

func (d *decoders) openGzip(out *decoder, src io.Reader) error {
	z, _ := d.gzip.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	if err := z.Reset(src); err != nil {
		if err == io.EOF { // no byte at all
			return io.ErrUnexpectedEOF
		}
		return err
	}
	out.Reader, out.give = z, func() { d.gzip.Put(z) }
	return nil
}

func (d *decoders) openZstd(out *decoder, src io.Reader) error {
	z, _ := d.zstd.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return err
		}
	}
	if err := z.Reset(src); err != nil {
		return err
	}
	out.Reader, out.give = z, func() {
		if z.Reset(nil) == nil {
			d.zstd.Put(z)
		}
	}
	return nil
}

// openDeflate takes both things that are called deflate: the zlib format, as the standard says, and the bare stream, as some send.
func openDeflate(out *decoder, src io.Reader) error {
	in := bufio.NewReaderSize(src, 4<<10)
	head, err := in.Peek(2)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	if head[0]&0x0f != 8 || (uint(head[0])<<8|uint(head[1]))%31 != 0 {
		out.Reader = flate.NewReader(in)
		return nil
	}
	z, err := zlib.NewReader(in)
	out.Reader = z
	return err
}

func (d *decoder) Read(p []byte) (int, error) {
	if d.failed != nil {
		return 0, d.failed
	}
	n, err := d.Reader.Read(p)
	if err == io.EOF && !d.source.some { // no byte is no frame of zstd, which its reader takes for the end: the body was cut
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		d.failed = io.EOF
		if err != io.EOF {
			d.failed = d.explain(err)
		}
		return n, d.failed
	}
	return n, nil
}

func (d *decoder) explain(err error) error {
	switch {
	case d.source.err != nil:
		return d.source.err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return hub.E(hub.TooLarge, "the body's zstd window is larger than %d bytes", maxWindow).Because(err)
	}
	return hub.E(hub.Invalid, "the body is not whole and valid %s, as Content-Encoding says", d.name).Because(err)
}

func (d *decoder) Close() error {
	if d.give != nil {
		d.give()
		d.give = nil
		d.failed = http.ErrBodyReadAfterClose
		d.Reader = bytes.NewReader(nil)
	}
	return nil
}
