package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"timehub/hub"
	"timehub/hub/client"
)

func (a *app) tailCommand() *cobra.Command {
	var from, epoch string
	var payload, follow bool
	var n int
	var limit int64
	cmd := &cobra.Command{
		Use:   "tail CHANNEL",
		Short: "Print the newest items, and those that come",
		Long: `Print the addresses of the newest items of a channel, or of those from some point on, one a line; with -f also of each item that comes, until it is
interrupted (exit code 130). What is printed is final and in the order of the keys. An interruption of the network or a restart of the hub is waited
out; nothing is missed and nothing is printed twice.

With --payload the contents are printed instead, each ended by a line feed if it has none. With --json each line is an object with key and uri, and
with --payload contentType and the body as json, text or base64.

--from is ` + fromText + `.

Of a historical channel, only what is inserted above the last key that was printed is followed.`,
		Example: `  hub tail orders -f
  hub tail orders --from 2026/11/20/13 --payload | jq .total`,
		Args:              args(1, 1),
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			if cmd.Flags().Changed("from") && cmd.Flags().Changed("lines") {
				return usage("--from and -n both say where to begin: give one of them")
			}
			if n < 0 {
				return usage("-n must not be negative")
			}
			if !cmd.Flags().Changed("from") {
				from = fmt.Sprintf("previous %d", n)
			}
			f, err := a.follower(cmd, given[0], from, epoch, follow)
			if err != nil {
				return err
			}
			defer f.client.Close()
			f.bodies = payload
			if cmd.Flags().Changed("max") {
				if f.left = limit; limit < 0 {
					return usage("--max must not be negative")
				}
			}
			return quiet(f.run(cmd.Context(), a.printFollowed(payload)))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "where to begin (default: at the newest 10 items; see above)")
	flags.BoolVar(&payload, "payload", false, "print what the items hold instead of their addresses")
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	flags.IntVarP(&n, "lines", "n", 10, "begin with the newest N items")
	flags.Int64Var(&limit, "max", 0, "end after so many items")
	flags.StringVar(&epoch, "epoch", "ALL", "of a historical channel: IMMUTABLE, MUTABLE or ALL")
	return cmd
}

// follower prepares to follow a channel from a place that a person named.
func (a *app) follower(cmd *cobra.Command, channel, from, epoch string, live bool) (*follower, error) {
	e, err := hub.ParseEpoch(strings.ToUpper(epoch))
	if err != nil {
		return nil, coded{err, exitUsage}
	}
	if channel == "" || strings.Contains(channel, "/") {
		return nil, usage("%q is not the name of a channel", channel)
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx := cmd.Context()
	if _, err := c.Channel(ctx, channel); err != nil {
		return nil, hintChannel(channel, err)
	}
	f := &follower{channel: channel, query: client.Query{Epoch: e}, live: live, left: -1, notice: a.notice}
	if f.at, err = position(ctx, c, channel, from, f.query); err != nil {
		return nil, err
	}
	if !live {
		p, err := c.Latest(ctx, channel, 1, client.Query{Unstable: true, Epoch: e})
		if err != nil {
			return nil, err
		}
		if len(p.Keys) > 0 {
			f.until = p.Keys[0]
		}
	}
	f.client, err = client.New(client.Options{URL: a.hubURL, Tries: 1}) // the follower tries again by itself, and says so
	return f, err
}

// notice tells a person something that is no result and no failure.
func (a *app) notice(text string) {
	if a.json {
		if line, err := jsonLine(map[string]string{"notice": text}); err == nil {
			a.stderr.Write(line) //nolint:errcheck // there is nobody else to tell
		}
		return
	}
	fmt.Fprintf(a.stderr, "hub: %s\n", text)
}

// printFollowed prints an item with one write, so that a reader never sees a part of it.
func (a *app) printFollowed(payload bool) func(followed) error {
	return func(it followed) error {
		line := []byte(it.uri)
		switch {
		case a.json:
			r := record{Key: it.key.String()}
			if payload {
				r = recordOf(it.key, it.contentType, it.body)
			}
			r.URI = it.uri
			var err error
			if line, err = jsonLine(r); err != nil {
				return fmt.Errorf("write item %s: %w", it.key, err)
			}
		case payload:
			line = it.body
		}
		if len(line) == 0 || line[len(line)-1] != '\n' {
			line = append(line[:len(line):len(line)], '\n')
		}
		_, err := a.stdout.Write(line)
		if errors.Is(err, syscall.EPIPE) {
			return errReaderGone
		}
		return err
	}
}

// errReaderGone: whoever read our output has seen enough.
var errReaderGone = errors.New("nobody reads any more")

// quiet takes the two ways in which following usually ends for what they are: no failures that have to be told.
func quiet(err error) error {
	switch {
	case errors.Is(err, errReaderGone):
		return nil
	case errors.Is(err, context.Canceled):
		return coded{errSilent, exitInterrupted}
	}
	return err
}
