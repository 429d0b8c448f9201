package scan

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxGemMetadata bounds the specification of a gem, which lists its files.
const maxGemMetadata = 2 << 20

func rubyReaders() []reader {
	return []reader{
		{name: "ruby/gemfile-lock", wants: wantsGemLock, read: readGemLock},
		{name: "ruby/specification", wants: wantsGemspec, read: readGemspec, resolve: resolveGems},
		{name: "ruby/gem", archive: readGem},
	}
}

func wantsGemLock(p string) bool {
	name := path.Base(p)
	return name == "Gemfile.lock" || name == "gems.locked" || strings.HasSuffix(name, ".gemfile.lock")
}

// gemLock is Bundler's lock while it is read: sections that begin at the margin, entries
// of a section by indentation.
type gemLock struct {
	findings
	section  string
	remote   string
	revision string
	byName   providers
	byFull   map[string]*pkg // by name and version
	current  *pkg
	needs    []gemNeed
	direct   []string
	sums     map[string]string
}

type gemNeed struct {
	from *pkg
	name string
}

var (
	gemEntry    = regexp.MustCompile(`^( +)([^\s()!]+)(?: \(([^()]*)\))?(!)?(?: (.*))?$`)
	gemChecksum = regexp.MustCompile(`^sha256=([0-9a-f]{64})$`)
)

// readGemLock reads the lock of Bundler. A gem that the lock lists for several platforms is
// one component: it is one of them that gets installed.
func readGemLock(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	l := gemLock{byName: providers{}, byFull: map[string]*pkg{}, sums: map[string]string{}}
	for raw := range bytes.Lines(data) {
		line := strings.TrimRight(string(raw), " \r\n")
		switch {
		case line == "":
		case line[0] != ' ':
			l.section, l.remote, l.revision, l.current = line, "", "", nil
		default:
			l.line(line)
		}
	}
	for _, need := range l.needs {
		need.from.dependOnEach(l.byName[need.name])
	}
	for _, name := range l.direct {
		for _, k := range l.byName[name] {
			k.direct = true
		}
	}
	for _, k := range l.pkgs {
		k.hash("sha256", l.sums[k.Name+" "+k.Version])
	}
	return l.done()
}

func (l *gemLock) line(line string) {
	switch l.section {
	case "GEM", "GIT", "PATH", "PLUGIN SOURCE":
		l.source(line)
	case "DEPENDENCIES":
		if m := gemEntry.FindStringSubmatch(line); m != nil && len(m[1]) == 2 {
			l.direct = append(l.direct, m[2])
		}
	case "CHECKSUMS":
		if m := gemEntry.FindStringSubmatch(line); m != nil && m[3] != "" {
			if sum := gemChecksum.FindStringSubmatch(m[5]); sum != nil {
				l.sums[m[2]+" "+m[3]] = sum[1]
			}
		}
	}
}

// source reads a line of a section of gems: where they come from at 2 spaces, a gem at 4,
// what it needs at 6.
func (l *gemLock) source(line string) {
	if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "    ") {
		switch key {
		case "remote":
			l.remote = value
		case "revision":
			l.revision = value
		}
		return
	}
	m := gemEntry.FindStringSubmatch(line)
	if m == nil {
		return
	}
	switch len(m[1]) {
	case 4:
		l.gem(m[2], m[3])
	case 6:
		if l.current != nil {
			l.needs = append(l.needs, gemNeed{l.current, m[2]})
		}
	}
}

func (l *gemLock) gem(name, full string) {
	version, _, _ := strings.Cut(full, "-") // the platform
	if version == "" {
		l.current = nil
		l.fail(fmt.Errorf("gem %.80q has no version", name))
		return
	}
	var qualifiers []string
	if l.section == "GIT" {
		qualifiers = []string{"vcs_url", vcsURL(l.remote, l.revision)}
	}
	if k := l.byFull[name+" "+version]; k != nil {
		l.current = k
		return
	}
	l.current = l.add("gem", "", name, version, qualifiers...)
	if l.section == "PATH" {
		l.current.Type = "application"
	}
	l.byFull[name+" "+version] = l.current
	l.byName.add(name, l.current)
}

