package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"timehub/callbacks/webhook"
	"timehub/callbacks/webhook/attempts"
	"timehub/callbacks/webhook/deliver"
	"timehub/hub"
)

// deliver calls for one entry until it is done, or the session ends: then the entry stays in flight.
func (s *session) deliver(e *entry) {
	s.touch()
	began := time.Now()
	if e.tries == 0 && !e.replay {
		s.meters.first(s.opt.Clock().Sub(e.time()))
	}
	var kept *deliver.Message
	for s.ctx.Err() == nil {
		if reason := s.giveUp(e); reason != "" {
			s.abandon(e, reason)
			return
		}
		at, o, err := s.call(e, &kept)
		switch {
		case err != nil:
			s.trouble("the call for an item cannot be made; trying again", e, err)
			continue
		case o.OK():
			s.remember(e, at, o)
			s.finished(e, nil)
			s.meters.delivered(time.Since(began))
			return
		case s.calls.Err() != nil:
			s.meters.failed("500")
			return
		case errors.Is(o.Err, deliver.ErrContent):
			s.trouble("the body of a call cannot be made; trying again", e, o.Err)
			continue
		}
		s.remember(e, at, o)
		if !s.failed(e, o) {
			return
		}
	}
}

// call makes one call. kept is the message, if it can be used again.
func (s *session) call(e *entry, kept **deliver.Message) (at time.Time, o deliver.Outcome, err error) {
	m := *kept
	if m == nil {
		made, release, err := s.message(e)
		if err != nil {
			return at, o, err
		}
		if m = &made; release != nil {
			defer release()
		} else {
			*kept = m
		}
	}
	at = s.opt.Clock()
	return at, s.opt.Caller.Post(s.calls, s.w, *m), nil
}

// finished makes an entry done, in one step with its error line, if it was given up.
func (s *session) finished(e *entry, line *webhook.Line) {
	more := s.ledger.finish(e, line)
	s.touch()
	if more || e.replay {
		s.hire()
	}
}

// failed takes down a failed attempt and waits. It reports whether to try again.
func (s *session) failed(e *entry, o deliver.Outcome) bool {
	status := "null"
	if o.Status != 0 {
		status = fmt.Sprint(o.Status)
	}
	s.meters.failed(status)
	s.ledger.failed(e, s.line(e, o.Text()))
	s.touch()
	if o.Gone() && s.opt.Pause != nil && s.pauseHook(o) {
		return false
	}
	if s.w.MaxAttempts > 0 && e.tries >= s.w.MaxAttempts {
		return true // no pause after the last one
	}
	d := s.pause(e.tries, o.RetryAfter)
	if !e.replay {
		return hub.Sleep(s.ctx, d)
	}
	s.ledger.leave()
	s.hire()
	defer s.ledger.back(s.ctx)
	return hub.Sleep(s.ctx, d)
}

// pauseHook stops the webhook, because its consumer wants no more.
func (s *session) pauseHook(o deliver.Outcome) bool {
	reason := "the consumer answered " + o.Text()
	if err := s.opt.Pause(s.ctx, s.w.Name, s.w.Born, reason); err != nil {
		if s.ctx.Err() == nil {
			s.opt.Log.Warn("a webhook whose consumer is gone could not be paused", "webhook", s.w.Name, "err", err)
		}
		return false
	}
	s.opt.Log.Info("a webhook was paused", "webhook", s.w.Name, "reason", reason)
	s.apply(s.w.Name) // at once, so that no loop begins anew
	s.end(errPaused)
	return true
}

// pause is how long to wait after failed attempt k (spec 03 §2.4). Jitter only shortens; what the consumer asks for is not shortened.
func (s *session) pause(k int, asked time.Duration) time.Duration {
	most := minutes(max(s.w.MaxWaitMinutes, 1))
	if asked > 0 {
		return min(asked, most)
	}
	d := most
	if k < 40 && s.opt.FirstPause < most>>(k-1) {
		d = s.opt.FirstPause << (k - 1)
	}
	return d/2 + rand.N(d/2+1)
}

// minutes is n minutes, but at most a hundred years: people write what they like.
func minutes(n int) time.Duration { return time.Duration(min(n, 100*366*24*60)) * time.Minute }

