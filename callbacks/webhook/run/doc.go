// Package run follows channels and delivers: each webhook that is stored and not paused runs on one node (coord.Lead), in one loop that reads its channel
// by a feed and hands what is due to up to parallelCalls deliveries (spec 03 §2, §3; HOUSE §5).
//
// What is promised:
//
//   - At least once. The cursor, the finished keys above it, what is in flight with its failed attempts, and the error lines are one State. It changes in
//     one step in memory, and is written with all other cursors of the node once per tick of 100 ms, and when a loop ends. After a crash, what was in flight
//     or was finished within the last tick is called again, and nothing else.
//   - Order. With parallelCalls 1, the next item is called when the one before is done. With more, items are begun in the order of their keys; with orderBy,
//     items that have the same value are called one after the other, in the order of their keys, and those with different values at the same time. A value
//     that is stuck holds up others only when 1,000 items wait.
//   - Repetition. A failed item is called again after a pause that doubles up to maxWaitMinutes, or after what the consumer asks for by Retry-After, until
//     it is given up for its age or the number of attempts. 410 pauses the webhook.
//
// orderBy is a jq expression over the JSON body of an item; its first output counts, of a long one the first KiB. Definitions, loops and * are refused
// (CheckOrderBy), and one evaluation has two seconds. Or it is header:Name, of which there is Content-Type alone: an item has no other header. Items of
// which the expression fails, or gives nothing or null, items that are no JSON, large ones and those that are gone make one group among themselves.
// Periods (SECOND, MINUTE) have no values: orderBy means nothing there.
//
// A loop that has nothing to do waits in its feed, without a timer. Workers, timers and lists exist only while there is something to deliver.
package run
