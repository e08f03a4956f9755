package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestRoundTrip(t *testing.T) {
	s := New(Options{})
	random := make([]byte, 100_000)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	for name, body := range map[string][]byte{
		"empty": {}, "one byte": {7}, "short": []byte("hello"), "text": []byte(strings.Repeat("the hub ", 500)),
		"random": random, "zeros": make([]byte, 5<<20),
	} {
		t.Run(name, func(t *testing.T) {
			m := Meta{ContentType: "text/plain; charset=utf-8", Creator: "somebody", Created: -5, Large: name == "short"}
			prefix := []byte("prefix")
			data := s.Seal(bytes.Clone(prefix), m, body)
			if !bytes.HasPrefix(data, prefix) {
				t.Fatal("Seal changed what stood before")
			}
			e, err := Parse(data[len(prefix):])
			if err != nil {
				t.Fatal(err)
			}
			m.Size, m.Digest = int64(len(body)), s.Digest(body)
			if e.Meta != m {
				t.Errorf("meta %+v, want %+v", e.Meta, m)
			}
			got, err := s.Open(bytes.Clone(prefix), e)
			if err != nil || !bytes.Equal(got, append(bytes.Clone(prefix), body...)) {
				t.Errorf("Open: %d bytes, %v", len(got), err)
			}
			if len(data) > len(prefix)+len(body)+64 {
				t.Errorf("%d bytes became %d", len(body), len(data))
			}
		})
	}
}

func TestEveryAlterationIsFound(t *testing.T) {
	s := New(Options{})
	body := []byte(strings.Repeat("0123456789abcdef", 20))
	data := s.Seal(nil, Meta{ContentType: "a/b"}, body)
	for i := range data {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			e, err := Parse(bad)
			if err != nil {
				continue
			}
			if got, err := s.Open(nil, e); err == nil && !bytes.Equal(got, body) {
				t.Fatalf("bit %d of byte %d: other bytes were served", bit, i)
			}
		}
	}
	for n := range data {
		e, err := Parse(data[:n])
		if err == nil {
			_, err = s.Open(nil, e)
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// A frame that unpacks to more than the header says must cost neither memory nor time.
func TestBombIsBounded(t *testing.T) {
	s := New(Options{})
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := w.EncodeAll(make([]byte, 64<<20), nil)
	data := append(appendHeader(nil, Meta{Size: 10}, Zstd), bomb...)
	e, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1, func() {
		if _, err := s.Open(nil, e); !errors.Is(err, ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}); n > 100 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := New(Options{Idle: 2})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			body := bytes.Repeat([]byte{byte(g), 1, 2, 3}, 300)
			for range 200 {
				e, err := Parse(s.Seal(nil, Meta{}, body))
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := s.Open(nil, e); err != nil || !bytes.Equal(got, body) {
					t.Errorf("goroutine %d: %v", g, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Envelopes rest in logs and travel between nodes: their bytes are a promise.
func TestGolden(t *testing.T) {
	s := New(Options{})
	raw := s.Seal(nil, Meta{ContentType: "application/json", Creator: "ann", Created: 1614834367089}, []byte(`{"a":1}`))
	checkGolden(t, "testdata/raw.golden", raw)
	const packed = "testdata/zstd.golden" // compressors may change: what must stay is that old frames open
	body := []byte(strings.Repeat("time-keyed ", 40))
	if *update {
		checkGolden(t, packed, s.Seal(nil, Meta{ContentType: "text/plain", Created: 1614834367089, Large: true}, body))
	}
	text, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	e, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Open(nil, e)
	if err != nil || !bytes.Equal(got, body) || !e.Large || e.ContentType != "text/plain" || e.Codec != Zstd {
		t.Errorf("%+v %q %v", e.Meta, got, err)
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	text := hex.EncodeToString(got) + "\n"
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got %swant %s", name, text, want)
	}
}

func FuzzParse(f *testing.F) {
	s := New(Options{})
	f.Add(s.Seal(nil, Meta{ContentType: "a/b"}, []byte("body")))
	f.Add(s.Seal(nil, Meta{Large: true, Creator: "x"}, bytes.Repeat([]byte("body"), 100)))
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 127})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			return
		}
		if e.Size > 1<<24 {
			return // a lie that only the frame can tell; Open checks the frame before it allocates
		}
		body, err := s.Open(nil, e)
		if err != nil {
			return
		}
		again, err := Parse(s.Seal(nil, e.Meta, body))
		if err != nil || again.Meta != e.Meta {
			t.Fatalf("sealed again: %+v, want %+v (%v)", again.Meta, e.Meta, err)
		}
	})
}

func BenchmarkSeal1K(b *testing.B) {
	s := New(Options{})
	body := bytes.Repeat([]byte(`{"date":"2001/01/01 00:47","delay":66,"distance":1750},`), 19)[:1024]
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = s.Seal(buf[:0], Meta{ContentType: "application/json"}, body)
	}
}

func BenchmarkOpen1K(b *testing.B) {
	s := New(Options{})
	body := bytes.Repeat([]byte(`{"date":"2001/01/01 00:47","delay":66,"distance":1750},`), 19)[:1024]
	data := s.Seal(nil, Meta{ContentType: "application/json"}, body)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		e, err := Parse(data)
		if err != nil {
			b.Fatal(err)
		}
		if buf, err = s.Open(buf[:0], e); err != nil {
			b.Fatal(err)
		}
	}
}