// trouble is a failure of our own, in which the consumer has no part.
func (s *session) trouble(what string, e *entry, err error) {
	if s.ctx.Err() != nil {
		return
	}
	e.trouble++
	if e.trouble == 1 {
		s.opt.Log.Warn(what, "webhook", s.w.Name, "path", e.path(), "err", err)
	}
	hub.Sleep(s.ctx, min(retryMin<<min(e.trouble-1, 16), retryMax))
}

// giveUp is tested before each attempt; "" means: go on.
func (s *session) giveUp(e *entry) string {
	now := s.opt.Clock()
	if ttl := s.w.TTLMinutes; ttl > 0 {
		if oldest := now.Add(-minutes(ttl)); e.age().Before(oldest) {
			return "is before webhook ttl " + hub.ISO(oldest)
		}
	}
	if oldest := s.channelNow().OldestAllowed(now, s.opt.Birthday); e.time().Before(oldest) {
		return "is before channel ttl " + hub.ISO(oldest)
	}
	if n := s.w.MaxAttempts; n > 0 && e.tries >= n {
		return fmt.Sprintf("max attempts reached (%d)", n)
	}
	return ""
}

// abandon gives an entry up: first the error channel is told, then it is done.
func (s *session) abandon(e *entry, reason string) {
	line := s.line(e, reason)
	if s.w.ErrorChannelURL != "" && s.opt.ErrorItem != nil && !s.tell(e, line) {
		return
	}
	s.opt.Log.Debug("an item was given up", "webhook", s.w.Name, "path", line.Path, "reason", reason)
	s.finished(e, &line)
}

const tellFor = time.Minute // after that an item is given up without a word in the error channel

// failure is the item in the error channel (spec 03 §2.5).
type failure struct {
	WebhookURL        string `json:"webhookUrl"`
	FailedItemURL     string `json:"failedItemUrl"`
	CallbackURL       string `json:"callbackUrl"`
	NumberOfAttempts  int    `json:"numberOfAttempts"`
	LastAttemptTime   string `json:"lastAttemptTime"`
	LastAttemptError  string `json:"lastAttemptError"`
	LastDeliveryError string `json:"lastDeliveryError,omitempty"`
}

// tell inserts an item into the error channel. It reports whether to go on: false if the session has ended before.
func (s *session) tell(e *entry, line webhook.Line) bool {
	host, _, _ := strings.Cut(s.w.ChannelURL, "/channel/")
	body, err := json.Marshal(failure{
		WebhookURL: host + "/webhook/" + s.w.Name, FailedItemURL: s.w.ChannelURL + "/" + line.Path, CallbackURL: s.w.CallbackURL,
		NumberOfAttempts: e.tries, LastAttemptTime: hub.ISO(time.UnixMilli(line.Time)), LastAttemptError: line.Text, LastDeliveryError: e.why,
	})
	if err != nil { // a struct of strings
		panic(err)
	}
	_, channel, _ := strings.Cut(s.w.ErrorChannelURL, "/channel/")
	channel = strings.TrimSuffix(channel, "/")
	ctx, cancel := context.WithTimeout(s.ctx, tellFor)
	defer cancel()
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		err := s.opt.ErrorItem(ctx, channel, body)
		switch {
		case err == nil:
			return true
		case s.ctx.Err() != nil:
			return false
		}
		lasting := hub.Is(err, hub.NotFound) || hub.Is(err, hub.Invalid) || hub.Is(err, hub.Forbidden) || hub.Is(err, hub.TooLarge)
		if lasting || !hub.Sleep(ctx, pause) {
			if s.ctx.Err() != nil {
				return false
			}
			s.opt.Log.Warn("the error channel of a webhook was not told of an item that was given up", "webhook", s.w.Name, "path", line.Path, "err", err)
			return true
		}
	}
}

func (s *session) line(e *entry, text string) webhook.Line {
	return webhook.Line{Time: s.opt.Clock().UnixMilli(), Path: e.path(), Text: text}
}

// remember writes a call into the diary.
func (s *session) remember(e *entry, at time.Time, o deliver.Outcome) {
	a := attempts.Attempt{
		Time: at, Path: e.path(), Number: e.tries + 1, Status: o.Status, Reason: o.Reason, Latency: o.Took, Answer: o.Answer, Replay: e.replay,
	}
	if o.Err != nil {
		a.Error = o.Err.Error()
	}
	s.opt.Attempts.Add(s.w.Name, a)
}
