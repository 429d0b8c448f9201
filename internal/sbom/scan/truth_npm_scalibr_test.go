package scan

import (
	"context"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/bunlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/packagelockjson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/pnpmlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/yarnlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/pdmlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/pipfilelock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/poetrylock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/pylock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/uvlock"
)

// scalibrDir is where the module cache has scalibr, with the files of its own tests.
func scalibrDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/osv-scalibr").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "extractor", "filesystem", "language")
}

// Every package with a version that scalibr finds in the locks of its own tests is found
// here too, but for the differences that are meant.
func TestLocksAgainstScalibr(t *testing.T) {
	t.Parallel()
	root := scalibrDir(t)
	tests := []struct {
		dir, base string
		open      func(*cpb.PluginConfig) (filesystem.Extractor, error)
		readers   []reader
		// apart: members of the project, which are no packages that it uses.
		apart []string
	}{
		{dir: "javascript/packagelockjson", base: "package-lock.json", open: packagelockjson.New, readers: npmReaders(), apart: []string{
			"workspaces-object.v3.json: @my-monorepo/pkg-b@2.0.0",
			"workspaces.v3.json: @my-monorepo/client@1.0.0",
			"workspaces.v3.json: @my-monorepo/excluded@1.0.0",
			"workspaces.v3.json: @my-monorepo/pkg-a@1.0.0",
		}},
		{dir: "javascript/yarnlock", base: "yarn.lock", open: yarnlock.New, readers: npmReaders(), apart: []string{
			"exclude-root.v2.lock: @ws/ansi-regex@0.0.0-use.local", // a member of the project
			"files.v1.lock: etag@1.8.0",                            // link:
		}},
		{dir: "javascript/pnpmlock", base: "pnpm-lock.yaml", open: pnpmlock.New, readers: npmReaders()},
		{dir: "javascript/bunlock", base: "bun.lock", open: bunlock.New, readers: npmReaders()},
		{dir: "python/poetrylock", base: "poetry.lock", open: poetrylock.New, readers: pythonReaders()},
		{dir: "python/uvlock", base: "uv.lock", open: uvlock.New, readers: pythonReaders()},
		{dir: "python/pdmlock", base: "pdm.lock", open: pdmlock.New, readers: pythonReaders()},
		{dir: "python/pipfilelock", base: "Pipfile.lock", open: pipfilelock.New, readers: pythonReaders()},
		{dir: "python/pylock", base: "pylock.toml", open: pylock.New, readers: pythonReaders()},
	}
	files, packages := 0, 0
	for _, test := range tests {
		extractor, err := test.open(&cpb.PluginConfig{})
		if err != nil {
			t.Fatal(err)
		}
		names, _ := filepath.Glob(filepath.Join(root, test.dir, "testdata", "*"))
		for _, file := range names {
			data, err := os.ReadFile(file)
			if err != nil {
				continue // a folder
			}
			tree := fstest.MapFS{test.base: {Data: data}}
			in, _ := tree.Open(test.base)
			info, _ := in.Stat()
			theirs, err := extractor.Extract(context.Background(), &filesystem.ScanInput{FS: tree, Path: test.base, Reader: in, Info: info})
			if err != nil {
				continue
			}
			files++
			ours := readTree(t, tree, test.readers)
			have, missed := map[string]bool{}, map[string]bool{}
			for _, p := range ours.all {
				full := p.Name
				if p.Group != "" {
					full = p.Group + "/" + p.Name
				}
				have[full+"@"+p.Version] = true
				missed[full+"@"+p.Version] = true
			}
			for _, p := range theirs.Packages {
				want := p.Name
				if test.readers[0].name == "python/metadata" {
					want = normalPythonName(want)
				}
				want += "@" + p.Version
				if p.Version == "" {
					continue
				}
				packages++
				switch key := filepath.Base(file) + ": " + want; {
				case !have[want] && !slices.Contains(test.apart, key):
					t.Errorf("%s/%s is missing; errors %q", test.dir, key, ours.errors)
				case have[want] && slices.Contains(test.apart, key):
					t.Errorf("%s/%s was found", test.dir, key)
				}
				delete(missed, want)
			}
			// scalibr knows a commit where no version was written down, and keeps it apart.
			for key := range missed {
				if name, commit, _ := strings.Cut(key[1:], "@"); !isCommit(commit) {
					t.Errorf("%s/%s: %s@%s is nobody else's", test.dir, filepath.Base(file), name, commit)
				}
			}
		}
	}
	t.Logf("%d locks, %d packages", files, packages)
}

func isCommit(s string) bool {
	_, err := hex.DecodeString(s + strings.Repeat("0", len(s)%2))
	return len(s) >= 7 && err == nil
}
