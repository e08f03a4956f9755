package web

import (
	"net/http"

	"timehub/hub"
)

// StatusCanceled is logged, and never seen, when the client went away.
const StatusCanceled = 499

// StatusShuttingDown is the documented status of /health while the hub stops.
const StatusShuttingDown = 520

// statuses is THE table: no other place chooses a status for an error (HOUSE §7).
var statuses = [...]int{
	hub.Internal:        http.StatusInternalServerError,
	hub.Invalid:         http.StatusBadRequest,
	hub.Unauthenticated: http.StatusUnauthorized,
	hub.Forbidden:       http.StatusForbidden,
	hub.NotFound:        http.StatusNotFound,
	hub.NotAllowed:      http.StatusMethodNotAllowed,
	hub.Conflict:        http.StatusConflict,
	hub.NotAcceptable:   http.StatusNotAcceptable,
	hub.Unsupported:     http.StatusUnsupportedMediaType,
	hub.TooLarge:        http.StatusRequestEntityTooLarge,
	hub.TooMany:         http.StatusTooManyRequests,
	hub.Unavailable:     http.StatusServiceUnavailable,
	hub.Timeout:         http.StatusGatewayTimeout,
	hub.Full:            http.StatusInsufficientStorage,
	hub.SlowBody:        http.StatusRequestTimeout,
	hub.RangeInvalid:    http.StatusRequestedRangeNotSatisfiable,
	hub.ShuttingDown:    StatusShuttingDown,
	hub.Starting:        http.StatusInternalServerError,
	hub.Canceled:        StatusCanceled,
}

// Status is the status that answers an error of kind k.
func Status(k hub.Kind) int {
	if int(k) < len(statuses) {
		return statuses[k]
	}
	return http.StatusInternalServerError
}

// KindOf is the inverse of Status, for those who read answers of a hub: an error crosses a hop and arrives as the same kind. Statuses that no kind
// has are Invalid (4xx), Unavailable (502) or Internal; so are 1xx to 3xx, which are no errors.
func KindOf(status int) hub.Kind {
	for k, s := range statuses {
		if s == status {
			return hub.Kind(k) // the first: 500 is Internal, not Starting
		}
	}
	switch {
	case status == http.StatusBadGateway:
		return hub.Unavailable
	case status >= 400 && status < 500:
		return hub.Invalid
	}
	return hub.Internal
}
