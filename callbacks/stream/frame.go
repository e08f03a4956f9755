package stream

import "bytes"

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
