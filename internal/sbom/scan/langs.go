package scan

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Scopes of a component, as CycloneDX names them.
const (
	scopeRequired = "required"
	scopeOptional = "optional"
	scopeExcluded = "excluded"
)

const (
	// maxManifestBytes bounds a manifest that is read beside another file.
	maxManifestBytes = 256 << 10
	// maxLicenseNames is how many licences of one package are looked at.
	maxLicenseNames = 64
	// maxProviders is how many packages one name leads to, where several have it.
	maxProviders = 64
)

// byteOrderMark is what tools of Windows put before UTF-8.
const byteOrderMark = "\ufeff"

// findings collects what one file says. A package whose names make no package URL is
// left out and remembered as the file's error: the rest of the file counts.
type findings struct {
	pkgs []*pkg
	err  error
}

// add notes a package. The result is never nil; it is not among the findings where the
// names are invalid. Qualifiers are those of sbom.NewPURL.
func (c *findings) add(typ, namespace, name, version string, qualifiers ...string) *pkg {
	purl, err := sbom.NewPURL(typ, namespace, name, version, qualifiers...)
	p := &pkg{Component: sbom.Component{PURL: purl, Group: namespace, Name: name, Version: version}}
	if err != nil {
		c.fail(err)
		return p
	}
	c.pkgs = append(c.pkgs, p)
	return p
}

// fail keeps the first reason why the file is not understood in full.
func (c *findings) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// done gives the findings in order of their package URLs, which the maps of JSON do not have.
func (c *findings) done() ([]*pkg, error) {
	slices.SortStableFunc(c.pkgs, func(a, b *pkg) int { return strings.Compare(a.PURL, b.PURL) })
	return c.pkgs, c.err
}

// named is the reader.wants of files that are known by their base name alone.
func named(names ...string) func(string) bool {
	return func(p string) bool { return slices.Contains(names, path.Base(p)) }
}

// dependOn adds an edge. Normalize drops those that are there twice.
func (k *pkg) dependOn(purl string) {
	if purl == "" || purl == k.PURL {
		return
	}
	k.DependsOn = addEdge(k.DependsOn, purl)
}

// addEdge appends to a list of edges, of which it keeps a few more than a component may
// have: Normalize sees that there are too many.
func addEdge(list []string, purl string) []string {
	list = append(list, purl)
	if len(list) <= 2*sbom.MaxDependencies {
		return list
	}
	list = sortedUnique(list)
	return list[:min(len(list), sbom.MaxDependencies+1)]
}

// dependOnEach adds an edge to each.
func (k *pkg) dependOnEach(found []*pkg) {
	for _, to := range found {
		k.dependOn(to.PURL)
	}
}

// providers are packages by a name that leads to them: their own, or one that they
// provide. Hostile packages may all provide what they all need.
type providers map[string][]*pkg

// add notes one more, up to maxProviders.
func (x providers) add(name string, k *pkg) {
	if len(x[name]) < maxProviders {
		x[name] = append(x[name], k)
	}
}

// hash adds a digest in hex; anything else is left out, since locks may state a digest
// in other forms, or none.
func (k *pkg) hash(algorithm, value string) {
	if h, ok := newHash(algorithm, value); ok {
		k.Hashes = append(k.Hashes, h)
	}
}

// hash64 is hash for digests in base64.
func (k *pkg) hash64(algorithm, value string) {
	if h, ok := newHash64(algorithm, value); ok {
		k.Hashes = append(k.Hashes, h)
	}
}

// newHash checks a digest that a lock names, with the algorithm as ecosystems spell it.
func newHash(algorithm, value string) (sbom.Hash, bool) {
	var h sbom.Hash
	size := 0
	switch strings.ToLower(algorithm) {
	case "md5":
		h.Algorithm, size = "MD5", 16
	case "sha1":
		h.Algorithm, size = "SHA-1", 20
	case "sha256":
		h.Algorithm, size = "SHA-256", 32
	case "sha384":
		h.Algorithm, size = "SHA-384", 48
	case "sha512":
		h.Algorithm, size = "SHA-512", 64
	}
	if size == 0 || len(value) != 2*size {
		return h, false
	}
	h.Value = strings.ToLower(value)
	_, err := hex.DecodeString(h.Value)
	return h, err == nil
}

func newHash64(algorithm, value string) (sbom.Hash, bool) {
	raw, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return sbom.Hash{}, false
	}
	return newHash(algorithm, hex.EncodeToString(raw))
}

// anyLicense is for ecosystems in which several licences are a choice.
func anyLicense(names []string) []string { return licenseChoice(normalLicenses(names)) }

// normalLicenses normalizes each name, in their order, each once.
func normalLicenses(names []string) []string {
	var texts []string
	for _, name := range names[:min(len(names), maxLicenseNames)] {
		if text, _ := sbom.NormalizeLicense(name); text != "" && !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts
}

// licenseChoice makes one expression with OR of licences of which one may be picked.
// Where one of them is no SPDX expression, no expression can say so, and the list is
// kept; that claims more obligations than there are, never fewer.
func licenseChoice(texts []string) []string {
	if len(texts) < 2 {
		return texts
	}
	for _, text := range texts {
		if _, isSPDX := sbom.NormalizeLicense(text); !isSPDX {
			return texts
		}
	}
	if choice, isSPDX := sbom.NormalizeLicense("(" + strings.Join(texts, ") OR (") + ")"); isSPDX {
		return []string{choice}
	}
	return texts
}

// vcsURL is the qualifier vcs_url of package URLs: a repository at a revision.
func vcsURL(repository, revision string) string {
	if repository == "" {
		return ""
	}
	if !strings.HasPrefix(repository, "git+") {
		repository = "git+" + repository
	}
	if revision == "" {
		return repository
	}
	return repository + "@" + revision
}

// openAt opens a file for reading at places.
func (f *file) openAt() (fs.File, io.ReaderAt, error) {
	in, err := f.open()
	if err != nil {
		return nil, nil, err
	}
	at, ok := in.(io.ReaderAt)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("%w: a file that can only be read in order", errUnsupported), in.Close())
	}
	return in, at, nil
}

// readLimited reads all of r, which holds at most limit bytes.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, errTooLarge
	}
	return data, err
}

func sortedUnique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// sortedKeys gives the keys of a map in order, so that the same lock gives the same
// findings each time.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
