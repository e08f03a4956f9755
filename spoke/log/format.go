package log

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"timehub/hub"
)

// The bytes of a segment; FORMAT.md has them as tables. All numbers are little-endian.
const (
	version = 1

	headSize  = 64                  // magic, version, sequence, salt; written and synced before the segment is used
	linkSize  = 64                  // what is known of the predecessor; written with the first group
	dataStart = headSize + linkSize // offset of the first group

	groupHead  = 40 // bytes of a group before its lows
	lowSize    = 24
	recordHead = 25 // bytes of a record before the channel

	headMagic  = 0x6b6f7053_62754821 // "!HubSpok"
	linkMagic  = 0x6b6e694c_62754821 // "!HubLink"
	footMagic  = 0x746f6f46_62754821 // "!HubFoot"
	floorMagic = 0x726f6c46_62754821 // "!HubFlor"
	groupMagic = 0x70724721          // "!Grp"

	maxName   = 255     // bytes of a channel's name, and of a hash
	maxLows   = 4096    // of a group
	maxBatch  = 1 << 30 // bytes of a batch
	maxRecord = maxBatch
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errFormat  = errors.New("not valid")
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func crcUpdate(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// head is the first part of a segment. The place of magic, version and CRC is the same in every version.
type head struct {
	seq, salt uint64
	created   int64  // ms
	sealed    uint64 // segments up to this sequence had their footers on the disk when this one was made
}

func (h head) append(b []byte) []byte {
	at := len(b)
	b = le.AppendUint64(b, headMagic)
	b = le.AppendUint64(b, version)
	b = le.AppendUint64(b, h.seq)
	b = le.AppendUint64(b, h.salt)
	b = le.AppendUint64(b, uint64(h.created))
	b = le.AppendUint64(b, h.sealed)
	return sealBlock(b, at, headSize)
}

// sealBlock pads the block that begins at at with zeros and ends it with its CRC.
func sealBlock(b []byte, at, size int) []byte {
	for len(b) < at+size-4 {
		b = append(b, 0)
	}
	return le.AppendUint32(b, crcOf(b[at:]))
}

func blockValid(b []byte, size int, magic uint64) bool {
	return len(b) >= size && le.Uint64(b) == magic && le.Uint32(b[size-4:]) == crcOf(b[:size-4])
}

// errVersion is what a file of a later version gives: nothing else may be done with it.
type errVersion struct{ found uint64 }

func (e errVersion) Error() string {
	return fmt.Sprintf("it was written by a newer version of the hub (format %d, this one knows up to %d): start that version", e.found, version)
}

func parseHead(b []byte) (head, error) {
	if !blockValid(b, headSize, headMagic) {
		return head{}, errFormat
	}
	if v := le.Uint64(b[8:]); v > version {
		return head{}, errVersion{v}
	}
	return head{seq: le.Uint64(b[16:]), salt: le.Uint64(b[24:]), created: int64(le.Uint64(b[32:])), sealed: le.Uint64(b[40:])}, nil
}

// link is the second part: it fixes the length of the predecessor, the last segment before this one that holds acknowledged groups. Segments whose
// sequence lies between the two hold nothing.
type link struct {
	seq, salt         uint64 // of this segment
	prevSeq, prevSalt uint64 // 0: there is none
	prevLength        int64  // bytes of it that are acknowledged
	prevLast          int64  // ms of its highest key
}

func (k link) append(b []byte) []byte {
	at := len(b)
	b = le.AppendUint64(b, linkMagic)
	b = le.AppendUint64(b, k.seq)
	b = le.AppendUint64(b, k.salt)
	b = le.AppendUint64(b, k.prevSeq)
	b = le.AppendUint32(b, uint32(k.prevSalt)) // enough to tell files apart
	b = le.AppendUint64(b, uint64(k.prevLength))
	b = le.AppendUint64(b, uint64(k.prevLast))
	return sealBlock(b, at, linkSize)
}

func parseLink(b []byte) (link, error) {
	if !blockValid(b, linkSize, linkMagic) {
		return link{}, errFormat
	}
	k := link{
		seq: le.Uint64(b[8:]), salt: le.Uint64(b[16:]), prevSeq: le.Uint64(b[24:]), prevSalt: uint64(le.Uint32(b[32:])),
		prevLength: int64(le.Uint64(b[36:])), prevLast: int64(le.Uint64(b[44:])),
	}
	if k.prevSeq >= k.seq || k.prevSeq != 0 && k.prevLength < dataStart {
		return link{}, errFormat
	}
	return k, nil
}

// group is the header of what was written and synced at once.
type group struct {
	salt, seq uint64
	length    uint32 // whole group, header included
	records   uint32
	lows      uint16
	sum       uint32 // CRC of the CRCs of all records, in order
}

// put writes the header over b, in which the lows follow already.
func (g group) put(b []byte) {
	le.PutUint32(b, groupMagic)
	le.PutUint64(b[4:], g.salt)
	le.PutUint64(b[12:], g.seq)
	le.PutUint32(b[20:], g.length)
	le.PutUint32(b[24:], g.records)
	le.PutUint16(b[28:], g.lows)
	le.PutUint16(b[30:], 0)
	le.PutUint32(b[32:], g.sum)
	le.PutUint32(b[36:], g.crc(b))
}

func (g group) crc(b []byte) uint32 {
	return crc32.Update(crcOf(b[:36]), castagnoli, b[groupHead:groupHead+int(g.lows)*lowSize])
}

// groupNeed is the number of bytes that parseGroup wants to see, given the first groupHead bytes; 0 if they are no header.
func groupNeed(b []byte, salt uint64) int {
	if len(b) < groupHead || le.Uint32(b) != groupMagic || le.Uint64(b[4:]) != salt {
		return 0
	}
	if n := int(le.Uint16(b[28:])); n <= maxLows {
		return groupHead + n*lowSize
	}
	return 0
}

// parseGroup reads a header with its lows.
func parseGroup(b []byte, salt uint64) (group, error) {
	need := groupNeed(b, salt)
	if need == 0 || len(b) < need {
		return group{}, errFormat
	}
	g := group{
		salt: salt, seq: le.Uint64(b[12:]), length: le.Uint32(b[20:]), records: le.Uint32(b[24:]),
		lows: le.Uint16(b[28:]), sum: le.Uint32(b[32:]),
	}
	if le.Uint32(b[36:]) != g.crc(b) || int64(g.length) < int64(need) || le.Uint16(b[30:]) != 0 {
		return group{}, errFormat
	}
	return g, nil
}

func appendLow(b []byte, l Low) []byte {
	b = le.AppendUint32(b, uint32(l.Stream.Ordinal))
	b = le.AppendUint32(b, l.Stream.Incarnation)
	b = le.AppendUint64(b, l.Epoch)
	return le.AppendUint64(b, uint64(l.Mark))
}

func parseLow(b []byte) Low {
	return Low{
		Stream: Stream{Ordinal: le.Uint16(b), Incarnation: le.Uint32(b[4:])},
		Epoch:  le.Uint64(b[8:]), Mark: hub.Mark(le.Uint64(b[16:])),
	}
}

// recordSize is the number of bytes that a record takes.
func recordSize(r *Record) int64 {
	return recordHead + int64(len(r.Channel)) + int64(len(r.Key.Hash())) + int64(len(r.Data))
}

// appendRecord appends a record and returns its CRC.
func appendRecord(b []byte, r *Record, flags Flags) ([]byte, uint32) {
	at := len(b)
	hash := r.Key.Hash()
	b = le.AppendUint32(b, uint32(recordSize(r)))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(r.Key.Millis()))
	b = le.AppendUint32(b, r.Stream.Incarnation)
	b = le.AppendUint16(b, r.Stream.Ordinal)
	b = append(b, byte(flags), byte(len(r.Channel)), byte(len(hash)))
	b = append(b, r.Channel...)
	b = append(b, hash...)
	b = append(b, r.Data...)
	crc := crcOf(b[at+8:])
	le.PutUint32(b[at+4:], crc)
	return b, crc
}

// raw is a record that lies in a buffer.
type raw struct {
	ms      int64
	stream  Stream
	flags   Flags
	crc     uint32
	size    int
	channel []byte
	hash    []byte
	data    []byte
}

// recordLength reads the length of the record that begins b; 0 if it cannot be one.
func recordLength(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	if n := le.Uint32(b); n >= recordHead && n <= maxRecord {
		return int(n)
	}
	return 0
}

// parseRecord reads the record that begins b; nothing of it is wrong when it returns nil.
func parseRecord(b []byte) (raw, error) {
	n := recordLength(b)
	if n == 0 || n > len(b) {
		return raw{}, errFormat
	}
	b = b[:n:n]
	r := raw{size: n, crc: le.Uint32(b[4:])}
	if r.crc != crcOf(b[8:]) {
		return raw{}, errFormat
	}
	r.ms = int64(le.Uint64(b[8:]))
	r.stream = Stream{Incarnation: le.Uint32(b[16:]), Ordinal: le.Uint16(b[20:])}
	r.flags = Flags(b[22])
	c, h := int(b[23]), int(b[24])
	if c == 0 || recordHead+c+h > n || r.flags&^knownFlags != 0 {
		return raw{}, errFormat
	}
	r.channel = b[recordHead : recordHead+c]
	r.hash = b[recordHead+c : recordHead+c+h]
	r.data = b[recordHead+c+h:]
	return r, nil
}

// entry is where a record lies, in the index of a segment in memory and in its footer. It holds no pointer. A hash longer than inlineHash lies in the
// arena of the index or footer, at the offset that the first 4 bytes of hash say.
type entry struct {
	ms    int64
	off   uint32
	size  uint32
	hash  [inlineHash]byte
	hlen  uint8
	flags Flags
}

const (
	entrySize  = 32
	inlineHash = 14
	maxSegment = math.MaxUint32 // bytes, since offsets have 32 bits
)

func (e *entry) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(e.ms))
	b = le.AppendUint32(b, e.off)
	b = le.AppendUint32(b, e.size)
	b = append(b, e.hash[:]...)
	return append(b, e.hlen, byte(e.flags))
}

func parseEntry(b []byte) (e entry) {
	_ = b[entrySize-1]
	e.ms = int64(le.Uint64(b))
	e.off, e.size = le.Uint32(b[8:]), le.Uint32(b[12:])
	copy(e.hash[:], b[16:30])
	e.hlen, e.flags = b[30], Flags(b[31])
	return e
}

// long reports whether the hash lies in an arena, at the offset at.
func (e *entry) long() (at uint32, ok bool) {
	return le.Uint32(e.hash[:]), e.hlen > inlineHash
}

// hashIn returns the hash. The result points into e or into the arena.
func (e *entry) hashIn(arena []byte) []byte {
	if at, ok := e.long(); ok {
		return arena[at : int(at)+int(e.hlen)]
	}
	return e.hash[:e.hlen]
}

// Add takes a key into the digest.
func (d *Digest) Add(k hub.Key) {
	d.Count++
	d.Sum += k.Digest()
}
