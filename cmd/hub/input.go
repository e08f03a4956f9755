package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

const inputBuffer = 64 << 10

// readFunc is a Reader that is a function.
type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// interruptible reads from a stream whose Read may block for ever, such as a terminal's: when ctx ends, so does a Read. The goroutine that still waits
// for the stream then has nobody to tell; it ends with the process, which is what ctx says is coming.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	type chunk struct {
		text []byte
		err  error
	}
	var rest chunk
	var chunks chan chunk
	begin := func() {
		chunks = make(chan chunk)
		go func() {
			for {
				text := make([]byte, inputBuffer)
				n, err := r.Read(text)
				select {
				case chunks <- chunk{text[:n], err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	return readFunc(func(p []byte) (int, error) {
		if chunks == nil {
			begin()
		}
		for len(rest.text) == 0 {
			if rest.err != nil {
				return 0, rest.err
			}
			select {
			case rest = <-chunks:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		n := copy(p, rest.text)
		rest.text = rest.text[n:]
		return n, nil
	})
}

// textError says where a file is not the text that it should be.
type textError string

func (e textError) Error() string { return string(e) }

// textReader passes on what it reads as long as it is UTF-8 and, in JSON, every \u escape is a character. The decoders behind it would put U+FFFD in the
// place of anything else, and nobody would know.
type textReader struct {
	r    io.Reader
	json bool

	buf  []byte // read, not yet passed on: from off
	off  int
	good int // of buf, up to here it is text
	line int64
	at   int64 // bytes passed on
	err  error // after good

	escaped bool   // JSON: a backslash came before
	units   []byte // JSON: the digits so far of an escape \u….
	wanted  int    // JSON: digits that are missing
	high    uint16 // JSON: the first half of a pair that needs its second; 0: none
}

func (t *textReader) Read(p []byte) (int, error) {
	for t.off == t.good {
		if t.err != nil {
			return 0, t.err
		}
		t.fill()
	}
	n := copy(p, t.buf[t.off:t.good])
	t.off += n
	return n, nil
}

// fill reads more and finds how far it is text.
func (t *textReader) fill() {
	left := copy(t.buf, t.buf[t.good:]) // the beginning of a character
	if t.buf == nil {
		t.buf = make([]byte, inputBuffer)
	}
	t.buf = t.buf[:cap(t.buf)]
	n, err := t.r.Read(t.buf[left:])
	t.buf, t.off, t.good = t.buf[:left+n], 0, 0
	for t.good < len(t.buf) {
		rest := t.buf[t.good:]
		c, size := rune(rest[0]), 1
		if c >= utf8.RuneSelf {
			if !utf8.FullRune(rest) && err == nil {
				break
			}
			if c, size = utf8.DecodeRune(rest); c == utf8.RuneError && size == 1 {
				t.err = t.broken(rest)
				return
			}
		}
		if t.json && !t.escape(byte(min(c, utf8.RuneSelf))) {
			t.err = textError(fmt.Sprintf("line %d, near byte %d: a \\u escape is half of a pair, which is no character and cannot be stored", t.line+1, t.at))
			return
		}
		if c == '\n' {
			t.line++
		}
		t.good += size
		t.at += int64(size)
	}
	t.err = err
}

func (t *textReader) broken(rest []byte) error {
	hint := "convert it first, as with iconv -f WINDOWS-1252 -t UTF-8"
	if t.at == 0 && (bytes.HasPrefix(rest, []byte("\xff\xfe")) || bytes.HasPrefix(rest, []byte("\xfe\xff"))) {
		hint = "it looks like UTF-16; convert it first, as with iconv -f UTF-16 -t UTF-8"
	}
	return textError(fmt.Sprintf("line %d, byte %d (0x%02x) is not UTF-8; %s", t.line+1, t.at, rest[0], hint))
}

// escape follows the escapes of JSON strings, byte by byte, and reports whether each half of a surrogate pair has its other half. A backslash outside a
// string is an error that the decoder finds.
func (t *textReader) escape(c byte) bool {
	switch {
	case t.wanted > 0:
		t.units = append(t.units, c)
		if t.wanted--; t.wanted > 0 {
			return true
		}
		var unit uint16
		if _, err := fmt.Sscanf(string(t.units), "%04x", &unit); err != nil {
			return true // the decoder says what is wrong
		}
		first := t.high
		t.high = 0
		switch {
		case first != 0:
			return utf16.DecodeRune(rune(first), rune(unit)) != utf8.RuneError
		case utf16.IsSurrogate(rune(unit)):
			t.high = unit
			return unit < 0xdc00
		}
		return true
	case t.escaped:
		t.escaped = false
		if c == 'u' {
			t.units, t.wanted = t.units[:0], 4
			return true
		}
		return t.high == 0
	case c == '\\':
		t.escaped = true
		return true
	}
	return t.high == 0
}
