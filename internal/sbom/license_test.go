package sbom

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/testenv/vectors"
)

func TestNormalizeLicense(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		// Expressions.
		"mit":                                           "MIT",
		"MIT OR MIT":                                    "MIT",
		"(mit or Apache-2.0)":                           "MIT OR Apache-2.0",
		"(MIT OR (Apache-2.0 AND BSD-3-Clause))":        "MIT OR Apache-2.0 AND BSD-3-Clause",
		"((MIT OR Apache-2.0)) AND (ISC)":               "(MIT OR Apache-2.0) AND ISC",
		"apache-2.0 with llvm-exception":                "Apache-2.0 WITH LLVM-exception",
		"LicenseRef-Foo AND DocumentRef-a:LicenseRef-b": "LicenseRef-Foo AND DocumentRef-a:LicenseRef-b",
		"MPL-1.1+":                                      "MPL-1.1+",
		"GPL-2.0":                                       "GPL-2.0-only",
		"GPL-2.0+":                                      "GPL-2.0-or-later",
		"LGPL-2.1-or-later":                             "LGPL-2.1-or-later",
		"GPL-2.0-with-classpath-exception":              "GPL-2.0-only WITH Classpath-exception-2.0",
		"GPL-3.0-only+":                                 "GPL-3.0-or-later",
		// Debian.
		"Expat": "MIT", "GPL-2+": "GPL-2.0-or-later", "GPL-3": "GPL-3.0-only", "LGPL-2.1+": "LGPL-2.1-or-later", "LGPL-2": "LGPL-2.0-only",
		"BSD-3-clause": "BSD-3-Clause", "Apache-2": "Apache-2.0", "CC-BY-SA-3": "CC-BY-SA-3.0", "GFDL-NIV-1.3+": "GFDL-1.3-no-invariants-or-later",
		"public-domain": "LicenseRef-public-domain", "Artistic or GPL-1+": "Artistic-1.0-Perl OR GPL-1.0-or-later", "PSF-2": "PSF-2.0",
		"GPL-2+ with Classpath exception": "GPL-2.0-or-later WITH Classpath-exception-2.0",
		// Fedora.
		"ASL 2.0": "Apache-2.0", "GPLv2+": "GPL-2.0-or-later", "MPLv2.0": "MPL-2.0", "GPL+ or Artistic": "Artistic-1.0-Perl OR GPL-1.0-or-later",
		"GPLv2+ and LGPLv2+ and (MIT or BSD)": "GPL-2.0-or-later AND LGPL-2.0-or-later AND (MIT OR LicenseRef-BSD)",
		// Trove classifiers.
		"License :: OSI Approved :: MIT License":                                             "MIT",
		"License :: OSI Approved :: Apache Software License":                                 "Apache-2.0",
		"License :: OSI Approved :: BSD License":                                             "LicenseRef-BSD",
		"License :: OSI Approved :: GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
		"License :: OSI Approved :: GNU General Public License v2 (GPLv2)":                   "GPL-2.0-only",
		"License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)":                    "MPL-2.0",
		"License :: OSI Approved :: ISC License (ISCL)":                                      "ISC",
		"License :: OSI Approved :: Python Software Foundation License":                      "PSF-2.0",
		"License :: OSI Approved :: The Unlicense (Unlicense)":                               "Unlicense",
		"License :: CC0 1.0 Universal (CC0 1.0) Public Domain Dedication":                    "CC0-1.0",
		"License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)":     "LGPL-2.0-or-later",
		"License :: OSI Approved":                                                            "",
		// Maven and addresses.
		"The Apache Software License, Version 2.0":                   "Apache-2.0",
		"Apache License, Version 2.0":                                "Apache-2.0",
		"Eclipse Public License - v 2.0":                             "EPL-2.0",
		"Eclipse Distribution License - v 1.0":                       "BSD-3-Clause",
		"CDDL + GPLv2 with classpath exception":                      "CDDL-1.0 OR GPL-2.0-only WITH Classpath-exception-2.0",
		"GNU Lesser General Public License, version 2.1":             "LGPL-2.1-only",
		"http://www.apache.org/licenses/LICENSE-2.0.txt":             "Apache-2.0",
		"https://opensource.org/licenses/MIT":                        "MIT",
		"https://opensource.org/license/bsd-3-clause/":               "BSD-3-Clause",
		"https://spdx.org/licenses/ISC.html":                         "ISC",
		"https://licenses.nuget.org/MIT":                             "MIT",
		"https://www.gnu.org/licenses/old-licenses/lgpl-2.1.en.html": "LGPL-2.1-only",
		"http://creativecommons.org/licenses/by-sa/4.0/":             "CC-BY-SA-4.0",
		// In words.
		"Apache 2.0": "Apache-2.0", "BSD": "LicenseRef-BSD", "MIT/Apache-2.0": "MIT OR Apache-2.0", "MIT / Apache-2.0": "MIT OR Apache-2.0",
		"GPL v2 or later": "GPL-2.0-or-later", "GNU General Public License v2 or any later version": "GPL-2.0-or-later",
		"GPL (>= 2)": "GPL-2.0-or-later", "GPL": "GPL-1.0-or-later", "AGPLv3": "AGPL-3.0-only", "GPL-2 | GPL-3": "GPL-2.0-only OR GPL-3.0-only",
		"Simplified BSD": "BSD-2-Clause", "3-Clause BSD License": "BSD-3-Clause", "zlib/libpng License": "Zlib", "Public Domain": "LicenseRef-public-domain",
		"UNLICENSED": "LicenseRef-proprietary", "Unlicense": "Unlicense",
		// Nothing.
		"": "", "UNKNOWN": "", "NOASSERTION": "", "none": "",
	} {
		got, isSPDX := NormalizeLicense(in)
		if got != want || isSPDX != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, isSPDX, want)
		}
	}
}

