package spoke

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/log/format"
)

// What travels between two nodes, on a connection that began as HTTP (ENGINE §4): messages of a head and a payload, little-endian.
//
//	offset  length  field
//	0       4       magic "!Frm"
//	4       1       kind
//	5       3       zero
//	8       4       length of the payload
//	12      4       CRC-32C of the payload
//	16      4       CRC-32C of bytes 0–15
//	20              payload
//
// The payload of a frame is position (8), epoch (8), low (8), flags (1), number of records (4), and the records as the log has them. That of an
// acknowledgement is position (8) and the receiver's clock in ms (8). The others are JSON.
const (
	wireMagic   = 0x6d724621
	wireHead    = 20
	frameHead   = 29
	ackSize     = 16
	maxGreeting = 1 << 20
	maxFrame    = format.MaxBatch + 1<<20
	readStep    = 1 << 20 // memory follows what has arrived, not what was announced
)

type kind uint8

const (
	kindHello   kind = iota + 1 // writer: who I am
	kindWelcome                 // receiver: where I stand
	kindFrame
	kindAck
	kindRefusal // receiver: this incarnation is over
	kindAway    // receiver: not now, and why; connect again
)

var errWire = errors.New("what a peer sent is not valid")

// hello is the first word of a writer.
type hello struct {
	Node   string          `json:"node"`
	Disk   string          `json:"disk"`
	Stream spokelog.Stream `json:"stream"`
	Epoch  uint64          `json:"epoch"`
}

// welcome is the receiver's answer.
type welcome struct {
	Node string   `json:"node"`
	Disk string   `json:"disk"`
	Low  hub.Mark `json:"low"` // of the stream, as applied
}

// away says why a receiver does not go on.
type away struct {
	Why string `json:"why"`
}

// frame is a piece of a stream.
type frame struct {
	pos     uint64 // of the last batch that is in it or before it; 0 while the writer repeats what it has on its disk
	epoch   uint64
	low     hub.Mark
	again   bool // the records may be here already
	records []spokelog.Record
}

// ack says that everything up to a position is on the receiver's disk.
type ack struct {
	pos   uint64
	clock int64
}

var wireTable = crc32.MakeTable(crc32.Castagnoli)

// endMessage fills in the head of a message that beginMessage began at at; the payload is all behind it.
func endMessage(b []byte, at int, k kind) []byte {
	payload := b[at+wireHead:]
	h := b[at:]
	binary.LittleEndian.PutUint32(h, wireMagic)
	h[4], h[5], h[6], h[7] = byte(k), 0, 0, 0
	binary.LittleEndian.PutUint32(h[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[12:], crc32.Checksum(payload, wireTable))
	binary.LittleEndian.PutUint32(h[16:], crc32.Checksum(h[:16], wireTable))
	return b
}

func beginMessage(b []byte) ([]byte, int) { return append(b, make([]byte, wireHead)...), len(b) }

// appendFrame appends a frame as a message.
func appendFrame(b []byte, f *frame) []byte {
	b, at := beginMessage(b)
	b = binary.LittleEndian.AppendUint64(b, f.pos)
	b = binary.LittleEndian.AppendUint64(b, f.epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.low))
	flags := byte(0)
	if f.again {
		flags = 1
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.records)))
	for i := range f.records {
		b, _ = format.AppendRecord(b, &f.records[i], f.records[i].Flags)
	}
	return endMessage(b, at, kindFrame)
}

func appendAck(b []byte, a ack) []byte {
	b, at := beginMessage(b)
	b = binary.LittleEndian.AppendUint64(b, a.pos)
	b = binary.LittleEndian.AppendUint64(b, uint64(a.clock))
	return endMessage(b, at, kindAck)
}

func appendJSON(b []byte, k kind, v any) []byte {
	b, at := beginMessage(b)
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of strings and numbers
	}
	return endMessage(append(b, text...), at, k)
}

// readMessage reads a message of up to limit bytes of payload. The payload is the caller's.
func readMessage(r *bufio.Reader, limit int) (kind, []byte, error) {
	var h [wireHead]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(h[:]) != wireMagic || binary.LittleEndian.Uint32(h[16:]) != crc32.Checksum(h[:16], wireTable) {
		return 0, nil, fmt.Errorf("%w: the head of a message", errWire)
	}
	n := int(binary.LittleEndian.Uint32(h[8:]))
	if n > limit {
		return 0, nil, fmt.Errorf("%w: a message of %d bytes, at most %d can be taken", errWire, n, limit)
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
	if crc32.Checksum(payload, wireTable) != binary.LittleEndian.Uint32(h[12:]) {
		return 0, nil, fmt.Errorf("%w: the payload of a message", errWire)
	}
	return kind(h[4]), payload, nil
}

// parseFrame reads the payload of a frame; the records' bytes are the payload's.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameHead || b[24] > 1 {
		return frame{}, fmt.Errorf("%w: the head of a frame", errWire)
	}
	f := frame{
		pos: binary.LittleEndian.Uint64(b), epoch: binary.LittleEndian.Uint64(b[8:]), low: hub.Mark(binary.LittleEndian.Uint64(b[16:])), again: b[24] == 1,
	}
	count := int(binary.LittleEndian.Uint32(b[25:]))
	b = b[frameHead:]
	for len(b) > 0 {
		n := len(b)
		if len(b) >= 4 {
			n = min(n, int(binary.LittleEndian.Uint32(b)))
		}
		r, err := format.ParseRecord(b[:n])
		if err != nil || r.Size == 0 {
			return frame{}, fmt.Errorf("%w: a record: %w", errWire, err)
		}
		f.records = append(f.records, spokelog.Record{
			Channel: string(r.Channel), Key: format.KeyOf(r.Millis, r.Hash), Stream: r.Stream, Flags: r.Flags, Data: r.Data,
		})
		b = b[r.Size:]
	}
	if len(f.records) != count {
		return frame{}, fmt.Errorf("%w: %d records, announced were %d", errWire, len(f.records), count)
	}
	if count > 0 && f.records[count-1].Flags&spokelog.MoreFollows != 0 {
		return frame{}, fmt.Errorf("%w: a frame that ends within a request", errWire)
	}
	return f, nil
}

func parseAck(b []byte) (ack, error) {
	if len(b) != ackSize {
		return ack{}, fmt.Errorf("%w: an acknowledgement of %d bytes", errWire, len(b))
	}
	return ack{binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))}, nil
}

func parseJSON(b []byte, into any) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	return nil
}
