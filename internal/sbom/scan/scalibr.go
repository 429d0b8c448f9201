package scan

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor"
	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/log"

	"github.com/assay-build/assay/internal/sbom"
)

// newExtractor is how osv-scalibr makes each of its extractors.
type newExtractor func(*config_go_proto.PluginConfig) (filesystem.Extractor, error)

// scalibrReader runs an extractor of osv-scalibr on the files that wants names. enrich,
// where it is set, adds to a component what the extractor does not tell; the component
// already has its package URL, name, version and licences. It may clear the PURL of one
// that is no finding.
func scalibrReader(name string, create newExtractor, wants func(string) bool, enrich func(f *file, p *extractor.Package, c *sbom.Component)) reader {
	ex, failed := create(&config_go_proto.PluginConfig{})
	return reader{name: name, wants: wants, read: func(ctx context.Context, f *file) ([]*pkg, error) {
		if failed != nil {
			return nil, failed
		}
		return runExtractor(ctx, ex, f, enrich)
	}}
}

func runExtractor(ctx context.Context, ex filesystem.Extractor, f *file, enrich func(*file, *extractor.Package, *sbom.Component)) ([]*pkg, error) {
	if f.info.Size() > f.maxRead {
		return nil, errTooLarge
	}
	in, err := f.open()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	// The empty Root tells extractors that there is no file system to look at but FS.
	inv, err := ex.Extract(ctx, &filesystem.ScanInput{FS: scalibrFS{f.tree}, Path: f.path, Info: f.info, Reader: in})
	found, badName := fromScalibr(f, inv.Packages, enrich)
	if err == nil {
		err = badName
	}
	return found, err
}

// fromScalibr maps packages, with the edges that their parents' ids state. The error is
// the first package that cannot be named. Some extractors give them in the order of a map.
func fromScalibr(f *file, packages []*extractor.Package, enrich func(*file, *extractor.Package, *sbom.Component)) ([]*pkg, error) {
	slices.SortStableFunc(packages, func(a, b *extractor.Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	var found []*pkg
	var failed error
	byID := make(map[string]*pkg)
	for _, p := range packages {
		k, err := fromPackage(p)
		if err != nil {
			if failed == nil {
				failed = err
			}
			continue
		}
		if enrich != nil {
			enrich(f, p, &k.Component)
		}
		if k.PURL == "" {
			continue
		}
		found = append(found, k)
		if p.ID != "" {
			byID[p.ID] = k
		}
	}
	for _, p := range packages { // parents may come after their children
		child := byID[p.ID]
		if child == nil {
			continue
		}
		for _, id := range sortedKeys(p.ParentIDs) {
			if parent := byID[id]; parent != nil {
				parent.DependsOn = append(parent.DependsOn, child.PURL)
			}
		}
	}
	return found, failed
}

func fromPackage(p *extractor.Package) (*pkg, error) {
	purl := p.PURL()
	if purl == nil {
		return nil, fmt.Errorf("package %.100q has no package URL", p.Name)
	}
	namespace, name := purl.Namespace, purl.Name
	if i := strings.LastIndexByte(name, '/'); namespace == "" && i > 0 && purl.Type == "swift" {
		namespace, name = name[:i], name[i+1:] // the extractor leaves "github.com/apple/swift-nio" in one
	}
	var qualifiers []string
	for _, q := range purl.Qualifiers {
		if q.Value != "" {
			qualifiers = append(qualifiers, q.Key, q.Value)
		}
	}
	spelt, err := sbom.NewPURL(purl.Type, namespace, name, purl.Version, qualifiers...)
	if err != nil {
		return nil, err
	}
	k := &pkg{Component: sbom.Component{PURL: spelt, Group: namespace, Name: name, Version: p.Version}}
	for _, l := range p.Licenses {
		if expr, _ := sbom.NormalizeLicense(l); expr != "" {
			k.Licenses = append(k.Licenses, expr)
		}
	}
	return k, nil
}

// scalibrFS is a tree as the extractors want it.
type scalibrFS struct{ fs.FS }

func (t scalibrFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }
func (t scalibrFS) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(t.FS, name) }

// silenceScalibr ends the logging of osv-scalibr, which goes to stderr of the whole
// process: what it has to say of hostile files is its errors.
var silenceScalibr = sync.OnceFunc(func() { log.SetLogger(&noLogger{}) })

type noLogger struct{}

func (*noLogger) Errorf(string, ...any) {}
func (*noLogger) Error(...any)          {}
func (*noLogger) Warnf(string, ...any)  {}
func (*noLogger) Warn(...any)           {}
func (*noLogger) Infof(string, ...any)  {}
func (*noLogger) Info(...any)           {}
func (*noLogger) Debugf(string, ...any) {}
func (*noLogger) Debug(...any)          {}
