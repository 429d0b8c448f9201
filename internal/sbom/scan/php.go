package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"path"
	"slices"
	"strings"
)

func phpReaders() []reader {
	return []reader{
		{name: "php/composer-lock", wants: named("composer.lock"), read: readComposerLock},
		{name: "php/composer-installed", wants: wantsInstalled, read: readInstalled},
	}
}

type composerPackage struct {
	Name    string          `json:"name"`
	Version string          `json:"version"`
	License json.RawMessage `json:"license"`
	Dist    struct {
		SHASum string `json:"shasum"`
	} `json:"dist"`
	// Objects of name and constraint; an empty one is written as a list.
	Require json.RawMessage `json:"require"`
	Provide json.RawMessage `json:"provide"`
	Replace json.RawMessage `json:"replace"`
}

// readComposerLock reads composer.lock, which has its development packages apart.
func readComposerLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var lock struct {
		Packages    []composerPackage `json:"packages"`
		PackagesDev []composerPackage `json:"packages-dev"`
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return nil, err
	}
	return composerPackages(slices.Concat(lock.Packages, lock.PackagesDev), func(i int, _ string) bool { return i >= len(lock.Packages) })
}

func wantsInstalled(p string) bool {
	return path.Base(p) == "installed.json" && path.Base(path.Dir(p)) == "composer"
}

// readInstalled reads vendor/composer/installed.json: an object in Composer 2, a list before.
func readInstalled(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var installed struct {
		Packages []composerPackage `json:"packages"`
		DevNames []string          `json:"dev-package-names"`
	}
	if data = bytes.TrimSpace(data); bytes.HasPrefix(data, []byte("[")) {
		err = json.Unmarshal(data, &installed.Packages)
	} else {
		err = json.Unmarshal(data, &installed)
	}
	if err != nil {
		return nil, err
	}
	dev := make(map[string]bool, len(installed.DevNames))
	for _, name := range installed.DevNames {
		dev[strings.ToLower(name)] = true
	}
	// What is installed is there, whoever asked for it: it is not excluded, but optional.
	found, err := composerPackages(installed.Packages, func(_ int, name string) bool { return dev[name] })
	for _, k := range found {
		if k.Scope == scopeExcluded {
			k.Scope = scopeOptional
		}
	}
	return found, err
}

// composerPackages makes components with their edges. Requirements may name what another
// package provides or replaces; those of PHP itself and of its extensions name nothing.
func composerPackages(list []composerPackage, isDev func(i int, name string) bool) ([]*pkg, error) {
	var out findings
	byName := providers{}
	all := make([]*pkg, len(list))
	for i := range list {
		p := &list[i]
		name := strings.ToLower(p.Name)
		vendor, short, ok := strings.Cut(name, "/")
		if !ok {
			vendor, short = "", name
		}
		k := out.add("composer", vendor, short, p.Version)
		k.Scope = scopeRequired
		if isDev(i, name) {
			k.Scope = scopeExcluded
		}
		k.Licenses = anyLicense(composerLicenses(p.License))
		k.hash("sha1", p.Dist.SHASum)
		all[i] = k
		byName.add(name, k)
	}
	for i := range list {
		for _, names := range [...]json.RawMessage{list[i].Provide, list[i].Replace} {
			for _, name := range composerNames(names) {
				byName.add(name, all[i])
			}
		}
	}
	for i := range list {
		for _, need := range composerNames(list[i].Require) {
			all[i].dependOnEach(byName[need])
		}
	}
	return out.done()
}

// composerNames are the keys of an object, in lower case and in order.
func composerNames(object json.RawMessage) []string {
	var constraints map[string]json.RawMessage
	if json.Unmarshal(object, &constraints) != nil {
		return nil // absent, or an empty list
	}
	names := sortedKeys(constraints)
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	return names
}

// composerLicenses is a list, or one text in old files.
func composerLicenses(value json.RawMessage) []string {
	var list []string
	if json.Unmarshal(value, &list) == nil {
		return list
	}
	var one string
	if json.Unmarshal(value, &one) == nil {
		return []string{one}
	}
	return nil
}
