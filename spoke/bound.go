package spoke

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"timehub/hub"
	"timehub/hub/disk"
	spokelog "timehub/spoke/log"
)

const (
	clockFile = "clock"
	slotBytes = 512 // a sector: what a disk writes whole
	slotUsed  = 28
	slotPlace = 32 // where the place in the log begins
	slotEnd   = 60
	slotMagic = 0x6b636f6c63627568 // "hubclock"
)

// bound is the file "clock": a position of the hybrid clock that lies above every key minted, received or shown as a horizon (ENGINE §1), so that
// neither a restart with an empty log nor a clock set back can reuse a key or take a horizon back.
//
// Beside it stands how far the log was durable then: what is not valid there is damage, which others can mend, and not the end of a write that was not finished.
//
// The file has two slots, written in turn and synced before the new position is used. A slot that was torn was not in use yet; the other one holds.
//
//	offset  length  field (little-endian)
//	0       8       magic "hubclock"
//	8       8       number of the write, rising
//	16      8       position: milliseconds × 238,328 + counter
//	24      4       CRC-32C of bytes 0–23
//	28      4       zero
//	32      8       the log was durable up to here: sequence of the segment,
//	40      8       its salt,
//	48      8       bytes of it; 0: not known
//	56      4       CRC-32C of bytes 0–55; another one: the place is not known
//	60      452     zero
type bound struct {
	file    disk.File
	writes  uint64
	reached spokelog.Position // as it was found; zero: none was
}

// openBound opens or makes the file and returns the position found, 0 if there was none. lost says that the file was there but held no whole slot.
func openBound(d disk.Disk) (b *bound, at hub.Mark, lost bool, err error) {
	f, err := d.Open(clockFile, true)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = newBound(d)
		return b, 0, false, err
	}
	if err != nil {
		return nil, 0, false, fmt.Errorf("open the clock file: %w", err)
	}
	b = &bound{file: f}
	found, used := false, false
	for slot := range int64(2) {
		var s [slotEnd]byte
		n, err := f.ReadAt(s[:], slot*slotBytes)
		if err != nil && err != io.EOF { // it may hold the higher position
			f.Close()
			return nil, 0, false, fmt.Errorf("read the clock file: %w", err)
		}
		used = used || s != [slotEnd]byte{}
		if n < slotUsed || binary.LittleEndian.Uint64(s[:]) != slotMagic || binary.LittleEndian.Uint32(s[24:]) != slotSum(s[:24]) {
			continue
		}
		found = true
		if writes := binary.LittleEndian.Uint64(s[8:]); writes >= b.writes {
			b.writes, b.reached = writes, placeOf(s)
		}
		at = max(at, hub.Mark(binary.LittleEndian.Uint64(s[16:])))
	}
	if !used { // it is left from a start that died; whether its name is durable, nobody knows
		f.Close()
		if err = d.Remove(clockFile); err == nil {
			b, err = newBound(d)
		}
		return b, 0, false, err
	}
	return b, at, !found, nil
}

// newBound makes the file; its name and length are durable.
func newBound(d disk.Disk) (*bound, error) {
	f, err := d.Create(clockFile)
	if err != nil {
		return nil, fmt.Errorf("make the clock file: %w", err)
	}
	if _, err = f.WriteAt(make([]byte, 2*slotBytes), 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.SyncDir(".")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make the clock file: %w", err)
	}
	return &bound{file: f}, nil
}

// placeOf is the place in the log that a slot names.
func placeOf(s [slotEnd]byte) spokelog.Position {
	if binary.LittleEndian.Uint32(s[slotEnd-4:]) != slotSum(s[:slotEnd-4]) {
		return spokelog.Position{}
	}
	p := s[slotPlace:]
	return spokelog.Position{
		Segment: binary.LittleEndian.Uint64(p), Salt: binary.LittleEndian.Uint64(p[8:]), Length: int64(binary.LittleEndian.Uint64(p[16:])),
	}
}

// raise makes a higher position durable, and how far the log is known to be. One call at a time.
func (b *bound) raise(to hub.Mark, reached spokelog.Position) error {
	var s [slotBytes]byte
	binary.LittleEndian.PutUint64(s[:], slotMagic)
	binary.LittleEndian.PutUint64(s[8:], b.writes+1)
	binary.LittleEndian.PutUint64(s[16:], uint64(to))
	binary.LittleEndian.PutUint32(s[24:], slotSum(s[:24]))
	binary.LittleEndian.PutUint64(s[slotPlace:], reached.Segment)
	binary.LittleEndian.PutUint64(s[slotPlace+8:], reached.Salt)
	binary.LittleEndian.PutUint64(s[slotPlace+16:], uint64(reached.Length))
	binary.LittleEndian.PutUint32(s[slotEnd-4:], slotSum(s[:slotEnd-4]))
	if _, err := b.file.WriteAt(s[:], int64((b.writes+1)%2)*slotBytes); err != nil {
		return fmt.Errorf("write the clock file: %w", err)
	}
	if err := b.file.Sync(); err != nil {
		return fmt.Errorf("sync the clock file: %w", err)
	}
	b.writes++
	return nil
}

func slotSum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }
