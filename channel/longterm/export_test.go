package longterm

import (
	"context"
	"errors"
	"io"
	"time"

	"timehub/hub"
)

// ReadAt reads a zip that lies anywhere as if it were a minute's: the number of its keys and one item.
func ReadAt(s *Store, from io.ReaderAt, size int64, key hub.Key) (keys int, item hub.Sealed, err error) {
	r := readerAt{from, size}
	ctx := context.Background()
	d, err := loadDirectory(ctx, r, key.Time().Truncate(time.Minute))
	if err != nil {
		return 0, item, err
	}
	e, ok, err := d.find(ctx, r, key)
	if err != nil || !ok {
		return d.count, item, errors.Join(err, errors.New("not found"))
	}
	for item, err := range s.entries(ctx, r, []entry{e}, &scratch{}) {
		return d.count, item, err
	}
	return d.count, item, errors.New("nothing")
}

type readerAt struct {
	io.ReaderAt
	size int64
}

func (r readerAt) length() int64 { return r.size }

func (r readerAt) ranged(_ context.Context, offset, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(r, offset, n)), nil
}
