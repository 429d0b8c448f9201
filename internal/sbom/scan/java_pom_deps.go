package scan

import (
	"cmp"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// dependency is one of a pom, with what its parents say of it.
type dependency struct {
	mavenID
	scope string // of CycloneDX
}

// dependencies are those of the pom and of its parents, each once, in order.
func (p *pomXML) dependencies() []dependency {
	var all []dependency
	seen := map[pomKey]bool{}
	management := p.management()
	for q := range p.lineage() {
		for i := range q.Deps {
			d := &q.Deps[i]
			key := p.key(d)
			if seen[key] {
				continue
			}
			seen[key] = true
			managed := management[key]
			id := mavenID{group: key.group, artifact: key.artifact}
			id.version = exactVersion(p.expand(strings.TrimSpace(cmp.Or(d.Version, managed.Version))))
			all = append(all, dependency{id, mavenScope(cmp.Or(d.Scope, managed.Scope), cmp.Or(d.Optional, managed.Optional))})
		}
	}
	return all
}

// pomKey is what a dependency is told by from others of the same pom.
type pomKey struct{ group, artifact, typ, classifier string }

func (p *pomXML) key(d *pomDependency) pomKey {
	return pomKey{
		p.expand(strings.TrimSpace(d.GroupID)), p.expand(strings.TrimSpace(d.ArtifactID)),
		cmp.Or(strings.TrimSpace(d.Type), "jar"), p.expand(strings.TrimSpace(d.Classifier)),
	}
}

// management is what dependencyManagement says, the pom's own before its parents'.
func (p *pomXML) management() map[pomKey]pomDependency {
	all := map[pomKey]pomDependency{}
	for q := range p.lineage() {
		for i := range q.Managed {
			if key := p.key(&q.Managed[i]); all[key] == (pomDependency{}) {
				all[key] = q.Managed[i]
			}
		}
	}
	return all
}

// exactVersion is the version that a requirement names; "" where it leaves a choice. A
// plain version is a wish in Maven, which it grants unless another pom wishes otherwise.
func exactVersion(v string) string {
	if inner, ok := strings.CutPrefix(v, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && !strings.ContainsAny(inner, "[](),") {
			return strings.TrimSpace(inner)
		}
	}
	if strings.ContainsAny(v, "[](),${}") || v == "LATEST" || v == "RELEASE" {
		return ""
	}
	return v
}

func mavenScope(scope, optional string) string {
	switch strings.TrimSpace(scope) {
	case "test", "import":
		return scopeExcluded
	case "provided", "system":
		return scopeOptional
	}
	if strings.TrimSpace(optional) == "true" {
		return scopeOptional
	}
	return scopeRequired
}

// needs are the dependencies at run time, for resolveMaven.
func (p *pomXML) needs() []string {
	var needs []string
	for _, d := range p.dependencies() {
		if d.scope != scopeRequired || d.group == "" || d.artifact == "" {
			continue
		}
		need := d.group + ":" + d.artifact
		if d.version != "" {
			need += ":" + d.version
		}
		if needs = append(needs, need); len(needs) == sbom.MaxDependencies {
			break
		}
	}
	return needs
}
