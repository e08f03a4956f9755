package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
)

// listener forwards what it follows to a program, as a webhook of the hub would: the same calls, one item at a time, the same rules of repetition
// (spec 03 §2.4). The hub knows nothing of it, so it also works where the hub cannot reach this machine.
type listener struct {
	app         *app
	caller      *deliver.Caller
	webhook     *webhook.Webhook
	first, wait time.Duration // the first pause after a failure doubles up to wait
	last        string        // URL of the last item that is done
	forwarded   int64
}

func (a *app) webhookListen() *cobra.Command {
	var from, epoch, timeout, name, signature, payload, forward string
	var attempts int
	var wait, first time.Duration
	var limit int64
	cmd := &cobra.Command{
		Use: "listen CHANNEL --forward URL", Short: "Deliver a channel to a program on this machine, as a webhook would", Args: args(1, 1),
		Long: `Follow a channel and post each item to a program that this machine can reach: the same calls and the same repetition as those of a SINGLE webhook with one
call at a time, with no trace in the hub and no address that the hub has to reach. Each call is told in a line.

It ends with an interruption, and then says where to go on: nothing remembers that place. A program that answers 410 ends it too.

--from is ` + fromText + `.`,
		Example:           `  hub webhook listen orders --forward http://127.0.0.1:3000/hooks --from "previous 10"`,
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			if u, err := url.Parse(forward); err != nil || !isURL(forward) || u.Host == "" {
				return usage("--forward %q: want the URL of a program, such as http://127.0.0.1:3000/hooks", forward)
			}
			seconds, err := units(timeout, time.Second)
			if err != nil || seconds < 1 {
				return usage("--timeout %q: want a whole number of seconds, or such as 2m", timeout)
			}
			if attempts < 0 || wait < 0 || first <= 0 || limit < 0 {
				return usage("--max-attempts, --max-wait, --first-wait and --max must not be negative")
			}
			w := &webhook.Webhook{Name: name, CallbackURL: forward, ParallelCalls: 1, Batch: "SINGLE", CallbackTimeoutSeconds: int(seconds), MaxAttempts: attempts}
			if w.Secret, err = secret(signature); err != nil {
				return err
			}
			switch w.Payload = payload; payload {
			case webhook.URIs, webhook.Items, webhook.CloudEvents:
			default:
				return usage("--payload is %q: it must be %s, %s or %s", payload, webhook.URIs, webhook.Items, webhook.CloudEvents)
			}
			f, err := a.follower(cmd, given[0], from, epoch, true)
			if err != nil {
				return err
			}
			defer f.client.Close()
			if f.bodies = payload != webhook.URIs; cmd.Flags().Changed("max") {
				f.left = limit
			}
			w.ChannelURL = f.client.URL() + "/channel/" + url.PathEscape(given[0])
			l := &listener{app: a, webhook: w, first: first, wait: wait}
			if l.caller, err = deliver.New(deliver.Options{VerifyTLS: true}); err != nil {
				return err
			}
			defer l.caller.Close()
			return l.end(f.run(cmd.Context(), func(it followed) error { return l.item(cmd.Context(), it) }))
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&forward, "forward", "", "URL to post to")
	flags.StringVar(&from, "from", "now", "where to begin (see above)")
	flags.StringVar(&name, "name", "listen", "name of the webhook in the calls")
	flags.StringVar(&payload, "payload", webhook.URIs, "what a call holds: uris, items or cloudevents")
	flags.StringVar(&signature, "secret", "", "signs the calls (Standard Webhooks); @FILE reads it from a file")
	flags.StringVar(&timeout, "timeout", "120", "how long a call may take: seconds, or such as 2m")
	flags.IntVar(&attempts, "max-attempts", 0, "calls for an item before it is given up (default: no end)")
	flags.DurationVar(&first, "first-wait", 2*time.Second, "pause after the first failure; it doubles")
	flags.DurationVar(&wait, "max-wait", time.Minute, "longest pause between calls for an item")
	flags.Int64Var(&limit, "max", 0, "end after so many items")
	flags.StringVar(&epoch, "epoch", "IMMUTABLE", "of a historical channel: IMMUTABLE, MUTABLE or ALL")
	return cmd
}

// item delivers one item, however often that takes. It fails if there is no use in going on.
func (l *listener) item(ctx context.Context, it followed) error {
	message, err := deliver.ItemMessage(l.webhook, it.key, &deliver.Item{Key: it.key, ContentType: it.contentType, Body: it.body})
	if err != nil {
		return fmt.Errorf("make the call for %s: %w", it.uri, err)
	}
	for attempt := 1; ; attempt++ {
		o := l.caller.Post(ctx, l.webhook, message)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case o.OK():
			l.done(it)
			return l.tell(it, attempt, o, "")
		case o.Gone():
			return errors.Join(l.tell(it, attempt, o, "ended"), hub.E(hub.Forbidden, "%s wants no more calls: it answers 410", l.webhook.CallbackURL))
		case attempt == l.webhook.MaxAttempts:
			l.done(it)
			return l.tell(it, attempt, o, "given up")
		}
		pause := l.pause(attempt, o.RetryAfter)
		if err := l.tell(it, attempt, o, "again in "+pause.Round(time.Millisecond).String()); err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (l *listener) done(it followed) {
	l.last = it.uri
	l.forwarded++
}

// pause doubles with each attempt, and jitter only shortens it. A consumer may ask for another one.
func (l *listener) pause(attempt int, asked time.Duration) time.Duration {
	if asked > 0 {
		return min(asked, l.wait)
	}
	d := l.first
	for range attempt - 1 {
		if d >= l.wait {
			break
		}
		d *= 2
	}
	return time.Duration(float64(min(d, l.wait)) * (0.5 + rand.Float64()/2))
}

// told is a call as a line of JSON.
type told struct {
	Time    string `json:"time"`
	URI     string `json:"uri"`
	Attempt int    `json:"attempt"`
	Status  int    `json:"status"`
	Text    string `json:"text"`
	Millis  int64  `json:"latencyMillis"`
	Then    string `json:"then,omitempty"`
}

// tell prints how a call went.
func (l *listener) tell(it followed, attempt int, o deliver.Outcome, then string) error {
	t := told{hub.ISO(time.Now()), it.uri, attempt, o.Status, o.Text(), o.Took.Milliseconds(), then}
	if l.app.json {
		line, err := jsonLine(t)
		if err == nil {
			_, err = l.app.stdout.Write(line)
		}
		return err
	}
	text := fmt.Sprintf("%s  %s  %s  %d ms", t.Time, t.URI, t.Text, t.Millis)
	if attempt > 1 || then != "" {
		text += fmt.Sprintf("  (attempt %d%s)", attempt, strings.TrimSuffix(", "+then, ", "))
	}
	_, err := fmt.Fprintln(l.app.stdout, text)
	return err
}

// end says where to go on.
func (l *listener) end(err error) error {
	if l.last != "" {
		l.app.notice(fmt.Sprintf("%s forwarded; to go on: --from %s", count(l.forwarded, "item"), l.last))
	}
	return quiet(err)
}
