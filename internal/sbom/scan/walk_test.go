package scan

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/sbom"
)

// scanWith scans with readers of a test.
func scanWith(ctx context.Context, t *testing.T, data []byte, l Limits, rs ...reader) (*sbom.Inventory, error) {
	t.Helper()
	dir := t.TempDir()
	req := Request{Artifact: bytes.NewReader(data), Size: int64(len(data)), Name: "a.tar", TempDir: dir}
	inv, err := newWalk(ctx, req, l, rs).run(req)
	if err == nil {
		checkScan(t, inv, dir)
	}
	return inv, err
}

// lines is a reader of files that list package URLs, "direct" before those the artifact asks for.
func lines(name string) reader {
	return reader{
		name:  name,
		wants: func(p string) bool { return strings.HasSuffix(p, ".list") },
		read: func(_ context.Context, f *file) ([]*pkg, error) {
			data, err := f.bytes()
			if err != nil {
				return nil, err
			}
			var found []*pkg
			for line := range strings.Lines(string(data)) {
				words := strings.Fields(line)
				p, err := sbom.ParsePURL(words[0])
				if err != nil {
					return found, err
				}
				found = append(found, &pkg{Component: sbom.Component{PURL: p.String(), Name: p.Name, Version: p.Version}, needs: words[1:]})
			}
			return found, nil
		},
		resolve: func(found []*pkg) {
			for _, k := range found {
				k.DependsOn = append(k.DependsOn, k.needs...)
			}
		},
	}
}

func TestReadersFailures(t *testing.T) {
	t.Parallel()
	const good = "pkg:npm/good@1.0.0"
	tests := map[string]struct {
		read func(ctx context.Context, f *file) ([]*pkg, error)
		want sbom.ReasonCode
	}{
		"panic": {func(context.Context, *file) ([]*pkg, error) { panic("of a reader") }, sbom.ReasonFailed},
		"index": {func(_ context.Context, f *file) ([]*pkg, error) { return []*pkg{nil}[:len(f.path)-1], nil }, sbom.ReasonFailed},
		"error": {func(context.Context, *file) ([]*pkg, error) { return nil, errors.New("bad") }, sbom.ReasonMalformed},
		"large": {func(_ context.Context, f *file) ([]*pkg, error) { f.maxRead = 1; _, err := f.bytes(); return nil, err }, sbom.ReasonFileSize},
		"other": {func(context.Context, *file) ([]*pkg, error) { return nil, errUnsupported }, sbom.ReasonUnsupported},
		"named": {func(context.Context, *file) ([]*pkg, error) { return []*pkg{{}}, nil }, sbom.ReasonMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broken := reader{name: "test/broken", wants: func(p string) bool { return p == "broken" }, read: tt.read}
			inv, err := scanWith(t.Context(), t, tarOf(t, inMemory{"a.list": good, "broken": "what"}), DefaultLimits(), broken, lines("test/lines"))
			if err != nil {
				t.Fatal(err)
			}
			if len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != tt.want || inv.Incomplete[0].Path != "broken" {
				t.Errorf("incomplete: %v, want %s at broken", inv.Incomplete, tt.want)
			}
			component(t, inv, good)
		})
	}
}

