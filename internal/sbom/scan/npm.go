package scan

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// npmReaders read what npm, yarn, pnpm and bun leave behind. The parsers are our own:
// those of scalibr give names and versions, and every file would have to be parsed
// again for its edges, hashes and licences.
func npmReaders() []reader {
	return []reader{
		{name: "npm/package.json", wants: isNPMPackage, read: fixtures(inNPMFixture, readNPMPackage), resolve: resolveNPM},
		{name: "npm/package-lock", wants: isNPMLock, read: projectLock(readNPMLock)},
		{name: "npm/yarn.lock", wants: isYarnLock, read: projectLock(readYarnLock)},
		{name: "npm/pnpm-lock", wants: isPNPMLock, read: projectLock(readPNPMLock)},
		{name: "npm/bun.lock", wants: isBunLock, read: projectLock(readBunLock)},
	}
}

// npmManifest is what is read of a package.json. Publishers write anything into it, so
// every field takes every JSON value, and one of the wrong type counts as absent.
type npmManifest struct {
	Name                 looseString   `json:"name"`
	Version              looseString   `json:"version"`
	License              npmLicense    `json:"license"`
	Licenses             npmLicense    `json:"licenses"`
	Dependencies         looseMap      `json:"dependencies"`
	OptionalDependencies looseMap      `json:"optionalDependencies"`
	PeerDependencies     looseMap      `json:"peerDependencies"`
	DevDependencies      looseMap      `json:"devDependencies"`
	Workspaces           npmWorkspaces `json:"workspaces"`
	// Integrity is what npm before version 7 wrote into the installed file.
	Integrity looseString `json:"_integrity"`
}

// runtime names what the package looks for when it runs, in order.
func (m *npmManifest) runtime() []string {
	return unionKeys(m.Dependencies, m.OptionalDependencies, m.PeerDependencies)
}

// isNPMPackage finds the package.json of installed packages, and that of a package as
// it is published (package/package.json). Any other package.json describes a project
// or, below dist and esm folders, nothing but a module type.
func isNPMPackage(p string) bool {
	return p == "package/package.json" || isNPMInstalled(p)
}

// isNPMInstalled wants …/node_modules/NAME/package.json or …/node_modules/@SCOPE/NAME/package.json.
func isNPMInstalled(p string) bool {
	rest, ok := strings.CutSuffix(p, "/package.json")
	if !ok {
		return false
	}
	_, name, ok := cutNodeModules(rest)
	if !ok || name == "" {
		return false
	}
	scope, below, scoped := strings.Cut(name, "/")
	return !scoped || strings.HasPrefix(scope, "@") && !strings.Contains(below, "/")
}

// cutNodeModules parts a path at the last folder called node_modules.
func cutNodeModules(p string) (in, below string, ok bool) {
	const folder = "node_modules/"
	if at := strings.LastIndex(p, "/"+folder); at >= 0 {
		return p[:at], p[at+1+len(folder):], true
	}
	below, ok = strings.CutPrefix(p, folder)
	return "", below, ok
}

// inNPMFixture reports whether a package lies below a test folder of another one. Packages
// ship folders called node_modules for their own tests: what is there was not installed,
// and yet it is there. A package that is itself called test is none of these.
func inNPMFixture(p string) bool {
	in, _, ok := cutNodeModules(p)
	for ok {
		var inside string
		if in, inside, ok = cutNodeModules(in); !ok {
			return false
		}
		folders := strings.Split(inside, "/")
		name := 1
		if strings.HasPrefix(inside, "@") {
			name = 2
		}
		if slices.ContainsFunc(folders[min(name, len(folders)):], isFixtureFolder) {
			return true
		}
	}
	return false
}

// fixtures is the reader.read of packages of which those that are fixtures are no part of
// what runs. Of these, broken ones are meant to be.
func fixtures(is func(p string) bool, read func(context.Context, *file) ([]*pkg, error)) func(context.Context, *file) ([]*pkg, error) {
	return func(ctx context.Context, f *file) ([]*pkg, error) {
		found, err := read(ctx, f)
		if !is(f.path) {
			return found, err
		}
		for _, k := range found {
			k.Scope, k.direct = scopeExcluded, false
		}
		return found, nil
	}
}

func isFixtureFolder(segment string) bool {
	switch segment {
	case "test", "tests", "__tests__", "spec", "testing", "testdata", "test-data",
		"fixture", "fixtures", "__fixtures__", "mocks", "__mocks__", "examples", "example", "benchmark", "benchmarks":
		return true
	}
	return false
}

func readNPMPackage(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var m npmManifest
	if err := decodeLoose(data, &m); err != nil {
		return nil, err
	}
	p, err := m.installed(f.path)
	if p == nil {
		return nil, err
	}
	p.path = f.path
	p.Licenses = npmLicenses(m.License, m.Licenses)
	p.Hashes = integrityHashes(string(m.Integrity))
	p.Scope = scopeRequired // it is there, whoever asked for it
	p.needs = m.runtime()
	p.direct = f.path == "package/package.json" || npmAskedFor(f, string(m.Version))
	if strings.Contains(f.path, "node_modules/.pnpm/") || strings.Contains(f.path, "node_modules/.store/") {
		p.DependsOn = linkedNPM(f, p.needs)
	}
	return []*pkg{p}, nil
}

