// Package seal makes and opens the envelope in which items travel and rest: what is known about an item, and its body, compressed once by the node that
// took it (ENGINE §2). The same bytes go to the log, to peers and out again on a read.
//
// Layout, version 1; integers are little-endian or varints as in encoding/binary:
//
//	offset  length   field
//	0       1        version, 1
//	1       1        codec: 0 raw, 1 zstd
//	2       1        flags: bit 0 large (the body is an index, spec 01 §1.6); others 0
//	3       4        CRC-32C of the uncompressed body
//	7       uvarint  length of the uncompressed body
//	        varint   time of creation, milliseconds since the Unix epoch
//	        uvarint  length of the content type, then its bytes
//	        uvarint  length of the creator, then its bytes
//	        rest     the encoded body
//
// An envelope of a version that is not known is refused, never guessed at.
package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Codec is how the body of an envelope is encoded.
type Codec uint8

// The codecs.
const (
	Raw Codec = iota
	Zstd
)

const (
	version    = 1
	flagLarge  = 1
	fixedBytes = 7
	maxText    = 64 << 10
	minPacked  = 64 // shorter bodies stay raw: a frame's own header eats what could be won
)

// ErrCorrupt is in the chain of every error about bytes that are no whole, unaltered envelope.
var ErrCorrupt = errors.New("corrupt envelope")

// Meta is what an envelope says about an item.
type Meta struct {
	ContentType string // as sent; "" if none
	Creator     string
	Created     int64  // milliseconds since the Unix epoch
	Size        int64  // bytes of the body, uncompressed
	Digest      uint32 // CRC-32C of the body
	Large       bool   // the body is the index of a large item
}

// Envelope is a parsed envelope. Encoded aliases the bytes it was parsed from.
type Envelope struct {
	Meta
	Codec   Codec
	Encoded []byte
}

// Sealer seals and opens. It is safe for concurrent use and keeps a few encoders and decoders for itself.
type Sealer struct {
	table    *crc32.Table
	maxIdle  int
	mu       sync.Mutex // guards the fields below
	encoders []*zstd.Encoder
	decoders []*zstd.Decoder
}

// Options are for New.
type Options struct {
	// Idle is the number of encoders and of decoders kept between calls; 0: 8.
	Idle int
}

// New returns a Sealer.
func New(opt Options) *Sealer {
	if opt.Idle <= 0 {
		opt.Idle = 8
	}
	return &Sealer{table: crc32.MakeTable(crc32.Castagnoli), maxIdle: opt.Idle}
}

// Digest is the CRC-32C of a body.
func (s *Sealer) Digest(body []byte) uint32 { return crc32.Checksum(body, s.table) }

// Seal appends to dst the envelope of a body. Size and Digest of m are ignored and computed.
func (s *Sealer) Seal(dst []byte, m Meta, body []byte) []byte {
	start := len(dst)
	m.Size, m.Digest = int64(len(body)), s.Digest(body)
	dst = appendHeader(dst, m, Zstd)
	head := len(dst)
	if len(body) >= minPacked {
		e := s.encoder()
		dst = e.EncodeAll(body, dst)
		s.keepEncoder(e)
		if len(dst)-head < len(body) {
			return dst
		}
		dst = dst[:head]
	}
	dst[start+1] = byte(Raw)
	return append(dst, body...)
}

// SealRaw is Seal without compression: for items that come from long-term storage and are only passed on.
func (s *Sealer) SealRaw(dst []byte, m Meta, body []byte) []byte {
	m.Size, m.Digest = int64(len(body)), s.Digest(body)
	return append(appendHeader(dst, m, Raw), body...)
}

func appendHeader(dst []byte, m Meta, c Codec) []byte {
	flags := byte(0)
	if m.Large {
		flags |= flagLarge
	}
	dst = append(dst, version, byte(c), flags)
	dst = binary.LittleEndian.AppendUint32(dst, m.Digest)
	dst = binary.AppendUvarint(dst, uint64(m.Size))
	dst = binary.AppendVarint(dst, m.Created)
	dst = binary.AppendUvarint(dst, uint64(len(m.ContentType)))
	dst = append(dst, m.ContentType...)
	dst = binary.AppendUvarint(dst, uint64(len(m.Creator)))
	return append(dst, m.Creator...)
}

