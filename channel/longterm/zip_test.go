package longterm_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"testing"

	stdflate "compress/flate"
)

// legacySingle is a SINGLE object as the original's library writes it.
func legacySingle(t testing.TB, meta, payload string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if err := z.SetComment(strconv.Itoa(len(payload))); err != nil {
		t.Fatal(err)
	}
	for _, e := range [][2]string{{"meta", meta}, {"payload", payload}} {
		f, err := z.Create(e[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(e[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// legacyZip is a batch as the original writes it: raw JSON as extra field in both places. Written by hand, since libraries refuse to.
func legacyZip(t testing.TB, names ...string) []byte {
	var out, dir bytes.Buffer
	le := binary.LittleEndian
	extra := `{"contentType":"text/plain"}`
	for _, name := range names {
		body := []byte("body of " + name)
		var packed bytes.Buffer
		f, err := stdflate.NewWriter(&packed, 9)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(body)
		f.Close()
		offset := out.Len()
		h := make([]byte, 30)
		le.PutUint32(h, 0x04034b50)
		le.PutUint16(h[4:], 20)
		le.PutUint16(h[6:], 8)
		le.PutUint16(h[8:], 8)
		le.PutUint16(h[26:], uint16(len(name)))
		le.PutUint16(h[28:], uint16(len(extra)))
		out.Write(h)
		out.WriteString(name + extra)
		out.Write(packed.Bytes())
		d := make([]byte, 16)
		le.PutUint32(d, 0x08074b50)
		le.PutUint32(d[4:], crc32.ChecksumIEEE(body))
		le.PutUint32(d[8:], uint32(packed.Len()))
		le.PutUint32(d[12:], uint32(len(body)))
		out.Write(d)
		c := make([]byte, 46)
		le.PutUint32(c, 0x02014b50)
		le.PutUint16(c[4:], 20)
		le.PutUint16(c[6:], 20)
		le.PutUint16(c[8:], 8)
		le.PutUint16(c[10:], 8)
		copy(c[16:28], d[4:16])
		le.PutUint16(c[28:], uint16(len(name)))
		le.PutUint16(c[30:], uint16(len(extra)))
		le.PutUint32(c[42:], uint32(offset))
		dir.Write(c)
		dir.WriteString(name + extra)
	}
	e := make([]byte, 22)
	le.PutUint32(e, 0x06054b50)
	le.PutUint16(e[8:], uint16(len(names)))
	le.PutUint16(e[10:], uint16(len(names)))
	le.PutUint32(e[12:], uint32(dir.Len()))
	le.PutUint32(e[16:], uint32(out.Len()))
	return append(append(out.Bytes(), dir.Bytes()...), e...)
}
