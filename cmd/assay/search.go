package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
)

// maxUndecided is how many versions that nobody can place are named on a terminal.
const maxUndecided = 20

func (a *app) searchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "search", Short: "Search what is known of artifacts"}
	// Without it, cobra takes a word that is no command for a request for help.
	cmd.RunE = runs(func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(fmt.Sprintf("unknown command %q", args[0]), "see: assay search --help")
		}
		return usage("a command is missing", "see: assay search --help")
	})
	cmd.AddCommand(a.searchComponentCommand())
	return cmd
}

func (a *app) searchComponentCommand() *cobra.Command {
	var o client.ComponentSearch
	var limit int
	cmd := &cobra.Command{
		Use:   "component [QUERY]",
		Short: "Find the artifacts that hold a package, their builds, and where they may run",
		Long: `Find every artifact whose SBOM holds a package, with the builds that made it and the
environments it was allowed into.

QUERY is a package URL without a version, with one, or with a range in its place.`,
		Example: `  assay search component 'pkg:maven/org.apache.logging.log4j/log4j-core@<2.17.1'
  assay search component --name log4j-core
  assay search component --license AGPL-3.0-only`,
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", "", "name of a package of any ecosystem, instead of QUERY")
	flags.StringVar(&o.VersionRange, "version-range", "", "versions: '>=2.0,<2.17.1' or 'vers:maven/>=2.0|<2.17.1'")
	flags.StringVar(&o.License, "license", "", "SPDX license identifier, alone or with the others")
	flags.IntVar(&limit, "limit", 50, "how many SBOMs to list at most")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("want one QUERY", "quote it: a range holds characters that the shell reads")
		}
		o.PURL = strings.Join(args, "")
		switch {
		case len(args) == 1 && !strings.HasPrefix(o.PURL, "pkg:"):
			return usage(fmt.Sprintf("QUERY %q is no package URL", o.PURL), "want pkg:TYPE/NAMESPACE/NAME, or --name NAME")
		case o.PURL != "" && o.Name != "":
			return usage("QUERY and --name do not go together", "a package URL holds the name")
		case o.PURL == "" && o.Name == "" && o.License == "":
			return usage("nothing to search for", "a QUERY such as pkg:npm/lodash, --name or --license")
		case limit < 1 || limit > maxList:
			return usage(fmt.Sprintf("--limit %d: want 1 to %d", limit, maxList), "")
		}
		if err := format.check(); err != nil {
			return err
		}
		return a.searchComponent(cmd.Context(), o, limit, format.value)
	})
	return cmd
}

func (a *app) searchComponent(ctx context.Context, o client.ComponentSearch, limit int, format string) error {
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	var undecided []string
	truncated := false
	o.Truncated = func() { truncated = true }
	o.Undecided = func(purl string) { undecided = append(undecided, purl) }
	o.PageSize = min(limit+1, 1000)
	matches := []*assayv1.ComponentMatch{}
	more := false
	// One more than is shown tells whether there are more.
	for m, err := range c.SearchComponents(ctx, o) {
		if err != nil {
			return err
		}
		if more = len(matches) == limit; more {
			break
		}
		matches = append(matches, m)
	}
	a.warnUndecided(undecided)
	if more {
		a.message("there are more than %d; --limit shows more", limit)
	}
	out := matchesOutput(matches, undecided, more)
	out.Truncated = truncated
	if err := a.printMatches(out, matches, format); err != nil || !truncated {
		return err
	}
	return errTruncated
}

// errTruncated: what was printed is true and may not be all.
var errTruncated = errors.New("the server did not compare everything: there may be more; ask for one version, or name type and namespace of the package")

func (a *app) printMatches(out matchesJSON, matches []*assayv1.ComponentMatch, format string) error {
	switch {
	case format == "json":
		return a.printJSON(out)
	case len(matches) == 0:
		a.message("no artifact holds it")
	default:
		a.printHolders(holdersOf(matches), len(matches))
	}
	return nil
}

// warnUndecided names what may or may not be what was looked for.
func (a *app) warnUndecided(purls []string) {
	if len(purls) == 0 {
		return
	}
	a.message("warning: %s that cannot be compared and may be meant; look at them yourself:", count(len(purls), "version"))
	for i, purl := range purls {
		if i == maxUndecided {
			a.message("undecided: and %d more; --format json has all", len(purls)-i)
			return
		}
		a.message("undecided: %s", purl)
	}
}

// holder is an artifact and all that was found about it.
type holder struct {
	name, sha256 string
	packages     []string
	generated    map[string]bool // packages that the server found itself
	sboms        []string
	builds       []*assayv1.ComponentBuild
	environments map[string]bool
}

// holdersOf gathers matches, which are of SBOMs, by artifact, in their order.
func holdersOf(matches []*assayv1.ComponentMatch) []*holder {
	var out []*holder
	byDigest := make(map[string]*holder)
	for _, m := range matches {
		digest := m.GetSubject().GetDigest()["sha256"]
		h := byDigest[digest]
		if h == nil {
			h = &holder{name: m.GetSubject().GetName(), sha256: digest, generated: make(map[string]bool), environments: make(map[string]bool)}
			byDigest[digest] = h
			out = append(out, h)
		}
		h.add(m)
	}
	return out
}

