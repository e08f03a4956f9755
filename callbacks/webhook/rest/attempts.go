package rest

import (
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/hub"
	"timehub/hub/web"
)

// attempt is one call as it is shown.
type attempt struct {
	Time          string `json:"time"`
	Key           string `json:"key"`
	Number        int    `json:"number"`
	Status        int    `json:"status"`
	Reason        string `json:"reason"`
	Error         string `json:"error"`
	LatencyMillis int64  `json:"latencyMillis"`
	Answer        string `json:"answer"`
	Replay        bool   `json:"replay"`
}

// attempts shows the last calls, the newest first.
func (h *Handlers) attempts(w http.ResponseWriter, r *http.Request) error {
	if _, err := h.svc.Get(r.Context(), name(r)); err != nil {
		return err
	}
	choose, err := filterOf(r)
	if err != nil {
		return err
	}
	var out struct {
		Links    selfLink  `json:"_links"`
		Attempts []attempt `json:"attempts"`
	}
	out.Links.Self.Href, out.Attempts = web.URI(r), []attempt{}
	if h.opt.Attempts == nil {
		return web.JSON(w, http.StatusOK, out)
	}
	all, err := h.opt.Attempts.List(name(r), choose.Filter)
	if err != nil {
		return err
	}
	for _, a := range all {
		if !choose.takes(a) {
			continue
		}
		out.Attempts = append(out.Attempts, attempt{
			Time: hub.ISO(a.Time), Key: a.Path, Number: a.Number, Status: a.Status, Reason: a.Reason, Error: a.Error,
			LatencyMillis: a.Latency.Milliseconds(), Answer: readable(a.Answer), Replay: a.Replay,
		})
	}
	return web.JSON(w, http.StatusOK, out)
}

// readable is an answer as text; what is none is shown as U+FFFD.
func readable(answer []byte) string {
	if n := len(answer); n > 3 { // a cut may have gone through a character
		for i := n - 1; i >= n-3; i-- {
			if utf8.RuneStart(answer[i]) {
				if !utf8.FullRune(answer[i:]) {
					answer = answer[:i]
				}
				break
			}
		}
	}
	return strings.ToValidUTF8(string(answer), "\ufffd")
}

// filter is what the query asks for.
type filter struct {
	attempts.Filter
	class int // 4: 4xx, 5: 5xx
	ok    bool
}

func (f filter) takes(a attempts.Attempt) bool {
	return (f.class == 0 || a.Status/100 == f.class) && (!f.ok || a.OK())
}

// filterOf reads key, a time path or the URL of an item or period, and status: a number, 4xx, 5xx, failed or ok.
func filterOf(r *http.Request) (f filter, err error) {
	q := web.Params(r)
	if key := q.Get("key"); key != "" {
		if f.Path, err = pathOf(key); err != nil {
			return f, err
		}
	}
	switch s := strings.ToLower(q.Get("status")); s {
	case "":
	case "failed":
		f.Failed = true
	case "ok":
		f.ok = true
	case "1xx", "2xx", "3xx", "4xx", "5xx":
		f.class = int(s[0] - '0')
	default:
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 999 || n > 0 && n < 100 {
			return f, hub.E(hub.Invalid, "status is %q: it must be a status such as 503, or 4xx, 5xx, failed or ok", clip(s))
		}
		f.Status, f.Silent = n, n == 0
	}
	return f, nil
}

func pathOf(key string) (string, error) {
	path := strings.Trim(key, "/")
	if _, rest, ok := strings.Cut(key, "/channel/"); ok {
		_, path, _ = strings.Cut(strings.TrimSuffix(rest, "/"), "/")
	}
	p, err := hub.ParsePath(path)
	switch {
	case err != nil || p.Verb != hub.NoVerb || p.Unit == hub.Millisecond:
		return "", hub.E(hub.Invalid, "key is %q: it must be the key or URL of an item, or of a period", clip(key))
	case p.Unit == hub.ItemUnit:
		return p.Key().String(), nil
	}
	return p.Window().String(), nil
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// replay lets something be delivered again.
func (h *Handlers) replay(w http.ResponseWriter, r *http.Request) error {
	if err := web.Consumes(r, "application/json"); err != nil {
		return err
	}
	body, err := web.ReadDocument(r, maxDocument)
	if err != nil {
		return err
	}
	var said struct {
		Item   string `json:"item"`
		From   string `json:"from"`
		To     string `json:"to"`
		Failed bool   `json:"failed"`
	}
	if err := web.Decode(body, &said); err != nil {
		return err
	}
	queued, err := h.svc.Replay(lasting(r), name(r), webhook.Again(said))
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusAccepted, struct {
		Queued int `json:"queued"`
	}{queued})
}
