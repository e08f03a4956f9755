package channel_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"

	"timehub/channel"
	"timehub/hub"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Documents lie in the bucket for years: what was written once must be read for ever.
func TestDocumentGolden(t *testing.T) {
	ch := hub.Channel{
		Name: "Orders-EU", Owner: "barista-team", Description: "espresso tickets",
		CreationDate: time.Date(2021, 3, 4, 5, 6, 7, 89e6, time.UTC), MutableTime: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		Tags: []string{"cafe", "eu", "historical"}, Storage: hub.Single, Protect: true, AllowZeroBytes: true, SecondaryMetricsReporting: true,
		Since: 1614834367088, Backfilled: 1577836800000,
	}
	old := hub.Channel{
		Name: "orders-eu", CreationDate: time.Date(2021, 3, 1, 0, 0, 0, 0, time.UTC), TTLDays: 30, MaxItems: 0,
		ReplicationSource: "http://other.example/channel/orders", Storage: hub.Batch,
	}
	doc := channel.Document{
		Channel: &ch, Fence: 1614834367088, Remains: []channel.Remains{{Channel: old, Until: 1614834367088}},
		Gone: []string{"2019/12/31/23/59/59/999/aZ3k9Q"},
	}
	got, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const file = "testdata/document.golden"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the document is written as\n%s\nand was\n%s", got, want)
	}
	var back channel.Document
	if err := json.Unmarshal(want, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, doc) {
		t.Errorf("read back: %+v", back)
	}
}
