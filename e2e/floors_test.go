package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// module is the path of this module; the table below writes its packages without it.
const module = "timehub/"

// everywhere is what each room but hub itself may import.
const everywhere = "hub hub/metrics golang.org/x/sync golang.org/x/time"

// compress is one driver with several packages; three rooms use it.
const compress = "github.com/klauspost/compress"

// floors is the table of HOUSE.md §2: which package may directly import which, besides the standard library. A word without a dot is a package of
// this module (the package itself, not what lies below it, unless it ends in /...), a word with a dot is a module of others. A new arrow is a change
// of this table, to be seen in review. Test files are free, except that they too may not import upwards past e2e.
var floors = map[string]string{
	"hub":                   "",
	"hub/seal":              compress,
	"hub/disk":              "golang.org/x/sys",
	"hub/disk/disktest":     "hub/disk",
	"hub/bucket":            "",
	"hub/bucket/dir":        "hub/bucket hub/disk",
	"hub/bucket/mem":        "hub/bucket",
	"hub/bucket/s3":         "hub/bucket github.com/aws/aws-sdk-go-v2 github.com/aws/smithy-go",
	"hub/bucket/buckettest": "hub/bucket",
	"hub/coord":             "",
	"hub/coord/local":       "hub/coord go.etcd.io/bbolt",
	"hub/coord/zk":          "hub/coord github.com/go-zookeeper/zk",
	"hub/coord/coordtest":   "hub/coord",
	"hub/catalog":           "hub/bucket hub/coord",
	"hub/web":               compress,
	"hub/metrics":           "",
	"hub/metrics/prom":      "github.com/prometheus/client_golang",
	"hub/metrics/datadog":   "github.com/DataDog/datadog-go/v5",
	"hub/client":            "hub/web github.com/cenkalti/backoff/v5",
	"hub/auth":              "hub/web",

	"spoke/log":        "hub/disk spoke/log/format",
	"spoke/log/format": "",
	"spoke/roster":     "",
	"spoke/frame":      "spoke/log spoke/log/format",
	"spoke":            "spoke/log spoke/frame spoke/roster hub/disk hub/web hub/coord",
	"internalapi":      "hub/web hub/coord hub/bucket hub/catalog hub/client hub/auth",

	"channel":             "hub/seal hub/catalog hub/coord",
	"channel/longterm":    "hub/bucket hub/seal hub/disk " + compress,
	"channel/channeltest": "channel",
	"channel/feed":        "hub/coord",
	"channel/archive":     "channel channel/longterm channel/feed hub/coord",
	"channel/rest":        "channel channel/longterm hub/web hub/seal hub/disk",

	"callbacks":                  "",
	"callbacks/webhook":          "channel/feed hub/web hub/coord hub/catalog",
	"callbacks/webhook/attempts": "hub/disk",
	"callbacks/webhook/deliver":  "hub/web callbacks/webhook",
	"callbacks/webhook/run":      "callbacks/webhook callbacks/webhook/deliver callbacks/webhook/attempts channel/feed hub/coord hub/seal github.com/itchyny/gojq",
	"callbacks/webhook/rest":     "callbacks/webhook callbacks/webhook/attempts hub/web",
	"callbacks/stream":           "channel channel/feed hub/web hub/coord github.com/gorilla/websocket",
	"callbacks/replicate":        "channel/feed channel hub/web hub/coord hub/catalog hub/client",

	"node": "hub/... spoke/... channel/... callbacks/... internalapi spoke channel github.com/magiconair/properties",

	"cmd/hub": "node hub/client callbacks/webhook callbacks/webhook/deliver github.com/spf13/cobra github.com/itchyny/gojq github.com/schollz/progressbar/v3 golang.org/x/term",
}

// free are the rooms that may import anything; nothing outside tests may import them.
var free = []string{"e2e", "bench"}

// worlds are the rooms of e2e that tests of any room may use: disks, networks and servers to stand on.
var worlds = []string{"e2e/memdisk", "e2e/memnet", "e2e/zkproc", "e2e/s3proc"}