// TestLicenseStaysText: what is not understood in full is not understood at all.
func TestLicenseStaysText(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"SEE LICENSE IN LICENSE.md", "MIT AND Foo", "LGPLv2+ with exceptions", "MIT WITH", "AND", "(MIT", "MIT)", "MIT OR", "MIT Apache-2.0",
		"Apache-2.0 (MIT)", "MIT WITH GPL-2.0-only", "LicenseRef-", "LicenseRef-a_b", "custom", "MIT+X", "https://example.com/license",
		"(MIT OR Apache-2.0) WITH LLVM-exception", "MIT only", "GPL-2.0 WITH Foo-exception", "Dual License", "GPL-2.0-with-foo-exception",
		"DocumentRef-a", "apache.org", "LICENSE",
	} {
		if got, isSPDX := NormalizeLicense(in); isSPDX || got != in && !saysNothing(in) {
			t.Errorf("%q: %q, %v", in, got, isSPDX)
		}
	}
	long := strings.Repeat("(", 600) + "MIT" + strings.Repeat(")", 600)
	if got, isSPDX := NormalizeLicense(long); isSPDX || len(got) > MaxTextBytes {
		t.Errorf("cut text: %q, %v", got, isSPDX)
	}
}

func TestDetectLicenseText(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		"MIT": "Copyright (c) 2020 A\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of this software\n\n" +
			"The above copyright notice and this permission notice shall be included",
		"BSD-2-Clause": "Redistribution and use in source and binary forms\n1. Redistributions of source code must retain\n2. Redistributions in binary form must reproduce\n\n",
		"BSD-3-Clause": "Redistribution and use in source and binary forms\n1. Redistributions of source code must retain\n2. Redistributions in binary form must reproduce\n3. Neither the name\n",
		"Apache-2.0":   "\n                                 Apache License\n                           Version 2.0, January 2004\n\n",
		"ISC":          "Permission to use, copy, modify, and/or distribute this software for any\npurpose with or without fee is hereby granted,\nprovided that the above copyright notice and this permission notice appear\nin all copies.",
		"Unlicense":    "This is free and unencumbered\nsoftware released into\nthe public\ndomain.",
	} {
		if got, isSPDX := NormalizeLicense(text); got != want || !isSPDX {
			t.Errorf("%s: %q, %v", want, got, isSPDX)
		}
	}
	if got, isSPDX := NormalizeLicense("a\nb\nc\nd"); got != "a b c d" || isSPDX {
		t.Errorf("%q, %v", got, isSPDX)
	}
}

