package versions

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

// TestCompareFixtures runs the comparisons that come with the library, which are made
// with the package managers themselves, through our own door: it may refuse, as it does
// what only ever stood in tests or in a time before the rules, and must not answer
// otherwise.
func TestCompareFixtures(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "github.com/google/osv-scalibr/semantic").Output()
	if err != nil {
		t.Skipf("no module cache to read the fixtures from: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "testdata")
	for _, c := range []struct {
		file, types string
		refused     int // of a hundred, at most
	}{
		{"alpine-versions.txt", "apk", 5}, {"alpine-versions-generated.txt", "apk", 0},
		{"cran-versions.txt", "cran", 10}, {"cran-versions-generated.txt", "cran", 0},
		{"debian-versions.txt", "deb", 0}, {"debian-versions-generated.txt", "deb", 0},
		{"hackage-versions.txt", "hackage", 0},
		{"maven-versions.txt", "maven", 5}, {"maven-versions-generated.txt", "maven", 1},
		{"nuget-versions.txt", "nuget", 0},
		{"packagist-versions.txt", "composer", 10}, {"packagist-versions-generated.txt", "composer", 1},
		{"pub-versions.txt", "pub", 15},
		{"pypi-versions.txt", "pypi", 30}, {"pypi-versions-generated.txt", "pypi", 1},
		{"redhat-versions.txt", "rpm", 30},
		{"rubygems-versions.txt", "gem", 10}, {"rubygems-versions-generated.txt", "gem", 0},
		{"semver-versions.txt", "npm golang cargo hex", 15},
	} {
		file, err := os.Open(filepath.Join(dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for typ := range strings.FieldsSeq(c.types) {
			if _, err := file.Seek(0, 0); err != nil {
				t.Fatal(err)
			}
			compared, refused := compareLines(t, file, typ)
			t.Logf("%-8s %-34s %5d compared, %d refused", typ, c.file, compared, refused)
			if compared == 0 || 100*refused > c.refused*(compared+refused) {
				t.Errorf("%s: %d of %d refused", c.file, refused, compared+refused)
			}
		}
	}
}

func compareLines(t *testing.T, file *os.File, typ string) (compared, refused int) {
	t.Helper()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 3 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], "//") {
			continue
		}
		got, err := Compare(typ, words[0], words[2])
		if err != nil {
			refused++
			continue
		}
		compared++
		if want := map[string]int{"<": -1, "=": 0, ">": 1}[words[1]]; got != want {
			t.Errorf("%s: %s: %d", typ, lines.Text(), got)
		}
	}
	return compared, refused
}

func TestCompareRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ, version string
		code         refusal.Code
	}{
		{"npm", "", CodeVersionInvalid}, {"npm", "latest", CodeVersionInvalid}, {"npm", "1.2.3.4", CodeVersionInvalid}, {"npm", "^1.0", CodeVersionInvalid},
		{"npm", "1.x", CodeVersionInvalid}, {"npm", "git+https://a", CodeVersionInvalid}, {"golang", "(devel)", CodeVersionInvalid}, {"golang", "UNKNOWN", CodeVersionInvalid},
		{"maven", "${project.version}", CodeVersionInvalid}, {"maven", "LATEST", CodeVersionInvalid}, {"pypi", "1.0-", CodeVersionInvalid}, {"pypi", "main", CodeVersionInvalid},
		{"composer", "dev-master", CodeVersionInvalid}, {"deb", "abc", CodeVersionInvalid}, {"deb", "1:2:3~", ""}, {"gem", ">= 1", CodeVersionInvalid},
		{"rpm", "", CodeVersionInvalid}, {"cargo", strings.Repeat("1", maxVersionBytes+1), CodeVersionInvalid}, {"npm", "1.0.0\n", CodeVersionInvalid},
		{"generic", "1.0", CodeVersionUnordered}, {"", "1.0", CodeVersionUnordered}, {"github", "v1", CodeVersionUnordered},
	} {
		if _, err := Compare(c.typ, c.version, c.version); refusal.CodeOf(err) != c.code {
			t.Errorf("%s %.40q: %v", c.typ, c.version, err)
		}
	}
}

