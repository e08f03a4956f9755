package internalapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/pprof"
	"strings"

	"timehub/hub"
	"timehub/hub/web"
)

type healthDocument struct {
	Healthy     bool            `json:"healthy"`
	Description string          `json:"description"`
	Version     string          `json:"version"`
	ReadOnly    bool            `json:"readOnly"`
	StartTime   string          `json:"startTime"`
	UpTimeHours int64           `json:"upTimeHours"`
	Links       map[string]link `json:"_links"`
}

// describe is the table of spec 02 §8.
func (a *API) describe(base string) (healthDocument, int) {
	d := healthDocument{
		Version: a.opt.Version, ReadOnly: a.opt.ReadOnly, StartTime: hub.ISO(a.opt.Started),
		UpTimeHours: int64(a.opt.Clock().Sub(a.opt.Started).Hours()),
		Links:       map[string]link{"metrics": {Href: base + "/health/metrics"}},
	}
	switch a.opt.State() {
	case ShuttingDown:
		d.Description = "SHUTTING DOWN"
		return d, web.Status(hub.ShuttingDown)
	case Starting:
		d.Description = "Starting up..."
		if why := a.opt.Waiting(); why != "" {
			d.Description += " waiting for " + why
		}
		return d, web.Status(hub.Starting)
	}
	d.Healthy, d.Description = true, "OK"
	if why := a.opt.Reason(); why != "" {
		d.Description = "OK, but " + why
	}
	return d, http.StatusOK
}

func (a *API) health(w http.ResponseWriter, r *http.Request) error {
	d, status := a.describe(web.Base(r))
	return web.JSON(w, status, d)
}

// allHealth shows the health of every member under the URL at which it can be asked, or why it could not be asked.
func (a *API) allHealth(w http.ResponseWriter, r *http.Request) error {
	members, err := a.opt.Members(r.Context())
	if err != nil {
		return err
	}
	all := map[string]any{}
	url := func(node string) string { return "http://" + node + "/health" }
	for _, m := range members {
		if m == a.opt.Node {
			all[url(m)], _ = a.describe("http://" + a.opt.Node)
		}
	}
	a.others(r.Context(), members, "/health", func(node string, status int, body []byte, err error) {
		switch {
		case err != nil:
			all[url(node)] = "it does not answer: " + err.Error()
		case !json.Valid(body):
			all[url(node)] = fmt.Sprintf("it answers %d", status)
		default:
			all[url(node)] = json.RawMessage(body)
		}
	})
	return web.JSON(w, http.StatusOK, all)
}

func (a *API) healthMetrics(w http.ResponseWriter, _ *http.Request) error {
	return web.JSON(w, http.StatusOK, map[string]int{"openFiles": OpenFiles()})
}

const descriptors = "/proc/self/fd"

// OpenFiles is the number of open file descriptors of this process; -1 if the system does not tell.
func OpenFiles() int {
	d, err := os.Open(descriptors)
	if err != nil {
		return -1
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names) - 1 // without the one for looking
}

// healthTrace lists open files and goroutines.
func (a *API) healthTrace(w http.ResponseWriter, _ *http.Request) error {
	var b strings.Builder
	entries, err := os.ReadDir(descriptors)
	if err != nil {
		b.WriteString("open files: unknown\n")
	}
	for _, e := range entries {
		target, err := os.Readlink(descriptors + "/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		fmt.Fprintf(&b, "%s %s\n", e.Name(), target)
	}
	b.WriteByte('\n')
	if err := pprof.Lookup("goroutine").WriteTo(io.Writer(&b), 1); err != nil {
		return fmt.Errorf("list goroutines: %w", err)
	}
	return plain(w, b.String())
}
