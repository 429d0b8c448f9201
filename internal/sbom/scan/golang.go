package scan

import (
	"context"
	"debug/buildinfo"
	"errors"
	"path"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/assay-build/assay/internal/sbom"
)

// maxGoMod bounds a go.mod. The parser keeps a hundred bytes for each byte of a bad one;
// the largest in public have some hundred KiB.
const maxGoMod = 1 << 20

// golangReaders read what the Go linker writes into every executable: the modules that
// were compiled in, with their exact versions. The check sums beside them (h1:) are over
// a list of file digests and no digest of any file, so they are not hashes here.
func golangReaders() []reader {
	return []reader{
		{name: "go/binary", magic: func(_ string, head []byte) bool { return isNative(head) }, read: readGoBinary},
		{name: "go/mod", wants: isGoMod, read: readGoMod},
	}
}

// isGoMod leaves out what the go command does not build either: test data. Vendoring copies
// no go.mod: one in a folder called vendor is that of another module.
func isGoMod(p string) bool {
	return path.Base(p) == "go.mod" && !strings.Contains("/"+p, "/testdata/")
}

// readGoMod reads the requirements of a module in source. Since go 1.17 they are all that
// a build takes in, each with the version that it takes. The module itself has no
// version in its own source, so it is no component.
func readGoMod(_ context.Context, f *file) ([]*pkg, error) {
	data, err := readAll(f.tree, f.path, min(maxGoMod, f.maxRead))
	if err != nil {
		return nil, err
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return nil, firstOf(err)
	}
	replaced := map[module.Version]int{} // indexes of mod.Replace; the last counts
	for i, r := range mod.Replace {
		replaced[r.Old] = i
	}
	var found []*pkg
	for _, r := range mod.Require {
		m := debug.Module{Path: r.Mod.Path, Version: r.Mod.Version}
		at, ok := replaced[r.Mod]
		if every, all := replaced[module.Version{Path: m.Path}]; all && (!ok || every > at) {
			at, ok = every, true
		}
		if ok {
			to := mod.Replace[at].New
			m.Replace = &debug.Module{Path: to.Path, Version: to.Version}
		}
		k, err := goModule(&m)
		if err != nil {
			return found, err
		}
		k.direct = !r.Indirect
		found = append(found, k)
	}
	return found, nil
}

// firstOf is the first error of a list, which names each line of a file.
func firstOf(err error) error {
	if list := (modfile.ErrorList)(nil); errors.As(err, &list) && len(list) > 0 {
		return &list[0]
	}
	return err
}

// readGoBinary uses debug/buildinfo, as osv-scalibr's own extractor does, which however
// spells versions without their v and forgets what a replaced module replaces.
func readGoBinary(_ context.Context, f *file) ([]*pkg, error) {
	in, at, err := f.openAt()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	info, err := buildinfo.Read(at)
	if err != nil {
		return nil, nil //nolint:nilerr // an executable of another language
	}
	return goModules(info)
}

// goModules are the main module, the modules it is built of, and the standard library.
// Build information has no graph: all are what the main module depends on. The error is
// the first module whose name makes no package URL.
func goModules(info *buildinfo.BuildInfo) (found []*pkg, failed error) {
	add := func(m *debug.Module) {
		k, err := goModule(m)
		if err != nil {
			if failed == nil {
				failed = err
			}
			return
		}
		found = append(found, k)
	}
	for _, m := range info.Deps {
		add(m)
	}
	if v := goVersion(info.GoVersion); v != "" {
		add(&debug.Module{Path: "stdlib", Version: v})
	}
	if info.Main.Path == "" { // built from files, outside of a module
		for _, k := range found {
			k.direct = true
		}
		return found, failed
	}
	deps := make([]string, len(found))
	for i, k := range found {
		deps[i] = k.PURL
	}
	main, err := goModule(&info.Main)
	if err != nil {
		return found, err
	}
	main.direct, main.Type, main.DependsOn = true, "application", deps
	return append(found, main), failed
}

// goModule is what was compiled: the replacement, where a module is replaced by another.
// One replaced by a folder keeps its name, and has no version: that of the original is
// not what is inside.
func goModule(m *debug.Module) (*pkg, error) {
	name, version := m.Path, m.Version
	if r := m.Replace; r != nil {
		if localPath(r.Path) {
			version = ""
		} else {
			name, version = r.Path, r.Version
		}
	}
	if version == "(devel)" {
		version = ""
	}
	purl, err := sbom.NewPURL("golang", "", name, version)
	if err != nil {
		return nil, err
	}
	return &pkg{Component: sbom.Component{PURL: purl, Name: name, Version: version}}, nil
}

// localPath: a replacement without version must be a path that starts so (go.mod reference).
func localPath(p string) bool {
	return strings.HasPrefix(p, "./") || strings.HasPrefix(p, "../") || strings.HasPrefix(p, "/") ||
		(len(p) > 1 && p[1] == ':') || strings.Contains(p, `\`)
}

// goVersion is the version of the standard library: "go1.26.8 X:nocoverageredesign" is
// 1.26.8. A development version ("devel go1.27-5a56d88") is the release it leads to.
func goVersion(v string) string {
	for field := range strings.FieldsSeq(v) {
		if rest, ok := strings.CutPrefix(field, "go"); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return rest
		}
	}
	return ""
}
