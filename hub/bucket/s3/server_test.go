package s3

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"timehub/e2e/s3proc"
	"timehub/hub/bucket"
	"timehub/hub/bucket/buckettest"
)

// without names what a server cannot do; each test of the suite runs against one of them at least.
var without = map[s3proc.Kind][]string{
	// A directory of POSIX cannot hold a name and names below it, which these tests want of a bucket, and the hub does not. And while a blob is replaced,
	// it answers with the old ETag and the new content, or the other way round ("replaced while reading").
	"versitygw": {"replaced while reading", "names", "conditions", "delete", "order", "delimiter", "prefixes", "random listings", "delete against put"},
	// It keeps the meta of the blob before.
	"gofakes3": {"meta"},
}

// start runs a server for the length of a test and returns its URL.
func start(t *testing.T, kind s3proc.Kind) string {
	t.Helper()
	return s3proc.Start(t, kind, "../../..").URL
}

func open(t *testing.T, o Options) *Bucket {
	t.Helper()
	o.Region, o.PathStyle, o.AccessKey, o.SecretKey = "us-east-1", true, s3proc.User, s3proc.Secret
	if o.Bucket == "" {
		o.Bucket = strings.ToLower(fmt.Sprintf("b%d", time.Now().UnixNano()))
	}
	b, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func create(t *testing.T, b *Bucket) *Bucket {
	t.Helper()
	if _, err := b.client.CreateBucket(t.Context(), &awss3.CreateBucketInput{Bucket: &b.opt.Bucket}); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestServers(t *testing.T) {
	for name := range without {
		t.Run(string(name), func(t *testing.T) {
			url := start(t, name)
			buckettest.Run(t, func(t *testing.T) bucket.Bucket { return create(t, open(t, Options{Endpoint: url})) }, without[name]...)
			t.Run("probe", func(t *testing.T) {
				b := create(t, open(t, Options{Endpoint: url}))
				err := b.Probe(t.Context(), ".hub/probe/")
				if err != nil {
					t.Error(err)
				}
				page, err := b.List(t.Context(), bucket.ListOptions{})
				if err != nil || len(page.Blobs) != 0 {
					t.Errorf("left behind: %v, %v", page, err)
				}
				if err := open(t, Options{Endpoint: url, Bucket: "nobody-has-made-this"}).Probe(t.Context(), ".hub/probe/"); err == nil {
					t.Error("a bucket that does not exist was found good")
				}
			})
			t.Run("no parts are left", func(t *testing.T) { testParts(t, create(t, open(t, Options{Endpoint: url}))) })
		})
	}
}

// testParts: a large body arrives whole, and one that fails leaves no upload behind.
func testParts(t *testing.T, b *Bucket) {
	const size = 27<<20 + 17
	sum, err := b.Put(t.Context(), "large/x", &pattern{n: size}, size, bucket.PutOptions{IfAbsent: true, ContentType: "x/y"})
	if err != nil {
		t.Fatal(err)
	}
	version := sum.Version
	if strings.HasSuffix(t.Name(), "gofakes3/no_parts_are_left") {
		version = "" // it tells another ETag afterwards
	}
	body, found, err := b.Get(t.Context(), "large/x", 5<<20-3, 7, version)
	if err != nil || found.Size != size {
		t.Fatalf("%+v, %v", found, err)
	}
	want, have := make([]byte, 7), make([]byte, 7)
	(&pattern{n: size, at: 5<<20 - 3}).Read(want)
	if _, err := body.Read(have); err != nil || string(have) != string(want) {
		t.Errorf("have %x, want %x, %v", have, want, err)
	}
	_ = body.Close()
	if _, err := b.Put(t.Context(), "large/y", &pattern{n: size - 5}, size, bucket.PutOptions{}); err == nil {
		t.Error("a body that is too short was taken")
	}
	ups, err := b.client.ListMultipartUploads(t.Context(), &awss3.ListMultipartUploadsInput{Bucket: aws.String(b.opt.Bucket)})
	if err != nil || len(ups.Uploads) != 0 {
		t.Errorf("%d uploads are left, %v", len(ups.Uploads), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Put(ctx, "large/z", &pattern{n: size}, size, bucket.PutOptions{}); err == nil {
		t.Error("put after the end")
	}
}

// pattern is a body of n bytes, each of which depends on its place.
type pattern struct{ n, at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	n := int(min(int64(len(b)), p.n-p.at))
	for i := range b[:n] {
		at := p.at + int64(i)
		b[i] = byte(at ^ at>>8 ^ at>>17)
	}
	p.at += int64(n)
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
