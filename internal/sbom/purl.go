package sbom

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	packageurl "github.com/package-url/packageurl-go"

	"github.com/assay-build/assay/internal/refusal"
)

// CodePURLInvalid: a text is no package URL by ECMA-427, or one that breaks a rule of
// its type, or one too long to be kept.
const CodePURLInvalid refusal.Code = "PURL_INVALID"

// MaxPURLBytes bounds a package URL in its canonical spelling.
const MaxPURLBytes = 2 << 10

// PURL is a package URL (ECMA-427), taken apart and in the normal form of its type.
type PURL struct {
	Type      string
	Namespace string // segments joined by "/"
	Name      string
	Version   string
	// Qualifiers are in order of their keys, each once, none empty.
	Qualifiers []Qualifier
	Subpath    string // segments joined by "/"
}

// Qualifier is one key=value of a package URL.
type Qualifier struct{ Key, Value string }

// ParsePURL takes a package URL apart. It accepts every spelling that ECMA-427 gives a
// meaning, canonical or not; String of the result is the canonical one.
//
// It refuses what the standard leaves to the goodwill of readers, because a package
// URL is a name that policies compare: raw characters outside of printable ASCII,
// control characters or invalid UTF-8 behind a percent sign, a namespace segment with
// a slash in it, "." and ".." in a subpath.
func ParsePURL(s string) (PURL, error) {
	if err := checkSpelling(s); err != nil {
		return PURL{}, err
	}
	parsed, err := packageurl.FromString(s)
	if err != nil {
		return PURL{}, refusal.New(CodePURLInvalid, "%.200q: %s", s, oneLine(err.Error(), 200))
	}
	return fromLibrary(parsed)
}

// NewPURL spells the package URL of a package as its ecosystem names it. Qualifiers
// come as key, value, key, value; those with an empty value are left out. A name that
// holds its namespace, such as "@scope/name" of npm, a Go module path, "vendor/name" of
// Composer or "group:artifact" of Maven, is split.
func NewPURL(typ, namespace, name, version string, qualifiers ...string) (string, error) {
	if len(qualifiers)%2 != 0 {
		return "", refusal.New(CodePURLInvalid, "qualifier %.80q has no value", qualifiers[len(qualifiers)-1])
	}
	if namespace == "" {
		namespace, name = splitName(typ, name)
	}
	if err := checkParts(namespace, name, version); err != nil {
		return "", err
	}
	p := packageurl.PackageURL{Type: typ, Namespace: namespace, Name: name, Version: version}
	for i := 0; i < len(qualifiers); i += 2 {
		p.Qualifiers = append(p.Qualifiers, packageurl.Qualifier{Key: qualifiers[i], Value: qualifiers[i+1]})
	}
	if err := p.Normalize(); err != nil {
		return "", refusal.New(CodePURLInvalid, "type %.40q, name %.200q: %s", typ, name, oneLine(err.Error(), 200))
	}
	made, err := fromLibrary(p)
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// String spells p canonically.
func (p PURL) String() string { return p.library().ToString() }

// WithoutVersion names the package across its versions, architectures and
// distributions: no version, qualifiers or subpath. It is the key of searches. Python
// names are in the normal form of PEP 503 here, because PyPI takes "zope.interface" and
// "zope-interface" for one project while the package URLs of both are canonical.
func (p PURL) WithoutVersion() string {
	name := p.Name
	if p.Type == packageurl.TypePyPi {
		name = normalPyPI(name)
	}
	return PURL{Type: p.Type, Namespace: p.Namespace, Name: name}.String()
}

func normalPyPI(name string) string {
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	if len(words) == 0 {
		return name
	}
	return strings.ToLower(strings.Join(words, "-"))
}

// splitName parts a full name of an ecosystem that writes namespace and name as one.
func splitName(typ, full string) (namespace, name string) {
	separator := "/"
	switch strings.ToLower(typ) {
	case packageurl.TypeGolang, packageurl.TypeNPM, packageurl.TypeComposer, packageurl.TypeGithub, packageurl.TypeSwift:
	case packageurl.TypeMaven:
		separator = ":"
	default:
		return "", full
	}
	if i := strings.LastIndex(full, separator); i >= 0 {
		return full[:i], full[i+1:]
	}
	return "", full
}

// checkSpelling looks at what the parts no longer show.
func checkSpelling(s string) error {
	if len(s) > MaxPURLBytes {
		return refusal.New(CodePURLInvalid, "%d bytes; a package URL has at most %d", len(s), MaxPURLBytes)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return refusal.New(CodePURLInvalid, "%.200q: byte %#02x at %d must be percent-encoded", s, s[i], i)
		}
	}
	path, _, _ := strings.Cut(s, "#")
	path, _, _ = strings.Cut(path, "?")
	if at := strings.LastIndexByte(path, '@'); at > 0 && !strings.HasSuffix(path[:at], "/") {
		path = path[:at]
	}
	namespace := path[:strings.LastIndexByte(path, '/')+1]
	if strings.Contains(strings.ToLower(namespace), "%2f") {
		return refusal.New(CodePURLInvalid, "%.200q: a namespace segment holds a slash", s)
	}
	return nil
}

