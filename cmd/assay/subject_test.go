package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// fakeClock moves when told to.
type fakeClock struct{ t time.Time }

func (c *fakeClock) now() time.Time { return c.t }
func (c *fakeClock) advance()       { c.t = c.t.Add(time.Second) }

func TestParseSubject(t *testing.T) {
	d := digestOf("x")
	tests := []struct {
		arg  string
		want subjectArg
		ok   bool
	}{
		{"dist/app", subjectArg{path: "dist/app"}, true},
		{"app", subjectArg{path: "app"}, true},
		{"-", subjectArg{path: "-"}, true},
		{"a@b", subjectArg{path: "a@b"}, true},
		{"sha256:" + d, subjectArg{sha256: d}, true},
		{"app@sha256:" + d, subjectArg{name: "app", sha256: d}, true},
		{"localhost:5000/acme/app:v1@sha256:" + d, subjectArg{name: "localhost:5000/acme/app:v1", sha256: d}, true},
		{"a@sha256:b@sha256:" + d, subjectArg{name: "a@sha256:b", sha256: d}, true},
		{"./sha256:" + d, subjectArg{path: "./sha256:" + d}, true},
		{"./a@sha256:" + d, subjectArg{path: "./a@sha256:" + d}, true},
		{"/x/a@sha256:" + d, subjectArg{path: "/x/a@sha256:" + d}, true},
		{"", subjectArg{}, false},
		{"sha256:", subjectArg{}, false},
		{"sha256:" + d[1:], subjectArg{}, false},
		{"sha256:" + d + "0", subjectArg{}, false},
		{"sha256:" + strings.ToUpper(d), subjectArg{}, false},
		{"app@sha256:" + d[1:], subjectArg{}, false},
		{"app@sha256:" + d + " ", subjectArg{}, false},
		{"@sha256:" + d, subjectArg{}, false},
		{"../app@sha256:" + d, subjectArg{}, false},
		{"a\x1bb@sha256:" + d, subjectArg{}, false},
	}
	for _, tt := range tests {
		got, err := parseSubject(tt.arg)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.arg, got, err, tt.want)
		}
		if err != nil && exitCode(commandError{err}) != exitUsage {
			t.Errorf("%q: %v is not wrong use", tt.arg, err)
		}
	}
}

// FuzzParseSubject: an argument is a path, unchanged, or a whole digest with
// perhaps a good name, from which the argument can be built again.
func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{"a", "sha256:" + digestOf(""), "a@sha256:" + digestOf(""), "@sha256:", "sha256:@sha256:", "./sha256:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		s, err := parseSubject(arg)
		switch {
		case err != nil:
			if s != (subjectArg{}) {
				t.Fatalf("%q: %+v besides an error", arg, s)
			}
		case s.path != "":
			if s.path != arg || s.sha256 != "" || s.name != "" || strings.HasPrefix(arg, "sha256:") {
				t.Fatalf("%q: %+v", arg, s)
			}
		default:
			again := "sha256:" + s.sha256
			if s.name != "" {
				again = s.name + "@" + again
			}
			if again != arg || len(s.sha256) != 64 || (s.name != "" && attest.CheckSubjectName(s.name) != nil) {
				t.Fatalf("%q: %+v", arg, s)
			}
		}
	})
}

func TestCollectArtifacts(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"dist/app", "dist/sub/lib", "dist/app.sigstore.json", "other/app", "only.sigstore.json", "links/.keep"} {
		write(t, dir, name, name)
	}
	for link, target := range map[string]string{"dist/link": "app", "dist/out": "..", "link": "dist/app"} {
		if err := os.Symlink(target, filepath.FromSlash(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("empty", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("nothing/but/dirs", 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		paths   []string
		names   []string
		skipped int
		text    string
	}{
		{paths: []string{"dist/app"}, names: []string{"app"}},
		{paths: []string{"./dist/../dist/app"}, names: []string{"app"}},
		{paths: []string{"link"}, names: []string{"link"}},
		{paths: []string{"only.sigstore.json"}, names: []string{"only.sigstore.json"}},
		{paths: []string{"dist"}, names: []string{"app", "sub/lib"}, skipped: 3},
		{paths: []string{"dist/"}, names: []string{"app", "sub/lib"}, skipped: 3},
		{paths: []string{"dist/sub", "link"}, names: []string{"lib", "link"}},
		{paths: []string{"dist/app", "other/app"}, text: `would both be named "app"`},
		{paths: []string{"dist", "dist/app"}, text: `would both be named "app"`},
		{paths: []string{"dist/app", "dist/app"}, text: `would both be named "app"`},
		{paths: []string{"absent"}, text: "no such file"},
		{paths: []string{""}, text: "no such file"},
		{paths: []string{"empty"}, text: "no regular file to attest"},
		{paths: []string{"nothing"}, text: "no regular file to attest"},
		{paths: []string{os.DevNull}, text: "not a regular file"},
	}
	for _, tt := range tests {
		artifacts, skipped, err := collectArtifacts(tt.paths)
		if tt.text != "" {
			if err == nil || !strings.Contains(err.Error(), tt.text) || exitCode(commandError{err}) != exitUsage {
				t.Errorf("%q: error %v, want %q", tt.paths, err, tt.text)
			}
			continue
		}
		var names []string
		for i := range artifacts {
			names = append(names, artifacts[i].Name)
		}
		if err != nil || !slices.Equal(names, tt.names) || len(skipped) != tt.skipped {
			t.Errorf("%q: %q, skipped %q, %v; want %q", tt.paths, names, skipped, err, tt.names)
		}
	}
}

func TestCollectTooMany(t *testing.T) {
	dir := t.TempDir()
	for i := range client.MaxSubjects {
		write(t, dir, fmt.Sprint(i), "")
	}
	if artifacts, _, err := collectArtifacts([]string{dir}); err != nil || len(artifacts) != client.MaxSubjects {
		t.Fatalf("%d artifacts, %v", len(artifacts), err)
	}
	write(t, dir, "one-more", "")
	_, _, err := collectArtifacts([]string{dir})
	var wrongUse *usageError
	if !errors.As(err, &wrongUse) || !strings.Contains(err.Error(), "1024") {
		t.Errorf("error %v, want one that names the limit", err)
	}
}

// TestBundleWriterStaysInside: a link in the bundle directory leads no write out.
func TestBundleWriterStaysInside(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	job := &attestJob{artifacts: []client.Artifact{{Name: "sub/app", Path: write(t, dir, "app", "x")}}}
	w, err := planBundles(filepath.Join(dir, "out"), job)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "out", "sub")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.write(&assayv1.Attestation{Bundle: []byte("{}")}); err == nil {
		t.Error("wrote through a link that leads out")
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("something was written outside: %v", left)
	}
}
