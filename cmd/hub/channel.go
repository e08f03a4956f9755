package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"timehub/hub/client"
)

func (a *app) channelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "channel",
		Short: "List, make, show, change and remove channels",
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return usage("there is no command 'channel %s'; 'hub channel --help' lists them", given[0])
			}
			return cmd.Help()
		},
	}
	const members = `Members are written name=value: owner=me ttlDays=30 tags=a,b storage=SINGLE. A value of tags is a list with commas, other values are
JSON where they are valid JSON (true, 30), text otherwise.`
	cmd.AddCommand(
		a.channelLs(),
		a.channelDo("create NAME [MEMBER=VALUE…]", "Make a channel; it must not exist", members, -1,
			func(cmd *cobra.Command, c *client.Client, name string, m map[string]any) (client.Channel, error) {
				m["name"] = name
				return c.CreateChannel(cmd.Context(), m)
			}),
		a.channelDo("get NAME", "Show the configuration of a channel", "", 1,
			func(cmd *cobra.Command, c *client.Client, name string, _ map[string]any) (client.Channel, error) {
				return c.Channel(cmd.Context(), name)
			}),
		a.channelDo("set NAME MEMBER=VALUE…", "Change the configuration of a channel", members, -1,
			func(cmd *cobra.Command, c *client.Client, name string, m map[string]any) (client.Channel, error) {
				if len(m) == 0 {
					return client.Channel{}, usage("nothing to set: %s", cmd.UseLine())
				}
				return c.PatchChannel(cmd.Context(), name, m)
			}),
		a.channelRm(),
	)
	return cmd
}

func (a *app) channelLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the channels", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			names, err := c.Channels(cmd.Context())
			if err != nil {
				return err
			}
			return a.lines(names)
		},
	}
}

// channelDo is a command that ends with the document of a channel.
func (a *app) channelDo(use, short, long string, high int,
	do func(cmd *cobra.Command, c *client.Client, name string, members map[string]any) (client.Channel, error)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: strings.TrimSpace(short + ".\n\n" + long), Args: args(1, high), ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			members, err := parseMembers(given[1:])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			ch, err := do(cmd, c, given[0], members)
			if err != nil {
				return err
			}
			return a.printDocument(ch.Document)
		},
	}
}

func (a *app) channelRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"delete"}, Short: "Remove channels with all their items", Args: args(1, -1), ValidArgsFunction: a.channelNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			var wrong []error
			for _, name := range names {
				if err := c.DeleteChannel(cmd.Context(), name); err != nil {
					wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
				}
			}
			if a.json && len(wrong) == 0 {
				return a.printJSON(a.stdout, map[string]any{"removed": names})
			}
			return errors.Join(wrong...)
		},
	}
}

// Members that are text whatever they look like.
const textMembers = " owner description replicationSource storage mutableTime "

// allMembers are what a person can set. The hub ignores other members, so that a slip of the pen would pass unnoticed.
const allMembers = textMembers + "ttlDays maxItems keepForever tags protect allowZeroBytes secondaryMetricsReporting "

func parseMembers(given []string) (map[string]any, error) {
	members := map[string]any{}
	for _, g := range given {
		name, value, ok := strings.Cut(g, "=")
		if !ok || name == "" {
			return nil, usage("%q: want member=value", g)
		}
		if all := strings.Fields(allMembers); !slices.Contains(all, name) {
			return nil, usage("there is no member %q: there are %s", name, strings.Join(all, ", "))
		}
		var v any = value
		var raw json.RawMessage
		switch {
		case strings.Contains(textMembers, " "+name+" "):
		case name == "tags" && !strings.HasPrefix(value, "["):
			v = strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
		case json.Unmarshal([]byte(value), &raw) == nil:
			v = raw
		}
		members[name] = v
	}
	return members, nil
}
