package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"timehub/hub"
	"timehub/hub/bucket"
)

// races is how often a conditional put is repeated that the store did not decide.
const races = 5

// Put implements bucket.Bucket. A body of up to 5 MiB is held in memory, a longer one in up to Parallel+1 parts.
func (b *Bucket) Put(ctx context.Context, name string, body io.Reader, size int64, opt bucket.PutOptions) (bucket.Info, error) {
	if err := bucket.CheckName(name); err != nil {
		return bucket.Info{}, err
	}
	if err := opt.Check(); err != nil {
		return bucket.Info{}, err
	}
	room := int64(minPart)
	if size >= 0 {
		room = min(room, size)
	}
	first := make([]byte, room)
	n, err := io.ReadFull(body, first)
	switch {
	case err == nil && size >= 0 && size <= minPart:
		if err := ended(body, name, size); err != nil {
			return bucket.Info{}, err
		}
		return b.putWhole(ctx, name, first, opt)
	case err == nil:
		return b.putParts(ctx, name, first, body, size, opt)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return bucket.Info{}, fmt.Errorf("read the body of %s: %w", name, err)
	case size >= 0:
		return bucket.Info{}, short(name, size)
	}
	return b.putWhole(ctx, name, first[:n], opt)
}

func short(name string, size int64) error {
	return fmt.Errorf("read the body of %s: %w: it has not the %d bytes that were announced", name, io.ErrUnexpectedEOF, size)
}

// ended makes sure that nothing follows what was announced.
func ended(body io.Reader, name string, size int64) error {
	var one [1]byte
	n, err := io.ReadFull(body, one[:])
	switch {
	case n > 0:
		return short(name, size)
	case errors.Is(err, io.EOF):
		return nil
	}
	return fmt.Errorf("read the body of %s: %w", name, err)
}

func (b *Bucket) putWhole(ctx context.Context, name string, data []byte, opt bucket.PutOptions) (bucket.Info, error) {
	in := &awss3.PutObjectInput{
		Bucket: &b.opt.Bucket, Key: &name, ContentLength: aws.Int64(int64(len(data))), ContentType: text(opt.ContentType), Metadata: meta(opt.Meta),
		IfMatch: text(opt.IfMatch),
	}
	if opt.IfAbsent {
		in.IfNoneMatch = aws.String("*")
	}
	if b.opt.Encrypt {
		in.ServerSideEncryption = types.ServerSideEncryptionAes256
	}
	for try := 1; ; try++ {
		in.Body = bytes.NewReader(data)
		out, err := b.client.PutObject(ctx, in)
		if err == nil {
			return info(name, int64(len(data)), out.ETag, opt.Meta), nil
		}
		if !raced(err) || try == races {
			return bucket.Info{}, unmet(opt, failed(ctx, "store", name, err))
		}
		if err := pause(ctx, try); err != nil {
			return bucket.Info{}, err
		}
	}
}

// unmet: a put under If-Match of a name that is not there is answered by some with 404.
func unmet(opt bucket.PutOptions, err error) error {
	if opt.IfMatch != "" && hub.Is(err, hub.NotFound) {
		return hub.E(hub.Conflict, "%v", err).Because(err)
	}
	return err
}

func pause(ctx context.Context, try int) error {
	if !hub.Sleep(ctx, time.Duration(try*try)*20*time.Millisecond) {
		return context.Cause(ctx)
	}
	return nil
}

func info(name string, size int64, etag *string, m map[string]string) bucket.Info {
	i := bucket.Info{Name: name, Size: size, Version: aws.ToString(etag), Modified: time.Now().UTC(), Meta: map[string]string{}}
	for k, v := range m {
		i.Meta[strings.ToLower(k)] = v
	}
	return i
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// meta makes values of headers: other characters than those of ASCII travel as RFC 2047 has it, which is how S3 hands them out too.
func meta(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = mime.QEncoding.Encode("UTF-8", v)
	}
	return out
}

// readMeta is meta, read back. It is never nil: this store keeps meta.
func readMeta(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	var dec mime.WordDecoder
	for k, v := range m {
		if plain, err := dec.DecodeHeader(v); err == nil {
			v = plain
		}
		out[strings.ToLower(k)] = v
	}
	return out
}
