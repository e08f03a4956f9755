package deliver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"io"
	"strconv"
	"strings"

	"timehub/callbacks/webhook"
)

// secretKey is the key that a secret of Standard Webhooks stands for: its base64 content after the prefix whsec_, as the libraries of that standard read
// it, with or without the prefix. Text that is no base64 is the key itself.
func secretKey(secret string) []byte {
	text := strings.TrimRight(strings.TrimPrefix(secret, "whsec_"), "=")
	if key, err := base64.RawStdEncoding.DecodeString(text); err == nil && len(key) > 0 {
		return key
	}
	return []byte(secret)
}

// signer computes the signatures of one attempt while the body is written to it: one for each secret.
type signer struct {
	macs []hash.Hash
	all  io.Writer
}

// newSigner returns nil for a webhook without a secret.
func newSigner(w *webhook.Webhook, id string, timestamp int64) *signer {
	s := &signer{}
	var out []io.Writer
	for _, secret := range []string{w.Secret, w.PreviousSecret} {
		if secret != "" {
			mac := hmac.New(sha256.New, secretKey(secret))
			s.macs, out = append(s.macs, mac), append(out, mac)
		}
	}
	if len(out) == 0 {
		return nil
	}
	s.all = io.MultiWriter(out...)
	io.WriteString(s.all, id+"."+strconv.FormatInt(timestamp, 10)+".")
	return s
}

func (s *signer) Write(b []byte) (int, error) { return s.all.Write(b) }

// header is the value of webhook-signature.
func (s *signer) header() string {
	var b []byte
	for i, mac := range s.macs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = base64.StdEncoding.AppendEncode(append(b, "v1,"...), mac.Sum(nil))
	}
	return string(b)
}