func (h *holder) add(m *assayv1.ComponentMatch) {
	generated := m.GetOrigin() == assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED
	for _, c := range m.GetComponents() {
		text := cmp.Or(c.GetPurl(), c.GetName()+"@"+c.GetVersion())
		if len(c.GetLicenses()) > 0 {
			text += "  " + few(c.GetLicenses())
		}
		h.addPackage(clean(text), generated)
	}
	if len(m.GetComponents()) == 0 {
		h.addPackage(clean(m.GetPurl()), generated)
	}
	marks := m.GetAttestationId()
	if !generated {
		marks += "  CLAIMED"
	}
	if !m.GetComplete() {
		marks += "  INCOMPLETE"
	}
	h.sboms = append(h.sboms, clean(marks))
	for _, b := range m.GetBuilds() {
		known := func(other *assayv1.ComponentBuild) bool { return other.GetAttestationId() == b.GetAttestationId() }
		if !slices.ContainsFunc(h.builds, known) {
			h.builds = append(h.builds, b)
		}
	}
	for _, e := range m.GetEnvironments() {
		h.environments[e] = true
	}
}

func (h *holder) addPackage(text string, generated bool) {
	if !slices.Contains(h.packages, text) {
		h.packages = append(h.packages, text)
	}
	h.generated[text] = h.generated[text] || generated
}

func (a *app) printHolders(holders []*holder, sboms int) {
	reached := make(map[string]bool)
	for _, h := range holders {
		a.print("%s@sha256:%s\n", clean(h.name), clean(h.sha256))
		t := a.table()
		for _, p := range h.packages {
			if !h.generated[p] {
				p += "  CLAIMED"
			}
			t.row("  package", p)
		}
		for _, b := range h.builds {
			t.row("  build", buildText(b))
		}
		t.row("  environments", cmp.Or(joined(slices.Sorted(maps.Keys(h.environments))), "allowed nowhere yet"))
		for _, s := range h.sboms {
			t.row("  sbom", s)
		}
		t.flush()
		maps.Copy(reached, h.environments)
	}
	where := "allowed nowhere yet"
	if len(reached) > 0 {
		where = "allowed into " + joined(slices.Sorted(maps.Keys(reached)))
	}
	a.print("%s by %s; %s\n", count(len(holders), "artifact"), count(sboms, "SBOM"), where)
}

// buildText says from which source and in which run.
func buildText(b *assayv1.ComponentBuild) string {
	text := b.GetSourceUri()
	if commit := b.GetSourceDigest()["gitCommit"]; commit != "" {
		text += " " + clip(commit, 13)
	}
	return clean(strings.TrimSpace(text + "  " + cmp.Or(b.GetInvocationId(), b.GetBuilderId())))
}

type matchesJSON struct {
	Matches []matchJSON `json:"matches"`
	// UndecidedPURLs may or may not be meant: nobody can compare their versions.
	UndecidedPURLs []string `json:"undecided_purls"`
	// More is true where --limit left some out.
	More bool `json:"more"`
	// Truncated is true where the server did not compare everything.
	Truncated bool `json:"truncated"`
}

type matchJSON struct {
	PURL          string          `json:"purl"`
	Subject       subjectJSON     `json:"subject"`
	AttestationID string          `json:"attestation_id"`
	Origin        string          `json:"origin"`
	Complete      bool            `json:"complete"`
	CreateTime    string          `json:"create_time"`
	Environments  []string        `json:"environments"`
	Components    []componentJSON `json:"components"`
	Builds        []buildJSON     `json:"builds"`
}

type componentJSON struct {
	PURL     string   `json:"purl,omitempty"`
	Name     string   `json:"name"`
	Version  string   `json:"version,omitempty"`
	Licenses []string `json:"licenses,omitempty"`
}

type buildJSON struct {
	AttestationID string            `json:"attestation_id"`
	BuilderID     string            `json:"builder_id"`
	InvocationID  string            `json:"invocation_id"`
	SourceURI     string            `json:"source_uri"`
	SourceDigest  map[string]string `json:"source_digest,omitempty"`
	CreateTime    string            `json:"create_time"`
}

func matchesOutput(matches []*assayv1.ComponentMatch, undecided []string, more bool) matchesJSON {
	out := matchesJSON{Matches: []matchJSON{}, UndecidedPURLs: append([]string{}, undecided...), More: more}
	for _, m := range matches {
		one := matchJSON{
			PURL: m.GetPurl(), Subject: subjectOutput(m.GetSubject()), AttestationID: m.GetAttestationId(), Origin: sbomOrigin(m.GetOrigin()),
			Complete: m.GetComplete(), CreateTime: stamp(m.GetCreateTime()), Environments: append([]string{}, m.GetEnvironments()...),
			Components: []componentJSON{}, Builds: []buildJSON{},
		}
		for _, c := range m.GetComponents() {
			one.Components = append(one.Components, componentJSON{PURL: c.GetPurl(), Name: c.GetName(), Version: c.GetVersion(), Licenses: c.GetLicenses()})
		}
		for _, b := range m.GetBuilds() {
			one.Builds = append(one.Builds, buildJSON{
				AttestationID: b.GetAttestationId(), BuilderID: b.GetBuilderId(), InvocationID: b.GetInvocationId(),
				SourceURI: b.GetSourceUri(), SourceDigest: b.GetSourceDigest(), CreateTime: stamp(b.GetCreateTime()),
			})
		}
		out.Matches = append(out.Matches, one)
	}
	return out
}