// What was found before a file breaks is kept.
func TestReaderKeepsWhatItFound(t *testing.T) {
	t.Parallel()
	inv, err := scanWith(t.Context(), t, tarOf(t, inMemory{"a.list": "pkg:npm/a@1\nnonsense\npkg:npm/b@1"}), DefaultLimits(), lines("test/lines"))
	if err != nil {
		t.Fatal(err)
	}
	if got := purlsOf(inv, "npm"); !slices.Equal(got, []string{"pkg:npm/a@1"}) {
		t.Errorf("found %q", got)
	}
	if len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonMalformed || inv.Complete() {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
}

func TestTimeAndCancel(t *testing.T) {
	t.Parallel()
	data := tarOf(t, inMemory{"a.list": "pkg:npm/a@1", "slow": "x", "z.list": "pkg:npm/z@1"})
	slow := func(ctx context.Context) reader {
		return reader{name: "test/slow", wants: func(p string) bool { return p == "slow" }, read: func(context.Context, *file) ([]*pkg, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	inv, err := scanWith(ctx, t, data, DefaultLimits(), slow(ctx), lines("test/lines"))
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonTime {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
	if got := purlsOf(inv, "npm"); !slices.Equal(got, []string{"pkg:npm/a@1"}) {
		t.Errorf("found %q; want what was found before", got)
	}

	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := scanWith(gone, t, data, DefaultLimits(), lines("test/lines")); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that gave up gets %v", err)
	}
}

func TestComponentsLimit(t *testing.T) {
	t.Parallel()
	l := DefaultLimits()
	l.MaxComponents = 2
	inv, err := scanWith(t.Context(), t, tarOf(t, inMemory{"a.list": "pkg:npm/c@1\npkg:npm/b@1\npkg:npm/a@1"}), l, lines("test/lines"))
	if err != nil {
		t.Fatal(err)
	}
	if got := purlsOf(inv, "npm"); !slices.Equal(got, []string{"pkg:npm/b@1", "pkg:npm/c@1"}) {
		t.Errorf("found %q; want the first two", got)
	}
	if len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonComponents {
		t.Errorf("incomplete: %v", inv.Incomplete)
	}
	// A flood of findings ends the walk of a tree even where all are one package.
	flood := strings.Repeat("pkg:npm/a@1\n", maxFindings*l.MaxComponents+1)
	inv, err = scanWith(t.Context(), t, tarOf(t, inMemory{"a.list": flood, "b.list": "pkg:npm/b@1"}), l, lines("test/lines"))
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Components) != 1 || len(inv.Incomplete) != 1 || inv.Incomplete[0].Code != sbom.ReasonComponents {
		t.Errorf("%d components; incomplete: %v", len(inv.Components), inv.Incomplete)
	}
}

func TestOpaque(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{"elf": "\x7fELF" + strings.Repeat("\x00", 64), "text": "nothing of note", "empty": ""} {
		inv := scanned(t, "artifact", []byte(data))
		if len(inv.Components) != 0 || inv.Complete() {
			t.Errorf("%s: %d components, complete %v", name, len(inv.Components), inv.Complete())
		}
		if !slices.ContainsFunc(inv.Incomplete, func(r sbom.Reason) bool { return r.Code == sbom.ReasonOpaque }) {
			t.Errorf("%s: incomplete: %v", name, inv.Incomplete)
		}
		if want := map[string]string{"elf": "elf"}[name]; inv.Format != want {
			t.Errorf("%s: format %q, want %q", name, inv.Format, want)
		}
	}
}

// Archives in archives are walked with their place in the path, their hash is known, and
// the tree around a file is only its own.
func TestNestedArchives(t *testing.T) {
	t.Parallel()
	inner := tarOf(t, inMemory{"in.list": "pkg:npm/inner@1"})
	middle := tarOf(t, inMemory{"deep/inner.tar": string(inner), "m.list": "pkg:npm/middle@1"})
	outer := tarOf(t, inMemory{"lib/middle.tar": string(middle), "o.list": "pkg:npm/outer@1"})
	var asked []string
	whole := reader{name: "test/whole", archive: func(_ context.Context, f *file) ([]*pkg, error) {
		sums, err := f.from.sums()
		if err != nil {
			return nil, err
		}
		asked = append(asked, f.path)
		purl, err := sbom.NewPURL("generic", "", strings.TrimSuffix(f.path, ".tar"), "1")
		return []*pkg{{Component: sbom.Component{PURL: purl, Name: f.path, Hashes: sums}}}, err
	}}
	inv, err := scanWith(t.Context(), t, outer, DefaultLimits(), lines("test/lines"), whole)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.tar", "middle.tar", "inner.tar"}; !slices.Equal(asked, want) {
		t.Errorf("asked of archives %q, want %q", asked, want)
	}
	for purl, location := range map[string]string{
		"pkg:npm/outer@1":      "o.list",
		"pkg:npm/middle@1":     "lib/middle.tar!/m.list",
		"pkg:npm/inner@1":      "lib/middle.tar!/deep/inner.tar!/in.list",
		"pkg:generic/inner@1":  "lib/middle.tar!/deep/inner.tar",
		"pkg:generic/middle@1": "lib/middle.tar",
	} {
		if got := component(t, inv, purl).Locations; !slices.Equal(got, []string{location}) {
			t.Errorf("%s is at %q, want %q", purl, got, location)
		}
	}
	for purl, data := range map[string][]byte{"pkg:generic/a@1": outer, "pkg:generic/inner@1": inner} {
		if got, want := component(t, inv, purl).Hashes, hashesOf(data); !slices.Equal(got, want) {
			t.Errorf("%s: hashes %v, want %v", purl, got, want)
		}
	}
}

// Findings of one package are put together, and edges that lead nowhere go.
func TestMerge(t *testing.T) {
	t.Parallel()
	m := newMerger(10)
	add := func(purl, scope, path string, more func(*pkg)) {
		k := &pkg{Component: sbom.Component{PURL: purl, Name: "x", Scope: scope}, path: path}
		if more != nil {
			more(k)
		}
		if !m.add(k) {
			t.Fatalf("%s was not taken", purl)
		}
	}
	add("pkg:npm/a@1", "excluded", "z", func(k *pkg) { k.Licenses = []string{"MIT"}; k.DependsOn = []string{"pkg:npm/b@1", "pkg:npm/none@1"} })
	add("pkg:npm/a@1", "", "y", func(k *pkg) {
		k.Licenses = []string{"ISC", "MIT"}
		k.DependsOn = []string{"pkg:npm/a@1", "pkg:npm/b@1"}
	})
	add("pkg:npm/b@1", "optional", "y", func(k *pkg) { k.direct = true })
	for _, purl := range []string{"", strings.Repeat("p", sbom.MaxPURLBytes+1)} {
		if m.add(&pkg{Component: sbom.Component{PURL: purl, Name: "x"}}) {
			t.Errorf("%.20q was taken", purl)
		}
	}
	inv := &sbom.Inventory{}
	m.finish(inv)
	want := &sbom.Inventory{
		Components: []sbom.Component{
			{PURL: "pkg:npm/a@1", Name: "x", Licenses: []string{"ISC", "MIT"}, DependsOn: []string{"pkg:npm/b@1"}, Locations: []string{"y", "z"}},
			{PURL: "pkg:npm/b@1", Name: "x", Scope: "optional", Locations: []string{"y"}},
		},
		Root: []string{"pkg:npm/a@1", "pkg:npm/b@1"},
	}
	if diff := cmp.Diff(want, inv); diff != "" {
		t.Error(diff)
	}
}

// From the root every component can be reached, whatever circles there are; what is
// in the root without having asked for it is needed by nobody outside of its circle.
func TestRootReachesAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.Map(rapid.IntRange(0, 12), func(i int) string { return "pkg:npm/p" + string(rune('a'+i)) + "@1" })
		m := newMerger(100)
		for _, purl := range rapid.SliceOfNDistinct(name, 1, 12, rapid.ID).Draw(t, "packages") {
			m.add(&pkg{
				Component: sbom.Component{PURL: purl, Name: "x", DependsOn: rapid.SliceOfN(name, 0, 4).Draw(t, "needs")},
				direct:    rapid.IntRange(0, 9).Draw(t, "direct") == 0,
			})
		}
		inv := &sbom.Inventory{}
		m.finish(inv)
		if err := inv.Validate(); err != nil {
			t.Fatal(err)
		}
		g := graph{at: map[string]int{}, components: inv.Components, reached: make([]bool, len(inv.Components))}
		for i, c := range inv.Components {
			g.at[c.PURL] = i
		}
		for _, p := range inv.Root {
			g.reach(g.at[p])
		}
		if slices.Contains(g.reached, false) {
			t.Fatalf("the root %q does not lead to all of %v", inv.Root, inv.Components)
		}
	})
}

