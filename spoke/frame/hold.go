package frame

import (
	"encoding/binary"
	"fmt"

	"timehub/spoke/log/format"
)

// MaxHeld bounds the bytes that a Hold keeps: the largest request, and what may wait beside it.
const MaxHeld = format.MaxBatch + 64<<20

// AppendPart appends a piece of a cargo of size bytes as a message. The pieces of a cargo follow each other; frames may lie between them.
func AppendPart(b []byte, cargo, size uint64, piece []byte) []byte {
	b, at := begin(b)
	b = binary.LittleEndian.AppendUint64(b, cargo)
	b = binary.LittleEndian.AppendUint64(b, size)
	return end(append(b, piece...), at, KindPart)
}

// AppendDrop appends the message that a cargo, of which parts were sent, will not be named by a frame.
func AppendDrop(b []byte, cargo uint64) []byte {
	b, at := begin(b)
	return end(binary.LittleEndian.AppendUint64(b, cargo), at, KindDrop)
}

// Hold keeps the cargoes of one connection until a frame names them: at most MaxHeld bytes. Not safe for concurrent use.
type Hold struct {
	cargoes map[uint64]*cargo
	bytes   uint64 // announced, of all
	came    uint64
}

type cargo struct {
	size uint64
	data []byte
}

// Came is how many bytes of parts have come.
func (h *Hold) Came() uint64 { return h.came }

// Part takes in the payload of a part.
func (h *Hold) Part(b []byte) error {
	if len(b) <= partHead || len(b) > partHead+PartBytes {
		return fmt.Errorf("%w: a part of %d bytes", ErrInvalid, len(b))
	}
	id, size, piece := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[partHead:]
	c := h.cargoes[id]
	if c == nil {
		if id == 0 || size > MaxHeld-h.bytes {
			return fmt.Errorf("%w: a cargo of %d bytes, beside %d that wait", ErrInvalid, size, h.bytes)
		}
		if h.cargoes == nil {
			h.cargoes = map[uint64]*cargo{}
		}
		c = &cargo{size: size}
		h.cargoes[id] = c
		h.bytes += size
	}
	if c.size != size || uint64(len(piece)) > c.size-uint64(len(c.data)) {
		return fmt.Errorf("%w: a part that does not fit", ErrInvalid)
	}
	if c.data == nil {
		c.data = make([]byte, 0, min(size, readStep)) // memory follows what has arrived
	}
	c.data = append(c.data, piece...)
	h.came += uint64(len(piece))
	return nil
}

// Drop takes in the payload of a drop.
func (h *Hold) Drop(b []byte) error {
	if len(b) != 8 {
		return fmt.Errorf("%w: a drop of %d bytes", ErrInvalid, len(b))
	}
	h.forget(binary.LittleEndian.Uint64(b))
	return nil
}

func (h *Hold) forget(id uint64) {
	if c := h.cargoes[id]; c != nil {
		h.bytes -= c.size
		delete(h.cargoes, id)
	}
}

// Fill gives the records of a frame their data, and lets the cargo go.
func (h *Hold) Fill(f *Frame) error {
	if f.Cargo == 0 {
		return nil
	}
	c := h.cargoes[f.Cargo]
	if c == nil || uint64(len(c.data)) != c.size {
		return fmt.Errorf("%w: the cargo %d is not here, or not all of it", ErrInvalid, f.Cargo)
	}
	h.forget(f.Cargo)
	return f.fill(c.data)
}