// drivers are modules of others that exactly one package may know.
var drivers = []string{
	"github.com/aws/aws-sdk-go-v2", "github.com/go-zookeeper/zk", "github.com/gorilla/websocket", "github.com/DataDog/datadog-go/v5",
	"github.com/prometheus/client_golang", "go.etcd.io/bbolt", "github.com/magiconair/properties", "github.com/cenkalti/backoff/v5",
}

// Size budgets of HOUSE.md §11. Generated and test files are exempt.
const (
	maxFileLines     = 500
	maxFuncLines     = 80
	maxInterface     = 7
	shyPackageNames  = " utils util common helpers helper types misc base shared "
	maxPackageLines  = 2500 // a reason to think, no breach
	wantPackageWords = 8
)

type pkg struct {
	ImportPath, Name, Dir                                string
	GoFiles, Imports                                     []string
	TestGoFiles, XTestGoFiles, TestImports, XTestImports []string
}

func (p pkg) room() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, strings.TrimSuffix(module, "/")), "/")
}

// packages asks the go tool, so that the test sees exactly what the compiler sees.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,Imports,TestGoFiles,XTestGoFiles,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list names only %d packages", len(all))
	}
	return all
}

func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".") && !strings.HasPrefix(imp, module)
}

// allowed reports whether one word of the table covers an import.
func allowed(words, imp string) bool {
	local := strings.HasPrefix(imp, module)
	name := strings.TrimPrefix(imp, module)
	for _, w := range strings.Fields(words) {
		switch {
		case local && strings.HasSuffix(w, "/..."):
			if strings.HasPrefix(name+"/", strings.TrimSuffix(w, "...")) {
				return true
			}
		case local:
			if name == w {
				return true
			}
		case name == w || strings.HasPrefix(name, w+"/"):
			return true
		}
	}
	return false
}

func isFree(room string) bool {
	for _, f := range free {
		if room == f || strings.HasPrefix(room, f+"/") {
			return true
		}
	}
	return false
}

// TestFloors compares the direct imports of every package with the table.
func TestFloors(t *testing.T) {
	for _, p := range packages(t) {
		room := p.room()
		if isFree(room) || room == "" && len(p.GoFiles) == 0 {
			continue
		}
		words, known := floors[room]
		if !known {
			t.Errorf("package %s has no row in the table of floors: say what it may import (HOUSE.md §2)", room)
			continue
		}
		if room != "hub" {
			words += " " + everywhere
		}
		for _, imp := range p.Imports {
			if standard(imp) || allowed(words, imp) {
				continue
			}
			t.Errorf("%s imports %s: the table of floors does not allow it", room, strings.TrimPrefix(imp, module))
		}
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			if name := strings.TrimPrefix(imp, module); strings.HasPrefix(imp, module) && isFree(name) && !slices.Contains(worlds, name) {
				t.Errorf("tests of %s import %s: e2e and bench stand above everything", room, name)
			}
		}
	}
}

// TestDrivers: what knows somebody else's protocol is one package.
func TestDrivers(t *testing.T) {
	users := map[string][]string{}
	for _, p := range packages(t) {
		if isFree(p.room()) {
			continue
		}
		for _, d := range drivers {
			for _, imp := range p.Imports {
				if imp == d || strings.HasPrefix(imp, d+"/") {
					users[d] = append(users[d], p.room())
					break
				}
			}
		}
	}
	for d, rooms := range users {
		if len(rooms) > 1 {
			t.Errorf("%s is imported by %v: a driver has one home", d, rooms)
		}
	}
}