func TestRange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, typ string
		in, out   string // versions that are and are not in the range
	}{
		{"<2.17.1", "maven", "2.14.1 2.0 2.17.0 2.17.1-rc1 1.2.17", "2.17.1 2.17.2 3 2.17.1-1"},
		{">=2.0,<2.17.1", "maven", "2.0 2.14.1", "1.2.17 2.17.1 2.0-beta9"},
		{">=1.0.0, <2.0.0, !=1.5.0", "npm", "1.0.0 1.9.9 v1.2.3", "1.5.0 2.0.0 1.0.0-rc.1"},
		{"<=1.10", "pypi", "1.9 1.10 1.10.0 1.10rc1 1.10.dev1", "1.10.post1 1.11 1!0.1"},
		{"==1.0", "pypi", "1.0 1.0.0 1", "1.0.1"},
		{">1.0~rc1", "deb", "1.0 1:0.1 1.0-1", "1.0~rc1 1.0~beta 0.9"},
		{"<1.2.3-r4", "apk", "1.2.3-r3 1.2.3_rc1-r9", "1.2.3-r4 1.2.4-r0"},
		{"<1.2-3.el9", "rpm", "1.2-2.el9 0:1.2-1", "1:0.1-1 1.2-3.el9"},
		{"<v1.2.0", "golang", "v1.1.9 v1.2.0-rc.1 v0.0.0-20240101000000-abcdefabcdef", "v1.2.0 v2.0.0+incompatible"},
		{"<1.0.0", "gem", "0.9 1.0.0.beta1", "1.0.0 1.0"},
		{"<2.0.0.1", "nuget", "2.0.0 2.0.0.0", "2.0.0.1 2.1"},
		{"*", "npm", "1 anything", ""},
		{"vers:maven/*", "maven", "anything", ""},
		{"vers:maven/>=2.0|<2.17.1", "maven", "2.0 2.14.1", "1.2.17 2.17.1"},
		{"vers:maven/<2.17.1|>=2.0|2.20", "maven", "2.0 2.14.1 2.20", "2.19 1.9 2.17.1 2.21"},
		{"vers:npm/1.2.3|>=2.0.0|<5.0.0", "npm", "1.2.3 2.0.0 4.9.9", "1.2.4 1.0.0 5.0.0"},
		{"vers:npm/<1.0.0|>=2.0.0|!=2.1.0|<3.0.0|>4.0.0", "npm", "0.9.0 2.0.0 2.0.5 2.9.0 4.0.1", "1.0.0 1.5.0 2.1.0 3.0.0 4.0.0"},
		{"vers:npm/!=1.0.0", "npm", "0.9.0 1.0.1", "1.0.0"},
		{"vers:npm/1.0.0", "npm", "1.0.0 v1.0.0", "1.0.1 0.9.0"},
		{"vers:npm/1.0.0|!=1.1.0", "npm", "1.0.0", "1.1.0 1.2.0"},
		{"vers:npm/<=1.0.0|>=2.0.0", "npm", "1.0.0 2.0.0 0.1.0 3.0.0", "1.5.0"},
		{"vers:deb/<1.0%2Bdfsg-1", "deb", "1.0-1", "1.0+dfsg-1 1.1"},
		{"=abc", "generic", "abc", "abd"},
	} {
		r, err := ParseRange(c.text)
		if err == nil {
			err = r.Check(c.typ)
		}
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		for want, list := range map[bool]string{true: c.in, false: c.out} {
			for v := range strings.FieldsSeq(list) {
				if got, err := r.Matches(c.typ, v); err != nil || got != want {
					t.Errorf("%s: %s: %v, %v", c.text, v, got, err)
				}
			}
		}
	}
}

func TestRangeUndecided(t *testing.T) {
	t.Parallel()
	r, err := ParseRange("<2.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Matches("npm", "latest"); refusal.CodeOf(err) != CodeVersionInvalid {
		t.Error(err)
	}
	if _, err := r.Matches("generic", "1.0.0"); refusal.CodeOf(err) != CodeVersionUnordered {
		t.Error(err)
	}
	specifier, err := ParseRange("vers:npm/<2.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if in, err := specifier.Matches("pypi", "1.0"); in || err != nil {
		t.Errorf("of another ecosystem: %v, %v", in, err)
	}
	if _, err := specifier.Matches("npm", ""); refusal.CodeOf(err) != CodeVersionInvalid {
		t.Error(err)
	}
}

