package format

import "timehub/hub"

// MaxDead bounds the list of FloorState.
const MaxDead = 4096

// FloorState is the content of the file floor. Dead are segments that were removed, but may come back after a crash, because the folder could not be
// synced; nothing in them counts.
type FloorState struct {
	Floor hub.Key
	Dead  []uint64
}

// Append appends the bytes of the file.
func (s FloorState) Append(b []byte) []byte {
	b = le.AppendUint64(b, floorMagic)
	b = le.AppendUint64(b, Version)
	b = le.AppendUint64(b, uint64(s.Floor.Millis()))
	b = le.AppendUint32(b, uint32(len(s.Dead)))
	for _, seq := range s.Dead {
		b = le.AppendUint64(b, seq)
	}
	b = append(b, byte(len(s.Floor.Hash())))
	b = append(b, s.Floor.Hash()...)
	return le.AppendUint32(b, crcOf(b))
}

// ParseFloor reads the content of the file floor.
func ParseFloor(b []byte) (s FloorState, err error) {
	const fixed = 28 // before the list
	if len(b) < fixed+5 || le.Uint64(b) != floorMagic || le.Uint32(b[len(b)-4:]) != crcOf(b[:len(b)-4]) {
		return s, ErrFormat
	}
	if v := le.Uint64(b[8:]); v > Version {
		return s, VersionError{v}
	}
	n := int(le.Uint32(b[24:]))
	if n > MaxDead || len(b) < fixed+8*n+5 || len(b) != fixed+8*n+5+int(b[fixed+8*n]) {
		return s, ErrFormat
	}
	for i := range n {
		s.Dead = append(s.Dead, le.Uint64(b[fixed+8*i:]))
	}
	s.Floor = KeyOf(int64(le.Uint64(b[16:])), b[fixed+8*n+1:len(b)-4])
	return s, nil
}
