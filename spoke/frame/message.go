// Package frame is what travels between two nodes on a stream (ENGINE §4): a connection that began as HTTP and goes on with messages. It makes and reads bytes;
// it knows no node and waits for nothing but its reader. docs/formats.md has the bytes as tables.
package frame

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A message is a head and a payload, little-endian.
//
//	offset  length  field
//	0       4       magic "!Frm"
//	4       1       kind
//	5       3       zero
//	8       4       length of the payload
//	12      4       CRC-32C of the payload
//	16      4       CRC-32C of bytes 0–15
//	20              payload
const (
	magic    = 0x6d724621
	headSize = 20
	readStep = 1 << 20 // memory follows what has arrived, not what was announced
)

// Kind says what a message is.
type Kind uint8

// The kinds of messages. The payloads of KindFrame, KindAck, KindPart and KindDrop are bytes, those of the others JSON.
const (
	KindHello   Kind = iota + 1 // writer: who I am
	KindWelcome                 // receiver: where I stand
	KindFrame
	KindAck
	KindRefusal // receiver: this incarnation is over
	KindAway    // receiver: not now, and why; connect again
	KindPart    // writer: a piece of the bytes of a large request
	KindDrop    // writer: the pieces of a request that were sent are not needed
	KindFloor   // from where on the sender's log has everything: after what was read from it
)

// ErrInvalid is in the chain of the error for bytes that are not what they should be.
var ErrInvalid = errors.New("what a peer sent is not valid")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func begin(b []byte) ([]byte, int) { return append(b, make([]byte, headSize)...), len(b) }

// end fills in the head of a message that begin made at at; the payload is all behind it.
func end(b []byte, at int, k Kind) []byte {
	payload := b[at+headSize:]
	h := b[at:]
	binary.LittleEndian.PutUint32(h, magic)
	h[4], h[5], h[6], h[7] = byte(k), 0, 0, 0
	binary.LittleEndian.PutUint32(h[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[12:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(h[16:], crc32.Checksum(h[:16], castagnoli))
	return b
}

// AppendJSON appends a message whose payload is the JSON of v, a struct of strings and numbers.
func AppendJSON(b []byte, k Kind, v any) []byte {
	b, at := begin(b)
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return end(append(b, text...), at, k)
}

// ParseJSON reads the payload of such a message.
func ParseJSON(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Read reads a message of up to limit bytes of payload. The payload is the caller's.
func Read(r *bufio.Reader, limit int) (Kind, []byte, error) {
	var h [headSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(h[:]) != magic || binary.LittleEndian.Uint32(h[16:]) != crc32.Checksum(h[:16], castagnoli) {
		return 0, nil, fmt.Errorf("%w: the head of a message", ErrInvalid)
	}
	n := int(binary.LittleEndian.Uint32(h[8:]))
	if n > limit {
		return 0, nil, fmt.Errorf("%w: a message of %d bytes, at most %d can be taken", ErrInvalid, n, limit)
	}
	payload := make([]byte, 0, min(n, readStep))
	for len(payload) < n {
		step := min(n-len(payload), readStep)
		at := len(payload)
		payload = append(payload, make([]byte, step)...)
		if _, err := io.ReadFull(r, payload[at:]); err != nil {
			return 0, nil, err
		}
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(h[12:]) {
		return 0, nil, fmt.Errorf("%w: the payload of a message", ErrInvalid)
	}
	return Kind(h[4]), payload, nil
}
