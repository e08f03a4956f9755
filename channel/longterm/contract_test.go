package longterm_test

import (
	"timehub/channel"
	"timehub/channel/longterm"
)

var _ channel.LongTerm = (*longterm.Store)(nil)
