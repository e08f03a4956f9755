package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"timehub/hub"
	"timehub/hub/client"
)

const maxBatchBytes = 8 << 20

// progress is the content of a progress file: how far an import has come. It is written before and after each request.
type progress struct {
	Hub        string `json:"hub"`
	Channel    string `json:"channel"`
	Source     string `json:"source"`     // SHA-256 of the file
	Expression string `json:"expression"` // of --items
	Stored     int64  `json:"stored"`     // items that the hub has acknowledged
	Pending    int64  `json:"pending"`    // items of a request that was sent and whose answer is not known
	Last       string `json:"last,omitempty"`
	Done       bool   `json:"done"`

	path string // "": nothing is written
}

// bulk appends the records in their order.
func (m *importer) bulk(ctx context.Context, records iter.Seq2[importRecord, error]) (done summary, err error) {
	p, err := m.openProgress()
	if err != nil {
		return done, err
	}
	if p.Done {
		return done, usage("%s says that this file was imported into %s already; --again imports it once more", p.path, m.channel)
	}
	done.Skipped = p.Stored
	if p.Pending > 0 {
		fmt.Fprintf(m.app.stderr, "hub: an earlier run was interrupted: items %d to %d were sent without an answer; they are sent again and may be there twice\n",
			p.Stored+1, p.Stored+p.Pending)
	}
	var batch []client.Part
	size, n := 0, int64(0)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		keys, err := m.send(ctx, p, batch)
		if err != nil {
			return err
		}
		done.Items += int64(len(batch))
		done.Bytes += int64(size)
		if done.First == "" && len(keys) > 0 {
			done.First = keys[0].String()
		}
		done.Last = p.Last
		batch, size = batch[:0], 0
		return nil
	}
	for rec, err := range records {
		if err != nil {
			return done, err
		}
		if n++; n <= p.Stored {
			continue
		}
		batch = append(batch, client.Part{ContentType: m.contentType, Body: rec.body})
		if size += len(rec.body); len(batch) >= m.batch || size >= maxBatchBytes {
			if err := flush(); err != nil {
				return done, err
			}
		}
	}
	if err := flush(); err != nil {
		return done, err
	}
	p.Done = true
	return done, p.write()
}

// send makes one request, with a note of it before and after.
func (m *importer) send(ctx context.Context, p *progress, batch []client.Part) ([]hub.Key, error) {
	p.Pending = int64(len(batch))
	if err := p.write(); err != nil {
		return nil, err
	}
	keys, err := m.client.InsertBulk(ctx, m.channel, slices.Values(batch))
	if err != nil {
		first, last := p.Stored+1, p.Stored+p.Pending
		if exitCode(ctx, err) == exitRefused || hub.Is(err, hub.NotFound) || hub.Is(err, hub.Full) { // surely not stored
			p.Pending = 0
			return nil, errors.Join(fmt.Errorf("items %d to %d were refused: %w", first, last, err), p.write())
		}
		again := ""
		if p.path != "" {
			again = "; the same command goes on from there"
		}
		return nil, fmt.Errorf("items %d to %d were sent and not acknowledged%s: %w", first, last, again, err)
	}
	p.Stored, p.Pending = p.Stored+p.Pending, 0
	if len(keys) > 0 {
		p.Last = keys[len(keys)-1].String()
	}
	return keys, p.write()
}

// openProgress finds out how far an earlier run has come.
func (m *importer) openProgress() (*progress, error) {
	p := &progress{Hub: m.client.URL(), Channel: m.channel, Expression: m.items, path: m.progress}
	if m.file == "" {
		if m.progress != "" {
			return nil, usage("--progress needs a file to import: what comes on standard input cannot be read again")
		}
		return p, nil
	}
	if p.path == "" {
		p.path = m.file + "." + m.channel + ".progress"
	}
	var err error
	if p.Source, err = digestOf(m.file); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(p.path)
	if m.again || errors.Is(err, os.ErrNotExist) {
		return p, p.write()
	}
	if err != nil {
		return nil, coded{fmt.Errorf("read the progress file: %w", err), exitUsage}
	}
	var before progress
	if err := json.Unmarshal(text, &before); err != nil {
		return nil, usage("%s is no progress file: remove it, or name another with --progress", p.path)
	}
	if before.Hub != p.Hub || before.Channel != p.Channel || before.Source != p.Source || before.Expression != p.Expression {
		return nil, usage("%s belongs to another import (%s into %s at %s, or the file has changed since): remove it, name another with --progress, or use --again",
			p.path, cmp.Or(before.Expression, "whole records"), before.Channel, before.Hub)
	}
	before.path = p.path
	return &before, nil
}

func digestOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", coded{err, exitUsage}
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", coded{err, exitUsage}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// write replaces the file: the old text or the new one is there, whatever happens.
func (p *progress) write() error {
	if p.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = os.WriteFile(p.path+".new", append(text, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(p.path+".new", p.path)
	}
	if err != nil {
		return coded{fmt.Errorf("write the progress file: %w", err), exitUsage}
	}
	return nil
}
