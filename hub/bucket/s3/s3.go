// Package s3 is a bucket in S3, or in a store that speaks its protocol.
//
// It owns the policy of talking to such a store, and nothing else: which calls are repeated and for how long (the SDK's standard retryer, on what the
// store calls temporary), that checksums are sent only where the protocol demands them (others than AWS refuse the rest), when a connection that is silent
// counts as dead, in which parts a large body travels, how a listing is made to begin behind a rolled up prefix, and what the store's errors mean. A read
// that breaks off is taken up where it broke, under If-Match, so that nobody gets halves of two blobs.
//
// Versions are ETags. Conditions are If-None-Match and If-Match, which not every store honours: Probe finds out, and a cluster does not start without them.
//
// Blobs are as large as S3 lets them be. Lifecycle rules (bucket.Expirer) are those of the bucket; rules of others are left alone.
package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"timehub/hub/bucket"
)

var (
	_ bucket.Bucket  = (*Bucket)(nil)
	_ bucket.Expirer = (*Bucket)(nil)
)

// Options are for New.
type Options struct {
	Bucket    string // required; it must exist
	Region    string // "": of the SDK's default chain, or us-east-1
	Endpoint  string // "": AWS. A host name, or a URL
	PathStyle bool   // address the bucket by path, as most stores other than AWS want it
	Encrypt   bool   // ask for AES-256 on the server with each put

	// AccessKey and SecretKey, if set, are used instead of the SDK's default chain (environment, shared files, roles).
	AccessKey, SecretKey string

	Attempts       int           // of one call, the first included; 0: 5
	MaxPause       time.Duration // the longest between two attempts; 0: 5 s
	ConnectTimeout time.Duration // 0: 10 s
	SilenceTimeout time.Duration // of a connection from which, or to which, no byte moves; 0: 30 s
	MaxConnections int           // at the same time; 0: 50
	MaxPart        int64         // bytes of a part of a large body; 0: 40 MiB. At least 5 MiB
	Parallel       int           // parts of one body that travel at the same time; 0: 3
	PageSize       int           // names of a listing asked for at once; 0: 1,000

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: net.Dialer
	TLS  *tls.Config                                                          // nil: the system's roots
}

const (
	minPart = 5 << 20 // what S3 asks of every part but the last
	region  = "us-east-1"
)

// Bucket is a bucket.Bucket and a bucket.Expirer. It is safe for concurrent use.
type Bucket struct {
	opt    Options
	client *awss3.Client
}

// New reads credentials as configured; it does not talk to the store. Probe does.
func New(ctx context.Context, opt Options) (*Bucket, error) {
	if opt.Bucket == "" {
		return nil, errors.New("a bucket in S3 needs a name")
	}
	if opt.MaxPart > 0 && opt.MaxPart < minPart {
		return nil, fmt.Errorf("parts of %d bytes: S3 takes none of less than %d", opt.MaxPart, minPart)
	}
	fill(&opt)
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(opt.shape)),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = opt.Attempts, opt.MaxPause })
		}),
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
		config.WithDefaultRegion(region),
	}
	if opt.Region != "" {
		load = append(load, config.WithRegion(opt.Region))
	}
	if opt.AccessKey != "" {
		load = append(load, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(opt.AccessKey, opt.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("read the settings of S3: %w", err)
	}
	client := awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		o.UsePathStyle = opt.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true
		if e := opt.endpoint(); e != "" {
			o.BaseEndpoint = aws.String(e)
		}
	})
	return &Bucket{opt: opt, client: client}, nil
}

func fill(o *Options) {
	if o.Attempts <= 0 {
		o.Attempts = 5
	}
	if o.MaxPause <= 0 {
		o.MaxPause = 5 * time.Second
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 10 * time.Second
	}
	if o.SilenceTimeout <= 0 {
		o.SilenceTimeout = 30 * time.Second
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 50
	}
	if o.MaxPart <= 0 {
		o.MaxPart = 40 << 20
	}
	if o.Parallel <= 0 {
		o.Parallel = 3
	}
	if o.PageSize <= 0 || o.PageSize > bucket.MaxPage {
		o.PageSize = bucket.MaxPage
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
}

// endpoint is the base URL; a bare host name is one of https.
func (o *Options) endpoint() string {
	if o.Endpoint == "" || strings.Contains(o.Endpoint, "://") {
		return o.Endpoint
	}
	return "https://" + o.Endpoint
}

// shape makes the SDK's transport ours. What the environment says of certificates and proxies stays.
func (o *Options) shape(t *http.Transport) {
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := o.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &talkative{Conn: c, limit: o.SilenceTimeout}, nil
	}
	if o.TLS != nil {
		t.TLSClientConfig = o.TLS
	}
	t.TLSHandshakeTimeout, t.ResponseHeaderTimeout = o.ConnectTimeout, o.SilenceTimeout
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost = o.MaxConnections, o.MaxConnections, o.MaxConnections
	t.IdleConnTimeout, t.DisableCompression = 20*time.Second, true
}

// talkative is a connection that fails when no byte has moved for a while. A connection that waits in the pool is read too, so it is closed by this as well.
type talkative struct {
	net.Conn
	limit time.Duration
}

func (c *talkative) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *talkative) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
