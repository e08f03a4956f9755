package node

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"timehub/hub"
	"timehub/hub/web"
)

const (
	leadsPath     = "/internal/spoke/leads/" // behind the door for the other nodes
	forwardedBy   = "Hub-Forwarded-By"       // a request that was sent on is not sent on again
	leaderTime    = time.Second
	forwardedTime = 30 * time.Second
)

// forwarded is the name of the webhook that a request is about, if the node that runs it should answer: it alone knows its last calls and what is to be delivered
// again, and who stops it, or moves its cursor, is answered when it has stopped. change: the request changes something.
func forwarded(r *http.Request) (name string, change, ok bool) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "webhook" && parts[0] != "group" || r.Header.Get(forwardedBy) != "" {
		return "", false, false
	}
	what := r.Method
	if len(parts) == 3 {
		what += " " + parts[2]
	}
	switch what {
	case "GET attempts":
		return parts[1], false, true
	case "POST replay", "PUT updateCursor", "PUT", "DELETE":
		return parts[1], true, true
	}
	return "", false, false
}

// addLeads lets the other nodes ask whether a webhook runs here.
func (n *Node) addLeads(rt *web.Router) {
	rt.Handle(http.MethodGet, leadsPath+"{webhook}", func(w http.ResponseWriter, r *http.Request) error {
		if !n.leads(r.Context(), web.Param(r, "webhook")) {
			return hub.E(hub.NotFound, "this webhook does not run here")
		}
		return web.JSON(w, http.StatusOK, struct{}{})
	})
}

func (n *Node) leads(ctx context.Context, webhook string) bool {
	runs := n.parts.hooks.runs
	if runs == nil {
		return false
	}
	_, ok := runs.Live(ctx, webhook)
	return ok
}

// elsewhere is where a request is sent on to; "": it is answered here.
func (n *Node) elsewhere(r *http.Request) (webhook, address string, change bool) {
	name, change, ok := forwarded(r)
	if !ok || n.leads(r.Context(), name) {
		return "", "", false
	}
	if change {
		if n.parts.hooks.runs == nil {
			return "", "", false // webhooks are not changed here
		}
		if _, err := n.parts.hooks.catalog.Get(r.Context(), name); hub.Is(err, hub.NotFound) {
			return "", "", false // it is made
		}
	}
	return name, n.leaderOf(r.Context(), name), change
}

// forwardHooks sends requests that the node that runs a webhook should answer to that node. If nobody says that it runs it, this one answers.
func (n *Node) forwardHooks(next http.Handler) http.Handler {
	transport := &http.Transport{DialContext: n.env.Dial, DisableKeepAlives: true, ResponseHeaderTimeout: forwardedTime}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, leader, change := n.elsewhere(r)
		if leader == "" {
			next.ServeHTTP(w, r)
			return
		}
		proxy := &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", leader, p.In.Host
				for key, values := range p.In.Header { // links begin with what the client's proxy says
					if strings.HasPrefix(key, "X-Forwarded-") {
						p.Out.Header[key] = values
					}
				}
				p.Out.Header.Set(forwardedBy, n.name())
			},
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				var dial *net.OpError
				if errors.As(err, &dial) && dial.Op == "dial" { // it has just died: nothing was sent
					next.ServeHTTP(w, r)
					return
				}
				n.log.Warn("a request about a webhook could not be sent on to the node that runs it", "webhook", name, "node", leader, "err", err)
				w.Header().Set("Retry-After", "1")
				http.Error(w, `{"error": "the node that runs the webhook does not answer: try again"}`, http.StatusServiceUnavailable)
			},
		}
		if change { // whoever asks this node next finds what the other one did
			proxy.ModifyResponse = func(resp *http.Response) error {
				_, err := n.parts.hooks.catalog.Fresh(resp.Request.Context(), name)
				if err != nil && !hub.Is(err, hub.NotFound) {
					n.log.Debug("the configuration of a webhook was changed by another node and could not be read again", "webhook", name, "err", err)
				}
				return nil
			}
		}
		proxy.ServeHTTP(w, r)
	})
}

// leaderOf asks all other nodes at the same time who runs a webhook.
func (n *Node) leaderOf(ctx context.Context, webhook string) (address string) {
	ctx, cancel := context.WithTimeout(ctx, leaderTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: n.env.Dial, DisableKeepAlives: true}}
	var mu sync.Mutex // guards address
	var wg sync.WaitGroup
	for _, peer := range n.parts.members.others(n.name()) {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+peer+leadsPath+url.PathEscape(webhook), nil)
			if err != nil {
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				return
			}
			_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxPage))
			if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode == http.StatusOK {
				mu.Lock()
				address = peer
				mu.Unlock()
				cancel() // nobody else does
			}
		})
	}
	wg.Wait()
	return address
}
