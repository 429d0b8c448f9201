package scan

import (
	"context"
	"path"
	"strings"

	"github.com/google/osv-scalibr/extractor"
	"github.com/google/osv-scalibr/extractor/filesystem/language/cpp/conanlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/dart/pubspec"
	"github.com/google/osv-scalibr/extractor/filesystem/language/elixir/mixlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/haskell/cabal"
	"github.com/google/osv-scalibr/extractor/filesystem/language/haskell/stacklock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/r/renvlock"
	"github.com/google/osv-scalibr/extractor/filesystem/language/swift/packageresolved"
	"github.com/google/osv-scalibr/extractor/filesystem/language/swift/podfilelock"
	"github.com/google/osv-scalibr/extractor/filesystem/os/pacman"
	"go.yaml.in/yaml/v3"

	"github.com/assay-build/assay/internal/sbom"
)

// otherReaders are the extractors of osv-scalibr for what has no reader of its own
// here: names and versions, without licences. Each is picked by hand: it reads the file
// it is given and asks neither programs nor the network.
func otherReaders() []reader {
	return []reader{
		scalibrReader("conan/lock", conanlock.New, named("conan.lock"), nil),
		boundedYAML(scalibrReader("pub/lock", pubspec.New, named("pubspec.lock"), nil)),
		scalibrReader("hex/mix-lock", mixlock.New, named("mix.lock"), nil),
		scalibrReader("hackage/cabal-freeze", cabal.New, named("cabal.project.freeze"), nil),
		boundedYAML(scalibrReader("hackage/stack-lock", stacklock.New, named("stack.yaml.lock"), nil)),
		scalibrReader("cran/renv-lock", renvlock.New, named("renv.lock"), nil),
		scalibrReader("swift/package-resolved", packageresolved.New, named("Package.resolved"), nil),
		boundedYAML(scalibrReader("cocoapods/lock", podfilelock.New, named("Podfile.lock"), nil)),
		scalibrReader("arch/pacman", pacman.New, isPacman, asALPM),
	}
}

// boundedYAML looks at a file before an extractor does that decodes it as YAML of any size.
func boundedYAML(r reader) reader {
	extract := r.read
	r.read = func(ctx context.Context, f *file) ([]*pkg, error) {
		data, err := readAll(f.tree, f.path, min(maxParsedLock, f.maxRead))
		if err != nil {
			return nil, err
		}
		var document yaml.Node
		if err := yaml.Unmarshal(data, &document); err == nil && (yamlWork{}).of(&document) > maxYAMLWork {
			return nil, errYAMLWork
		}
		return extract(ctx, f)
	}
	return r
}

func isPacman(p string) bool {
	return strings.HasPrefix(p, "var/lib/pacman/local/") && path.Base(p) == "desc"
}

// asALPM names a package of Arch Linux by the registered type, which the extractor does not.
func asALPM(f *file, p *extractor.Package, c *sbom.Component) {
	purl, err := osPURL("alpm", osOf(f.tree, "").namespace("arch"), p.Name, p.Version)
	if err != nil {
		purl = ""
	}
	c.PURL, c.Group = purl, ""
}
