// Package longterm lays items out in a bucket, in the names and formats of spec 04 §1 and §4.1–4.3, and finds them again:
//
//	{channel}/{key}                       SINGLE: a zip of meta and payload, whose comment is the payload's size
//	{channel}/large/{key}                 the raw body of a large item
//	{channel}Batch/items/{minute}         BATCH: a zip, one entry an item
//	{channel}Batch/index/{minute}         the keys of that zip as JSON, for others; this hub trusts the zip and never reads it
//
// Nothing else is ever read, listed or deleted, so the bucket can hold other things, and a channel may be called ordersBatch beside orders.
//
// A batch zip is a pure function of its items: sorted by key, entry time = key time, deflate at one fixed level. An item is read out of it by ranges.
// A minute that is written again only grows; every write is conditional and read back before it counts.
//
// The package never takes a damaged object for data: what does not parse, inflate to its length and match its checksum is an error. It knows nothing of
// Spoke, of horizons and of who may see what.
package longterm
