package hub

import "io"

// Item is immutable bytes under a key.
type Item struct {
	Key         Key
	ContentType string // as sent; "" when the client sent none
	Creator     string // who wrote it; "" while nobody asks
	Size        int64  // bytes of the body, uncompressed; -1 when unknown (data of the original)
	Digest      uint32 // CRC-32C of the body
	Large       bool   // the body lies in long-term storage on its own (spec 01 §1.6)
	Body        io.ReadCloser
}

// Sealed is an item as stores keep it: hub/seal's envelope under a key. Stores never look inside. Data must not be changed by anyone.
type Sealed struct {
	Key  Key
	Data []byte
}
