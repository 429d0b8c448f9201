package versions

import (
	"regexp"
	"sync"

	"github.com/google/osv-scalibr/semantic"

	"github.com/assay-build/assay/internal/refusal"
)

// Why two versions cannot be compared.
const (
	// CodeVersionInvalid: a text is no version of its ecosystem.
	CodeVersionInvalid refusal.Code = "VERSION_INVALID"
	// CodeVersionUnordered: nothing defines an order for versions of that ecosystem.
	CodeVersionUnordered refusal.Code = "VERSION_UNORDERED"
)

// maxVersionBytes bounds what is compared: numbers of any length are read as such.
const maxVersionBytes = 256

// scheme is how the versions of one ecosystem are ordered and written.
type scheme struct {
	ecosystem string         // of package semantic
	form      *regexp.Regexp // what a version must look like at all
}

// schemes are by package URL type. The forms are compiled once: a search compares
// thousands of versions.
var schemes = sync.OnceValue(func() map[string]scheme {
	semver := regexp.MustCompile(`^v?\d+(\.\d+){0,2}([-+][0-9A-Za-z.+_~-]*)?$`)
	dotted := regexp.MustCompile(`^[vV]?\d+([.+_~@-]?[0-9A-Za-z]+)*$`)
	debian := regexp.MustCompile(`^(\d+:)?\d[0-9A-Za-z.+:~-]*$`)
	redhat := regexp.MustCompile(`^(\d+:)?[0-9A-Za-z][0-9A-Za-z._+~^-]*$`)
	return map[string]scheme{
		"apk":      {"Alpine", regexp.MustCompile(`^\d[0-9A-Za-z._~+-]*$`)},
		"bitnami":  {"Bitnami", semver},
		"cargo":    {"crates.io", semver},
		"composer": {"Packagist", dotted},
		"conan":    {"ConanCenter", semver},
		"cran":     {"CRAN", regexp.MustCompile(`^\d+([.-]\d+)+$`)},
		"deb":      {"Debian", debian},
		"gem":      {"RubyGems", regexp.MustCompile(`^\d+(\.[0-9A-Za-z]+)*(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)},
		"golang":   {"Go", semver},
		"hackage":  {"Hackage", regexp.MustCompile(`^\d+(\.\d+)*$`)},
		"hex":      {"Hex", semver},
		"julia":    {"Julia", semver},
		"maven":    {"Maven", regexp.MustCompile(`^[0-9A-Za-z]*\d[0-9A-Za-z._+-]*$`)},
		"npm":      {"npm", semver},
		"nuget":    {"NuGet", dotted},
		"pub":      {"Pub", semver},
		"pypi":     {"PyPI", regexp.MustCompile(`(?i)^v?(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?$`)},
		"rpm":      {"Red Hat", redhat},
		"swift":    {"SwiftURL", semver},
	}
})

// Ordered reports whether versions of a package URL type have an order.
func Ordered(typ string) bool {
	_, ok := schemes()[typ]
	return ok
}

// Compare orders two versions of one package URL type: negative where a is the earlier
// one, 0 where they are the same version, however written.
func Compare(typ, a, b string) (int, error) {
	va, err := parse(typ, a)
	if err != nil {
		return 0, err
	}
	if _, err := parse(typ, b); err != nil {
		return 0, err
	}
	n, err := va.CompareStr(b)
	if err != nil {
		return 0, refusal.New(CodeVersionInvalid, "%q and %q of %s: %w", a, b, typ, err)
	}
	return n, nil
}

func parse(typ, version string) (semantic.Version, error) {
	s, ok := schemes()[typ]
	if !ok {
		return nil, refusal.New(CodeVersionUnordered, "versions of type %.40q have no order", typ)
	}
	if len(version) > maxVersionBytes || !s.form.MatchString(version) {
		return nil, refusal.New(CodeVersionInvalid, "%.100q is no version of %s", version, typ)
	}
	v, err := semantic.Parse(version, s.ecosystem)
	if err != nil {
		return nil, refusal.New(CodeVersionInvalid, "%.100q is no version of %s: %w", version, typ, err)
	}
	return v, nil
}
