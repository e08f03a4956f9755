package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"timehub/hub"
	"timehub/hub/client"
)

func (a *app) webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "List, make, show, change and remove webhooks; replay what they delivered; deliver to a program here",
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usage("there is no command 'webhook %s'; 'hub webhook --help' lists them", given[0])
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(
		a.webhookLs(), a.webhookCreate(), a.webhookGet(), a.webhookSet(),
		a.webhookEach("rm NAME…", "Remove webhooks with their cursors", "removed", []string{"delete"},
			func(cmd *cobra.Command, c *client.Client, name string) error {
				return c.DeleteWebhook(cmd.Context(), name)
			}),
		a.webhookEach("pause NAME…", "Stop the deliveries of webhooks; their cursors stay", "paused", nil, setPaused(true)),
		a.webhookEach("resume NAME…", "Deliver again, from where the cursors are", "resumed", nil, setPaused(false)),
		a.webhookReplay(), a.webhookAttempts(), a.webhookListen(),
	)
	return cmd
}

// withClient runs a command that talks to the hub.
func (a *app) withClient(do func(cmd *cobra.Command, c *client.Client, given []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, given []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd, c, given)
	}
}

// hintWebhook says what is missing.
func hintWebhook(name string, err error) error {
	if hub.Is(err, hub.NotFound) {
		return hub.E(hub.NotFound, "there is no webhook %s; 'hub webhook ls' lists them", name)
	}
	return err
}

// webhookNames completes the name of a webhook by asking the hub.
func (a *app) webhookNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := client.New(client.Options{URL: a.hubURL, Tries: 1})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	names, err := c.Webhooks(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// lookers is how many statuses are asked for at the same time.
const lookers = 8

func (a *app) webhookLs() *cobra.Command {
	var long bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the webhooks", Args: args(0, 0),
		Long: `List the names of the webhooks; with -l what each delivers where, and how far it is behind. With -l and --json: what the hub says of each.`,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			names, err := c.Webhooks(cmd.Context())
			if err != nil {
				return err
			}
			if !long {
				return a.lines(names)
			}
			var mu sync.Mutex // guards all
			var all []client.Webhook
			g, ctx := errgroup.WithContext(cmd.Context())
			g.SetLimit(lookers)
			for _, name := range names {
				g.Go(func() error {
					w, err := c.Webhook(ctx, name)
					if hub.Is(err, hub.NotFound) {
						return nil // removed since
					}
					mu.Lock()
					defer mu.Unlock()
					all = append(all, w)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				return err
			}
			slices.SortFunc(all, func(x, y client.Webhook) int { return strings.Compare(x.Name, y.Name) })
			return a.printWebhooks(all)
		}),
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show what each does and how far it is")
	return cmd
}

func (a *app) printWebhooks(all []client.Webhook) error {
	if a.json {
		documents := make([]json.RawMessage, len(all))
		for i, w := range all {
			documents[i] = w.Document
		}
		return a.printJSON(a.stdout, documents)
	}
	rows := [][]string{{"NAME", "OF", "BATCH", "STATE", "BEHIND", "CALLBACK"}}
	for _, w := range all {
		of, state, behind := w.TagURL, "active", "-"
		if _, channel, ok := strings.Cut(w.ChannelURL, "/channel/"); ok {
			of = channel
		} else if _, tag, ok := strings.Cut(w.TagURL, "/tag/"); ok {
			of, state = "tag "+tag, "prototype"
		}
		if len(w.Errors) > 0 && len(w.InFlight) > 0 {
			state = "failing"
		}
		if w.Paused {
			state = "paused"
		}
		if w.ItemsBehind != nil {
			behind = count(*w.ItemsBehind, "item")
		}
		rows = append(rows, []string{w.Name, of, w.Batch, state, behind, w.CallbackURL})
	}
	return a.table(rows)
}

func (a *app) webhookGet() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show the settings and the state of a webhook", Args: args(1, 1), ValidArgsFunction: a.webhookNames,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, given []string) error {
			w, err := c.Webhook(cmd.Context(), given[0])
			if err != nil {
				return hintWebhook(given[0], err)
			}
			return a.printDocument(w.Document)
		}),
	}
}

func (a *app) webhookCreate() *cobra.Command {
	var f webhookFlags
	cmd := &cobra.Command{
		Use: "create NAME --callback URL --channel CHANNEL", Short: "Make a webhook; it must not exist", Args: args(1, 1),
		Long: `Make a webhook: the hub posts to the callback what is inserted into the channel, in order and at least once, or does so for each channel of a tag.
Without --start it begins with what comes after this moment.` + "\n\n" + membersText,
		Example: `  hub webhook create printer --callback http://127.0.0.1:9000/cb --channel orders
  hub webhook create archive --callback http://127.0.0.1:9000/cb --tag eu --batch MINUTE --start earliest`,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, given []string) error {
			name := given[0]
			if _, err := c.Webhook(cmd.Context(), name); err == nil {
				return hub.E(hub.Conflict, "the webhook %s exists; change it with: hub webhook set %s", name, name)
			} else if !hub.Is(err, hub.NotFound) {
				return err
			}
			members, err := f.members(cmd, c, nil)
			if err != nil {
				return err
			}
			w, err := c.PutWebhook(cmd.Context(), name, members)
			if err != nil {
				return err
			}
			return a.printDocument(w.Document)
		}),
	}
	f.add(cmd)
	return cmd
}