func TestParseRangeRefuses(t *testing.T) {
	t.Parallel()
	for text, code := range map[string]refusal.Code{
		"": CodeRangeInvalid, "<": CodeRangeInvalid, ">=1,": CodeRangeInvalid, "1 2": CodeRangeInvalid, "^1.0|2": CodeRangeInvalid, "<<1": CodeRangeInvalid,
		"vers:": CodeRangeInvalid, "vers:npm": CodeRangeInvalid, "vers:npm/": CodeRangeInvalid, "vers:NPM/<1": CodeRangeInvalid, "vers:npm/<1|>=1": CodeRangeInvalid,
		"vers:npm/>=1.0.0|>=2.0.0": CodeRangeInvalid, "vers:npm/<1.0.0|<2.0.0": CodeRangeInvalid, "vers:npm/1.0.0|1.0.0": CodeRangeInvalid,
		"vers:npm/<%zz": CodeRangeInvalid, "vers:npm/<latest": CodeVersionInvalid, "vers:generic/<1": CodeVersionUnordered, "vers:npm/<1|<x": CodeVersionInvalid,
		strings.Repeat("!=1,", maxComparisons) + "!=1": CodeRangeInvalid, strings.Repeat("1", maxRangeBytes+1): CodeRangeInvalid,
	} {
		if _, err := ParseRange(text); refusal.CodeOf(err) != code {
			t.Errorf("%.60q: %v", text, err)
		}
	}
	r, err := ParseRange("<latest")
	if err != nil || refusal.CodeOf(r.Check("npm")) != CodeVersionInvalid || r.Check("maven") == nil {
		t.Error("a range that is none of the ecosystem passes", err)
	}
}

// TestIntervalsAgree: a specifier of one interval is what two comparisons say, for any
// versions.
func TestIntervalsAgree(t *testing.T) {
	t.Parallel()
	version := rapid.StringMatching(`[0-3]\.[0-3]\.[0-3](-rc\.[0-3])?`)
	rapid.Check(t, func(t *rapid.T) {
		low, high, v := version.Draw(t, "low"), version.Draw(t, "high"), version.Draw(t, "v")
		if n, err := Compare("npm", low, high); err != nil || n >= 0 {
			return
		}
		plain, err := ParseRange(">=" + low + ",<" + high)
		if err != nil {
			t.Fatal(err)
		}
		specifier, err := ParseRange("vers:npm/<" + high + "|>=" + low)
		if err != nil {
			t.Fatal(err)
		}
		a, errA := plain.Matches("npm", v)
		b, errB := specifier.Matches("npm", v)
		if a != b || errA != nil || errB != nil {
			t.Fatalf("%s in [%s, %s): %v and %v, %v, %v", v, low, high, a, b, errA, errB)
		}
	})
}

// FuzzCompare: no version makes the library panic, and order has two sides.
func FuzzCompare(f *testing.F) {
	f.Add("npm", "1.0.0-rc.1+build", "v1")
	f.Add("pypi", "1!1.0a1.post2.dev3+local.1", "1.0c1")
	f.Add("maven", "1.0-alpha-1-SNAPSHOT", "r09")
	f.Add("deb", "1:2.3~rc1-1+b1", "2.3")
	f.Add("apk", "1.2.3a_rc1~abc-r1", "1.2_p")
	f.Add("rpm", "1:1.2^git-3.el9", "1.2~x")
	f.Add("gem", "1.0.0.beta-1", "1")
	f.Add("nuget", "1.0.0.0-BETA", "1")
	f.Add("composer", "v1.0RC1", "1.0pl1")
	f.Add("cran", "1.0-2", "1.0")
	f.Fuzz(func(t *testing.T, typ, a, b string) {
		ab, err := Compare(typ, a, b)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("%s %q %q: no code: %v", typ, a, b, err)
			}
			return
		}
		ba, err := Compare(typ, b, a)
		if err != nil || sign(ab) != -sign(ba) {
			t.Fatalf("%s: %q to %q is %d, and back %d, %v", typ, a, b, ab, ba, err)
		}
		if same, err := Compare(typ, a, a); err != nil || same != 0 {
			t.Fatalf("%s: %q to itself is %d, %v", typ, a, same, err)
		}
	})
}

// FuzzParseRange: what parses answers.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{">=2.0,<2.17.1", "vers:npm/>=1.0.0|<2.0.0|!=1.5.0", "*", "=1", "vers:deb/<1%2B1"} {
		f.Add(s, "1.0.0")
	}
	f.Fuzz(func(t *testing.T, text, version string) {
		r, err := ParseRange(text)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("%q: no code: %v", text, err)
			}
			return
		}
		for _, typ := range []string{"npm", "deb", "generic", r.Type()} {
			if in, err := r.Matches(typ, version); err != nil && (in || refusal.CodeOf(err) == "") {
				t.Fatalf("%q, %q: %v, %v", text, version, in, err)
			}
		}
	})
}

func sign(n int) int { return max(-1, min(1, n)) }
