package frame

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"

	"timehub/hub"
	spokelog "timehub/spoke/log"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := "testdata/" + name + ".golden"
	text := hex.Dump(got) + fmt.Sprintln(len(got), "bytes")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s has changed: another version of the hub would not understand it\n%s", name, text)
	}
}

func sample() Frame {
	s := spokelog.Stream{Ordinal: 3, Incarnation: 7}
	return Frame{Pos: 5, Epoch: 2, Low: hub.MarkAt(1_700_000_000_000) + 3, Again: true, Records: []spokelog.Record{
		{Channel: "orders", Key: hub.KeyAt(1_700_000_000_001, "00003a"), Stream: s, Flags: spokelog.MoreFollows, Data: []byte("first")},
		{Channel: "orders", Key: hub.KeyAt(1_700_000_000_001, "00003b"), Stream: s, Data: []byte("second one")},
		{Channel: "x", Key: hub.KeyAt(1_700_000_000_002, "00003c"), Stream: s, Flags: spokelog.GivenUp},
	}}
}

func cargoSample() Frame {
	f := sample()
	f.Cargo, f.Records = 9, f.Records[:2]
	return f
}

func messages() map[string][]byte {
	plain, cargo := sample(), cargoSample()
	return map[string][]byte{
		"frame": Append(nil, &plain), "cargo": Append(nil, &cargo), "ack": AppendAck(nil, Ack{5, 1_700_000_000_000, 1 << 16}),
		"part": AppendPart(nil, 9, 15, []byte("firstsecond one")), "drop": AppendDrop(nil, 9),
		"hello": AppendJSON(nil, KindHello, Hello{Node: "n:1", Disk: "d", Stream: spokelog.Stream{Ordinal: 3, Incarnation: 7}, Epoch: 2}),
		"floor": AppendJSON(nil, KindFloor, Floor{1_700_000_000_000, "00003a"}),
	}
}

func TestGolden(t *testing.T) {
	for name, b := range messages() {
		golden(t, name, b)
	}
}

func payload(t testing.TB, b []byte, want Kind) []byte {
	t.Helper()
	k, p, err := Read(bufio.NewReader(bytes.NewReader(b)), MaxFrame)
	if err != nil || k != want {
		t.Fatal(k, err)
	}
	return p
}

func TestFrameThereAndBack(t *testing.T) {
	want := sample()
	got, err := Parse(payload(t, Append(nil, &want), KindFrame))
	if err != nil {
		t.Fatal(err)
	}
	want.Records[2].Data = got.Records[2].Data // nil or empty
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestCargo(t *testing.T) {
	want, h := cargoSample(), Hold{}
	all := []byte("firstsecond one")
	for i := range all {
		if err := h.Part(payload(t, AppendPart(nil, 9, uint64(len(all)), all[i:i+1]), KindPart)); err != nil {
			t.Fatal(err)
		}
		f, err := Parse(payload(t, Append(nil, &want), KindFrame))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Fill(&f); (err == nil) != (i == len(all)-1) {
			t.Fatalf("after %d of %d bytes: %v", i+1, len(all), err)
		} else if err == nil {
			for i, r := range f.Records {
				if !bytes.Equal(r.Data, want.Records[i].Data) {
					t.Errorf("record %d is %q", i, r.Data)
				}
			}
		}
	}
	if h.bytes != 0 || len(h.cargoes) != 0 || h.Came() != uint64(len(all)) {
		t.Errorf("left: %d bytes, %d cargoes; came %d", h.bytes, len(h.cargoes), h.Came())
	}
	f, _ := Parse(payload(t, Append(nil, &want), KindFrame))
	if h.Fill(&f) == nil {
		t.Error("a cargo can be used twice")
	}
	for _, other := range [][]byte{[]byte("firstsecond"), []byte("firstsecond one!")} {
		if err := h.Part(payload(t, AppendPart(nil, 9, uint64(len(other)), other), KindPart)); err != nil {
			t.Fatal(err)
		}
		if h.Fill(&f) == nil {
			t.Errorf("%q was taken for another length", other)
		}
	}
}

// Whatever the other side says, no more memory is taken than has arrived, and no more is kept than MaxHeld.
func TestHoldIsBounded(t *testing.T) {
	part := func(id, size uint64, n int) []byte {
		return payload(t, AppendPart(nil, id, size, make([]byte, n)), KindPart)
	}
	var h Hold
	if err := h.Part(part(1, MaxHeld, 1)); err != nil {
		t.Fatal(err)
	}
	if c := cap(h.cargoes[1].data); c > readStep {
		t.Errorf("%d bytes for one that came", c)
	}
	for name, b := range map[string][]byte{
		"one more": part(2, 1, 1), "no number": part(0, 1, 1), "another length": part(1, 5, 1), "too much at once": part(1, MaxHeld, PartBytes+1), "nothing": part(1, MaxHeld, 0),
	} {
		if h.Part(b) == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := h.Drop(payload(t, AppendDrop(nil, 1), KindDrop)); err != nil || h.bytes != 0 {
		t.Fatal(err, h.bytes)
	}
	if err := h.Part(part(2, 1, 1)); err != nil {
		t.Error(err)
	}
	if h.Part(part(2, 1, 1)) == nil {
		t.Error("more than the whole was taken")
	}
}

// What is damaged on its way is refused, not misread.
func TestBitFlips(t *testing.T) {
	for name, b := range messages() {
		for i := range b {
			for bit := range 8 {
				c := bytes.Clone(b)
				c[i] ^= 1 << bit
				if k, _, err := Read(bufio.NewReader(bytes.NewReader(c)), MaxFrame); err == nil {
					t.Fatalf("%s: byte %d, bit %d: read as kind %d", name, i, bit, k)
				}
			}
		}
		for n := range b {
			if _, _, err := Read(bufio.NewReader(bytes.NewReader(b[:n])), MaxFrame); err == nil {
				t.Fatalf("%s: %d of %d bytes were taken for all", name, n, len(b))
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, b := range messages() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			k, p, err := Read(r, 1<<20)
			if err != nil {
				return
			}
			if len(p) > len(b) {
				t.Fatalf("%d bytes out of %d, kind %d", len(p), len(b), k)
			}
		}
	})
}

// FuzzParse: what is read and written again is the same bytes.
func FuzzParse(f *testing.F) {
	for _, b := range messages() {
		f.Add(b[headSize:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if fr, err := Parse(b); err == nil {
			if fr.Cargo == 0 {
				if again := Append(nil, &fr)[headSize:]; !bytes.Equal(again, b) {
					t.Errorf("frame %x became %x", b, again)
				}
			} else {
				var size uint64
				for _, n := range fr.sizes {
					size += uint64(n)
				}
				h := Hold{cargoes: map[uint64]*cargo{fr.Cargo: {size, make([]byte, min(size, 1<<20))}}, bytes: size}
				if err := h.Fill(&fr); (err == nil) != (size <= 1<<20) {
					t.Errorf("%d bytes: %v", size, err)
				} else if err == nil {
					if again := Append(nil, &fr)[headSize:]; !bytes.Equal(again, b) {
						t.Errorf("frame %x became %x", b, again)
					}
				}
			}
		}
		if a, err := ParseAck(b); err == nil && !bytes.Equal(AppendAck(nil, a)[headSize:], b) {
			t.Errorf("ack %x became %+v", b, a)
		}
		var h Hold
		_ = h.Part(b)
		_ = h.Drop(b)
	})
}