// TestDeterminism scans the same bytes again and again, on one core and on two.
func TestDeterminism(t *testing.T) { //nolint:paralleltest // it changes GOMAXPROCS
	inputs := map[string][]byte{"root.tar": tarOf(t, syntheticRoot())}
	if root := debianRootOrNone(t); root != nil {
		inputs["debian.tar"] = tarOf(t, root)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for name, data := range inputs {
		var first *sbom.Inventory
		for i := range 2 * rounds {
			runtime.GOMAXPROCS(1 + i%2)
			inv := scanned(t, name, data)
			if first == nil {
				first = inv
			}
			if diff := cmp.Diff(first, inv); diff != "" {
				t.Fatalf("%s: scan %d differs:\n%s", name, i, diff)
			}
		}
		t.Logf("%s: %d scans, one result of %d components", name, 2*rounds, len(first.Components))
	}
}

func TestBaseName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"a/b/package-lock.json": "package-lock.json", `C:\x\yarn.lock`: "yarn.lock", "": "artifact", "..": "artifact", "/": "artifact", "a/": "a",
	} {
		if got := baseName(name); got != want {
			t.Errorf("baseName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]bool{
		"a/b.jar": true, "x.tar.gz": true, "x.tgz": true, "doc/changelog.gz": false, "a.js": false, "lib/x.WAR": true,
		"pool/bash.deb": true, "bin/ls": false, "x.tar.br": true,
	} {
		if got := archiveName(p); got != want {
			t.Errorf("archiveName(%q) = %v", p, got)
		}
	}
	for head, want := range map[string]string{
		"\x7fELF": "elf", "MZ\x90\x00": "pe", "\xcf\xfa\xed\xfe": "mach-o", "\xca\xfe\xba\xbe\x00\x00\x00\x02": "mach-o",
		"\xca\xfe\xba\xbe\x00\x00\x00\x3d": "", "#!/bin/sh": "", "": "",
	} {
		if got := nativeFormat([]byte(head)); got != want {
			t.Errorf("nativeFormat(%q) = %q, want %q", head, got, want)
		}
	}
}

// FuzzScan feeds anything to the whole: no panic of our own, and a valid inventory.
func FuzzScan(f *testing.F) {
	f.Add("root.tar", tarOf(f, syntheticRoot()))
	f.Add("package-lock.json", []byte(`{"lockfileVersion":3,"packages":{"node_modules/a":{"version":"1.0.0"}}}`))
	f.Add("a", []byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		inv := scanned(t, name, data)
		for _, r := range inv.Incomplete {
			if r.Code == sbom.ReasonFailed {
				t.Errorf("a reader panics: %v", r)
			}
		}
	})
}

// debianRootOrNone is this machine's packages, where it is a Debian.
func debianRootOrNone(t *testing.T) inMemory {
	if _, err := debianFile(dpkgStatus); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return debianRoot(t)
}
