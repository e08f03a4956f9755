package rest

import (
	"context"
	"fmt"
	"iter"
	"net/http"

	"timehub/channel"
	"timehub/channel/longterm"
	"timehub/hub"
)

// zip writes items as a zip while they are read.
func (h *Handlers) zip(w http.ResponseWriter, r *http.Request, items iter.Seq2[channel.TaggedItem, error]) error {
	opt := longterm.ZipOptions{Temp: h.opt.Temp, Folder: h.opt.TempDir}
	if opt.Temp != nil {
		if err := opt.Temp.MkdirAll(opt.Folder); err != nil {
			return spoolError(err)
		}
	}
	w.Header()["Content-Type"] = []string{"application/zip"}
	if r.Method == http.MethodHead {
		return headOnly(w)
	}
	out := longterm.NewZipWriter(w, opt)
	defer out.Abort()
	buf := h.buffer()
	defer h.giveBack(buf)
	for item, err := range items {
		if err == nil {
			err = h.zipItem(r.Context(), out, item, buf)
		}
		if err != nil {
			return fmt.Errorf("write a zip: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write a zip: %w", err)
	}
	return nil
}

// zipItem adds one entry. An item that vanished meanwhile is left out.
func (h *Handlers) zipItem(ctx context.Context, out *longterm.ZipWriter, item channel.TaggedItem, buf *[]byte) error {
	f, err := h.svc.Parse(item.Channel, item.Sealed)
	if err != nil {
		return err
	}
	if !f.Meta.Large && f.Meta.Size >= 0 && f.Meta.Size <= inMemory {
		if *buf, err = h.svc.Body((*buf)[:0], f); err != nil {
			return err
		}
		return out.Add(f.Key, f.Meta.ContentType, *buf)
	}
	body, err := h.svc.Open(ctx, f, 0, -1)
	if hub.Is(err, hub.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer body.Close()
	return out.AddFrom(f.Key, f.Meta.ContentType, body)
}
