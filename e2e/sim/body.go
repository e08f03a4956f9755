package sim

import (
	"bytes"
	"strconv"
)

// body is the content of part of write id: it says whose it is, and any reader can tell whether it is right.
func body(id, part, size int) []byte {
	b := make([]byte, 0, size+24)
	b = strconv.AppendInt(b, int64(id), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(part), 10)
	b = append(b, '|')
	x := uint64(id)*0x9e3779b97f4a7c15 + uint64(part) + 1
	for len(b) < size {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if x&3 == 0 { // so that it can be compressed, a little
			x = x>>56 | 0x2020202020202000
		}
		for i := range min(8, size-len(b)) {
			b = append(b, byte(x>>(8*i)))
		}
	}
	return b
}

// owner reads back which write and part a body belongs to.
func owner(b []byte) (id, part int, ok bool) {
	head, _, ok := bytes.Cut(b[:min(len(b), 40)], []byte("|"))
	if !ok {
		return 0, 0, false
	}
	i, p, ok := bytes.Cut(head, []byte("."))
	if !ok {
		return 0, 0, false
	}
	id, err := strconv.Atoi(string(i))
	if err != nil {
		return 0, 0, false
	}
	part, err = strconv.Atoi(string(p))
	return id, part, err == nil
}
