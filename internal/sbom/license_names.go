package sbom

import (
	"regexp"
	"strings"
	"sync"
)

// licenseNames are spellings in common use, by the expression they stand for. They are
// compared folded (foldLicense), so one line stands for many: case, punctuation,
// "the", "license", "version", "v" and trailing ".0" do not count.
const licenseNames = `
0BSD = Zero-Clause BSD | BSD Zero Clause | BSD 0 clause
AFL-2.0 = Academic Free License 2.0
AFL-2.1 = Academic Free License 2.1
AFL-3.0 = Academic Free License 3.0
AGPL-3.0-or-later = AGPL | GNU AGPL | GNU Affero General Public License
Apache-1.1 = Apache Software License 1.1 | ASL 1.1
Apache-2.0 = Apache | Apache 2 | Apache 2.0 | Apache Software License | Apache Software License 2.0 | ASL 2.0 | ASF 2.0 | AL 2.0 | ALv2 | Apache Public License 2.0
Artistic-1.0 = Artistic
Artistic-1.0-Perl OR GPL-1.0-or-later = Perl | Perl 5 | same terms as Perl | same terms as Perl itself | same as Perl | Artistic or GPL+ | GPL+ or Artistic | Artistic or GPL-1+ | GPL-1+ or Artistic | perl_5
Artistic-2.0 = Artistic License 2.0 | artistic_2
BSD-2-Clause = BSD 2-Clause | 2-Clause BSD | Simplified BSD | BSD 2-Clause Simplified | BSD Simplified | FreeBSD | BSD 2 | BSD with two clauses | Two-clause BSD
BSD-3-Clause = 3-Clause BSD | New BSD | BSD New | BSD 3-Clause New or Revised | New or Revised BSD | Modified BSD | Revised BSD | BSD 3-Clause New | BSD 3 | Three-clause BSD | Eclipse Distribution License 1.0 | Eclipse Distribution License | EDL 1.0 | BSD 3-Clause New or Revised License | BSD-3
BSD-4-Clause = 4-Clause BSD | BSD with advertising | Original BSD | BSD Original
BSL-1.0 = Boost | Boost Software License | Boost Software License 1.0
CC0-1.0 = CC0 | CC0 1.0 Universal | Creative Commons Zero | CC0 1.0 Universal CC0 1.0 Public Domain Dedication | Creative Commons CC0 | CC-0 | Public Domain per Creative Commons CC0 | Creative Commons Zero v1.0 Universal
CC-BY-3.0 = Creative Commons Attribution 3.0
CC-BY-4.0 = Creative Commons Attribution 4.0 | Creative Commons Attribution 4.0 International
CC-BY-SA-3.0 = Creative Commons Attribution ShareAlike 3.0
CC-BY-SA-4.0 = Creative Commons Attribution ShareAlike 4.0 | Creative Commons Attribution ShareAlike 4.0 International
CDDL-1.0 = Common Development and Distribution License | Common Development and Distribution License 1.0
CDDL-1.1 = Common Development and Distribution License 1.1
CDDL-1.0 OR GPL-2.0-only WITH Classpath-exception-2.0 = CDDL + GPLv2 with classpath exception | CDDL/GPLv2+CE | CDDL or GPLv2 with exceptions | Dual license consisting of the CDDL v1.0 and GPL v2
CDDL-1.1 OR GPL-2.0-only WITH Classpath-exception-2.0 = CDDL 1.1 + GPL 1.1 | CDDL+GPL_1_1 | Dual license consisting of the CDDL v1.1 and GPL v2
CECILL-2.1 = CeCILL 2.1 | CEA CNRS Inria Logiciel Libre License 2.1
CPL-1.0 = Common Public License | Common Public License 1.0
EPL-1.0 = Eclipse Public License 1.0
EPL-2.0 = Eclipse Public License 2.0
EUPL-1.1 = European Union Public Licence 1.1 | European Union Public License 1.1
EUPL-1.2 = European Union Public Licence 1.2 | European Union Public License 1.2
FTL = FreeType | Freetype Project License
GFDL-1.2-no-invariants-only = GFDL-NIV-1.2
GFDL-1.2-no-invariants-or-later = GFDL-NIV-1.2+
GFDL-1.3-no-invariants-only = GFDL-NIV-1.3
GFDL-1.3-no-invariants-or-later = GFDL-NIV-1.3+
GPL-1.0-or-later = GPL | GPL+ | GNU GPL | GNU General Public License | General Public License | any version of the GPL
GPL-2.0-only WITH Classpath-exception-2.0 = GPL2 with classpath exception | GPL-2.0 with classpath exception | GPL2 w/ CPE | GPLv2+CE | GNU General Public License 2 with the GNU Classpath Exception | GNU General Public License 2 with classpath exception | GPLv2 with exceptions classpath
HPND = Historical Permission Notice and Disclaimer
ICU = ICU License
IJG = Independent JPEG Group
ISC = ISCL | Internet Systems Consortium
JSON = The JSON License
LGPL-2.0-or-later = LGPL | LGPL+ | GNU LGPL | GNU Lesser General Public License | GNU Library General Public License | GNU Library or Lesser General Public License | Lesser GPL
LicenseRef-BSD = BSD | BSD-style | BSD-like | BSD style | Berkeley
LicenseRef-proprietary = Proprietary | UNLICENSED | Other/Proprietary License | Commercial | All rights reserved | Closed source
LicenseRef-public-domain = Public Domain | public-domain | PD | In the public domain
MIT = Expat | MIT X11 | MIT/X11 | X11/MIT | MIT/Expat | Expat/MIT | MIT Expat | Bouncy Castle Licence | MITL | MIT-LICENSE
MIT-0 = MIT No Attribution
MPL-1.1 = Mozilla Public License 1.1
MPL-2.0 = Mozilla Public License 2.0 | Mozilla 2.0
NCSA = University of Illinois/NCSA Open Source License | University of Illinois NCSA
OFL-1.1 = SIL Open Font License | SIL Open Font License 1.1 | SIL OFL | OFL
OLDAP-2.8 = OpenLDAP | OpenLDAP Public License 2.8
OpenSSL = OpenSSL License
PHP-3.01 = PHP 3.01
PostgreSQL = PostgreSQL License
PSF-2.0 = PSF | PSFL | Python Software Foundation License | PSF 2 | Python Software Foundation
Python-2.0 = Python | Python 2.0
Ruby = Ruby's | Ruby License
SSPL-1.0 = Server Side Public License | SSPL
TCL = Tcl/Tk
UPL-1.0 = Universal Permissive License | Oracle UPL 1.0 | Universal Permissive License 1.0
Unlicense = The Unlicense | unlicence | Public Domain Unlicense
Unicode-3.0 = Unicode v3 | Unicode License v3
Vim = Vim License
W3C = W3C Software License | W3C License
WTFPL = WTFPL 2 | Do What The Fuck You Want To Public License | Do What The F*ck You Want To Public License
X11 = X11 License
ZPL-2.1 = Zope Public License 2.1 | ZPL 2.1
Zlib = zlib License | zlib/libpng | zlib-libpng | zlib/libpng License
curl = curl License | MIT/X derivate curl
`