// Parse reads the header of an envelope. It never panics and never allocates more than the texts of the header.
func Parse(data []byte) (Envelope, error) {
	var e Envelope
	if len(data) < fixedBytes {
		return e, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(data))
	}
	if data[0] != version {
		return e, fmt.Errorf("%w: version %d, this hub knows version %d", ErrCorrupt, data[0], version)
	}
	e.Codec = Codec(data[1])
	if e.Codec > Zstd || data[2]&^flagLarge != 0 {
		return e, fmt.Errorf("%w: codec %d, flags %#x", ErrCorrupt, data[1], data[2])
	}
	e.Large = data[2]&flagLarge != 0
	e.Digest = binary.LittleEndian.Uint32(data[3:])
	rest := data[fixedBytes:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > 1<<50 {
		return e, fmt.Errorf("%w: size", ErrCorrupt)
	}
	e.Size, rest = int64(size), rest[n:]
	if e.Created, n = binary.Varint(rest); n <= 0 {
		return e, fmt.Errorf("%w: time of creation", ErrCorrupt)
	}
	rest = rest[n:]
	for _, text := range [...]*string{&e.ContentType, &e.Creator} {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > maxText || length > uint64(len(rest)-n) {
			return e, fmt.Errorf("%w: text of the header", ErrCorrupt)
		}
		*text = textOf(rest[n : n+int(length)])
		rest = rest[n+int(length):]
	}
	if e.Codec == Raw && int64(len(rest)) != e.Size {
		return e, fmt.Errorf("%w: %d bytes of body, header says %d", ErrCorrupt, len(rest), e.Size)
	}
	e.Encoded = rest
	return e, nil
}

// textOf is string(b), without an allocation for the types that most items have.
func textOf(b []byte) string {
	switch string(b) {
	case "application/json":
		return "application/json"
	case "text/plain":
		return "text/plain"
	case "application/octet-stream":
		return "application/octet-stream"
	case "application/x-www-form-urlencoded":
		return "application/x-www-form-urlencoded"
	}
	return string(b)
}

// Open appends the body of an envelope to dst, having checked its length and digest. Output never exceeds e.Size.
func (s *Sealer) Open(dst []byte, e Envelope) ([]byte, error) {
	at := len(dst)
	if e.Codec == Raw {
		dst = append(dst, e.Encoded...)
	} else {
		var err error
		if dst, err = s.unpack(dst, e); err != nil {
			return dst[:at], err
		}
	}
	if body := dst[at:]; int64(len(body)) != e.Size || s.Digest(body) != e.Digest {
		return dst[:at], fmt.Errorf("%w: the body does not match its digest", ErrCorrupt)
	}
	return dst, nil
}

// unpack decodes a zstd body. DecodeAll never writes beyond the capacity it is given room for, so a frame that lies about its length costs nothing.
func (s *Sealer) unpack(dst []byte, e Envelope) ([]byte, error) {
	at := len(dst)
	var h zstd.Header
	if err := h.Decode(e.Encoded); err != nil || !h.HasFCS || h.FrameContentSize != uint64(e.Size) {
		return dst, fmt.Errorf("%w: the frame does not tell the length of the body", ErrCorrupt)
	}
	if free := cap(dst) - at; int64(free) < e.Size {
		grown := make([]byte, at, at+int(e.Size))
		copy(grown, dst)
		dst = grown
	}
	d, err := s.decoder()
	if err != nil {
		return dst, err
	}
	out, err := d.DecodeAll(e.Encoded, dst)
	s.keepDecoder(d)
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return out, nil
}

func (s *Sealer) encoder() *zstd.Encoder {
	s.mu.Lock()
	if n := len(s.encoders); n > 0 {
		e := s.encoders[n-1]
		s.encoders = s.encoders[:n-1]
		s.mu.Unlock()
		return e
	}
	s.mu.Unlock()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20), zstd.WithSingleSegment(true))
	if err != nil {
		panic("seal: options of the encoder: " + err.Error()) // constants: a programming error
	}
	return e
}

func (s *Sealer) keepEncoder(e *zstd.Encoder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.encoders) < s.maxIdle {
		s.encoders = append(s.encoders, e)
	}
}

func (s *Sealer) decoder() (*zstd.Decoder, error) {
	s.mu.Lock()
	if n := len(s.decoders); n > 0 {
		d := s.decoders[n-1]
		s.decoders = s.decoders[:n-1]
		s.mu.Unlock()
		return d, nil
	}
	s.mu.Unlock()
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(1<<40))
	if err != nil {
		return nil, fmt.Errorf("make a zstd decoder: %w", err)
	}
	return d, nil
}

func (s *Sealer) keepDecoder(d *zstd.Decoder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.decoders) < s.maxIdle {
		s.decoders = append(s.decoders, d)
	}
}
