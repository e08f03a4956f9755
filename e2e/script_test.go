package e2e

import (
	"path/filepath"
	"testing"

	"timehub/e2e/apiscript"
)

// TestScripts runs the public contract, testdata/api/*.txt, against real hub processes. Scripts without a `# hub:` line share one hub.
// One script alone: go test ./e2e -run TestScripts/NAME
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/api/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("only %d scripts: %v", len(files), err)
	}
	var shared *apiscript.Runner
	for _, file := range files {
		s, err := apiscript.Read(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if !s.Own && shared == nil {
			shared = apiscript.New(apiscript.Options{Addr: start(t).Addr})
		}
		t.Run(s.Name, func(t *testing.T) {
			runner := shared
			if s.Own {
				runner = apiscript.New(apiscript.Options{Addr: start(t, s.Flags...).Addr})
			}
			for _, err := range runner.Run(s) {
				t.Error(err)
			}
		})
	}
}
