package stream

import (
	"bytes"
	"encoding/binary"
)

// frameHead is the length of the head of a frame with 126 to 65,535 bytes.
const frameHead = 4

// textFrame is the first byte of a whole text message (RFC 6455 §5.2).
const textFrame = 0x81

// appendFrame appends a text message as a server sends it: not masked, in one piece.
func appendFrame(b, text []byte) []byte {
	switch n := len(text); {
	case n < 126:
		b = append(b, textFrame, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, textFrame, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, textFrame, 127), uint64(n))
	}
	return append(b, text...)
}

// closeFrame makes a frame of what follows room for its head at b[at:]; that is less than 64 KiB.
func closeFrame(b []byte, at int) []byte {
	text := b[at+frameHead:]
	if n := len(text); n >= 126 {
		b[at], b[at+1] = textFrame, 126
		binary.BigEndian.PutUint16(b[at+2:], uint16(n))
		return b
	}
	b[at], b[at+1] = textFrame, byte(len(text))
	return b[:at+2+copy(b[at+2:], text)]
}

// framer writes the data of one event: each line of a text becomes a line that begins with "data: ". CR LF, LF and CR all end a line, as they do for those
// who read events; what is read is the text with LF for each of them. A text may come in parts.
type framer struct {
	cr bool // the last part ended with a CR: an LF that follows belongs to it
}

func (f *framer) begin(b *[]byte) {
	f.cr = false
	*b = append(*b, "data: "...)
}

func (f *framer) add(b *[]byte, part []byte) {
	if f.cr && len(part) > 0 {
		f.cr = false
		if part[0] == '\n' {
			part = part[1:]
		}
	}
	for {
		i := bytes.IndexAny(part, "\r\n")
		if i < 0 {
			*b = append(*b, part...)
			return
		}
		*b = append(*b, part[:i]...)
		*b = append(*b, "\ndata: "...)
		if part[i] == '\r' {
			if i+1 == len(part) {
				f.cr = true
				return
			}
			if part[i+1] == '\n' {
				i++
			}
		}
		part = part[i+1:]
	}
}

func (f *framer) end(b *[]byte) { *b = append(*b, "\n\n"...) }

// appendLine appends a text that must not break its line.
func appendLine(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c == '\r' || c == '\n' || c == 0 {
			b = append(b, ' ')
		} else {
			b = append(b, c)
		}
	}
	return b
}
