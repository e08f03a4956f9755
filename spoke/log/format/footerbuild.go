package format

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"timehub/hub"
)

// footerBuilder goes through the channels of a segment and gathers the small sections while the entries are written.
type footerBuilder struct {
	p       *pageWriter
	m       *Index
	order   []hashedChannel
	entries int
	scratch []byte

	fences, minutes, names, directory []byte
}

type hashedChannel struct {
	hash uint32
	*chanIndex
}

func (a hashedChannel) compare(b hashedChannel) int {
	if a.hash != b.hash {
		return cmp.Compare(a.hash, b.hash)
	}
	return strings.Compare(a.Name, b.Name)
}

// Channel writes the entries of a channel.
func (b *footerBuilder) channel(c hashedChannel) {
	start, minutes := b.entries, len(b.minutes)/minuteRowSize
	var row minuteRow
	var last Entry
	var flags Flags // of last's key; names sort with their data
	have := false
	flush := func() {
		if have && !flags.Hides() {
			row.Count++
			row.Sum += hub.DigestOf(last.Millis, last.HashIn(b.m.Arena))
		}
	}
	for e := range MergedEntries(c.chanIndex, b.m.Arena) {
		b.scratch = e.append(b.scratch[:0])
		if b.entries%PerPage == 0 {
			b.fences = append(b.fences, b.scratch...)
		}
		b.p.write(secEntries, b.scratch)
		b.entries++
		if same := have && e.Millis == last.Millis && bytes.Equal(e.HashIn(b.m.Arena), last.HashIn(b.m.Arena)); !same {
			flush()
			if minute := MinuteOf(e.Millis); !have || minute != row.minute {
				if have {
					b.minutes = row.append(b.minutes)
				}
				row = minuteRow{minute: minute}
			}
			last, flags, have = *e, 0, true
		}
		row.Flags |= e.Flags &^ MoreFollows
		flags |= e.Flags
	}
	flush()
	b.minutes = row.append(b.minutes)
	first, end := c.Extent(b.m.Arena)
	d := b.directory
	d = le.AppendUint32(d, uint32(len(b.names)))
	d = append(d, byte(len(c.Name)), byte(c.Flags), 0, 0)
	d = le.AppendUint32(d, uint32(start))
	d = le.AppendUint32(d, uint32(b.entries-start))
	d = le.AppendUint32(d, uint32(minutes))
	d = le.AppendUint32(d, uint32(len(b.minutes)/minuteRowSize-minutes))
	d = le.AppendUint64(d, uint64(c.Bytes))
	b.directory = end.append(first.append(d))
	b.names = append(b.names, c.Name...)
}

func (b *footerBuilder) blob(sec int, data []byte) {
	b.p.begin(sec)
	b.p.write(sec, data)
}

func lowsBytes(lows map[Stream]Low) (b []byte) {
	for _, l := range SortedLows(lows) {
		b = AppendLow(b, l)
	}
	return b
}

// SortedLows lists lows by stream.
func SortedLows(lows map[Stream]Low) []Low {
	list := make([]Low, 0, len(lows))
	for _, l := range lows {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b Low) int {
		return cmp.Or(cmp.Compare(a.Stream.Ordinal, b.Stream.Ordinal), cmp.Compare(a.Stream.Incarnation, b.Stream.Incarnation))
	})
	return list
}
