package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// maxCargoLock bounds what is parsed as TOML. The largest workspaces have some megabytes.
const maxCargoLock = 16 << 20

func rustReaders() []reader {
	return []reader{
		{name: "rust/cargo-lock", wants: named("Cargo.lock"), read: readCargoLock},
		{name: "rust/auditable", magic: wantsAuditable, read: readAuditable},
	}
}

// cargoLock is Cargo.lock, versions 1 to 4.
type cargoLock struct {
	Package []cargoPackage `toml:"package"`
	// Root is the workspace's package in version 1 of old.
	Root *cargoPackage `toml:"root"`
	// Metadata has the checksums in version 1: "checksum NAME VERSION (SOURCE)".
	Metadata map[string]any `toml:"metadata"`
}

type cargoPackage struct {
	Name         string   `toml:"name"`
	Version      string   `toml:"version"`
	Source       string   `toml:"source"`
	Checksum     string   `toml:"checksum"`
	Dependencies []string `toml:"dependencies"`
}

// readCargoLock reads a lock of Cargo. Packages without a source are the project's own;
// they are what the artifact asks for. The lock does not tell what only tests, builds or
// other platforms need, so nothing has a scope.
func readCargoLock(_ context.Context, f *file) ([]*pkg, error) {
	var lock cargoLock
	if err := decodeTOML(f, maxCargoLock, &lock); err != nil {
		return nil, err
	}
	if lock.Root != nil {
		lock.Package = append(lock.Package, *lock.Root)
	}
	var out findings
	index := crateIndex{}
	all := make([]*pkg, len(lock.Package))
	for i, p := range lock.Package {
		k := out.add("cargo", "", p.Name, p.Version, cargoQualifiers(p.Source)...)
		checksum := p.Checksum
		if checksum == "" {
			checksum, _ = lock.Metadata[fmt.Sprintf("checksum %s %s (%s)", p.Name, p.Version, p.Source)].(string)
		}
		k.hash("sha256", checksum)
		if p.Source == "" {
			k.direct, k.Type = true, "application"
		}
		all[i] = k
		index.add(p.Name, k)
		index.add(p.Name+" "+p.Version, k)
		index.add(p.Name+" "+p.Version+" ("+p.Source+")", k)
	}
	for i, p := range lock.Package {
		for _, need := range p.Dependencies {
			if to := index[need]; to != nil {
				all[i].dependOn(to.PURL)
			}
		}
	}
	return out.done()
}

// crateIndex finds "name", "name version" or "name version (source)": a lock is as short
// as it can be without being ambiguous. What is ambiguous leads to nil.
type crateIndex map[string]*pkg

func (x crateIndex) add(name string, k *pkg) {
	if other, there := x[name]; there && other != k {
		k = nil
	}
	x[name] = k
}

// cargoQualifiers tell a package of crates.io from one that only has the same name.
func cargoQualifiers(source string) []string {
	kind, address, _ := strings.Cut(source, "+")
	switch kind {
	case "git":
		address, revision, _ := strings.Cut(address, "#")
		address, _, _ = strings.Cut(address, "?") // branch or tag, which the revision pins
		return []string{"vcs_url", vcsURL(address, revision)}
	case "registry", "sparse":
		if !strings.Contains(address, "github.com/rust-lang/crates.io-index") && !strings.Contains(address, "index.crates.io") {
			return []string{"repository_url", strings.TrimSuffix(address, "/")}
		}
	}
	return nil
}

// auditInfo is what cargo auditable writes into an executable: the crates in it, with the
// indexes of those that each depends on.
type auditInfo struct {
	Packages []struct {
		Name         string `json:"name"`
		Version      string `json:"version"`
		Source       string `json:"source"`
		Kind         string `json:"kind"`
		Dependencies []int  `json:"dependencies"`
		Root         bool   `json:"root"`
	} `json:"packages"`
}

// readAuditable reads the crates in an executable. Those that only its build needed are
// named too; they are not in what runs.
func readAuditable(_ context.Context, f *file) ([]*pkg, error) {
	data, err := auditSection(f)
	if err != nil || data == nil {
		return nil, err
	}
	var info auditInfo
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&info); err != nil {
		return nil, fmt.Errorf("the section .dep-v0: %w", err)
	}
	var out findings
	all := make([]*pkg, len(info.Packages))
	for i, p := range info.Packages {
		k := out.add("cargo", "", p.Name, p.Version)
		if p.Kind == "build" {
			k.Scope = scopeExcluded
		} else {
			k.Scope = scopeRequired
		}
		if p.Root {
			k.Type, k.direct = "application", true
		}
		all[i] = k
	}
	for i, p := range info.Packages {
		for _, j := range slices.Compact(p.Dependencies) {
			if j < 0 || j >= len(all) {
				return nil, fmt.Errorf("the section .dep-v0: no package %d of %d", j, len(all))
			}
			all[i].dependOn(all[j].PURL)
		}
	}
	return out.done()
}
