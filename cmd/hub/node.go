package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"timehub/hub/client"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Show and change the nodes of a cluster",
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usage("there is no command 'node %s'; 'hub node --help' lists them", given[0])
			}
			return cmd.Help()
		},
	}
	const here = "A hub takes this from callers on its own machine only: run it there, with --hub http://localhost:PORT."
	cmd.AddCommand(
		a.nodeLs(),
		a.nodeDo("remove HOST:PORT", "Decommission a node: it leaves when the others hold everything", here, (*client.Client).RemoveNode),
		a.nodeDo("return HOST:PORT", "Let a node that was decommissioned be started again", here, (*client.Client).ReturnNode),
		a.nodeClose(here),
		a.nodeLate(),
	)
	return cmd
}

func (a *app) nodeDo(use, short, long string, do func(*client.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: short + ".\n\n" + long, Args: args(1, 1),
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return do(c, cmd.Context(), given[0])
		},
	}
}

func (a *app) nodeClose(here string) *cobra.Command {
	force := false
	cmd := a.nodeDo("close HOST:PORT|ORDINAL.NUMBER", "Close now what a dead node has left open", here+`

With an even number of nodes and spoke.quorum=half, half of the nodes are not enough to know everything, so stable answers wait for the others. --force
closes all the same. Be sure that the node is dead: what it has, or goes on to acknowledge, and the others have not, comes late; 'hub node late' names it.`,
		func(c *client.Client, ctx context.Context, what string) error { return c.CloseNode(ctx, what, force) })
	cmd.Flags().BoolVar(&force, "force", false, "by half of the nodes, if no more answer")
	return cmd
}

func (a *app) nodeLate() *cobra.Command {
	return &cobra.Command{
		Use: "late", Short: "Name the items that came late because a closing was forced", Args: args(0, 0),
		Long: `Name the items in which answers of the nodes may have differed for a while, because an incarnation was closed by force, as the asked node knows them.
WHY is "outside": a node that came back had it, and those who closed had not; "passed": a node that came back had given stable answers beyond it without it;
"given-up": a node that came back had given it up. Followers of a channel that were beyond such an item have not seen it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			rows := [][]string{{"CHANNEL", "KEY", "WHY", "INCARNATION", "NODE", "FOUND"}}
			list := []client.LateItem{}
			for i, err := range c.LateItems(cmd.Context()) {
				if err != nil {
					return err
				}
				list = append(list, i)
				rows = append(rows, []string{i.Channel, i.Key, i.Why, i.Stream, i.Node, i.Found.Format(time.RFC3339)})
			}
			if a.json {
				return a.printJSON(a.stdout, list)
			}
			return a.table(rows)
		},
	}
}

func (a *app) nodeLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the nodes and how each of them stands", Args: args(0, 0),
		Long: `List the nodes: whether each answers and has a session with ZooKeeper, whether its disk holds everything, how far its clock is off and how far its
stable answers stand behind, in milliseconds, and how many items it knows to be late.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			cl, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				if len(cl.Raw) > 0 {
					return a.printJSON(a.stdout, cl.Raw)
				}
				return a.printJSON(a.stdout, map[string][]string{"members": cl.Members})
			}
			return a.table(nodeRows(cl))
		},
	}
}

func nodeRows(cl client.Cluster) [][]string {
	if len(cl.Nodes) == 0 {
		rows := [][]string{{"NODE"}}
		for _, m := range cl.Members {
			rows = append(rows, []string{m})
		}
		return rows
	}
	rows := [][]string{{"NODE", "ANSWERS", "SESSION", "WHOLE", "SKEW", "LAG", "LATE", "STATE"}}
	word := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	for _, n := range cl.Nodes {
		var state []string
		if n.Joining {
			state = append(state, "joining")
		}
		if n.Leaving {
			state = append(state, "leaving")
		}
		if n.Error != "" {
			state = append(state, n.Error)
		}
		if len(state) == 0 {
			state = []string{"member"}
		}
		rows = append(rows, []string{n.Node, word(n.Answers), word(n.Session), word(n.Whole), strconv.FormatInt(n.Skew, 10), strconv.FormatInt(n.Lag, 10), strconv.Itoa(n.Late), strings.Join(state, ", ")})
	}
	for _, left := range cl.Left {
		rows = append(rows, []string{left, "-", "-", "-", "-", "-", "-", "decommissioned"})
	}
	return rows
}
