package deliver

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"timehub/callbacks/webhook"
	"timehub/hub"
)

var update = flag.Bool("update", false, "write the golden files")

// key is the n-th key of a minute.
func key(n int64) hub.Key { return hub.KeyAt(1614834427089+n*7001, "aZ3k9Q") }

func hook(payload string) *webhook.Webhook {
	return &webhook.Webhook{Name: "printer", ChannelURL: "http://hub.example/channel/orders/", Payload: payload, CallbackTimeoutSeconds: 30, Born: "b1"}
}

func itemList(items ...*Item) Items {
	return func(yield func(*Item, error) bool) {
		for _, i := range items {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// text is a message as it goes out, without what depends on the time.
func text(t *testing.T, m Message) string {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("id: " + m.id + "\nContent-Type: " + m.contentType + "\n")
	m.header.WriteSubset(&b, nil)
	b.WriteString("\n")
	if m.write == nil {
		b.Write(m.body)
	} else if err := m.write(&b); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(b.String(), "\r\n", "\n") + "\n"
}

func samples() []*Item {
	return []*Item{
		{Key: key(0), ContentType: "application/json", Body: []byte("{\n  \"a\": [1.0, 12345678901234567890, \"<&>\u2028\"]\n}\n")},
		{Key: key(1), ContentType: "text/plain; charset=utf-8", Body: []byte("Grüße,\n\"alle\"\t\x01")},
		{Key: key(2), ContentType: "image/png", Body: []byte("\x89PNG\r\n\x1a\n\xff")},
		{Key: key(3), Body: []byte("no type")},
		{Key: key(4), ContentType: "application/json", Body: []byte("{not json")},
		{Key: hub.KeyAt(key(5).Millis(), "../ä \"x\""), ContentType: "application/vnd.x+json", Body: []byte(`[]`)},
		{Key: key(6), ContentType: "application/cloudevents+json", Body: []byte(`{"id":"inner"}`)},
		{Key: key(7), ContentType: "text/plain", Omitted: true},
		{Key: key(8), ContentType: "text/plain"},
	}
}

// TestGolden: consumers are written against these bytes (spec 03 §2.2).
func TestGolden(t *testing.T) {
	minute := hub.WindowAt(key(0).Time(), hub.Minute)
	second := hub.WindowAt(key(0).Time(), hub.Second)
	var keys []hub.Key
	for _, i := range samples() {
		keys = append(keys, i.Key)
	}
	got := map[string]string{}
	for _, payload := range []string{webhook.URIs, webhook.Items, webhook.CloudEvents} {
		w := hook(payload)
		add := func(name string, m Message, err error) {
			if err != nil {
				t.Fatal(err)
			}
			got[payload] += "== " + name + "\n" + text(t, m)
		}
		for n, i := range samples() {
			m, err := ItemMessage(w, i.Key, i)
			if add("item", m, err); payload == webhook.URIs && n == 0 {
				break
			}
		}
		m, err := ItemMessage(w, key(0), nil)
		add("item that is gone", m, err)
		m, err = PeriodMessage(w, minute, KeyList(keys), itemList(samples()...))
		add("minute", m, err)
		m, err = PeriodMessage(w, second, KeyList(keys[:1]), itemList(samples()[:1]...))
		add("second", m, err)
		m, err = PeriodMessage(w, minute, KeyList(nil), itemList())
		add("heartbeat", m, err)
	}
	for name, is := range got {
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(is), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if is != string(want) {
			t.Errorf("%s differs:\n%s", path, is)
		}
	}
}

// TestDocumented: the three shapes of spec 03 §2.2, letter by letter.
func TestDocumented(t *testing.T) {
	w := hook("")
	minute := hub.WindowAt(key(0).Time(), hub.Minute)
	one, _ := ItemMessage(w, key(0), nil)
	some, _ := PeriodMessage(w, minute, KeyList([]hub.Key{key(0)}), nil)
	none, _ := PeriodMessage(w, minute, KeyList(nil), nil)
	period := `{"name":"printer","id":"2021/03/04/05/07","url":"http://hub.example/channel/orders/2021/03/04/05/07",` +
		`"batchUrl":"http://hub.example/channel/orders/2021/03/04/05/07?batch=true","bulkUrl":"http://hub.example/channel/orders/2021/03/04/05/07?bulk=true",`
	for _, c := range []struct {
		m    Message
		want string
	}{
		{one, `{"name":"printer","uris":["http://hub.example/channel/orders/2021/03/04/05/07/07/089/aZ3k9Q"],"type":"item"}`},
		{some, period + `"uris":["http://hub.example/channel/orders/2021/03/04/05/07/07/089/aZ3k9Q"],"type":"items"}`},
		{none, period + `"uris":[],"type":"heartbeat"}`},
	} {
		if got := text(t, c.m); !strings.HasSuffix(got, "\n\n"+c.want+"\n") {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

func TestMessageErrors(t *testing.T) {
	minute := hub.WindowAt(key(0).Time(), hub.Minute)
	if _, err := ItemMessage(hook("xml"), key(0), nil); err == nil {
		t.Error("an unknown payload makes a message")
	}
	if _, err := PeriodMessage(hook("xml"), minute, KeyList(nil), nil); err == nil {
		t.Error("an unknown payload makes a message")
	}
	if _, err := ItemMessage(hook(webhook.Items), key(0), &Item{Key: key(1)}); err == nil {
		t.Error("another item makes a message")
	}
	for _, payload := range []string{webhook.Items, webhook.CloudEvents} {
		if _, err := PeriodMessage(hook(payload), minute, KeyList(nil), nil); err == nil {
			t.Errorf("%s without items makes a message", payload)
		}
	}
	bad := errors.New("the bucket is away")
	badKeys := func(yield func(hub.Key, error) bool) { _ = yield(key(0), nil) && yield(hub.Key{}, bad) }
	badItems := func(yield func(*Item, error) bool) { _ = yield(samples()[0], nil) && yield(nil, bad) }
	for _, payload := range []string{webhook.URIs, webhook.Items, webhook.CloudEvents} {
		m, err := PeriodMessage(hook(payload), minute, badKeys, badItems)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.write(&bytes.Buffer{}); !errors.Is(err, ErrContent) || !errors.Is(err, bad) {
			t.Errorf("%s: %v", payload, err)
		}
		m, _ = PeriodMessage(hook(payload), minute, KeyList([]hub.Key{key(0)}), itemList(samples()...))
		if err := m.write(iotest.TruncateWriter(failing{}, 0)); payload == "" && err == nil {
			t.Error("a writer that fails is not noticed")
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

// TestHeaderValue: the HTTP binding of CloudEvents, §3.1.3.2.
func TestHeaderValue(t *testing.T) {
	for s, want := range map[string]string{"": "", "a/b:c~": "a/b:c~", "Euro € 😀": "Euro%20%E2%82%AC%20%F0%9F%98%80", `50% "off"`: "50%25%20%22off%22", "\r\n\x7f": "%0D%0A%7F"} {
		if got := headerValue(s); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}

func TestMessageID(t *testing.T) {
	seen := map[string]string{}
	for _, path := range []string{"2021/03/04/05/07", "2021/03/04/05/07/07", "2021/03/04/05/07/07/089/a.b", "2021/03/04/05/07/07/089/a-b", "2021/03/04/05/07/07/089/a/b",
		"2021/03/04/05/07/07/089/ä\r\n"} {
		id := messageID(hook(""), path)
		if strings.ContainsAny(id, ". \r\n") || strings.ToValidUTF8(id, "") != id || len(id) != len([]rune(id)) {
			t.Errorf("%q is no id", id)
		}
		if seen[id] != "" {
			t.Errorf("%q and %q have the same id", path, seen[id])
		}
		seen[id] = path
	}
	if got := messageID(hook(""), "2021/03/04/05/07"); got != "printer_2021-03-04-05-07" {
		t.Error(got)
	}
}

// TestLongPeriod: what a minute of 1,000,000 items needs while it is written does not grow with it.
func TestLongPeriod(t *testing.T) {
	if testing.Short() {
		t.Skip()
	}
	keys := func(yield func(hub.Key, error) bool) {
		for n := range 1_000_000 {
			if !yield(hub.KeyAt(key(0).Millis()+int64(n/20), "0000aa"), nil) {
				return
			}
		}
	}
	m, err := PeriodMessage(hook(""), hub.WindowAt(key(0).Time(), hub.Minute), keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &measure{keep: true}
	allocated := testing.Benchmark(func(b *testing.B) {
		for range b.N {
			*n = measure{keep: true}
			if err := m.write(n); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if n.n < 60_000_000 || allocated > 4<<20 {
		t.Errorf("%d bytes of a body cost %d bytes of memory", n.n, allocated)
	}
}

// FuzzItem: a body comes out of a payload as it went in, whatever it is.
func FuzzItem(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\r\t\x00\x1f\x7f", "ä€😀", "\xff\xc3", "<&>\u2028", "\xed\xa0\x80", "{\"a\":[1,2]}"} {
		f.Add("application/json", "0000aa", []byte(s))
		f.Add("image/png", s, []byte(s))
		f.Add("text/plain; charset="+s, "x", []byte(s))
	}
	f.Fuzz(func(t *testing.T, contentType, hash string, body []byte) {
		i := &Item{Key: hub.NewKey(time.UnixMilli(0), hash), ContentType: contentType, Body: body}
		m, err := ItemMessage(hook(webhook.Items), i.Key, i)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Items []struct {
				Key, ContentType string
				Body             *string
				BodyBase64       []byte
			}
		}
		if err := json.Unmarshal(m.body, &got); err != nil || len(got.Items) != 1 {
			t.Fatalf("%s: %v", m.body, err)
		}
		is := got.Items[0].BodyBase64
		if got.Items[0].Body != nil {
			is = []byte(*got.Items[0].Body)
		}
		if !bytes.Equal(is, body) {
			t.Errorf("%q became %q", body, is)
		}
		if utf8.ValidString(hash) && got.Items[0].Key != i.Key.String() {
			t.Errorf("%q became %q", i.Key, got.Items[0].Key)
		}
		m, err = ItemMessage(hook(webhook.CloudEvents), i.Key, i)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range m.header {
			if strings.Trim(v[0], "!#$&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~%") != "" {
				t.Errorf("%q in a header", v)
			}
		}
		if event := newEnvelope(hook("")).appendEvent(nil, i); !json.Valid(event) {
			t.Errorf("%s", event)
		}
	})
}
