package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// One interruption ends a command that waits for an input which says nothing.
func TestSilentInput(t *testing.T) {
	url := startHub(t)
	cli{t, url}.ok("channel", "create", "quiet")
	for _, args := range [][]string{{"put", "quiet", "-"}, {"put", "quiet"}, {"import", "quiet", "-"}, {"import", "quiet", "-", "--format", "csv"}} {
		stdin, other, err := os.Pipe() // a pipe of the system: closing the other side is the only other way out of a Read
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var stderr bytes.Buffer
		code := make(chan int, 1)
		go func() {
			a := &app{stdin: stdin, stdout: io.Discard, stderr: &stderr, environ: []string{"HUB_URL=" + url}}
			code <- a.run(ctx, args)
		}()
		time.Sleep(50 * time.Millisecond) // it has begun to read, or will find out that it need not
		cancel()
		select {
		case got := <-code:
			if got != exitInterrupted {
				t.Errorf("%v: exit %d, %s", args, got, &stderr)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%v: it still reads", args)
		}
		other.Close()
		stdin.Close()
	}
	if got := (cli{t, url}).ok("ls", "quiet"); got != "" {
		t.Errorf("something was stored: %s", got)
	}
}

func TestInterruptible(t *testing.T) {
	text := strings.Repeat("0123456789", 30_000)
	if err := iotest.TestReader(interruptible(t.Context(), strings.NewReader(text)), []byte(text)); err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	got, err := io.ReadAll(interruptible(t.Context(), io.MultiReader(strings.NewReader("before"), iotest.ErrReader(broken))))
	if string(got) != "before" || err != broken {
		t.Errorf("%q, %v", got, err)
	}
}

// What is no text is refused by name, and nothing is stored in its place.
func TestImportOfOtherEncodings(t *testing.T) {
	c := cli{t, startHub(t)}
	for i, bad := range []struct{ name, text, says string }{
		{"latin1.json", "[\"ok\",\n\"caf\xe9\"]", "record 1: line 2, byte 11 (0xe9) is not UTF-8"},
		{"latin1.ndjson", "{\"a\":\"ok\"}\n{\"a\":\"caf\xe9\"}\n", "record 2: line 2,"},
		{"latin1.csv", "a,b\n1,2\n3,\xe9\n", "line 3, byte 10 (0xe9)"},
		{"head.csv", "a,\xe9\n1,2\n", "line 1,"},
		{"utf16.json", "\xff\xfe[\x001\x00]\x00", "UTF-16"},
		{"cut.json", "\"\xe2\x82", "is not UTF-8"},
		{"half.json", `["\ud83d\ude00", "\ud83d"]`, "half of a pair"},
		{"half2.json", `["\ude00"]`, "half of a pair"},
		{"half3.json", `["\ud83dx\ude00"]`, "half of a pair"},
		{"half4.json", `["\ud83d\n\ude00"]`, "half of a pair"},
		{"half5.json", `["\ud83d\u0041"]`, "half of a pair"},
	} {
		channel := "c" + string(rune('a'+i))
		code, _, stderr := c.run("", "import", channel, write(t, bad.name, bad.text), "--create")
		if code != exitUsage || !strings.Contains(stderr, bad.says) {
			t.Errorf("%s: exit %d, %s", bad.name, code, stderr)
		}
		list := c.ok("ls", channel)
		for uri := range strings.FieldsSeq(list) {
			if body := c.ok("get", uri); strings.Contains(body, "\ufffd") || strings.Contains(body, "caf") {
				t.Errorf("%s: %s was stored", bad.name, body)
			}
		}
	}
	c.ok("import", "good", write(t, "good.json", "\ufeff"+`["\ud83d\ude00","é€😀","\\ud83d","\ufffd","`+"\ufffd"+`","\u00e9"]`), "--create")
	var got []string
	for uri := range strings.FieldsSeq(c.ok("ls", "good")) {
		got = append(got, c.ok("get", uri))
	}
	if want := `"😀" "é€😀" "\\ud83d" "` + "\ufffd\" \"\ufffd\"" + ` "é"`; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTextReader(t *testing.T) {
	text := strings.Repeat("aé€😀\n\\n \\u00e9 \\ud83d\\ude00", 9_000)
	for _, json := range []bool{true, false} {
		if err := iotest.TestReader(&textReader{r: strings.NewReader(text), json: json}, []byte(text)); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(&textReader{r: iotest.OneByteReader(strings.NewReader(text)), json: json}); err != nil || string(got) != text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

func FuzzTextReader(f *testing.F) {
	for _, s := range []string{"", "é", "\xff", `"\ud83d\ude00"`, `\\u`, "\xe2\x82"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, err := io.ReadAll(&textReader{r: bytes.NewReader(text), json: true})
		if !bytes.HasPrefix(text, whole) || (err == nil) != (len(whole) == len(text)) {
			t.Errorf("%q of %q, %v", whole, text, err)
		}
		single, other := io.ReadAll(&textReader{r: iotest.OneByteReader(bytes.NewReader(text)), json: true})
		if !bytes.Equal(whole, single) || (err == nil) != (other == nil) || err != nil && err.Error() != other.Error() {
			t.Errorf("%q and %q, %v and %v", whole, single, err, other)
		}
		if plain, err := io.ReadAll(&textReader{r: bytes.NewReader(text)}); (err == nil) != (strings.ToValidUTF8(string(text), "") == string(text)) || err == nil && !bytes.Equal(plain, text) {
			t.Errorf("%q of %q, %v", plain, text, err)
		}
	})
}
