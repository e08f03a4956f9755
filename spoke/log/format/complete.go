package format

import (
	"io"
	"maps"
	"slices"

	"timehub/hub"
)

const markerHead = 10 // bytes of a row of the section *complete* before the hash

// AddComplete notes a marker: the channel is complete up to a key. The highest one counts.
func (m *Index) AddComplete(channel string, upTo hub.Key) {
	if m.Complete == nil {
		m.Complete = map[string]hub.Key{}
	}
	if at, ok := m.Complete[channel]; !ok || at.Less(upTo) {
		m.Complete[channel] = upTo
	}
}

func completeBytes(marks map[string]hub.Key) (b []byte) {
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		k := marks[name]
		b = le.AppendUint64(b, uint64(k.Millis()))
		b = append(b, byte(len(k.Hash())), byte(len(name)))
		b = append(b, k.Hash()...)
		b = append(b, name...)
	}
	return b
}

// Complete reads the markers of the segment: up to which key each replicated channel was complete.
func (f *Footer) Complete(r io.ReaderAt) (map[string]hub.Key, error) {
	raw, err := f.Read(r, secComplete, 0, int(f.Sections[secComplete].Bytes))
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	marks := map[string]hub.Key{}
	for len(raw) > 0 {
		if len(raw) < markerHead {
			return nil, FooterError{err: ErrFormat}
		}
		hash, end := markerHead+int(raw[8]), markerHead+int(raw[8])+int(raw[9])
		if end > len(raw) {
			return nil, FooterError{err: ErrFormat}
		}
		marks[string(raw[hash:end])] = KeyOf(int64(le.Uint64(raw)), raw[markerHead:hash])
		raw = raw[end:]
	}
	return marks, nil
}
