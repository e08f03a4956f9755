package hub

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestKindOf(t *testing.T) {
	inner := errors.New("disk broke")
	err := fmt.Errorf("write: %w", E(Full, "no space").Because(inner))
	if KindOf(err) != Full || !errors.Is(err, inner) || !Is(err, Full) || Is(nil, Internal) {
		t.Errorf("%v: %v", err, KindOf(err))
	}
	for err, want := range map[error]Kind{inner: Internal, context.Canceled: Canceled, context.DeadlineExceeded: Timeout} {
		if got := KindOf(fmt.Errorf("x: %w", err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if s := k.String(); s == "" || seen[s] {
			t.Errorf("kind %d is called %q", k, s)
		} else {
			seen[s] = true
		}
	}
}

func TestQueryWords(t *testing.T) {
	for in, want := range map[string]Order{"": Ascending, "asc": Ascending, "d": Descending, "DESC": Descending, "up": Ascending} {
		if ParseOrder(in) != want {
			t.Errorf("order %q", in)
		}
	}
	for i, name := range tierNames {
		if tier, err := ParseTier(name); err != nil || tier != Tier(i) {
			t.Errorf("%s: %v %v", name, tier, err)
		}
	}
	for _, bad := range []string{"all", "LONG", " ALL"} {
		if _, err := ParseTier(bad); !Is(err, Invalid) {
			t.Errorf("location %q: %v", bad, err)
		}
		if _, err := ParseEpoch(bad); !Is(err, Invalid) {
			t.Errorf("epoch %q: %v", bad, err)
		}
	}
}

func TestOldestAllowed(t *testing.T) {
	now := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	birthday := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		ch   Channel
		want time.Time
	}{
		"forever":    {Channel{KeepForever: true}, birthday},
		"30 days":    {Channel{TTLDays: 30}, now.AddDate(0, 0, -30)},
		"very long":  {Channel{TTLDays: 1 << 40}, birthday},
		"historical": {Channel{MutableTime: birthday.AddDate(-50, 0, 0)}, birthday.AddDate(-50, 0, 0).Add(time.Millisecond)},
		"made anew":  {Channel{TTLDays: 30, Since: now.UnixMilli()}, now},
	} {
		if got := c.ch.OldestAllowed(now, birthday); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
