package main

import (
	"context"
	"strconv"
	"strings"

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
		a.nodeDo("close HOST:PORT|ORDINAL.NUMBER", "Close now what a dead node has left open", here, (*client.Client).CloseNode),
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

func (a *app) nodeLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the nodes and how each of them stands", Args: args(0, 0),
		Long: `List the nodes: whether each answers and has a session with ZooKeeper, whether its disk holds everything, how far its clock is off and how far its
stable answers stand behind, in milliseconds.`,
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
	rows := [][]string{{"NODE", "ANSWERS", "SESSION", "WHOLE", "SKEW", "LAG", "STATE"}}
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
		rows = append(rows, []string{n.Node, word(n.Answers), word(n.Session), word(n.Whole), strconv.FormatInt(n.Skew, 10), strconv.FormatInt(n.Lag, 10), strings.Join(state, ", ")})
	}
	for _, left := range cl.Left {
		rows = append(rows, []string{left, "-", "-", "-", "-", "-", "decommissioned"})
	}
	return rows
}
