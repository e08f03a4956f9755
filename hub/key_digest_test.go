package hub

import (
	"hash/fnv"
	"testing"
	"time"
)

func TestDigestIsFNV1a(t *testing.T) {
	for _, k := range []Key{{}, NewKey(time.UnixMilli(1614834367089), "aZ3k9Q"), First(time.UnixMilli(0)), MaxKey} {
		h := fnv.New64a()
		h.Write([]byte(k.String()))
		if k.Digest() != h.Sum64() {
			t.Errorf("%v: %x, fnv says %x", k, k.Digest(), h.Sum64())
		}
	}
}
