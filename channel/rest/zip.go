package rest

import (
	"iter"
	"net/http"

	"timehub/channel"
	"timehub/hub"
)

// zip writes items as a zip while they are read.
func (h *Handlers) zip(http.ResponseWriter, *http.Request, iter.Seq2[channel.TaggedItem, error]) error {
	return hub.E(hub.Unavailable, "zip answers are not there yet: ask for multipart")
}
