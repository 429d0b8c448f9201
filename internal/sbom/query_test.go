package sbom

import (
	"reflect"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/versions"
)

func TestParseQuery(t *testing.T) {
	t.Parallel()
	const log4j = "pkg:maven/org.apache.logging.log4j/log4j-core"
	for _, c := range []struct {
		purl, name, versions, license string
		want                          Query // but for the range
		in, out                       string
	}{
		{purl: log4j, want: Query{Key: log4j, Type: "maven"}, in: log4j + " " + log4j + "@2.14.1", out: "pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1 pkg:npm/log4j-core"},
		{purl: log4j + "@2.14.1", want: Query{Key: log4j, Type: "maven", Version: "2.14.1"}, in: log4j + "@2.14.1", out: log4j + "@2.14.2"},
		{purl: log4j + "@<2.17.1", want: Query{Key: log4j, Type: "maven"}, in: log4j + "@2.14.1 " + log4j + "@2.0-beta9", out: log4j + "@2.17.1"},
		{purl: log4j + "@>=2.0,<2.17.1", want: Query{Key: log4j, Type: "maven"}, in: log4j + "@2.14.1", out: log4j + "@1.2.17 " + log4j + "@2.17.1"},
		{purl: log4j + "@%3C2.17.1", want: Query{Key: log4j, Type: "maven"}, in: log4j + "@2.14.1", out: log4j + "@2.17.1"},
		{purl: log4j + "@*", want: Query{Key: log4j, Type: "maven"}, in: log4j + "@2.14.1"},
		{purl: log4j, versions: "vers:maven/>=2.0|<2.17.1", want: Query{Key: log4j, Type: "maven"}, in: log4j + "@2.14.1", out: log4j + "@2.17.1"},
		{purl: "pkg:npm/@babel/core@<7.1.0", want: Query{Key: "pkg:npm/%40babel/core", Type: "npm"}, in: "pkg:npm/%40babel/core@7.0.0", out: "pkg:npm/%40babel/core@7.1.0 pkg:npm/core@7.0.0"},
		{purl: "pkg:deb/debian/openssl@<3.0.1+dfsg-1?distro=bookworm", want: Query{Key: "pkg:deb/debian/openssl", Type: "deb", Qualifiers: []Qualifier{{"distro", "bookworm"}}},
			in: "pkg:deb/debian/openssl@3.0.0-1?arch=amd64&distro=bookworm", out: "pkg:deb/debian/openssl@3.0.0-1?distro=trixie pkg:deb/debian/openssl@3.0.0-1"},
		{purl: "pkg:rpm/fedora/a@<1:1.0-1", want: Query{Key: "pkg:rpm/fedora/a", Type: "rpm"}, in: "pkg:rpm/fedora/a@9.0-1 pkg:rpm/fedora/a@0.9-1?epoch=1", out: "pkg:rpm/fedora/a@1.1-1?epoch=1"},
		{purl: "pkg:rpm/fedora/a@1.0-1", want: Query{Key: "pkg:rpm/fedora/a", Type: "rpm", Version: "1.0-1"}, in: "pkg:rpm/fedora/a@1.0-1?epoch=1"},
		{purl: "pkg:pypi/zope.interface@>=5", want: Query{Key: "pkg:pypi/zope-interface", Type: "pypi"}, in: "pkg:pypi/Zope_Interface@5.0 pkg:pypi/zope-interface@6"},
		{name: "log4j-core", versions: "<2.17.1", want: Query{Name: "log4j-core"}, in: log4j + "@2.14.1", out: log4j + "@2.18"},
		{license: "GPL v3", want: Query{License: "GPL-3.0-only"}},
		{license: "some words", name: "a", want: Query{License: "some words", Name: "a"}},
	} {
		q, err := ParseQuery(c.purl, c.name, c.versions, c.license)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		got := *q
		got.versions = nil
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s%s: %+v", c.purl, c.name, got)
		}
		for want, list := range map[bool]string{true: c.in, false: c.out} {
			for purl := range strings.FieldsSeq(list) {
				p, err := ParsePURL(purl)
				if err != nil {
					t.Fatal(err)
				}
				if matches, err := q.Matches(p); err != nil || matches != want {
					t.Errorf("%s%s %s: %s: %v, %v", c.purl, c.name, c.versions, purl, matches, err)
				}
			}
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		purl, name, versions, license string
		code                          refusal.Code
	}{
		{code: CodeQueryInvalid},
		{versions: "<1", code: CodeQueryInvalid},
		{versions: "<1", license: "MIT", code: CodeQueryInvalid},
		{purl: "pkg:npm/a@1", versions: "<1", code: CodeQueryInvalid},
		{purl: "pkg:npm/a@<1", versions: "<1", code: CodeQueryInvalid},
		{purl: "pkg:npm/a@1@<1", code: CodeQueryInvalid},
		{purl: "pkg:npm/a@1#sub", code: CodeQueryInvalid},
		{license: "MIT OR ISC", code: CodeQueryInvalid},
		{license: "unknown", code: CodeQueryInvalid},
		{purl: "npm/a", code: CodePURLInvalid},
		{purl: "pkg:npm", code: CodePURLInvalid},
		{purl: "pkg:npm/a@<", code: versions.CodeRangeInvalid},
		{purl: "pkg:npm/a@<latest", code: versions.CodeVersionInvalid},
		{purl: "pkg:generic/a@<1", code: versions.CodeVersionUnordered},
		{purl: "pkg:npm/a", versions: "vers:maven/<1", code: versions.CodeRangeInvalid},
	} {
		if _, err := ParseQuery(c.purl, c.name, c.versions, c.license); refusal.CodeOf(err) != c.code {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestUndecided: a version that cannot be placed is never a plain "no".
func TestUndecided(t *testing.T) {
	t.Parallel()
	q, err := ParseQuery("pkg:npm/a@<2", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"", "latest", "workspace:*"} {
		if _, err := q.MatchesVersion("npm", version); refusal.CodeOf(err) != versions.CodeVersionInvalid {
			t.Errorf("%q: %v", version, err)
		}
	}
	all, err := ParseQuery("pkg:npm/a", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if in, err := all.MatchesVersion("npm", "latest"); !in || err != nil {
		t.Error(in, err)
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("pkg:maven/a/b@>=2.0,<2.17.1?type=jar", "", "", "")
	f.Add("", "a", "vers:npm/<1", "GPL-2+")
	f.Add("pkg:npm/@a/b@%3C1", "", "", "")
	f.Fuzz(func(t *testing.T, purl, name, versionRange, license string) {
		q, err := ParseQuery(purl, name, versionRange, license)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		if q.Key == "" && q.Name == "" && q.License == "" {
			t.Fatalf("a question for everything: %+v", q)
		}
	})
}
