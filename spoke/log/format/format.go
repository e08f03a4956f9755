package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"timehub/hub"
)

// The bytes of a segment; docs/formats.md has them as tables. All numbers are little-endian.
const (
	Version = 1

	HeadSize  = 64                  // magic, version, sequence, salt; written and synced before the segment is used
	linkSize  = 64                  // what is known of the predecessor; written with the first group
	DataStart = HeadSize + linkSize // offset of the first group

	GroupHead  = 40 // bytes of a group before its lows
	LowSize    = 24
	recordHead = 25 // bytes of a record before the channel

	headMagic  = 0x6b6f7053_62754821 // "!HubSpok"
	linkMagic  = 0x6b6e694c_62754821 // "!HubLink"
	footMagic  = 0x746f6f46_62754821 // "!HubFoot"
	floorMagic = 0x726f6c46_62754821 // "!HubFlor"
	groupMagic = 0x70724721          // "!Grp"

	MaxName   = 255     // bytes of a channel's name, and of a hash
	MaxLows   = 4096    // of a group
	MaxBatch  = 1 << 30 // bytes of a batch
	maxRecord = MaxBatch
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrFormat is in the chain of the error for bytes that are not what they should be.
var ErrFormat = errors.New("not valid")

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func crcUpdate(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// Head is the first part of a segment. The place of magic, version and CRC is the same in every version.
type Head struct {
	Seq, Salt uint64
	Created   int64  // ms
	Sealed    uint64 // segments up to this sequence had their footers on the disk when this one was made
}

// Append appends the bytes of the head.
func (h Head) Append(b []byte) []byte {
	at := len(b)
	b = le.AppendUint64(b, headMagic)
	b = le.AppendUint64(b, Version)
	b = le.AppendUint64(b, h.Seq)
	b = le.AppendUint64(b, h.Salt)
	b = le.AppendUint64(b, uint64(h.Created))
	b = le.AppendUint64(b, h.Sealed)
	return sealBlock(b, at, HeadSize)
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

// VersionError is what a file of a later version gives: nothing else may be done with it.
type VersionError struct{ found uint64 }

func (e VersionError) Error() string {
	return fmt.Sprintf("it was written by a newer version of the hub (format %d, this one knows up to %d): start that version", e.found, Version)
}

// ParseHead reads a head: ErrFormat if it is damaged, VersionError if a newer version wrote it.
func ParseHead(b []byte) (Head, error) {
	if !blockValid(b, HeadSize, headMagic) {
		return Head{}, ErrFormat
	}
	if v := le.Uint64(b[8:]); v > Version {
		return Head{}, VersionError{v}
	}
	return Head{Seq: le.Uint64(b[16:]), Salt: le.Uint64(b[24:]), Created: int64(le.Uint64(b[32:])), Sealed: le.Uint64(b[40:])}, nil
}

// Link is the second part: it fixes the length of the predecessor, the last segment before this one that holds acknowledged groups. Segments whose
// sequence lies between the two hold nothing.
type Link struct {
	Seq, Salt         uint64 // of this segment
	PrevSeq, PrevSalt uint64 // 0: there is none
	PrevLength        int64  // bytes of it that are acknowledged
	PrevLast          int64  // ms of its highest key
}

// Append appends the bytes of the link.
func (k Link) Append(b []byte) []byte {
	at := len(b)
	b = le.AppendUint64(b, linkMagic)
	b = le.AppendUint64(b, k.Seq)
	b = le.AppendUint64(b, k.Salt)
	b = le.AppendUint64(b, k.PrevSeq)
	b = le.AppendUint32(b, uint32(k.PrevSalt)) // enough to tell files apart
	b = le.AppendUint64(b, uint64(k.PrevLength))
	b = le.AppendUint64(b, uint64(k.PrevLast))
	return sealBlock(b, at, linkSize)
}

// ParseLink reads a link; its error is ErrFormat.
func ParseLink(b []byte) (Link, error) {
	if !blockValid(b, linkSize, linkMagic) {
		return Link{}, ErrFormat
	}
	k := Link{
		Seq: le.Uint64(b[8:]), Salt: le.Uint64(b[16:]), PrevSeq: le.Uint64(b[24:]), PrevSalt: uint64(le.Uint32(b[32:])),
		PrevLength: int64(le.Uint64(b[36:])), PrevLast: int64(le.Uint64(b[44:])),
	}
	if k.PrevSeq >= k.Seq || k.PrevSeq != 0 && k.PrevLength < DataStart {
		return Link{}, ErrFormat
	}
	return k, nil
}

// Group is the header of what was written and synced at once.
type Group struct {
	Salt, Seq uint64
	Length    uint32 // whole group, header included
	Records   uint32
	Lows      uint16
	Sum       uint32 // CRC of the CRCs of all records, in order
}

// Add takes in the CRC of the next record of the group.
func (g *Group) Add(crc uint32) {
	var four [4]byte
	le.PutUint32(four[:], crc)
	g.Sum = crcUpdate(g.Sum, four[:])
	g.Records++
}

// Put writes the header over b, in which the lows follow already.
func (g Group) Put(b []byte) {
	le.PutUint32(b, groupMagic)
	le.PutUint64(b[4:], g.Salt)
	le.PutUint64(b[12:], g.Seq)
	le.PutUint32(b[20:], g.Length)
	le.PutUint32(b[24:], g.Records)
	le.PutUint16(b[28:], g.Lows)
	le.PutUint16(b[30:], 0)
	le.PutUint32(b[32:], g.Sum)
	le.PutUint32(b[36:], g.crc(b))
}

func (g Group) crc(b []byte) uint32 {
	return crc32.Update(crcOf(b[:36]), castagnoli, b[GroupHead:GroupHead+int(g.Lows)*LowSize])
}

// GroupNeed is the number of bytes that parseGroup wants to see, given the first groupHead bytes; 0 if they are no header.
func GroupNeed(b []byte, salt uint64) int {
	if len(b) < GroupHead || le.Uint32(b) != groupMagic || le.Uint64(b[4:]) != salt {
		return 0
	}
	if n := int(le.Uint16(b[28:])); n <= MaxLows {
		return GroupHead + n*LowSize
	}
	return 0
}

// ParseGroup reads a header with its lows.
func ParseGroup(b []byte, salt uint64) (Group, error) {
	need := GroupNeed(b, salt)
	if need == 0 || len(b) < need {
		return Group{}, ErrFormat
	}
	g := Group{
		Salt: salt, Seq: le.Uint64(b[12:]), Length: le.Uint32(b[20:]), Records: le.Uint32(b[24:]),
		Lows: le.Uint16(b[28:]), Sum: le.Uint32(b[32:]),
	}
	if le.Uint32(b[36:]) != g.crc(b) || int64(g.Length) < int64(need) || le.Uint16(b[30:]) != 0 {
		return Group{}, ErrFormat
	}
	return g, nil
}

// AppendLow appends the bytes of a low.
func AppendLow(b []byte, l Low) []byte {
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

// RecordSize is the number of bytes that a record takes.
func RecordSize(r *Record) int64 {
	return recordHead + int64(len(r.Channel)) + int64(len(r.Key.Hash())) + int64(len(r.Data))
}

// AppendRecord appends a record and returns its CRC.
func AppendRecord(b []byte, r *Record, flags Flags) ([]byte, uint32) {
	at := len(b)
	hash := r.Key.Hash()
	b = le.AppendUint32(b, uint32(RecordSize(r)))
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

// Raw is a record that lies in a buffer.
type Raw struct {
	Millis  int64
	Stream  Stream
	Flags   Flags
	crc     uint32
	Size    int
	Channel []byte
	Hash    []byte
	Data    []byte
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

// ParseRecord reads the record that begins b; nothing of it is wrong when it returns nil.
func ParseRecord(b []byte) (Raw, error) {
	n := recordLength(b)
	if n == 0 || n > len(b) {
		return Raw{}, ErrFormat
	}
	b = b[:n:n]
	r := Raw{Size: n, crc: le.Uint32(b[4:])}
	if r.crc != crcOf(b[8:]) {
		return Raw{}, ErrFormat
	}
	r.Millis = int64(le.Uint64(b[8:]))
	r.Stream = Stream{Incarnation: le.Uint32(b[16:]), Ordinal: le.Uint16(b[20:])}
	r.Flags = Flags(b[22])
	c, h := int(b[23]), int(b[24])
	if c == 0 || recordHead+c+h > n || r.Flags&^KnownFlags != 0 {
		return Raw{}, ErrFormat
	}
	r.Channel = b[recordHead : recordHead+c]
	r.Hash = b[recordHead+c : recordHead+c+h]
	r.Data = b[recordHead+c+h:]
	return r, nil
}

// Entry is where a record lies, in the index of a segment in memory and in its footer. It holds no pointer. A hash longer than inlineHash lies in the
// Arena of the index or footer, at the offset that the first 4 bytes of hash say.
type Entry struct {
	Millis  int64
	Off     uint32
	Size    uint32
	Hash    [inlineHash]byte
	HashLen uint8
	Flags   Flags
}

const (
	EntrySize  = 32
	inlineHash = 14
	MaxSegment = math.MaxUint32 // bytes, since offsets have 32 bits
)

func (e *Entry) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(e.Millis))
	b = le.AppendUint32(b, e.Off)
	b = le.AppendUint32(b, e.Size)
	b = append(b, e.Hash[:]...)
	return append(b, e.HashLen, byte(e.Flags))
}

// ParseEntry reads an entry from the row of a page that was checked.
func ParseEntry(b []byte) (e Entry) {
	_ = b[EntrySize-1]
	e.Millis = int64(le.Uint64(b))
	e.Off, e.Size = le.Uint32(b[8:]), le.Uint32(b[12:])
	copy(e.Hash[:], b[16:30])
	e.HashLen, e.Flags = b[30], Flags(b[31])
	return e
}

// long reports whether the hash lies in an arena, at the offset at.
func (e *Entry) long() (at uint32, ok bool) {
	return le.Uint32(e.Hash[:]), e.HashLen > inlineHash
}

// HashIn returns the hash. The result points into e or into the arena.
func (e *Entry) HashIn(arena []byte) []byte {
	if at, ok := e.long(); ok {
		return arena[at : int(at)+int(e.HashLen)]
	}
	return e.Hash[:e.HashLen]
}

// Add takes a key into the digest.
func (d *Digest) Add(k hub.Key) {
	d.Count++
	d.Sum += k.Digest()
}