// installed is the package in a folder of node_modules. One that leaves out its name is
// what its folder is called, since that is what require() goes by; one without version is
// named without. Folders that begin with a dot are the package managers' own, unless
// somebody put a package there.
func (m *npmManifest) installed(p string) (*pkg, error) {
	name := string(m.Name)
	_, folder, ok := cutNodeModules(path.Dir(p))
	if !ok {
		return npmPkg(name, string(m.Version)), nil
	}
	if name == "" {
		if m.Version == "" && strings.ContainsRune("@.", rune(folder[0])) && !strings.Contains(folder, "/") {
			return nil, nil
		}
		name = folder
	}
	if found := npmPkgAny(name, string(m.Version)); found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("%.80q is no name of a package", name)
}

// npmAskedFor reports whether the project that the node_modules folder belongs to
// names the package in its own package.json.
func npmAskedFor(f *file, own string) bool {
	dir := path.Dir(f.path)
	at := strings.LastIndex("/"+dir, "/node_modules/")
	project, name := dir[:max(at-1, 0)], dir[at+len("node_modules/"):]
	if top, _, ok := strings.Cut("/"+project+"/", "/node_modules/."); ok {
		// In a store, every version is beside the others; a link at the top shows which
		// one the project has.
		project = strings.TrimPrefix(top, "/")
		linked := siblingManifest(f, path.Join(project, "node_modules", name))
		if linked == nil || string(linked.Version) != own {
			return false
		}
	}
	if strings.Contains("/"+project+"/", "/node_modules/") {
		return false
	}
	m := siblingManifest(f, project)
	if m == nil {
		return false
	}
	_, dev := m.DevDependencies[name]
	return dev || slices.Contains(m.runtime(), name)
}

// linkedNPM follows the links that pnpm and npm's linked strategy make: a package lies
// in a folder of its own beside links to all that it depends on.
func linkedNPM(f *file, needs []string) []string {
	dir := path.Dir(f.path)
	around := dir[:strings.LastIndex(dir, "node_modules/")+len("node_modules")]
	var purls []string
	for _, name := range needs {
		if m := siblingManifest(f, around+"/"+name); m != nil {
			if p := npmPkg(string(m.Name), string(m.Version)); p != nil {
				purls = append(purls, p.PURL)
			}
		}
	}
	return purls
}

// siblingManifest reads the package.json in a folder of the same tree; nil where there
// is none that can be read.
func siblingManifest(f *file, dir string) *npmManifest {
	data, err := readAll(f.tree, path.Join(dir, "package.json"), min(maxManifestBytes, f.maxRead))
	if err != nil {
		return nil
	}
	var m npmManifest
	if decodeLoose(data, &m) != nil {
		return nil
	}
	return &m
}

// resolveNPM finds for each package what require() would.
func resolveNPM(found []*pkg) {
	folders := moduleFolders[pkg]{}
	for _, p := range found {
		folders.add(path.Dir(p.path), p)
	}
	for _, p := range found {
		around := folders.above(path.Dir(p.path))
		for _, name := range p.needs {
			if target := around.find(name); target != nil {
				p.dependOn(target.PURL)
			}
		}
		p.DependsOn = sortedUnique(p.DependsOn)
	}
}

// npmPkg makes a finding; nil where name and version are not those of a package.
func npmPkg(name, version string) *pkg {
	version = strings.TrimSpace(version)
	if clean := strings.TrimLeft(version, "=v "); clean != version && startsWithDigit(clean) {
		version = clean // as npm reads it
	}
	if !validNPMName(name) || version == "" || strings.ContainsFunc(version, isSpaceOrControl) {
		return nil
	}
	purl, err := sbom.NewPURL("npm", "", name, version)
	if err != nil {
		return nil
	}
	p := &pkg{Component: sbom.Component{PURL: purl, Name: name, Version: version}}
	if scope, rest, ok := strings.Cut(name, "/"); ok {
		p.Group, p.Name = scope, rest
	}
	return p
}

// npmPkgAny is npmPkg for what is certainly a package: where its version is missing, or is
// none, it is named without.
func npmPkgAny(name, version string) *pkg {
	if p := npmPkg(name, version); p != nil || !validNPMName(name) {
		return p
	}
	purl, err := sbom.NewPURL("npm", "", name, "")
	if err != nil {
		return nil
	}
	p := &pkg{Component: sbom.Component{PURL: purl, Name: name}}
	if scope, rest, ok := strings.Cut(name, "/"); ok {
		p.Group, p.Name = scope, rest
	}
	return p
}

// validNPMName accepts what the registry ever took, capitals included.
func validNPMName(name string) bool {
	base := name
	if rest, ok := strings.CutPrefix(name, "@"); ok {
		scope, after, _ := strings.Cut(rest, "/")
		if scope == "" {
			return false
		}
		base = after
	}
	return base != "" && base[0] != '.' && len(name) <= 214 &&
		!strings.ContainsAny(base, `/\:`) && !strings.ContainsFunc(name, isSpaceOrControl)
}

func isSpaceOrControl(r rune) bool { return r <= ' ' || r == 0x7f }

func startsWithDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

// integrityHashes reads a Subresource Integrity string: digests in base64, parted by
// spaces, each perhaps with options behind a question mark.
func integrityHashes(integrity string) []sbom.Hash {
	var hashes []sbom.Hash
	for one := range strings.FieldsSeq(integrity) {
		name, value, _ := strings.Cut(one, "-")
		value, _, _ = strings.Cut(value, "?")
		if h, ok := newHash64(name, value); ok {
			hashes = append(hashes, h)
		}
	}
	return hashes
}
