package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"timehub/hub"
	"timehub/hub/client"
)

// queryFlags restrict what is listed or exported.
type queryFlags struct {
	stable, descending bool
	epoch              string
}

func (f *queryFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.stable, "stable", false, "only what can never change any more")
	cmd.Flags().BoolVar(&f.descending, "desc", false, "newest first")
	cmd.Flags().StringVar(&f.epoch, "epoch", "ALL", "of a historical channel: IMMUTABLE, MUTABLE or ALL")
}

func (f *queryFlags) query() (client.Query, error) {
	epoch, err := hub.ParseEpoch(strings.ToUpper(f.epoch))
	if err != nil {
		return client.Query{}, coded{err, exitUsage}
	}
	return client.Query{Unstable: !f.stable, Order: hub.Order(f.descending), Epoch: epoch}, nil
}

func (a *app) lsCommand() *cobra.Command {
	var f queryFlags
	var n int
	cmd := &cobra.Command{
		Use:   "ls [CHANNEL[/2026/11/20…]]",
		Short: "List channels, or the items of a channel",
		Long: `List the addresses of items: of a day, hour, minute or second (CHANNEL/2026/11/20/13), or of any other query (CHANNEL/earliest/5,
CHANNEL/{key}/next/10). A channel alone lists its newest items, no argument lists the channels.`,
		Args:              args(0, 1),
		ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if len(given) == 0 {
				names, err := c.Channels(cmd.Context())
				if err != nil {
					return err
				}
				return a.lines(names)
			}
			q, err := f.query()
			if err != nil {
				return err
			}
			channel, rest, _ := strings.Cut(strings.Trim(given[0], "/"), "/")
			var p client.Page
			if rest == "" {
				p, err = c.Latest(cmd.Context(), channel, n, q)
			} else {
				p, err = c.List(cmd.Context(), channel, rest, q)
			}
			if err != nil {
				if rest == "" {
					err = hintChannel(channel, err)
				}
				return err
			}
			return a.lines(p.URIs)
		},
	}
	f.add(cmd)
	cmd.Flags().IntVarP(&n, "count", "n", 100, "how many of the newest items, when a channel alone is named")
	return cmd
}

// count is a number of things in words.
func count(n int64, what string) string {
	s := strconv.FormatInt(n, 10) + " " + what
	if n != 1 {
		s += "s"
	}
	return s
}