// TestFloorsTable: the checks above can fail.
func TestFloorsTable(t *testing.T) {
	for _, c := range []struct {
		words, imp string
		want       bool
	}{
		{"hub/disk", "timehub/hub/disk", true},
		{"hub/disk", "timehub/hub/disk/disktest", false},
		{"hub/disk", "timehub/hub/diskette", false},
		{"hub/...", "timehub/hub/disk/disktest", true},
		{"spoke/...", "timehub/spoke/log", true},
		{compress, "github.com/klauspost/compress/zstd", true},
		{compress, "github.com/klauspost/compressor", false},
		{"golang.org/x/sync", "golang.org/x/sync/errgroup", true},
		{"", "github.com/spf13/cobra", false},
	} {
		if got := allowed(c.words, c.imp); got != c.want {
			t.Errorf("allowed(%q, %q) = %v", c.words, c.imp, got)
		}
	}
	for imp, want := range map[string]bool{"net/http": true, "golang.org/x/sys": false, "timehub/hub": false, "iter": true} {
		if standard(imp) != want {
			t.Errorf("standard(%q) is %v", imp, !want)
		}
	}
	for src, want := range map[string]int{
		"package p\nvar x = sync.Pool{}":                                     1,
		"package p\nvar c = &http.Client{}":                                  1,
		"package p\nvar mu sync.Mutex":                                       1,
		"package p\nvar n int\nfunc f() { n++ }":                             1,
		"package p\nvar m = map[string]int{}\nfunc f() { m[\"a\"] = 1 }":     1,
		"package p\nvar m = map[string]int{}\nfunc f() { delete(m, \"a\") }": 1,
		"package p\nvar n int\nfunc f() { n := 0; n++ }":                     0,
		"package p\nvar e = errors.New(\"x\")":                               0,
		"package p\nvar t = [...]int{1, 2}\nfunc f() int { return t[0] }":    0,
		"package p\nfunc init() {}":                                          1,
		"package p\ntype T struct{}\nfunc (T) init() {}":                     0,
		"package p\nvar p atomic.Int64":                                      1,
		"package p\nvar p = time.NewTicker(1)":                               1,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "p.go", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := globals(fset, []*ast.File{f}); len(got) != want {
			t.Errorf("globals of %q: %v", src, got)
		}
	}
}

// TestSizes holds the budgets of HOUSE.md §11: files, functions, interfaces, package comments, names, init and package-level state.
func TestSizes(t *testing.T) {
	for _, p := range packages(t) {
		if strings.Contains(shyPackageNames, " "+p.Name+" ") {
			t.Errorf("%s: a package named %s says nothing", p.room(), p.Name)
		}
		fset := token.NewFileSet()
		var files []*ast.File
		comment, lines := 0, 0
		for _, name := range p.GoFiles {
			full := filepath.Join(p.Dir, name)
			src, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(fset, full, src, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.IsGenerated(f) {
				continue
			}
			files = append(files, f)
			comment += len(strings.Fields(f.Doc.Text()))
			n := bytes.Count(src, []byte("\n"))
			lines += n
			if n > maxFileLines {
				t.Errorf("%s/%s has %d lines: the budget is %d", p.room(), name, n, maxFileLines)
			}
			for _, s := range oversized(fset, f) {
				t.Errorf("%s/%s: %s", p.room(), name, s)
			}
		}
		if len(files) == 0 {
			continue
		}
		if comment < wantPackageWords {
			t.Errorf("%s has no package comment worth the name: say what it owns and what it never does", p.room())
		}
		if lines > maxPackageLines {
			t.Logf("%s has %d lines: think again about its shape (HOUSE.md §11)", p.room(), lines)
		}
		for _, s := range globals(fset, files) {
			t.Errorf("%s: %s", p.room(), s)
		}
	}
}

// oversized lists functions and interfaces beyond their budget.
func oversized(fset *token.FileSet, f *ast.File) []string {
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if lines := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1; lines > maxFuncLines {
				found = append(found, fmt.Sprintf("function %s has %d lines: the budget is %d", n.Name.Name, lines, maxFuncLines))
			}
		case *ast.TypeSpec:
			it, ok := n.Type.(*ast.InterfaceType)
			if !ok {
				break
			}
			methods := 0
			for _, m := range it.Methods.List {
				methods += max(1, len(m.Names))
			}
			if methods > maxInterface {
				found = append(found, fmt.Sprintf("interface %s has %d methods: the budget is %d", n.Name.Name, methods, maxInterface))
			}
		}
		return true
	})
	return found
}

