package scan

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/assay-build/assay/internal/sbom"
)

// treeFindings is what readers say of a tree.
type treeFindings struct {
	t      testing.TB
	all    []*pkg
	errors []string // "path: message"
}

// readTree offers every file of a tree to every reader, in order, as a walk does.
func readTree(t testing.TB, tree fs.FS, all []reader) *treeFindings {
	t.Helper()
	out := &treeFindings{t: t}
	found := make([][]*pkg, len(all))
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		for i, r := range all {
			if !r.wants(p) {
				continue
			}
			got, err := r.read(context.Background(), &file{tree: tree, path: p, maxRead: 64 << 20})
			if err != nil {
				out.errors = append(out.errors, p+": "+err.Error())
			}
			found[i] = append(found[i], got...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		if r.resolve != nil {
			r.resolve(found[i])
		}
		out.all = append(out.all, found[i]...)
	}
	return out
}

func mapTree(files map[string]string) fstest.MapFS {
	tree := fstest.MapFS{}
	for p, content := range files {
		tree[p] = &fstest.MapFile{Data: []byte(content)}
	}
	return tree
}

// readFiles is readTree for files given as text, without errors.
func readFiles(t testing.TB, all []reader, files map[string]string) *treeFindings {
	t.Helper()
	out := readTree(t, mapTree(files), all)
	if len(out.errors) > 0 {
		t.Fatalf("errors: %q", out.errors)
	}
	return out
}

// purls lists what was found, each once.
func (f *treeFindings) purls() []string {
	var list []string
	for _, p := range f.all {
		list = append(list, p.PURL)
	}
	return sortedUnique(list)
}

// lines writes findings one per line: package URL, scope, "!" for direct ones, edges,
// licences and hashes. They are what a reader is for, so most tests compare these lines.
func (f *treeFindings) lines() []string {
	var out []string
	for _, p := range f.all {
		var b strings.Builder
		b.WriteString(strings.TrimPrefix(strings.TrimPrefix(p.PURL, "pkg:npm/"), "pkg:pypi/"))
		if p.Scope != "" {
			b.WriteString(" " + p.Scope)
		}
		if p.direct {
			b.WriteString(" !")
		}
		for _, d := range p.DependsOn {
			b.WriteString(" >" + strings.TrimPrefix(strings.TrimPrefix(d, "pkg:npm/"), "pkg:pypi/"))
		}
		for _, l := range p.Licenses {
			b.WriteString(" (" + l + ")")
		}
		for _, h := range p.Hashes {
			b.WriteString(" " + h.Algorithm + ":" + h.Value[:8])
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return out
}

func (f *treeFindings) want(want ...string) {
	f.t.Helper()
	slices.Sort(want)
	got := f.lines()
	if !slices.Equal(got, want) {
		f.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	for _, p := range f.all {
		if p.path == "" || p.Name == "" || (p.Version == "") == strings.Contains(p.PURL, "@") {
			f.t.Errorf("%s: path %q, name %q, version %q", p.PURL, p.path, p.Name, p.Version)
		}
		if _, err := sbom.ParsePURL(p.PURL); err != nil {
			f.t.Error(err)
		}
	}
}
