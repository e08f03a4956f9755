package node

import (
	"strings"
	"testing"

	"timehub/hub"
)

// TestEndpoint: what cannot be the address of an object store is said at the start, not waited for.
func TestEndpoint(t *testing.T) {
	for endpoint, fine := range map[string]bool{
		"s3.example": true, "s3.example:9000": true, "https://s3.example": true, "http://[::1]:9000": true, "ftp://s3.example": false, "http://a b": false, "http://": false,
	} {
		cfg, _, err := Load(Sources{Set: []string{"storage.type=s3", "s3.endpoint=" + endpoint}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&Node{cfg: cfg}).openS3(t.Context())
		if wrong := hub.Is(err, hub.Invalid) && strings.Contains(err.Error(), "s3.endpoint"); wrong == fine {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