// stateful are types and constructors that have no business at package level: their state outlives every owner, and in a synctest bubble they kill
// the process (HOUSE.md §9).
var stateful = []string{
	"sync.", "atomic.", "http.Client", "http.Transport", "http.DefaultClient", "http.DefaultTransport", "zstd.", "gzip.New", "flate.New",
	"time.NewTicker", "time.NewTimer", "time.Tick", "rand.New", "make(chan", "bytes.Buffer", "bufio.", "context.With", "prometheus.New", "expvar.",
}

// globals lists init functions and variables at package level that can change: those of a stateful kind, and those that something assigns to.
// Sentinels, tables and `var _ I = T{}` are fine.
func globals(fset *token.FileSet, files []*ast.File) []string {
	var found []string
	vars := map[string]*ast.ValueSpec{}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					found = append(found, "has an init function")
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, s := range d.Specs {
					vs := s.(*ast.ValueSpec)
					for _, n := range vs.Names {
						if n.Name != "_" {
							vars[n.Name] = vs
						}
					}
				}
			}
		}
	}
	for name, vs := range vars {
		if kind := statefulKind(fset, vs); kind != "" {
			found = append(found, fmt.Sprintf("package variable %s is a %s: give it to an owner", name, kind))
		}
	}
	for _, f := range files {
		for _, name := range assigned(f, vars) {
			found = append(found, fmt.Sprintf("package variable %s is changed by the program: give it to an owner", name))
		}
	}
	sort.Strings(found)
	return found
}

// statefulKind looks at the type and the value of a declaration, not into functions that the value calls or holds.
func statefulKind(fset *token.FileSet, vs *ast.ValueSpec) string {
	kind := ""
	look := func(n ast.Node) bool {
		if _, isFunc := n.(*ast.FuncLit); isFunc {
			return false
		}
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		switch e.(type) {
		case *ast.SelectorExpr, *ast.CallExpr:
			var b bytes.Buffer
			printer.Fprint(&b, fset, e)
			for _, s := range stateful {
				if strings.HasPrefix(b.String(), s) {
					kind = strings.TrimSuffix(b.String(), "{}")
				}
			}
		}
		return true
	}
	if vs.Type != nil {
		if _, isFunc := vs.Type.(*ast.FuncType); !isFunc {
			ast.Inspect(vs.Type, look)
		}
	}
	for _, v := range vs.Values {
		ast.Inspect(v, look)
	}
	return kind
}

// assigned lists the package variables that a file changes: by assignment, ++, delete, or handing out their address.
func assigned(f *ast.File, vars map[string]*ast.ValueSpec) []string {
	var found []string
	changed := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.ParenExpr:
				e = x.X
				continue
			case *ast.StarExpr:
				e = x.X
				continue
			case *ast.Ident:
				if vs, ok := vars[x.Name]; ok && (x.Obj == nil || x.Obj.Decl == vs) {
					found = append(found, x.Name)
				}
			}
			return
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, l := range n.Lhs {
					changed(l)
				}
			}
		case *ast.IncDecStmt:
			changed(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				if _, lit := n.X.(*ast.CompositeLit); !lit {
					changed(n.X)
				}
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
				changed(n.Args[0])
			}
		}
		return true
	})
	return found
}

// TestHouse: the top level is what HOUSE.md names, nothing else.
func TestHouse(t *testing.T) {
	rooms := " hub spoke channel callbacks internalapi node cmd e2e bench docker docs scripts "
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && !strings.HasPrefix(name, ".") && !strings.Contains(rooms, " "+name+" ") && !ignored(name) {
			t.Errorf("%s is no room of this house (HOUSE.md §1)", path.Clean(name))
		}
	}
}

// ignored are folders that runs leave behind and git does not know.
func ignored(name string) bool {
	return name == "bin" || name == "dist" || name == "hub-data"
}