func TestLicenseIDs(t *testing.T) {
	t.Parallel()
	got := LicenseIDs([]string{"MIT OR Apache-2.0", "GPL-2.0-only WITH Classpath-exception-2.0", "MPL-1.1+", "LicenseRef-BSD AND MIT", "some words", "NOASSERTION", ""})
	want := []string{"Apache-2.0", "GPL-2.0-only", "LicenseRef-BSD", "MIT", "MPL-1.1", "some words"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSPDXList: a licence that we write as an id must be one to the schema.
func TestSPDXList(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(vectors.Dir(t, "cyclonedx-spec/schema"), "spdx.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct{ Enum []string }
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	got := append(strings.Fields(spdxLicenses), strings.Fields(spdxExceptions)...)
	if !slices.Equal(got, schema.Enum) {
		t.Errorf("the list differs from that of the schema: %d and %d", len(got), len(schema.Enum))
	}
}

// TestLicenseTables: every entry must stand for an expression, in canonical spelling.
func TestLicenseTables(t *testing.T) {
	t.Parallel()
	tables := spdx()
	for folded, expr := range tables.names {
		n := parseExpression(expr, exactAtom)
		if n == nil {
			t.Errorf("%q: %q is no expression", folded, expr)
		}
		if folded == "" {
			t.Errorf("%q folds to nothing", expr)
		}
	}
	for line := range strings.Lines(licenseNames) {
		expr, _, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if ok && (parseExpression(expr, exactAtom) == nil || parseExpression(expr, exactAtom).String() != expr) {
			t.Errorf("%q is not canonical", expr)
		}
	}
	for _, id := range strings.Fields(spdxLicenses) {
		if got, isSPDX := NormalizeLicense(id); !isSPDX || modern(id).String() != got {
			t.Errorf("%s: %q, %v", id, got, isSPDX)
		}
		if n := modern(id); n.with == "" && !isLicenseID(n.id) || n.with != "" && tables.exceptions[strings.ToLower(n.with)] != n.with {
			t.Errorf("%s became %s, which the list does not have", id, n)
		}
	}
}

// FuzzNormalizeLicense: the result is clean, bounded and a fixed point, and what claims
// to be SPDX parses.
func FuzzNormalizeLicense(f *testing.F) {
	for _, s := range []string{"MIT OR (Apache-2.0 AND GPL-2+)", "GPL (>= 2) | MIT", "License :: OSI Approved :: X (Y)", "a/b/c", "http://opensource.org/licenses/x?y#z", "GPL v2 or later with classpath exception", "\xff(", "MIT\n\n\nAND"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		expr, isSPDX := NormalizeLicense(s)
		if len(expr) > MaxTextBytes || !plainText(expr) {
			t.Fatalf("%q: %q is not clean", s, expr)
		}
		if isSPDX && parseExpression(expr, exactAtom) == nil {
			t.Fatalf("%q: %q is no expression", s, expr)
		}
		again, still := NormalizeLicense(expr)
		if isSPDX && (again != expr || !still) {
			t.Fatalf("%q: %q becomes %q, %v", s, expr, again, still)
		}
		for _, part := range splitLicense(expr) {
			if again, still := NormalizeLicense(part); isSPDX && (again != part || !still) {
				t.Fatalf("%q: part %q becomes %q, %v", s, part, again, still)
			}
		}
	})
}
