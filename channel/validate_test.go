package channel

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"timehub/hub"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func made(t *testing.T, body string) *hub.Channel {
	t.Helper()
	p, err := ParsePatch([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	c, err := merge(blank("x", noon, false), p, true, false)
	if err == nil {
		err = check(c, nil, noon)
	}
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return c
}

func summary(c *hub.Channel) string {
	return fmt.Sprintf("ttl=%d max=%d keep=%v storage=%s tags=%v owner=%q protect=%v zero=%v", c.TTLDays, c.MaxItems, c.KeepForever, c.Storage, c.Tags, c.Owner, c.Protect, c.AllowZeroBytes)
}

func TestCreateDefaults(t *testing.T) {
	for body, want := range map[string]string{
		``:                   `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"ttlDays":0}`:      `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"ttlDays":null}`:   `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"ttlDays":"3650"}`: `ttl=3650 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"maxItems":5000}`:  `ttl=0 max=5000 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"keepForever":true,"ttlDays":5,"maxItems":9}`:                                 `ttl=0 max=0 keep=true storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"keepForever":true,"maxItems":9999}`:                                          `ttl=0 max=0 keep=true storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"storage":"both"}`:                                                            `ttl=120 max=0 keep=false storage=BOTH tags=[] owner="" protect=false zero=true`,
		`{"storage":" "}`:                                                               `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"storage":null}`:                                                              `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"mutableTime":"2026-01-01"}`:                                                  `ttl=0 max=0 keep=false storage=SINGLE tags=[historical] owner="" protect=false zero=true`,
		`{"mutableTime":"2026-01-02T12"}`:                                               `ttl=0 max=0 keep=false storage=SINGLE tags=[historical] owner="" protect=false zero=true`,
		`{"mutableTime":null,"tags":null}`:                                              `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"tags":["b","a","b","historical","replicated"]}`:                              `ttl=120 max=0 keep=false storage=BATCH tags=[a b] owner="" protect=false zero=true`,
		`{"tags":["Z","a:b-9"],"replicationSource":"http://else/channel/x"}`:            `ttl=120 max=0 keep=false storage=BATCH tags=[Z a:b-9 replicated] owner="" protect=false zero=true`,
		`{"replicationSource":"  "}`:                                                    `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`,
		`{"owner":"  me ","protect":true,"allowZeroBytes":false}`:                       `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="me" protect=true zero=false`,
		`{"name":"other","creationDate":"2000-01-01","displayName":"z","owner":"null"}`: `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="null" protect=false zero=true`,
	} {
		if got := summary(made(t, body)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
}

func numbered(n int) string {
	var tags []string
	for i := range n {
		tags = append(tags, fmt.Sprintf("%q", fmt.Sprint("t", i)))
	}
	return strings.Join(tags, ",")
}

func TestCreateRules(t *testing.T) {
	long := strings.Repeat("x", 49)
	for _, c := range []struct{ body, want string }{
		{`{"ttlDays":1,"maxItems":1}`, "Only one of ttlDays, maxItems and mutableTime can be defined"},
		{`{"ttlDays":1,"mutableTime":"2026-01-01"}`, "Only one of ttlDays, maxItems and mutableTime can be defined"},
		{`{"maxItems":6000,"mutableTime":"2027-01-01","storage":"BATCH"}`, "Only one of"}, // first rule wins
		{`{"ttlDays":-1}`, "ttlDays is -1"},
		{`{"maxItems":-1}`, "maxItems is -1"},
		{`{"mutableTime":"2026-01-02T12:00:00.001"}`, "in the future"},
		{`{"mutableTime":"2027-01-01","storage":"BATCH"}`, "in the future"},
		{`{"mutableTime":"2026-01-01","storage":"BATCH"}`, "must be SINGLE"},
		{`{"mutableTime":"2026-01-01","storage":"BOTH"}`, "must be SINGLE"},
		{`{"keepForever":true,"mutableTime":"2026-01-01","storage":"BATCH"}`, "must be SINGLE"},
		{`{"keepForever":true,"mutableTime":"2027-01-01"}`, "in the future"},
		{`{"maxItems":5001}`, "maxItems is 5001: it must be 5000 at most"},
		{`{"description":"` + strings.Repeat("x", 1025) + `"}`, "description"},
		{`{"description":"` + strings.Repeat("\U0001F600", 513) + `"}`, "description"},
		{`{"tags":[` + numbered(21) + `]}`, "tags has 21"},
		{`{"mutableTime":"2026-01-01","tags":[` + numbered(20) + `]}`, "tags has 21"},
		{`{"tags":["a b"]}`, `tag "a b"`},
		{`{"tags":[""]}`, `tag ""`},
		{`{"tags":["ä"]}`, "tag"},
		{`{"tags":["` + long + `"]}`, "longer than 48"},
		{`{"storage":"TRIPLE"}`, `storage is "TRIPLE"`},
		{`{"protect":true}`, "owner must not be blank"},
		{`{"protect":true,"owner":" "}`, "owner must not be blank"},
		{`{"owner":"` + long + `"}`, "owner"},
		{`{"description":"` + strings.Repeat("\U0001F600", 512) + `","tags":[` + numbered(20) + `],"maxItems":"5000","owner":"` + long[1:] + `","protect":true}`, ""},
	} {
		p, err := ParsePatch([]byte(c.body))
		if err != nil {
			t.Fatalf("%s: %v", c.body, err)
		}
		m, err := merge(blank("x", noon, false), p, true, false)
		if err == nil {
			err = check(m, nil, noon)
		}
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) || !hub.Is(err, hub.Invalid) {
			t.Errorf("%s: %v, want %q", c.body, err, c.want)
		}
	}
}

func TestCheckNames(t *testing.T) {
	long := strings.Repeat("x", 49)
	for _, c := range []struct{ name, owner, want string }{
		{"Orders-EU_1", "", ""},
		{long[1:], long[1:], ""},
		{"", long, "Channel name is missing or blank"},
		{long + "!", "", long},
		{"a!", long, "owner"}, // rule 4 before rule 5
		{"a b", "", "a b"},
		{"a/b", "", "a/b"},
		{"..", "", ".."},
		{"ä", "", "ä"},
		{"x\x00", "", "character"},
		{strings.Repeat("y", 10000), "", "longer than 48"},
	} {
		err := checkNames(c.name, ChannelPatch{Owner: Said(c.owner)})
		if c.want == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || len(err.Error()) > 300) {
			t.Errorf("%q, owner %q: %v", clip([]byte(c.name)), c.owner, err)
		}
	}
}

// A channel remembers that its items may lie in two layouts, for ever: nothing moves them.
func TestStorageChangesAreRemembered(t *testing.T) {
	parse := func(text string) ChannelPatch {
		p, err := ParsePatch([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	made, err := merge(blank("x", time.Now(), false), parse(`{"storage":"SINGLE"}`), true, false)
	if err != nil || made.Mixed {
		t.Fatalf("%+v %v", made, err)
	}
	same, err := merge(made, parse(`{"storage":"single","ttlDays":3}`), false, false)
	if err != nil || same.Mixed {
		t.Fatalf("%+v %v", same, err)
	}
	changed, err := merge(same, parse(`{"storage":"BATCH"}`), false, false)
	if err != nil || !changed.Mixed {
		t.Fatalf("%+v %v", changed, err)
	}
	if again, err := merge(changed, parse(`{"owner":"me"}`), false, false); err != nil || !again.Mixed {
		t.Errorf("%+v %v", again, err)
	}
}

func TestUpdates(t *testing.T) {
	for _, c := range []struct {
		name, old, patch string
		want             string // the summary, or a part of the error
	}{
		{"nothing", `{"ttlDays":5,"tags":["a"]}`, `{}`, `ttl=5 max=0 keep=false storage=BATCH tags=[a] owner="" protect=false zero=true`},
		{"ttl to maxItems needs a 0", `{"ttlDays":5}`, `{"maxItems":7}`, "Only one of"},
		{"ttl to maxItems", `{"ttlDays":5}`, `{"maxItems":7,"ttlDays":0}`, `ttl=0 max=7 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"keepForever off again", `{"keepForever":true}`, `{"keepForever":false}`, `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"keepForever on", `{"maxItems":7}`, `{"keepForever":true}`, `ttl=0 max=0 keep=true storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"tags are replaced", `{"tags":["a","b"]}`, `{"tags":["c"]}`, `ttl=120 max=0 keep=false storage=BATCH tags=[c] owner="" protect=false zero=true`},
		{"tags null", `{"tags":["a","b"]}`, `{"tags":null}`, "tags is null"},
		{"texts null", `{"owner":"me","description":"d","replicationSource":"http://x"}`, `{"owner":null,"description":null,"replicationSource":null}`, `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"the text null", `{"owner":"me"}`, `{"owner":"null"}`, `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"storage null", `{"storage":"BOTH"}`, `{"storage":null}`, `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"storage blank, historical", `{"mutableTime":"2026-01-01"}`, `{"storage":""}`, `ttl=0 max=0 keep=false storage=SINGLE tags=[historical] owner="" protect=false zero=true`},
		{"to historical, half", `{"ttlDays":5}`, `{"mutableTime":"2026-01-01"}`, "Only one of"},
		{"to historical, storage forgotten", `{"ttlDays":5}`, `{"mutableTime":"2026-01-01","ttlDays":0}`, "must be SINGLE"},
		{"to historical", `{"ttlDays":5,"tags":["a"]}`, `{"mutableTime":"2026-01-01","ttlDays":0,"storage":"single"}`, `ttl=0 max=0 keep=false storage=SINGLE tags=[a historical] owner="" protect=false zero=true`},
		{"mutableTime forward", `{"mutableTime":"2026-01-01"}`, `{"mutableTime":"2026-01-01T00:00:00.001"}`, "only be moved back"},
		{"mutableTime equal", `{"mutableTime":"2026-01-01"}`, `{"mutableTime":"2026-01-01T01:00+01:00"}`, `ttl=0 max=0 keep=false storage=SINGLE tags=[historical] owner="" protect=false zero=true`},
		{"mutableTime back", `{"mutableTime":"2026-01-01"}`, `{"mutableTime":"2025-01-01"}`, `ttl=0 max=0 keep=false storage=SINGLE tags=[historical] owner="" protect=false zero=true`},
		{"mutableTime cleared", `{"mutableTime":"2026-01-01"}`, `{"mutableTime":""}`, `ttl=120 max=0 keep=false storage=SINGLE tags=[] owner="" protect=false zero=true`},
		{"mutableTime null", `{"mutableTime":"2026-01-01"}`, `{"mutableTime":null}`, "mutableTime is null"},
		{"owner too long", `{}`, `{"owner":"` + strings.Repeat("x", 49) + `"}`, "owner"},
		{"a bad tag", `{}`, `{"tags":["?"]}`, "tag"},
		{"booleans null: the default", `{"allowZeroBytes":false}`, `{"allowZeroBytes":null}`, `ttl=120 max=0 keep=false storage=BATCH tags=[] owner="" protect=false zero=true`},
		{"protect without owner", `{}`, `{"protect":true}`, "owner must not be blank"},
	} {
		old := made(t, c.old)
		before := summary(old)
		p, err := ParsePatch([]byte(c.patch))
		if err != nil {
			t.Fatal(err)
		}
		m, err := merge(old, p, false, false)
		if err == nil {
			err = check(m, old, noon)
		}
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = summary(m)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if summary(old) != before {
			t.Errorf("%s: the old configuration was changed", c.name)
		}
	}
	old := made(t, `{"mutableTime":"2026-01-01"}`)
	p, _ := ParsePatch([]byte(`{"mutableTime":""}`))
	if m, err := merge(old, p, false, false); err != nil || m.Backfilled != old.MutableTime.UnixMilli() {
		t.Errorf("what was mutable is forgotten: %+v %v", m, err)
	}
}

func TestProtection(t *testing.T) {
	const all = `{"owner":"me","protect":true,"tags":["a","b"],"ttlDays":10,"replicationSource":"http://x"}`
	for _, c := range []struct{ name, old, patch, want string }{
		{"nothing", all, `{}`, ""},
		{"protect off", all, `{"protect":false}`, "protect"},
		{"protect null is the default: off", all, `{"protect":null}`, "protect"},
		{"protect off goes first", all, `{"protect":false,"owner":"you"}`, "protect cannot"},
		{"storage to SINGLE", all, `{"storage":"SINGLE"}`, "storage"},
		{"storage to BOTH", all, `{"storage":"BOTH"}`, ""},
		{"owner", all, `{"owner":"you"}`, "owner"},
		{"a tag less", all, `{"tags":["a"]}`, `tag "b"`},
		{"a tag more", all, `{"tags":["a","b","c"]}`, ""},
		{"ttlDays down", all, `{"ttlDays":9}`, "ttlDays"},
		{"ttlDays up", all, `{"ttlDays":11}`, ""},
		{"ttlDays to maxItems", all, `{"ttlDays":0,"maxItems":5}`, "ttlDays"},
		{"keepForever on", all, `{"keepForever":true}`, ""},
		{"source changed: its tag stays", all, `{"replicationSource":"http://y"}`, "replicationSource"},
		{"source cleared: its tag goes first", all, `{"replicationSource":""}`, "tag \"replicated\""},
		{"description", all, `{"description":"d"}`, ""},
		{"keepForever off", `{"owner":"me","protect":true,"keepForever":true}`, `{"keepForever":false}`, "keepForever"},
		{"maxItems down", `{"owner":"me","protect":true,"maxItems":10}`, `{"maxItems":9}`, "maxItems"},
		{"the request that switches it on", `{"owner":"me","ttlDays":10}`, `{"protect":true,"ttlDays":9}`, "ttlDays"},
		{"switched on, owner first named", `{"ttlDays":10}`, `{"protect":true,"owner":"me"}`, ""},
		{"not protected", `{"owner":"me","tags":["a"]}`, `{"owner":"you","tags":[],"ttlDays":1}`, ""},
	} {
		old := made(t, c.old)
		p, err := ParsePatch([]byte(c.patch))
		if err != nil {
			t.Fatal(err)
		}
		m, err := merge(old, p, false, false)
		if err == nil {
			err = check(m, old, noon)
		}
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		err = protected(old, m)
		if c.want == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || !hub.Is(err, hub.Forbidden)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
