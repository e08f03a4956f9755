package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"timehub/hub"
	"timehub/hub/client"
)

const membersText = `--set MEMBER=VALUE sets any member of the webhook's document by its name there; it may be repeated. Values are JSON where they are valid JSON (true,
30), text otherwise.`

// webhookFlags are the settings of a webhook as flags.
type webhookFlags struct {
	callback, channel, tag, batch, start, errorChannel, orderBy, payload, secret, previousSecret string
	ttl, timeout, maxWait                                                                        string
	parallel, maxAttempts                                                                        int
	heartbeat, paused, fastForward                                                               bool
	set                                                                                          []string
}

func (f *webhookFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.callback, "callback", "", "URL to post to")
	flags.StringVar(&f.channel, "channel", "", "channel to deliver: its name or URL, which is the prefix of what is delivered")
	flags.StringVar(&f.tag, "tag", "", "deliver each channel of this tag instead")
	flags.StringVar(&f.batch, "batch", "", "SINGLE: a call for each item; SECOND, MINUTE: one for each period (default SINGLE)")
	flags.StringVar(&f.payload, "payload", "", "what a call holds: uris, items or cloudevents (default uris)")
	flags.StringVar(&f.start, "start", "", "where to begin: "+strings.ReplaceAll(fromText, "\n", " "))
	flags.IntVar(&f.parallel, "parallel", 1, "calls at the same time")
	flags.StringVar(&f.orderBy, "order-by", "", "with --parallel: keep order among items of which this is the same: a jq expression, or header:NAME")
	flags.IntVar(&f.maxAttempts, "max-attempts", 0, "calls for an item before it is given up (default 0: no end)")
	flags.StringVar(&f.maxWait, "max-wait", "", "longest pause between calls for an item: minutes, or such as 5m (default 1)")
	flags.StringVar(&f.timeout, "timeout", "", "how long a call may take: seconds, or such as 2m (default 120)")
	flags.StringVar(&f.ttl, "ttl", "", "age at which an item is given up: minutes, or such as 6h (default none)")
	flags.StringVar(&f.errorChannel, "error-channel", "", "channel that is told of what was given up: its name or URL")
	flags.StringVar(&f.secret, "secret", "", "signs the calls (Standard Webhooks); @FILE reads it from a file, an empty one removes it")
	flags.StringVar(&f.previousSecret, "previous-secret", "", "signs too, while consumers change over")
	flags.BoolVar(&f.heartbeat, "heartbeat", false, "call for empty periods too (always so with SECOND and MINUTE)")
	flags.BoolVar(&f.paused, "paused", false, "do not deliver yet")
	flags.BoolVar(&f.fastForward, "fast-forward", false, "with SECOND: deliver whole minutes while far behind")
	flags.StringArrayVar(&f.set, "set", nil, "set any member: name=value")
}

// Members of a webhook's document that can be set, and of these the ones that are text whatever they look like. The hub ignores other members, so that a
// slip of the pen would pass unnoticed.
const (
	textWebhookMembers = "callbackUrl channelUrl tagUrl startItem batch errorChannelUrl orderBy payload secret previousSecret tag"
	webhookMembers     = textWebhookMembers + " parallelCalls paused heartbeat ttlMinutes maxWaitMinutes callbackTimeoutSeconds maxAttempts fastForwardable " +
		"secondaryMetricsReporting"
)

