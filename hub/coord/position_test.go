package coord

import (
	"bytes"
	"testing"
)

func FuzzPosition(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", `{"version":1}`, `{"version":1,"key":"2023/11/14/22/13/20/123/aZ3k9Q","generation":2,"fence":1,"payload":"cGF5"}`,
		`{"version":1,"rawKey":"MTk3MC8wMS8wMS8wMC8wMC8wMC8wMDAv//4="}`, `{"version":2}`, `{"version":1,"key":"x"}`, `{"version":1,"fence":-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePosition(b)
		if err != nil {
			return
		}
		q, err := parsePosition(p.encode())
		if err != nil || q.Key != p.Key || q.Generation != p.Generation || q.Fence != p.Fence || !bytes.Equal(q.Payload, p.Payload) {
			t.Fatalf("%+v comes back as %+v, %v", p, q, err)
		}
	})
}
