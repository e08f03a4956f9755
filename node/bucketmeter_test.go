package node

import (
	"io"
	"strings"
	"testing"

	"timehub/hub/bucket"
	"timehub/hub/bucket/buckettest"
	"timehub/hub/bucket/mem"
	"timehub/hub/metrics"
	"timehub/hub/metrics/prom"
)

func TestMeteredBucket(t *testing.T) {
	r := prom.New()
	b := meterBucket(mem.New(mem.Options{}), r)
	for _, name := range []string{"beans/2021/03/04/05/06/07/089/abcdef", "beans/large/2021/03/04/05/06/07/089/abcdef", "beansBatch/items/2021/03/04/05/06", "ordersBatch/2021/x", ".hub/channels/beans.json"} {
		if _, err := b.Put(t.Context(), name, strings.NewReader("12345"), 5, bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		body, _, err := b.Get(t.Context(), name, 0, -1, "")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, body)
		body.Close()
	}
	if _, err := b.Stat(t.Context(), "none"); err == nil {
		t.Error("what is not there is found")
	}
	w := &recorder{header: map[string][]string{}}
	r.Handler().ServeHTTP(w, request(t, "/metrics"))
	for _, want := range []string{
		`hub_s3_put_bytes_total{channel="beans",type="single"} 5`, `hub_s3_put_bytes_total{channel="beans",type="large"} 5`,
		`hub_s3_put_bytes_total{channel="beans",type="batch"} 5`, `hub_s3_put_bytes_total{channel="ordersBatch",type="single"} 5`,
		`hub_s3_put_seconds_count{type="single"} 2`, `hub_s3_get_seconds_count{type="batch"} 1`,
	} {
		if !strings.Contains(w.body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(w.body.String(), "hub_bucket_errors_total{") || strings.Contains(w.body.String(), ".hub") {
		t.Error("an answer counts as a failure, or a document as an item")
	}
}

// A decorator passes the suite, too.
func TestMeteredBucketIsABucket(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket { return meterBucket(mem.New(mem.Options{}), metrics.Discard) })
}
