package frame

import (
	"encoding/binary"
	"fmt"
	"slices"

	"timehub/hub"
	spokelog "timehub/spoke/log"
	"timehub/spoke/log/format"
)

// The payload of a frame is position (8), epoch (8), low (8), flags (1: the records may be here already, 2: with a cargo), number of records (4), with a cargo its
// number (8) and the length of the data of each record (4), and the records as the log has them, with a cargo without their data. That of an acknowledgement
// is position (8), the receiver's clock in ms (8), and how many bytes of parts have come on this connection (8). A part is the number of its cargo (8), the
// length of that cargo (8), and bytes; a drop is the number (8).
const (
	fixedSize = 29
	ackSize   = 24
	partHead  = 16
	minRecord = 26 // bytes of the smallest record

	flagAgain = 1
	flagCargo = 2

	// PartBytes is how much of a cargo one part has.
	PartBytes = 64 << 10
	// MaxGreeting bounds the payload of everything but frames.
	MaxGreeting = 1 << 20
	// MaxFrame bounds that of a frame.
	MaxFrame = format.MaxBatch + 1<<20
)

// Hello is the first word of a writer.
type Hello struct {
	Node   string          `json:"node"`
	Disk   string          `json:"disk"`
	Stream spokelog.Stream `json:"stream"`
	Epoch  uint64          `json:"epoch"`
}

// Welcome is the receiver's answer.
type Welcome struct {
	Node string   `json:"node"`
	Disk string   `json:"disk"`
	Low  hub.Mark `json:"low"` // of the stream, as applied
}

// Away says why a receiver does not go on.
type Away struct {
	Why string `json:"why"`
}

// Floor is the key from which on the sender's log has everything that it ever took.
type Floor struct {
	Millis int64  `json:"millis"`
	Hash   string `json:"hash"`
}

// Frame is a piece of a stream.
type Frame struct {
	Pos     uint64 // of the last batch that is in it or before it; 0 while the writer repeats what it has on its disk
	Epoch   uint64
	Low     hub.Mark
	Again   bool // the records may be here already
	Records []spokelog.Record

	// Cargo is the number under which the data of the records has come in parts before; 0: it is in the frame. After Parse, Hold.Fill puts it in place.
	Cargo uint64
	sizes []uint32
}

// Append appends a frame as a message. With a Cargo, the data of the records stays out.
func Append(b []byte, f *Frame) []byte {
	size := headSize + fixedSize
	for i := range f.Records {
		if size += minRecord + len(f.Records[i].Channel) + len(f.Records[i].Key.Hash()); f.Cargo == 0 {
			size += len(f.Records[i].Data)
		}
	}
	b, at := begin(slices.Grow(b, size))
	b = binary.LittleEndian.AppendUint64(b, f.Pos)
	b = binary.LittleEndian.AppendUint64(b, f.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Low))
	flags := byte(0)
	if f.Again {
		flags |= flagAgain
	}
	if f.Cargo != 0 {
		flags |= flagCargo
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Records)))
	if f.Cargo != 0 {
		b = binary.LittleEndian.AppendUint64(b, f.Cargo)
		for i := range f.Records {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Records[i].Data)))
		}
	}
	for i := range f.Records {
		r := f.Records[i]
		if f.Cargo != 0 {
			r.Data = nil
		}
		b, _ = format.AppendRecord(b, &r, r.Flags)
	}
	return end(b, at, KindFrame)
}

// Parse reads the payload of a frame; the records' bytes are the payload's.
func Parse(b []byte) (Frame, error) {
	if len(b) < fixedSize || b[24]&^(flagAgain|flagCargo) != 0 {
		return Frame{}, fmt.Errorf("%w: the head of a frame", ErrInvalid)
	}
	f := Frame{
		Pos: binary.LittleEndian.Uint64(b), Epoch: binary.LittleEndian.Uint64(b[8:]), Low: hub.Mark(binary.LittleEndian.Uint64(b[16:])), Again: b[24]&flagAgain != 0,
	}
	count, cargo := int(binary.LittleEndian.Uint32(b[25:])), b[24]&flagCargo != 0
	b = b[fixedSize:]
	if cargo {
		if len(b) < 8 || count == 0 || (len(b)-8)/4 < count {
			return Frame{}, fmt.Errorf("%w: the lengths of a cargo", ErrInvalid)
		}
		if f.Cargo = binary.LittleEndian.Uint64(b); f.Cargo == 0 {
			return Frame{}, fmt.Errorf("%w: a cargo without a number", ErrInvalid)
		}
		b = b[8:]
		for range count {
			f.sizes = append(f.sizes, binary.LittleEndian.Uint32(b))
			b = b[4:]
		}
	}
	channel := "" // of the record before: most follow one of the same
	f.Records = make([]spokelog.Record, 0, min(count, len(b)/minRecord))
	for len(b) > 0 {
		n := len(b)
		if len(b) >= 4 {
			n = min(n, int(binary.LittleEndian.Uint32(b)))
		}
		r, err := format.ParseRecord(b[:n])
		if err != nil || r.Size == 0 {
			return Frame{}, fmt.Errorf("%w: a record: %w", ErrInvalid, err)
		}
		if string(r.Channel) != channel {
			channel = string(r.Channel)
		}
		f.Records = append(f.Records, spokelog.Record{
			Channel: channel, Key: format.KeyOf(r.Millis, r.Hash), Stream: r.Stream, Flags: r.Flags, Data: r.Data,
		})
		b = b[r.Size:]
		if cargo && len(r.Data) > 0 {
			return Frame{}, fmt.Errorf("%w: a record with data beside a cargo", ErrInvalid)
		}
	}
	if len(f.Records) != count {
		return Frame{}, fmt.Errorf("%w: %d records, announced were %d", ErrInvalid, len(f.Records), count)
	}
	if count > 0 && f.Records[count-1].Flags&spokelog.MoreFollows != 0 {
		return Frame{}, fmt.Errorf("%w: a frame that ends within a request", ErrInvalid)
	}
	return f, nil
}

// fill puts the data of a cargo into the records.
func (f *Frame) fill(data []byte) error {
	for i := range f.Records {
		n := int(f.sizes[i])
		if n > len(data) {
			return fmt.Errorf("%w: a cargo that is too short", ErrInvalid)
		}
		f.Records[i].Data, data = data[:n:n], data[n:]
	}
	if len(data) > 0 {
		return fmt.Errorf("%w: a cargo that is too long", ErrInvalid)
	}
	return nil
}

// Ack says that everything up to a position is on the receiver's disk.
type Ack struct {
	Pos   uint64
	Clock int64
	Parts uint64 // bytes of parts that have come on this connection
}

// AppendAck appends an acknowledgement as a message.
func AppendAck(b []byte, a Ack) []byte {
	b, at := begin(b)
	b = binary.LittleEndian.AppendUint64(b, a.Pos)
	b = binary.LittleEndian.AppendUint64(b, uint64(a.Clock))
	b = binary.LittleEndian.AppendUint64(b, a.Parts)
	return end(b, at, KindAck)
}

// ParseAck reads the payload of an acknowledgement.
func ParseAck(b []byte) (Ack, error) {
	if len(b) != ackSize {
		return Ack{}, fmt.Errorf("%w: an acknowledgement of %d bytes", ErrInvalid, len(b))
	}
	return Ack{binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:])), binary.LittleEndian.Uint64(b[16:])}, nil
}