func (a *app) webhookSet() *cobra.Command {
	var f webhookFlags
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change the settings of a webhook, or where it is", Args: args(1, 1), ValidArgsFunction: a.webhookNames,
		Long: `Change the settings of a webhook; what is not named stays. --start moves it there, forward or back, and forgets its errors.` + "\n\n" + membersText,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, given []string) error {
			name := given[0]
			before, err := c.Webhook(cmd.Context(), name)
			if err != nil {
				return hintWebhook(name, err)
			}
			members, err := f.members(cmd, c, &before)
			if err != nil {
				return err
			}
			if len(members) == 0 {
				return usage("nothing to set; '%s --help' lists the flags", cmd.CommandPath())
			}
			w, err := c.PutWebhook(cmd.Context(), name, members)
			if err != nil {
				return err
			}
			return a.printDocument(w.Document)
		}),
	}
	f.add(cmd)
	return cmd
}

// webhookEach is a command that does something to some webhooks.
func (a *app) webhookEach(use, short, done string, aliases []string, do func(cmd *cobra.Command, c *client.Client, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Aliases: aliases, Args: args(1, -1), ValidArgsFunction: a.webhookNames,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, names []string) error {
			var wrong []error
			for _, name := range names {
				if err := do(cmd, c, name); err != nil {
					wrong = append(wrong, hintWebhook(name, err))
				}
			}
			if a.json && len(wrong) == 0 {
				return a.printJSON(a.stdout, map[string]any{done: names})
			}
			return errors.Join(wrong...)
		}),
	}
}

func setPaused(paused bool) func(cmd *cobra.Command, c *client.Client, name string) error {
	return func(cmd *cobra.Command, c *client.Client, name string) error {
		if _, err := c.Webhook(cmd.Context(), name); err != nil { // a PUT would be an attempt to make it
			return err
		}
		_, err := c.PutWebhook(cmd.Context(), name, map[string]bool{"paused": paused})
		return err
	}
}

func (a *app) webhookReplay() *cobra.Command {
	var r client.Replay
	cmd := &cobra.Command{
		Use: "replay NAME --item URL | --from TIME --to TIME | --failed", Short: "Deliver again: an item, a range, or what failed",
		Long: `Deliver again: an item (by URL or key), a range of time (--from included, --to excluded: time paths, ISO 8601, or items), or all that the hub remembers
as failed and given up. The cursor of the webhook stays where it is.`,
		Args: args(1, 1), ValidArgsFunction: a.webhookNames,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, given []string) error {
			ways := 0
			for _, is := range []bool{r.Item != "", r.From != "" || r.To != "", r.Failed} {
				if is {
					ways++
				}
			}
			if ways != 1 || (r.From == "") != (r.To == "") {
				return usage("want one of --item, --from with --to, and --failed")
			}
			for _, end := range []*string{&r.From, &r.To} {
				if t, err := parseInstant(*end); err == nil {
					*end = string(hub.AppendTimePath(nil, t.UnixMilli()))
				}
			}
			n, err := c.ReplayWebhook(cmd.Context(), given[0], r)
			if err != nil {
				return hintWebhook(given[0], err)
			}
			if a.json {
				return a.printJSON(a.stdout, map[string]int64{"queued": n})
			}
			_, err = fmt.Fprintf(a.stdout, "%d queued\n", n)
			return err
		}),
	}
	cmd.Flags().StringVar(&r.Item, "item", "", "URL or key of an item")
	cmd.Flags().StringVar(&r.From, "from", "", "begin of a range, included")
	cmd.Flags().StringVar(&r.To, "to", "", "its end, excluded")
	cmd.Flags().BoolVar(&r.Failed, "failed", false, "what was given up")
	return cmd
}

func (a *app) webhookAttempts() *cobra.Command {
	var key, status string
	var n int
	cmd := &cobra.Command{
		Use: "attempts NAME", Short: "Show the last calls of a webhook, the newest first", Args: args(1, 1), ValidArgsFunction: a.webhookNames,
		RunE: a.withClient(func(cmd *cobra.Command, c *client.Client, given []string) error {
			if n < 0 {
				return usage("-n must not be negative")
			}
			all, err := c.Attempts(cmd.Context(), given[0], key, status)
			if err != nil {
				return hintWebhook(given[0], err)
			}
			all = all[:min(n, len(all))]
			if a.json {
				if all == nil {
					all = []client.Attempt{}
				}
				return a.printJSON(a.stdout, all)
			}
			rows := [][]string{{"TIME", "ITEM", "TRY", "STATUS", "MILLIS", "ANSWER"}}
			for _, t := range all {
				rows = append(rows, attemptRow(t))
			}
			return a.table(rows)
		}),
	}
	cmd.Flags().StringVar(&key, "key", "", "only those of an item: its key or URL")
	cmd.Flags().StringVar(&status, "status", "", "only those with a status: 503, 4xx, 5xx, failed or ok")
	cmd.Flags().IntVarP(&n, "count", "n", 100, "how many at most")
	return cmd
}

// answerWidth is how much of an answer a table shows.
const answerWidth = 60

func attemptRow(t client.Attempt) []string {
	try, status, answer := fmt.Sprint(t.Number), strings.TrimSpace(fmt.Sprintf("%d %s", t.Status, t.Reason)), t.Answer
	if t.Replay {
		try += " (replay)"
	}
	if t.Status == 0 {
		status, answer = "none", t.Error
	}
	answer = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, answer)
	if r := []rune(answer); len(r) > answerWidth {
		answer = string(r[:answerWidth]) + "…"
	}
	return []string{t.Time, t.Key, try, status, fmt.Sprint(t.LatencyMillis), orDash(strings.TrimSpace(answer))}
}