// members are what the flags set. before is the webhook as it is; nil: there is none.
func (f *webhookFlags) members(cmd *cobra.Command, c *client.Client, before *client.Webhook) (map[string]any, error) {
	m := map[string]any{}
	for _, given := range f.set {
		name, value, ok := strings.Cut(given, "=")
		if !ok {
			return nil, usage("--set %q: want member=value", given)
		}
		if all := strings.Fields(webhookMembers); !slices.Contains(all, name) {
			return nil, usage("--set: there is no member %q: there are %s", name, strings.Join(all, ", "))
		}
		m[name] = value
		if !slices.Contains(strings.Fields(textWebhookMembers), name) && json.Valid([]byte(value)) {
			m[name] = json.RawMessage(value)
		}
	}
	changed := cmd.Flags().Changed
	for _, v := range []struct {
		flag, member string
		value        any
	}{
		{"callback", "callbackUrl", f.callback}, {"channel", "channelUrl", below(c, "channel", f.channel)}, {"tag", "tagUrl", below(c, "tag", f.tag)},
		{"batch", "batch", f.batch}, {"payload", "payload", f.payload}, {"parallel", "parallelCalls", f.parallel}, {"order-by", "orderBy", f.orderBy},
		{"max-attempts", "maxAttempts", f.maxAttempts}, {"error-channel", "errorChannelUrl", below(c, "channel", f.errorChannel)},
		{"secret", "secret", f.secret}, {"previous-secret", "previousSecret", f.previousSecret}, {"heartbeat", "heartbeat", f.heartbeat},
		{"paused", "paused", f.paused}, {"fast-forward", "fastForwardable", f.fastForward},
	} {
		if changed(v.flag) {
			m[v.member] = v.value
		}
	}
	for _, v := range []struct {
		flag, member, value string
		unit                time.Duration
	}{
		{"max-wait", "maxWaitMinutes", f.maxWait, time.Minute}, {"ttl", "ttlMinutes", f.ttl, time.Minute}, {"timeout", "callbackTimeoutSeconds", f.timeout, time.Second},
	} {
		if !changed(v.flag) {
			continue
		}
		n, err := units(v.value, v.unit)
		if err != nil {
			return nil, usage("--%s: %v", v.flag, err)
		}
		m[v.member] = n
	}
	for _, name := range []string{"secret", "previousSecret"} {
		if s, ok := m[name].(string); ok {
			var err error
			if m[name], err = secret(s); err != nil {
				return nil, err
			}
		}
	}
	if !changed("start") {
		return m, nil
	}
	item, err := f.startItem(cmd, c, m, before)
	if err == nil && item != "" {
		m["startItem"] = item
	}
	return m, err
}

// below is the URL of a channel or a tag that may be given by its name.
func below(c *client.Client, what, name string) string {
	if name == "" || strings.Contains(name, "://") {
		return name
	}
	return c.URL() + "/" + what + "/" + url.PathEscape(name)
}

// secret reads @FILE.
func secret(s string) (string, error) {
	name, file := strings.CutPrefix(s, "@")
	if !file {
		return s, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", coded{fmt.Errorf("read the secret: %w", err), exitUsage}
	}
	return strings.TrimSpace(string(text)), nil
}

// units reads a whole number of a unit, or a duration.
func units(s string, unit time.Duration) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d%unit != 0 {
		return 0, fmt.Errorf("%q is no whole number of %vs and no such duration", s, map[time.Duration]string{time.Minute: "minute", time.Second: "second"}[unit])
	}
	return int64(d / unit), nil
}

// startItem is where a webhook begins, in the hub's words; "" is its default, which is now.
func (f *webhookFlags) startItem(cmd *cobra.Command, c *client.Client, m map[string]any, before *client.Webhook) (string, error) {
	if strings.EqualFold(f.start, "previous") || strings.HasPrefix(f.start, "http://") || strings.HasPrefix(f.start, "https://") {
		if before != nil && m["channelUrl"] == nil && before.ChannelURL != "" {
			m["channelUrl"] = before.ChannelURL // 'previous' is looked for in the channel of the same request
		}
		return f.start, nil
	}
	now := strings.EqualFold(f.start, "now")
	if now && before == nil {
		return "", nil
	}
	channelURL, _ := m["channelUrl"].(string)
	if channelURL == "" && before != nil {
		channelURL = before.ChannelURL
	}
	_, channel, ok := strings.Cut(strings.TrimSuffix(channelURL, "/"), "/channel/")
	channel, err := url.PathUnescape(channel)
	if !ok || err != nil {
		return "", usage("--start %q needs the --channel to look it up in", f.start)
	}
	ctx := cmd.Context()
	if now {
		return f.moment(cmd, c, channelURL)
	}
	k, err := position(ctx, c, channel, f.start, client.Query{Epoch: hub.AllEpochs})
	if err != nil {
		return "", hintChannel(channel, err)
	}
	if k.Millis() == 0 { // the hub wants a moment that can be
		p, err := c.Earliest(ctx, channel, 1, client.Query{Unstable: true, Epoch: hub.AllEpochs})
		if err != nil {
			return "", hintChannel(channel, err)
		}
		switch {
		case len(p.Keys) > 0:
			k = hub.First(p.Keys[0].Time())
		case before == nil:
			return "", nil
		default: // as good as now
			return f.moment(cmd, c, channelURL)
		}
	}
	return strings.TrimSuffix(channelURL, "/") + "/" + keyPath(k), nil
}

// moment is the hub's present in its channel.
func (f *webhookFlags) moment(cmd *cobra.Command, c *client.Client, channelURL string) (string, error) {
	t, err := c.Now(cmd.Context())
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(channelURL, "/") + "/" + keyPath(hub.First(t)), nil
}