// exceptionNames are those of exceptions.
const exceptionNames = `
Classpath-exception-2.0 = classpath exception | GNU classpath exception | the GNU Classpath Exception | classpath-exception | CPE
LLVM-exception = LLVM exception | LLVM exceptions
OpenJDK-assembly-exception-1.0 = OpenJDK assembly exception
Autoconf-exception-generic = autoconf exception
GCC-exception-3.1 = GCC runtime library exception | GCC exception
Bison-exception-2.2 = Bison exception
Font-exception-2.0 = font exception
Libtool-exception = libtool exception
`

// foldLicense reduces a name to what tells it from others: lower-case words and
// numbers, those that every licence has left out.
func foldLicense(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '+':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return ' '
	}, s)
	var words []string
	for _, word := range strings.Fields(splitDigits(s)) {
		word = strings.Trim(word, ".")
		if len(words) > 0 && word == "+" {
			words[len(words)-1] += "+"
			continue
		}
		isNumber := word != "" && word[0] >= '0' && word[0] <= '9'
		if isNumber {
			word = trimZeros(word)
			if n := len(words) - 1; n >= 0 {
				words[n] = strings.TrimSuffix(words[n], "v") // "gplv2"
			}
		}
		switch word {
		case "", "the", "license", "licence", "licenses", "licenced", "licensed", "version", "ver", "v", "under":
		default:
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// splitDigits parts letters from digits: "gplv2" and "gpl v2" are one name.
func splitDigits(s string) string {
	var b strings.Builder
	letter := func(c byte) bool { return c >= 'a' && c <= 'z' }
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	for i := range len(s) {
		if i > 0 && (letter(s[i-1]) && digit(s[i]) || digit(s[i-1]) && letter(s[i])) {
			b.WriteByte(' ')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// trimZeros makes "2.0" and "2.0.0" of a version "2", and keeps a plus behind it.
func trimZeros(number string) string {
	number, plus := strings.CutSuffix(number, "+")
	for strings.HasSuffix(number, ".0") {
		number = strings.TrimSuffix(number, ".0")
	}
	if plus {
		number += "+"
	}
	return number
}

// phrases are compiled once: they are asked for every licence of every package.
type phrases struct{ later, atLeast, only, parenthesis, address *regexp.Regexp }

var licensePhrases = sync.OnceValue(func() *phrases {
	return &phrases{
		later:       regexp.MustCompile(`(?i),?[ -]*\b(?:or|and)[ -]*(?:\(?at your option\)?,? )?(?:any )?(?:later|newer|above|greater)(?: versions?)?\b`),
		atLeast:     regexp.MustCompile(`\(? *>= *([0-9.]+) *\)?`),
		only:        regexp.MustCompile(`(?i)[ -]only\b`),
		parenthesis: regexp.MustCompile(`^([^()]+?) *\(([^()]+)\)$`),
		address:     regexp.MustCompile(`(?i)^(?:https?:)?//(?:www\.)?([^?#]+?)/?(?:[?#].*)?$`),
	}
})

// parseLicense reads what a package says: an expression of SPDX, else a name, else an
// expression of names. nil where it is none of them.
func parseLicense(text string) *license {
	if n := parseExpression(text, exactAtom); n != nil {
		return n
	}
	if strings.Count(text, "(") != strings.Count(text, ")") {
		return nil // something is missing, and names do not look at parentheses
	}
	if i := strings.LastIndex(text, " :: "); i >= 0 && strings.HasPrefix(text, "License ::") {
		text = text[i+4:]
	}
	text = licensePhrases().atLeast.ReplaceAllString(strings.Trim(text, `"'`), " $1+")
	if n := namedLicense(text); n != nil {
		return n
	}
	return parseExpression(licensePhrases().later.ReplaceAllString(text, "+"), namedLicense)
}

// namedLicense knows one licence by a name or an address.
func namedLicense(s string) *license {
	if n := exactAtom(s); n != nil {
		return n
	}
	p := licensePhrases()
	if m := p.address.FindStringSubmatch(s); m != nil {
		return addressedLicense(strings.ToLower(m[1]))
	}
	if n := foldedLicense(p.later.ReplaceAllString(s, "+")); n != nil {
		return n
	}
	if m := p.parenthesis.FindStringSubmatch(s); m != nil {
		// "Mozilla Public License 2.0 (MPL 2.0)": what is in parentheses is more exact,
		// where it is a licence at all.
		name, inner := foldedLicense(p.later.ReplaceAllString(m[1], "+")), foldedLicense(m[2])
		if inner != nil && (name == nil || name.String() == inner.String() || isGNU(name.id) && isGNU(inner.id)) {
			return inner
		}
	}
	return eitherLicense(s)
}

// eitherLicense is the older way of Cargo and others to say OR: "MIT/Apache-2.0".
func eitherLicense(s string) *license {
	if !strings.Contains(s, "/") {
		return nil
	}
	var nodes []*license
	for part := range strings.SplitSeq(s, "/") {
		n := foldedLicense(strings.TrimSpace(part))
		if n == nil {
			return nil
		}
		nodes = append(nodes, n)
	}
	return combine(opOr, nodes)
}

// foldedLicense looks a name up.
func foldedLicense(s string) *license {
	key := foldLicense(s)
	if expr, ok := spdx().names[key]; ok {
		return parseExpression(expr, exactAtom)
	}
	base := key
	if only := foldLicense(licensePhrases().only.ReplaceAllString(s, "")); only != key {
		base = only
	}
	base, plus := strings.CutSuffix(base, "+")
	expr, ok := spdx().names[gnuName(base)]
	if !ok {
		if expr, ok = spdx().names[base]; !ok || base == key {
			return nil
		}
	}
	n := parseExpression(expr, exactAtom)
	switch {
	case n == nil || n.op != "" || n.with != "":
		return nil
	case plus:
		return orLater(n.id)
	case base != key && !isGNU(n.id):
		return nil // "MIT only" says something else
	}
	return n
}

// gnuName shortens the long names of the GNU licences to their initials, as the
// identifiers have them.
func gnuName(folded string) string {
	for _, name := range [...][2]string{
		{"gnu affero general public", "agpl"}, {"affero general public", "agpl"}, {"gnu affero gpl", "agpl"}, {"affero gpl", "agpl"}, {"gnu agpl", "agpl"},
		{"gnu lesser general public", "lgpl"}, {"gnu library general public", "lgpl"}, {"lesser general public", "lgpl"},
		{"gnu lesser public", "lgpl"}, {"library general public", "lgpl"}, {"gnu lesser gpl", "lgpl"}, {"lesser gpl", "lgpl"},
		{"gnu library or lesser general public", "lgpl"}, {"gnu lgpl", "lgpl"},
		{"gnu general public", "gpl"}, {"general public", "gpl"}, {"gnu gpl", "gpl"}, {"gnu public", "gpl"},
		{"gnu free documentation", "gfdl"}, {"free documentation", "gfdl"}, {"gnu fdl", "gfdl"}, {"fdl", "gfdl"},
	} {
		if rest, ok := strings.CutPrefix(folded, name[0]+" "); ok {
			return name[1] + " " + rest
		}
	}
	return folded
}

// addressedLicense knows the pages where licences are published, by the address
// without scheme and "www.".
func addressedLicense(address string) *license {
	path := address
	for _, suffix := range [...]string{".txt", ".html", ".htm", ".php", ".md"} {
		path = strings.TrimSuffix(path, suffix)
	}
	if expr, ok := map[string]string{
		"apache.org/licenses/license-2.0":                        "Apache-2.0",
		"apache.org/licenses":                                    "Apache-2.0",
		"apache.org/licenses/license-1.1":                        "Apache-1.1",
		"repository.jboss.org/licenses/apache-2.0":               "Apache-2.0",
		"repository.jboss.org/licenses/gpl-2.0-ce":               "GPL-2.0-only WITH Classpath-exception-2.0",
		"eclipse.org/legal/epl-v10":                              "EPL-1.0",
		"eclipse.org/legal/epl-v20":                              "EPL-2.0",
		"eclipse.org/legal/epl-2.0":                              "EPL-2.0",
		"eclipse.org/legal/epl":                                  "EPL-2.0",
		"eclipse.org/org/documents/epl-v10":                      "EPL-1.0",
		"eclipse.org/org/documents/epl-2.0/epl-2.0":              "EPL-2.0",
		"eclipse.org/org/documents/edl-v10":                      "BSD-3-Clause",
		"mozilla.org/mpl/2.0":                                    "MPL-2.0",
		"mozilla.org/mpl/mpl-1.1":                                "MPL-1.1",
		"mozilla.org/en-us/mpl/2.0":                              "MPL-2.0",
		"unlicense.org":                                          "Unlicense",
		"json.org/license":                                       "JSON",
		"wtfpl.net":                                              "WTFPL",
		"bouncycastle.org/licence":                               "MIT",
		"creativecommons.org/publicdomain/zero/1.0":              "CC0-1.0",
		"creativecommons.org/publicdomain/zero/1.0/legalcode":    "CC0-1.0",
		"gnu.org/software/classpath/license":                     "GPL-2.0-or-later WITH Classpath-exception-2.0",
		"openjdk.java.net/legal/gplv2+ce":                        "GPL-2.0-only WITH Classpath-exception-2.0",
		"glassfish.java.net/public/cddl+gpl_1_1":                 "CDDL-1.1 OR GPL-2.0-only WITH Classpath-exception-2.0",
		"glassfish.java.net/public/cddl+gpl":                     "CDDL-1.0 OR GPL-2.0-only WITH Classpath-exception-2.0",
		"oss.oracle.com/licenses/cddl+gpl-1.1":                   "CDDL-1.1 OR GPL-2.0-only WITH Classpath-exception-2.0",
		"projects.eclipse.org/license/secondary-gpl-2.0-cp":      "GPL-2.0-only WITH Classpath-exception-2.0",
		"raw.githubusercontent.com/dotnet/corefx/master/license": "MIT",
		"github.com/dotnet/corefx/blob/master/license":           "MIT",
		"go.microsoft.com/fwlink/?linkid=329770":                 "LicenseRef-proprietary",
		"raw.github.com/jezhumble/javasysmon/master/license":     "BSD-2-Clause",
		"antlr.org/license":                                      "BSD-3-Clause",
		"asm.ow2.org/license":                                    "BSD-3-Clause",
		"slf4j.org/license":                                      "MIT",
		"h2database.com/html/license":                            "MPL-2.0 OR EPL-1.0",
		"jsoup.org/license":                                      "MIT",
		"postgresql.org/about/licence":                           "PostgreSQL",
		"golang.org/license":                                     "BSD-3-Clause",
		"aws.amazon.com/apache2.0":                               "Apache-2.0",
	}[path]; ok {
		return parseExpression(expr, exactAtom)
	}
	return licensePage(path)
}

// licensePage knows sites whose last path segment names the licence.
func licensePage(path string) *license {
	for _, site := range [...]string{
		"opensource.org/licenses/", "opensource.org/license/", "spdx.org/licenses/", "gnu.org/licenses/old-licenses/",
		"gnu.org/licenses/", "choosealicense.com/licenses/", "licenses.nuget.org/", "oss.oracle.com/licenses/",
	} {
		if name, ok := strings.CutPrefix(path, site); ok {
			name = strings.TrimSuffix(strings.TrimSuffix(name, "-standalone"), "/")
			return foldedLicense(strings.TrimSuffix(strings.TrimSuffix(name, "-license"), ".en"))
		}
	}
	if rest, ok := strings.CutPrefix(path, "creativecommons.org/licenses/"); ok {
		rest, _, _ = strings.Cut(rest, "/legalcode")
		return exactAtom("CC-" + strings.ReplaceAll(rest, "/", "-"))
	}
	return nil
}
