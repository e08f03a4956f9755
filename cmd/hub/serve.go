package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"timehub/node"
)

// sourceFlags are the flags that say where properties come from; serve and config share them.
type sourceFlags struct {
	file, data, listen string
	set                []string
}

func (f *sourceFlags) add(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", a.env("HUB_CONFIG", ""), "properties file, in Java's style (environment HUB_CONFIG)")
	flags.StringArrayVar(&f.set, "set", nil, "set a property: name=value; may be repeated")
	flags.StringVar(&f.data, "data", "", "data directory (property data.dir; default ./hub-data)")
	flags.StringVar(&f.listen, "listen", "", "address to listen at (properties http.bind_ip and http.bind_port; default 127.0.0.1:8080)")
}

// load gathers the configuration; warnings are for the log.
func (f *sourceFlags) load(a *app) (node.Config, []string, error) {
	cfg, warnings, err := node.Load(node.Sources{File: f.file, Environ: a.environ, Set: f.set, Data: f.data, Listen: f.listen})
	if err != nil {
		return cfg, nil, coded{err, exitUsage}
	}
	return cfg, warnings, nil
}

func (a *app) serveCommand() *cobra.Command {
	var f sourceFlags
	var format, level string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a hub on this machine",
		Long: `Run a hub. Without flags it listens at 127.0.0.1:8080 and keeps its data in ./hub-data.

Properties come from the file of --config, from the environment (HUB_ and the name in upper case), from --set, --data and --listen, in rising
order of force; 'hub config' shows them all. SIGTERM and SIGINT stop the hub in order; a second one stops it at once.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := a.logger(format, level)
			if err != nil {
				return err
			}
			cfg, warnings, err := f.load(a)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				log.Warn(w)
			}
			clock, err := systemClock(a.environ)
			if err != nil {
				return err
			}
			n, err := node.New(cfg, node.Env{Log: log, Version: ownVersion(), Clock: clock})
			if err != nil {
				return coded{err, exitData}
			}
			tuning, stop := context.WithCancel(cmd.Context())
			var wait sync.WaitGroup
			wait.Go(func() { tuneHeap(tuning, a.env) })
			err = n.Run(cmd.Context())
			stop()
			wait.Wait()
			if err != nil {
				return fmt.Errorf("the hub has stopped: %w", err)
			}
			return nil
		},
	}
	f.add(a, cmd)
	cmd.Flags().StringVar(&format, "log-format", a.env("HUB_LOG_FORMAT", "text"), "text or json (environment HUB_LOG_FORMAT)")
	cmd.Flags().StringVar(&level, "log-level", a.env("HUB_LOG_LEVEL", "info"), "debug, info, warn or error (environment HUB_LOG_LEVEL)")
	return cmd
}

// logger writes to stderr.
func (a *app) logger(format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usage("--log-level is %q: it must be debug, info, warn or error", level)
	}
	opt := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, opt)), nil
	}
	return nil, coded{errors.New("--log-format is " + format + ": it must be text or json"), exitUsage}
}
