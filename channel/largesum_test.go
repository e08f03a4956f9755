package channel_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"timehub/channel"
)

// TestLargeDamaged: of a large body in which a bit is another one, nobody gets all bytes. Where it is not looked at as a whole, nobody can tell.
func TestLargeDamaged(t *testing.T) {
	const size = 100_000 // several blocks
	h := open(t, func(o *channel.Options) { o.LargeBytes = 1000 })
	ch := h.put("x", ``)
	body := bytes.Repeat([]byte("0123456789"), size/10)
	k, err := h.Insert(ctx, ch, channel.Upload{Reader: bytes.NewReader(body), Size: size})
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.Get(ctx, ch, k, channel.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	read := func(offset, n int64) ([]byte, error) {
		r, err := h.Open(ctx, f, offset, n)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	for _, at := range []int{0, 1, 32<<10 - 1, 32 << 10, 70_000, size - 1} {
		if got, err := read(0, -1); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		h.long.Hurt(at, 8)
		if got, err := read(0, -1); err == nil || !strings.Contains(err.Error(), "checksum") || len(got) >= size {
			t.Errorf("byte %d is another one: %d bytes, %v", at, len(got), err)
		}
		if got, err := read(5, 10); err != nil || len(got) != 10 {
			t.Errorf("a part: %d bytes, %v", len(got), err)
		}
		h.long.Hurt(at, 8)
	}
}
