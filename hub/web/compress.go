package web

import (
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Coding is a content coding of an answer.
type Coding uint8

// The codings that answers are sent in, in the order of our preference where the client has none. The x- names are the old spellings of the same.
const (
	Identity Coding = iota
	Zstd
	Gzip
	XGzip
	Deflate
	XDeflate
	codings
)

var codingNames = [codings]string{"", "zstd", "gzip", "x-gzip", "deflate", "x-deflate"}

// codingValues are shared by all answers, like the common headers.
var codingValues = [codings][]string{{""}, {"zstd"}, {"gzip"}, {"x-gzip"}, {"deflate"}, {"x-deflate"}}

// String is the value of Content-Encoding, "" for Identity.
func (c Coding) String() string { return codingNames[c] }

func (c Coding) values() []string { return codingValues[c][:1:1] }

// Accepted is the coding in which the answer to r will be sent unless its handler encodes it itself or its type forbids it.
func Accepted(r *http.Request) Coding {
	if x := exchangeOf(r); x != nil {
		return x.accepted()
	}
	return Identity
}

func (x *exchange) accepted() Coding {
	if !x.coded {
		x.coded = true
		x.coding = chooseCoding(strings.Join(x.header["Accept-Encoding"], ","))
	}
	return x.coding
}

// chooseCoding reads Accept-Encoding: the highest quality wins, our order decides between equals. A lone "*" means gzip, which everybody has.
func chooseCoding(accept string) Coding {
	if accept == "" {
		return Identity
	}
	best, bestQ := Identity, 0
	rest, more := accept, true
	for more {
		var entry string
		entry, rest, more = strings.Cut(rest, ",")
		name, params, _ := strings.Cut(entry, ";")
		c := codingNamed(strings.TrimSpace(name))
		if c == Identity {
			continue
		}
		if q := quality(params); q > bestQ || q == bestQ && q > 0 && c < best {
			best, bestQ = c, q
		}
	}
	return best
}

func codingNamed(name string) Coding {
	if name == "*" {
		return Gzip
	}
	for c := Zstd; c < codings; c++ {
		if strings.EqualFold(name, codingNames[c]) {
			return c
		}
	}
	return Identity
}

// coder is a compressor that can be used again.
type coder interface {
	io.Writer
	Flush() error
	Close() error
	Reset(w io.Writer)
}

// coders keeps compressors between answers.
type coders struct {
	gzip, zlib, zstd sync.Pool
	decoders         decoders
}

// flateLevel: the first level that looks for repetitions at all; answers are made on the way out, once each.
const flateLevel = 1

// zstdWindow bounds the memory of an encoder.
const zstdWindow = 512 << 10

func (c *coders) get(coding Coding, w io.Writer) coder {
	var e coder
	switch coding {
	case Zstd:
		e, _ = c.zstd.Get().(coder)
		if e == nil {
			e = newZstd()
		}
	case Gzip, XGzip:
		e, _ = c.gzip.Get().(coder)
		if e == nil {
			e, _ = gzip.NewWriterLevel(nil, flateLevel) // fails for a wrong level only
		}
	default:
		e, _ = c.zlib.Get().(coder)
		if e == nil {
			e, _ = zlib.NewWriterLevel(nil, flateLevel)
		}
	}
	e.Reset(w)
	return e
}

func newZstd() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("web: options of zstd: " + err.Error()) // constants above
	}
	return e
}

func (c *coders) put(e coder) {
	e.Reset(nil)
	switch e.(type) {
	case *zstd.Encoder:
		c.zstd.Put(e)
	case *gzip.Writer:
		c.gzip.Put(e)
	default:
		c.zlib.Put(e)
	}
}
