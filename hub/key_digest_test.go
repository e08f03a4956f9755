package hub

import "testing"

// The values are part of the format of segments: spoke/log fixes some of them too. Keys that differ in one character must differ.
func TestDigest(t *testing.T) {
	seen := map[uint64]Key{}
	for ms := range int64(50) {
		for _, hash := range []string{"", "0", "00000a", "00000b", "aZ3k9Q", "aZ3k9Q000000", "aZ3k9Q000001", "~ZZZZZZZZZZZZZZZZ"} {
			k := KeyAt(ms, hash)
			if other, ok := seen[k.Digest()]; ok {
				t.Errorf("%v and %v have one digest", k, other)
			}
			seen[k.Digest()] = k
			if DigestOf(ms, []byte(hash)) != k.Digest() {
				t.Errorf("%v: bytes and string differ", k)
			}
		}
	}
}
