package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"timehub/node"
)

type propertyLine struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	Default  string `json:"default"`
	Origin   string `json:"origin"`
	Values   string `json:"values"`
	Meaning  string `json:"meaning"`
	NoEffect string `json:"noEffect,omitempty"`
}

func (a *app) configCommand() *cobra.Command {
	var f sourceFlags
	var markdown bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show every property with its value, default, origin and meaning",
		Long:  "Show every property that 'hub serve' would have with the same flags and environment. Secrets are redacted.",
		Args:  args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if markdown {
				_, err := fmt.Fprint(a.stdout, node.Markdown())
				return err
			}
			cfg, warnings, err := f.load(a)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				fmt.Fprintln(a.stderr, "warning:", w)
			}
			return a.printConfig(cfg)
		},
	}
	f.add(a, cmd)
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the page docs/configuration.md")
	return cmd
}

func (a *app) printConfig(cfg node.Config) error {
	all := cfg.All()
	if a.json {
		lines := make([]propertyLine, len(all))
		for i, s := range all {
			lines[i] = propertyLine{s.Name, s.Value, s.Default, s.Origin, s.Range(), s.Meaning, s.NoEffect}
		}
		return a.printJSON(a.stdout, lines)
	}
	rows := [][]string{{"PROPERTY", "VALUE", "DEFAULT", "ORIGIN", "MEANING"}}
	for _, s := range all {
		meaning := s.Meaning
		if e := s.Effect(); e != "" {
			meaning += " (" + e + ")"
		}
		rows = append(rows, []string{s.Name, orDash(s.Value), orDash(s.Default), s.Origin, meaning})
	}
	return a.table(rows)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
