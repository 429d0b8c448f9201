package scan

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// truthProject makes a tree of some 640 packages. What it names is fixed; what that
// brings in moves with the registry, so the truth is asked of the package manager each time.
const truthProject = `{"name":"truth","version":"1.0.0","private":true,
	"dependencies":{"express":"4.21.2","webpack":"5.97.1","@aws-sdk/client-s3":"3.726.1","react-dom":"18.3.1"},
	"devDependencies":{"jest":"29.7.0","eslint":"8.57.1","@babel/preset-env":"7.26.0","esbuild":"0.24.2"}}`

// The package managers that install it, besides npm itself.
const truthManagers = `{"private":true,"dependencies":{"pnpm":"9.15.4","yarn":"1.22.22","@yarnpkg/cli-dist":"4.6.0"}}`

// TestTruthNPM compares with npm, pnpm and both yarns on trees that they install now.
func TestTruthNPM(t *testing.T) {
	if os.Getenv("ASSAY_TRUTH") != "1" {
		t.Skip("set ASSAY_TRUTH=1 to install packages from the npm registry")
	}
	t.Parallel()
	tools := project(t, truthManagers, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund")
	bin := func(p string) string { return filepath.Join(tools, "node_modules", filepath.FromSlash(p)) }
	t.Run("npm", func(t *testing.T) {
		t.Parallel()
		dir := project(t, truthProject, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund")
		checkNPM(t, dir)
	})
	t.Run("pnpm", func(t *testing.T) {
		t.Parallel()
		dir := project(t, truthProject, "node", bin("pnpm/bin/pnpm.cjs"), "install", "--ignore-scripts", "--store-dir", t.TempDir())
		checkLock(t, dir, "pnpm-lock.yaml")
	})
	t.Run("yarn 1", func(t *testing.T) {
		t.Parallel()
		dir := project(t, truthProject, "node", bin("yarn/bin/yarn.js"), "install", "--ignore-scripts", "--ignore-engines", "--non-interactive", "--cache-folder", t.TempDir())
		checkLock(t, dir, "yarn.lock")
	})
	t.Run("yarn 4", func(t *testing.T) {
		t.Parallel()
		dir := project(t, truthProject, "node", bin("@yarnpkg/cli-dist/bin/yarn.js"), "install")
		checkLock(t, dir, "yarn.lock")
	})
}

// project runs a package manager in a new folder.
func project(t *testing.T, manifest string, command ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("package.json", manifest)
	if strings.Contains(command[1], "cli-dist") {
		write("yarn.lock", "") // or yarn looks for a project above
	}
	run(t, dir, command...)
	return dir
}

func run(t *testing.T, dir string, command ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "YARN_ENABLE_TELEMETRY=0", "YARN_NODE_LINKER=node-modules", "YARN_ENABLE_SCRIPTS=0",
		"YARN_ENABLE_IMMUTABLE_INSTALLS=false", "YARN_ENABLE_GLOBAL_CACHE=false", "CI=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return out
}

// npmListed is a package in the output of npm ls.
type npmListed struct {
	Version      string                `json:"version"`
	Dependencies map[string]*npmListed `json:"dependencies"`
}

// collect gives packages and edges ("a > b") below n. What is not installed has no version.
func (n *npmListed) collect(t testing.TB, from string, packages, edges map[string]bool) {
	for name, d := range n.Dependencies {
		if d.Version == "" {
			continue
		}
		purl, err := sbom.NewPURL("npm", "", name, d.Version)
		if err != nil {
			t.Fatal(err)
		}
		packages[purl] = true
		edges[from+" > "+purl] = true
		d.collect(t, purl, packages, edges)
	}
}

func checkNPM(t *testing.T, dir string) {
	var listed npmListed
	if err := json.Unmarshal(run(t, dir, "npm", "ls", "--all", "--json"), &listed); err != nil {
		t.Fatal(err)
	}
	packages, edges := map[string]bool{}, map[string]bool{}
	listed.collect(t, "root", packages, edges)
	if len(packages) < 500 {
		t.Errorf("npm installed %d packages", len(packages))
	}

	// Everything that was installed, without any lock.
	inv := scanFile(t, tarOfDir(t, dir, func(p string) bool {
		return !strings.HasSuffix(p, "package-lock.json") // the hidden one too
	}))
	compareTruth(t, "node_modules, npm ls", sortedKeys(packages), purlsOf(inv, "npm"))
	compareTruth(t, "node_modules, edges of npm ls", sortedKeys(edges), append(edgesOf(inv), asksFor(inv)...))
	licensed := 0
	for _, c := range inv.Components {
		if len(c.Licenses) > 0 {
			licensed++
		}
	}
	t.Logf("%d files, %d of %d with a licence, complete: %v", inv.Files, licensed, len(inv.Components), inv.Incomplete)
	if licensed*100 < 99*len(inv.Components) {
		t.Errorf("%d of %d have a licence", licensed, len(inv.Components))
	}

	// The lock alone, which also has what is for other platforms.
	lock := filepath.Join(dir, "package-lock.json")
	data, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	var locked struct {
		Packages map[string]struct{ Version string }
	}
	if err := json.Unmarshal(data, &locked); err != nil {
		t.Fatal(err)
	}
	var truth []string
	for key, e := range locked.Packages {
		if at := strings.LastIndex(key, "node_modules/"); at >= 0 {
			purl, err := sbom.NewPURL("npm", "", key[at+len("node_modules/"):], e.Version)
			if err != nil {
				t.Fatal(err)
			}
			truth = append(truth, purl)
		}
	}
	fromLock := scanFile(t, lock)
	compareTruth(t, "package-lock.json", truth, purlsOf(fromLock, "npm"))
	onDisk := inBoth(edgesOf(fromLock), edges)
	compareTruth(t, "package-lock.json, edges of npm ls", withoutRoot(edges), onDisk)
	hashed := 0
	for _, c := range fromLock.Components {
		if len(c.Hashes) > 0 {
			hashed++
		}
	}
	t.Logf("package-lock.json: %d of %d with a hash", hashed, len(fromLock.Components))
	if hashed*100 < 99*len(fromLock.Components) {
		t.Errorf("%d of %d have a hash", hashed, len(fromLock.Components))
	}
}

// checkLock holds a lock against what is installed beside it. Everything there is in the
// lock; what else the lock has is optional, for other platforms. The edges of both agree.
func checkLock(t *testing.T, dir, name string) {
	truth := installed(t, dir)
	fromDisk := scanFile(t, tarOfDir(t, dir, func(p string) bool { return filepath.Base(p) == "package.json" }))
	compareTruth(t, name+": node_modules", truth, purlsOf(fromDisk, "npm"))

	fromLock := scanFile(t, tarOfDir(t, dir, func(p string) bool { return p == name || p == "package.json" }))
	var there []string
	elsewhere := 0
	for _, c := range fromLock.Components {
		if _, ok := slices.BinarySearch(truth, c.PURL); ok || c.Scope == scopeRequired || c.Scope == "" {
			there = append(there, c.PURL)
		} else {
			elsewhere++ // optional, or optional for a development dependency
		}
	}
	t.Logf("%s: %d more for other platforms", name, elsewhere)
	compareTruth(t, name, truth, there)
	compareTruth(t, name+": what the project asks for", asksFor(fromDisk), asksFor(fromLock))

	// A package on disk finds whatever the folder above holds, so that optional peers and
	// the like are edges there; the lock knows which were meant.
	disk := map[string]bool{}
	for _, e := range edgesOf(fromDisk) {
		disk[e] = true
	}
	var meant []string
	for _, e := range edgesOf(fromLock) {
		if from, to, _ := strings.Cut(e, " > "); slices.Contains(truth, from) && slices.Contains(truth, to) {
			meant = append(meant, e)
		}
	}
	both := inBoth(meant, disk)
	t.Logf("%s: %d edges, %d on disk, %d in both", name, len(meant), len(disk), len(both))
	if len(both)*1000 < 999*len(meant) || len(both)*100 < 90*len(disk) {
		t.Errorf("%s gives %d edges, the disk %d, and %d are in both", name, len(meant), len(disk), len(both))
	}
}

// installed asks the disk: every folder that is a child of node_modules, or of a scope in
// it, and no link.
func installed(t testing.TB, dir string) []string {
	t.Helper()
	var purls []string
	err := filepath.WalkDir(filepath.Join(dir, "node_modules"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		parent := filepath.Base(filepath.Dir(p))
		if strings.HasPrefix(parent, "@") {
			parent = filepath.Base(filepath.Dir(filepath.Dir(p)))
		}
		if parent != "node_modules" || strings.HasPrefix(d.Name(), "@") {
			return nil
		}
		var m struct{ Name, Version string }
		data, err := os.ReadFile(filepath.Join(p, "package.json"))
		if err != nil {
			return nil // .bin, or a folder of fixtures
		}
		if err := json.Unmarshal(data, &m); err != nil || m.Name == "" || m.Version == "" {
			return nil
		}
		if rel, _ := filepath.Rel(dir, p); strings.Contains(rel, "/test/") {
			return nil
		}
		purl, err := sbom.NewPURL("npm", "", m.Name, m.Version)
		purls = append(purls, purl)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sortedUnique(purls)
}

func edgesOf(inv *sbom.Inventory) []string {
	var out []string
	for _, c := range inv.Components {
		for _, d := range c.DependsOn {
			out = append(out, c.PURL+" > "+d)
		}
	}
	return out
}

// asksFor is what truthProject names, as edges of the root.
func asksFor(inv *sbom.Inventory) []string {
	var out []string
	for _, p := range inv.Root {
		name, _, _ := strings.Cut(strings.TrimPrefix(p, "pkg:npm/"), "@")
		if strings.Contains(truthProject, `"`+strings.Replace(name, "%40", "@", 1)+`":`) {
			out = append(out, "root > "+p)
		}
	}
	return out
}

func inBoth(list []string, set map[string]bool) []string {
	return slices.DeleteFunc(slices.Clone(list), func(e string) bool { return !set[e] })
}

func withoutRoot(edges map[string]bool) []string {
	return slices.DeleteFunc(sortedKeys(edges), func(e string) bool { return strings.HasPrefix(e, "root > ") })
}

// tarOfDir packs the files of a folder that keep wants, and all links, into a file.
func tarOfDir(t testing.TB, dir string, keep func(p string) bool) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "tree.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || d.IsDir() || (d.Type().IsRegular() && !keep(rel)) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if d.Type()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = filepath.ToSlash(rel)
		if err := w.WriteHeader(h); err != nil || link != "" {
			return err
		}
		in, err := os.Open(p)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// scanFile is scanned for an artifact on disk.
func scanFile(t testing.TB, name string) *sbom.Inventory {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	inv, err := Scan(context.Background(), Request{Artifact: in, Size: info.Size(), Name: filepath.Base(name), TempDir: dir}, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	checkScan(t, inv, dir)
	return inv
}
