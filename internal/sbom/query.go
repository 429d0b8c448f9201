package sbom

import (
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/versions"
)

// CodeQueryInvalid: a question for components that says too little, or two things at once.
const CodeQueryInvalid refusal.Code = "COMPONENT_QUERY_INVALID"

// Query is a question for components: all that is set must hold.
type Query struct {
	// Key is the package URL without version, qualifiers and subpath
	// (PURL.WithoutVersion), and Type its type; "" for any.
	Key, Type string
	// Qualifiers must all be there, where the question names some.
	Qualifiers []Qualifier
	// Name is that of the package, without its namespace; "" for any.
	Name string
	// Version is set where one version was asked for, as it was written.
	Version string
	// License is one licence as LicenseIDs lists them; "" for any.
	License string

	versions *versions.Range // nil: every version
}

// ParseQuery reads a question. The package URL may carry a range instead of a version,
//
//	pkg:maven/org.apache.logging.log4j/log4j-core@<2.17.1
//	pkg:maven/org.apache.logging.log4j/log4j-core@>=2.0,<2.17.1
//
// or the range stands alone, in that syntax or as a version range specifier
// (vers:maven/>=2.0|<2.17.1), beside a package URL without version or a name.
func ParseQuery(purl, name, versionRange, license string) (*Query, error) {
	q := &Query{Name: cleanText(name)}
	if purl != "" {
		inURL, err := q.setPURL(purl)
		if err != nil {
			return nil, err
		}
		if inURL != "" && versionRange != "" {
			return nil, refusal.New(CodeQueryInvalid, "the package URL has a version and a range is given beside it")
		}
		if inURL != "" {
			versionRange = inURL
		}
	}
	if err := q.setLicense(license); err != nil {
		return nil, err
	}
	if versionRange != "" {
		if err := q.setRange(versionRange); err != nil {
			return nil, err
		}
	}
	if q.Key == "" && q.Name == "" && q.License == "" {
		return nil, refusal.New(CodeQueryInvalid, "a package URL, a name or a licence is needed")
	}
	if q.versions != nil && q.Key == "" && q.Name == "" {
		return nil, refusal.New(CodeQueryInvalid, "a range of versions is one of some package: give its package URL or name")
	}
	return q, nil
}

// setPURL returns the range that stands where the version should.
func (q *Query) setPURL(text string) (versionRange string, err error) {
	text, versionRange = cutRange(text)
	p, err := ParsePURL(text)
	if err != nil {
		return "", err
	}
	if p.Subpath != "" {
		return "", refusal.New(CodeQueryInvalid, "components have no subpath, %.100q", p.Subpath)
	}
	switch {
	case p.Version == "":
	case versionRange != "":
		return "", refusal.New(CodeQueryInvalid, "the package URL has a version and a range")
	case startsRange(p.Version): // "@%3C2.17.1"
		versionRange = p.Version
	default:
		q.Version, q.versions = p.Version, versions.Exactly(p.Version)
	}
	q.Key, q.Type, q.Qualifiers = p.WithoutVersion(), p.Type, p.Qualifiers
	return versionRange, nil
}

// cutRange takes "@<2.17.1" out of a package URL: comparison signs cannot stand in one,
// so the first of them behind an "@" begins a range.
func cutRange(text string) (purl, versionRange string) {
	for i := range len(text) - 1 {
		if text[i] != '@' || !startsRange(text[i+1:]) {
			continue
		}
		versionRange, rest := text[i+1:], ""
		if end := strings.IndexByte(versionRange, '?'); end >= 0 {
			versionRange, rest = versionRange[:end], versionRange[end:]
		}
		return text[:i] + rest, versionRange
	}
	return text, ""
}

func startsRange(s string) bool {
	return s != "" && strings.ContainsRune("<>=!*", rune(s[0]))
}

func (q *Query) setRange(text string) error {
	if q.versions != nil {
		return refusal.New(CodeQueryInvalid, "the package URL has a version and a range is given beside it")
	}
	r, err := versions.ParseRange(text)
	if err != nil {
		return err
	}
	if q.Type != "" {
		if err := r.Check(q.Type); err != nil {
			return err
		}
	}
	q.versions = r
	return nil
}

func (q *Query) setLicense(text string) error {
	if text == "" {
		return nil
	}
	expr, _ := NormalizeLicense(text)
	ids := LicenseIDs([]string{expr})
	if len(ids) != 1 {
		return refusal.New(CodeQueryInvalid, "%.100q names %d licences; ask for one", text, len(ids))
	}
	q.License = ids[0]
	return nil
}

// MatchesVersion reports whether a version of a package URL type is one that was asked
// for. An error says that it cannot be told: the version is none of its ecosystem, or
// the ecosystem has no order. Such a component must be reported as undecided, since it
// may well be what was looked for.
func (q *Query) MatchesVersion(typ, version string) (bool, error) {
	if q.versions == nil {
		return true, nil
	}
	return q.versions.Matches(typ, version)
}

// Matches reports whether a package is one that was asked for, as far as its package
// URL tells; licence and name of the component are not looked at.
func (q *Query) Matches(p PURL) (bool, error) {
	if q.Key != "" && q.Key != p.WithoutVersion() {
		return false, nil
	}
	for _, want := range q.Qualifiers {
		if !slices.Contains(p.Qualifiers, want) {
			return false, nil
		}
	}
	if q.Version != "" && q.Version == p.Version {
		return true, nil // the epoch of an RPM is asked for as a qualifier, or not at all
	}
	return q.MatchesVersion(p.Type, p.orderedVersion())
}

// orderedVersion is the version with what the ecosystem orders by but keeps elsewhere:
// the package URL of an RPM has the epoch among the qualifiers.
func (p PURL) orderedVersion() string {
	if p.Type != "rpm" {
		return p.Version
	}
	for _, q := range p.Qualifiers {
		if q.Key == "epoch" {
			return q.Value + ":" + p.Version
		}
	}
	return p.Version
}