// wantsGemspec is the specification of an installed gem, which RubyGems generates. Those in
// source trees are programs.
func wantsGemspec(p string) bool {
	if path.Ext(p) != ".gemspec" {
		return false
	}
	dir := path.Dir(p)
	if path.Base(dir) == "default" {
		dir = path.Dir(dir)
	}
	return path.Base(dir) == "specifications"
}

var (
	gemspecField      = regexp.MustCompile(`^\s*\w+\.(name|version|license|licenses)\s*=\s*(.+)$`)
	gemspecDependency = regexp.MustCompile(`\.add_(?:runtime_)?dependency\(?\s*(?:%q<([^>]+)>|["']([^"']+)["'])`)
	rubyString        = regexp.MustCompile(`"([^"\\]*)"|'([^'\\]*)'|%q<([^>]*)>`)
)

// readGemspec reads a specification as RubyGems writes it, one field a line.
func readGemspec(_ context.Context, f *file) ([]*pkg, error) {
	data, err := f.bytes()
	if err != nil {
		return nil, err
	}
	fields := map[string][]string{}
	var needs []string
	for raw := range bytes.Lines(data) {
		line := strings.TrimRight(string(raw), "\r\n")
		if m := gemspecField.FindStringSubmatch(line); m != nil && fields[m[1]] == nil {
			for _, s := range rubyString.FindAllStringSubmatch(m[2], -1) {
				fields[m[1]] = append(fields[m[1]], s[1]+s[2]+s[3])
			}
		} else if m := gemspecDependency.FindStringSubmatch(line); m != nil {
			needs = append(needs, m[1]+m[2])
		}
	}
	if len(fields["name"]) != 1 || len(fields["version"]) != 1 {
		return nil, errors.New("a specification without a name or a version")
	}
	var out findings
	k := out.add("gem", "", fields["name"][0], fields["version"][0])
	k.Licenses = anyLicense(append(fields["license"], fields["licenses"]...))
	k.needs = needs
	return out.done()
}

// resolveGems turns names into edges. Where several versions of a gem are installed, what
// loads decides for one; then there is no edge.
func resolveGems(found []*pkg) {
	byName := map[string]map[string]bool{}
	for _, k := range found {
		if byName[k.Name] == nil {
			byName[k.Name] = map[string]bool{}
		}
		byName[k.Name][k.PURL] = true
	}
	for _, k := range found {
		for _, need := range k.needs {
			if len(byName[need]) != 1 {
				continue
			}
			for purl := range byName[need] {
				k.dependOn(purl)
			}
		}
		k.needs = nil
	}
}

// gemMetadata is the YAML in a gem. Ruby's tags are ignored: only scalars are read.
type gemMetadata struct {
	Name    string `yaml:"name"`
	Version struct {
		Version string `yaml:"version"`
	} `yaml:"version"`
	Licenses []string `yaml:"licenses"`
	License  string   `yaml:"license"`
}

// readGem reads the specification of a gem, which is the package itself.
func readGem(_ context.Context, f *file) ([]*pkg, error) {
	if f.from.format != "gem" && path.Ext(f.from.name) != ".gem" {
		return nil, nil
	}
	data, err := gemSpecification(f)
	if err != nil || data == nil {
		return nil, err
	}
	var document yaml.Node
	var spec gemMetadata
	err = yaml.Unmarshal(data, &document)
	if err == nil {
		err = decodeYAML(&document, &spec)
	}
	if err != nil {
		return nil, fmt.Errorf("metadata.gz: %w", err)
	}
	if spec.Name == "" || spec.Version.Version == "" {
		return nil, errors.New("metadata.gz: no name or no version")
	}
	var out findings
	k := out.add("gem", "", spec.Name, spec.Version.Version)
	k.direct = true
	k.Licenses = anyLicense(append(spec.Licenses, spec.License))
	if k.Hashes, err = f.from.sums(); err != nil {
		return nil, err
	}
	return out.done()
}

// gemSpecification unpacks metadata.gz; nil where there is none.
func gemSpecification(f *file) ([]byte, error) {
	packed, err := f.sibling("metadata.gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("metadata.gz: %w", err)
	}
	data, err := readLimited(z, maxGemMetadata)
	if err != nil {
		return nil, fmt.Errorf("metadata.gz: %w", err)
	}
	return data, nil
}
