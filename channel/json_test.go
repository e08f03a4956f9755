package channel

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

func agrees(t *testing.T, body []byte) {
	got, err := members(body)
	if !utf8.Valid(body) {
		if err == nil {
			t.Fatalf("%q is not UTF-8 and was accepted", body)
		}
		return
	}
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	valid := json.Valid(body) && len(trimmed) > 0 && trimmed[0] == '{'
	if err == nil && !valid {
		t.Fatalf("%q is no JSON object and was accepted", body)
	}
	if err != nil {
		if valid && !bytes.Contains([]byte(err.Error()), []byte("levels of nesting")) {
			t.Fatalf("%q is a JSON object: %v", body, err)
		}
		return
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %d members, want %d", body, len(got), len(want))
	}
	for name, text := range want {
		if !bytes.Equal(got[name], text) {
			t.Fatalf("%q: member %q is %q, want %q", body, name, got[name], text)
		}
	}
}