// checkParts refuses parts from which the library would make a package URL of
// something else: it trims and joins what it does not expect.
func checkParts(namespace, name, version string) error {
	if namespace != "" {
		for segment := range strings.SplitSeq(namespace, "/") {
			if segment == "" {
				return refusal.New(CodePURLInvalid, "namespace %.200q has an empty segment", namespace)
			}
		}
	}
	if n := len(namespace) + len(name) + len(version); n > MaxPURLBytes {
		return refusal.New(CodePURLInvalid, "%d bytes of names; a package URL has at most %d", n, MaxPURLBytes)
	}
	return nil
}

// fromLibrary applies the rules that the library does not know.
func fromLibrary(l packageurl.PackageURL) (PURL, error) {
	p := PURL{Type: l.Type, Namespace: l.Namespace, Name: l.Name, Version: l.Version}
	for _, q := range l.Qualifiers {
		p.Qualifiers = append(p.Qualifiers, Qualifier{q.Key, q.Value})
	}
	var err error
	if p.Subpath, err = cleanSubpath(l.Subpath); err != nil {
		return PURL{}, err
	}
	if p.Type == typeGit {
		if err := p.splitRepository(); err != nil {
			return PURL{}, err
		}
	}
	for _, part := range [...]string{p.Namespace, p.Name, p.Version, p.Subpath} {
		if err := checkDecoded(part); err != nil {
			return PURL{}, err
		}
	}
	for _, q := range p.Qualifiers {
		if err := checkDecoded(q.Value); err != nil {
			return PURL{}, err
		}
	}
	if n := len(p.String()); n > MaxPURLBytes {
		return PURL{}, refusal.New(CodePURLInvalid, "%d bytes; a package URL has at most %d", n, MaxPURLBytes)
	}
	return p, nil
}

// cleanSubpath drops empty segments, as the standard says, and refuses those that
// would walk: a reader might follow them.
func cleanSubpath(subpath string) (string, error) {
	if subpath == "" {
		return "", nil
	}
	segments := slices.DeleteFunc(strings.Split(subpath, "/"), func(s string) bool { return s == "" })
	if slices.Contains(segments, ".") || slices.Contains(segments, "..") {
		return "", refusal.New(CodePURLInvalid, "subpath %.200q has a segment . or ..", subpath)
	}
	return strings.Join(segments, "/"), nil
}

func checkDecoded(part string) error {
	if !utf8.ValidString(part) {
		return refusal.New(CodePURLInvalid, "%.200q is not UTF-8", part)
	}
	if strings.ContainsFunc(part, unicode.IsControl) {
		return refusal.New(CodePURLInvalid, "%.200q holds a control character", part)
	}
	return nil
}

// typeGit is newer than the library: the namespace is the host, the name is the whole
// path of the repository, and neither knows case.
const typeGit = "git"

func (p *PURL) splitRepository() error {
	full := strings.ToLower(strings.TrimPrefix(p.Namespace+"/"+p.Name, "/"))
	if strings.Contains("/"+full+"/", "//") {
		return refusal.New(CodePURLInvalid, "repository %.200q has an empty segment", full)
	}
	p.Namespace, p.Name = "", full
	if host, path, ok := strings.Cut(full, "/"); ok {
		p.Namespace, p.Name = host, path
	}
	return nil
}

func (p PURL) library() *packageurl.PackageURL {
	if p.Type == typeGit && strings.Contains(p.Name, "/") {
		i := strings.LastIndexByte(p.Name, '/')
		p.Namespace, p.Name = p.Namespace+"/"+p.Name[:i], p.Name[i+1:]
	}
	l := &packageurl.PackageURL{Type: p.Type, Namespace: p.Namespace, Name: p.Name, Version: p.Version, Subpath: p.Subpath}
	for _, q := range p.Qualifiers {
		l.Qualifiers = append(l.Qualifiers, packageurl.Qualifier{Key: q.Key, Value: q.Value})
	}
	return l
}
