package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

func dotnetReaders() []reader {
	return []reader{
		{name: "dotnet/deps-json", wants: func(p string) bool { return strings.HasSuffix(p, ".deps.json") }, read: readDepsJSON},
		{name: "dotnet/packages-lock", wants: named("packages.lock.json"), read: readPackagesLock},
		{name: "dotnet/project-assets", wants: named("project.assets.json"), read: readProjectAssets},
		{name: "dotnet/packages-config", wants: named("packages.config"), read: readPackagesConfig},
	}
}

// nugetGraph is the shape that *.deps.json, beside an application, and
// project.assets.json, beside its sources, have in common.
type nugetGraph struct {
	RuntimeTarget struct {
		Name string `json:"name"`
	} `json:"runtimeTarget"`
	// Targets are by framework, then by "name/version".
	Targets map[string]map[string]struct {
		Dependencies map[string]string `json:"dependencies"`
	} `json:"targets"`
	Libraries map[string]nugetLibrary `json:"libraries"`
	// Groups are what the project asks for, "name >= version", by framework.
	Groups map[string][]string `json:"projectFileDependencyGroups"`
}

type nugetLibrary struct {
	Type   string `json:"type"`
	SHA512 string `json:"sha512"`
}

// readDepsJSON reads what an application of .NET is made of. Projects and plain references
// are the application's own; they are no packages, but what they ask for, it asks for.
func readDepsJSON(_ context.Context, f *file) ([]*pkg, error) {
	graph, err := readNuGetGraph(f)
	if err != nil || graph == nil {
		return nil, err
	}
	if len(graph.Libraries) == 0 && len(graph.Targets) == 0 {
		return nil, nil // some other tool's file of this name
	}
	// Beside the target that runs there is one without a platform, and empty.
	if target, ok := graph.Targets[graph.RuntimeTarget.Name]; ok {
		clear(graph.Targets)
		graph.Targets[graph.RuntimeTarget.Name] = target
	}
	return graph.packages()
}

func readProjectAssets(_ context.Context, f *file) ([]*pkg, error) {
	graph, err := readNuGetGraph(f)
	if err != nil || graph == nil {
		return nil, err
	}
	return graph.packages()
}

// readNuGetGraph gives nil for JSON that is no object.
func readNuGetGraph(f *file) (*nugetGraph, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	var graph nugetGraph
	if err := json.Unmarshal(data, &graph); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) && mismatch.Field == "" {
			return nil, nil
		}
		return nil, err
	}
	return &graph, nil
}

func (g *nugetGraph) packages() ([]*pkg, error) {
	var out findings
	all := map[string]*pkg{}
	for _, key := range sortedKeys(g.Libraries) {
		library := g.Libraries[key]
		name, version, ok := strings.Cut(key, "/")
		if !ok || name == "" || version == "" {
			out.fail(fmt.Errorf("library %.80q has no version", key))
			continue
		}
		switch strings.ToLower(library.Type) {
		case "package":
		case "runtimepack":
			name = strings.TrimPrefix(name, "runtimepack.")
		default:
			continue
		}
		k := out.add("nuget", "", name, version)
		// What NuGet records is the digest of the package without its signature.
		k.hash64("sha512", strings.TrimPrefix(library.SHA512, "sha512-"))
		all[strings.ToLower(key)] = k
	}
	asked := g.asked()
	for _, framework := range sortedKeys(g.Targets) {
		g.connect(framework, all, asked)
	}
	return out.done()
}

// connect adds the edges of one framework, in which each package has one version.
func (g *nugetGraph) connect(framework string, all map[string]*pkg, asked map[string]bool) {
	target := g.Targets[framework]
	byName := map[string]*pkg{}
	for key := range target {
		name, _, _ := strings.Cut(key, "/")
		byName[strings.ToLower(name)] = all[strings.ToLower(key)]
	}
	for _, name := range sortedKeys(byName) {
		if k := byName[name]; k != nil && asked[name] {
			k.direct = true
		}
	}
	for _, key := range sortedKeys(target) {
		from := all[strings.ToLower(key)]
		for _, name := range sortedKeys(target[key].Dependencies) {
			to := byName[strings.ToLower(name)]
			switch {
			case to == nil:
			case from == nil: // a project's
				to.direct = true
			default:
				from.dependOn(to.PURL)
			}
		}
	}
}

// asked are the names that the project itself asks for, in lower case.
func (g *nugetGraph) asked() map[string]bool {
	asked := map[string]bool{}
	for _, group := range g.Groups {
		for _, requirement := range group {
			name, _, _ := strings.Cut(requirement, " ")
			asked[strings.ToLower(name)] = true
		}
	}
	return asked
}

// packagesLock is packages.lock.json, versions 1 and 2: by framework, then by name.
type packagesLock struct {
	Dependencies map[string]map[string]struct {
		Type         string            `json:"type"`
		Resolved     string            `json:"resolved"`
		ContentHash  string            `json:"contentHash"`
		Dependencies map[string]string `json:"dependencies"`
	} `json:"dependencies"`
}

func readPackagesLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var lock packagesLock
	if err := json.Unmarshal(bytes.TrimPrefix(data, []byte(byteOrderMark)), &lock); err != nil {
		return nil, err
	}
	var out findings
	all := map[string]map[string]*pkg{} // as in the lock, names in lower case
	frameworks := sortedKeys(lock.Dependencies)
	for _, framework := range frameworks {
		all[framework] = map[string]*pkg{}
		for _, name := range sortedKeys(lock.Dependencies[framework]) {
			p := lock.Dependencies[framework][name]
			if p.Type == "Project" {
				continue
			}
			if p.Resolved == "" {
				out.fail(fmt.Errorf("package %.80q has no version", name))
				continue
			}
			k := out.add("nuget", "", name, p.Resolved)
			k.hash64("sha512", p.ContentHash)
			k.direct = p.Type == "Direct"
			all[framework][strings.ToLower(name)] = k
		}
	}
	for _, framework := range frameworks {
		// "net8.0/linux-x64" lists what differs from "net8.0".
		general, _, _ := strings.Cut(framework, "/")
		for name, p := range lock.Dependencies[framework] {
			from := all[framework][strings.ToLower(name)]
			for need := range p.Dependencies {
				to := all[framework][strings.ToLower(need)]
				if to == nil {
					to = all[general][strings.ToLower(need)]
				}
				switch {
				case to == nil:
				case p.Type == "Project":
					to.direct = true
				case from != nil:
					from.dependOn(to.PURL)
				}
			}
			if from != nil {
				slices.Sort(from.DependsOn)
			}
		}
	}
	return out.done()
}

// packagesConfig is what projects had before package references.
type packagesConfig struct {
	XMLName  struct{} `xml:"packages"`
	Packages []struct {
		ID          string `xml:"id,attr"`
		Version     string `xml:"version,attr"`
		Development string `xml:"developmentDependency,attr"`
	} `xml:"package"`
}

func readPackagesConfig(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var config packagesConfig
	if err := newXMLDecoder(bytes.TrimPrefix(data, []byte(byteOrderMark))).Decode(&config); err != nil {
		return nil, err
	}
	var out findings
	for _, p := range config.Packages {
		if p.ID == "" || p.Version == "" {
			out.fail(fmt.Errorf("package %.80q has no version", p.ID))
			continue
		}
		k := out.add("nuget", "", p.ID, p.Version)
		if p.Development == "true" {
			k.Scope = scopeExcluded
		}
	}
	return out.done()
}
