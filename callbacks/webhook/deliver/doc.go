// Package deliver makes one call of a webhook: it writes the body (spec 03 §2.2, or one of the other payloads), signs it, posts it, follows the redirects
// that keep a POST a POST, and says how it went. It knows nothing of order, repetition and cursors: that is package run.
//
// A call ends within bounds whatever the consumer does: look-up of the name within 5 s, connection within ConnectTimeout, everything after that within the
// webhook's callbackTimeoutSeconds; of an answer 64 KiB are read, for at most a second after its head. Nothing but POSTs leaves here. Proxies of the
// environment are not used: callbackUrl is called as it stands. It speaks HTTP/1.1.
//
// Memory does not depend on the number of items of a period: a body of more than 256 KiB is made twice per call, once for its length and signature, once
// to be sent.
package deliver
