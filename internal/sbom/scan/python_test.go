package scan

import (
	"fmt"
	"strings"
	"testing"
)

func TestIsPythonMetadata(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]bool{
		"a-1.0.dist-info/METADATA":                                             true,
		"usr/lib/python3/dist-packages/a.egg-info":                             true,
		"usr/lib/python3/dist-packages/a-1.0.egg-info/PKG-INFO":                true,
		"lib/site-packages/a-1.0-py3.9.egg/EGG-INFO/PKG-INFO":                  true,
		"lib/site-packages/setuptools/_vendor/wheel-0.43.0.dist-info/METADATA": true,
		"a-1.0/PKG-INFO": true,
		"test/app/site-packages/a-1.0.dist-info/METADATA": true,
		"METADATA":               false,
		"PKG-INFO":               false,
		"a-1.0/src/PKG-INFO":     false,
		"a-1.0.dist-info/RECORD": false,
		"lib/site-packages/x/tests/a-1.0.dist-info/METADATA": true,
	} {
		if got := isPythonMetadata(p); got != want {
			t.Errorf("%s: %v", p, got)
		}
	}
}

func TestPythonInstalled(t *testing.T) {
	t.Parallel()
	const lib = "usr/lib/python3.11/site-packages/"
	readFiles(t, pythonReaders(), map[string]string{
		lib + "Requests-2.31.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Requests\nVersion: 2.31.0\nLicense: Apache 2.0\n" +
			"Requires-Dist: charset_normalizer (<4,>=2)\nRequires-Dist: urllib3[socks]<3,>=1.21\nRequires-Dist: pytest>=7 ; extra == 'test'\n" +
			"Requires-Dist: colorama ; sys_platform == \"win32\"\n\nName: not-this\n",
		lib + "Requests-2.31.0.dist-info/REQUESTED":                       "",
		lib + "charset_normalizer-3.0.dist-info/METADATA":                 "Name: charset-normalizer\nVersion: 3.0\nLicense-Expression: MIT\nLicense: nonsense\n\n",
		lib + "urllib3-2.0.7.dist-info/METADATA":                          "Name: urllib3\nVersion: 2.0.7\nLicense-Expression: MIT OR Apache-2.0\nRequires-Dist: PySocks!=1.5.7; extra == \"socks\" and python_version > '3'\nRequires-Dist: brotli; extra == 'brotli'\n",
		lib + "PySocks-1.7.1.egg-info":                                    "Metadata-Version: 1.1\nName: PySocks\nVersion: 1.7.1\nLicense: UNKNOWN\nDescription: first\n        continued\n",
		lib + "brotli-1.1.0.dist-info/METADATA":                           "Name: Brotli\nVersion: 1.1.0\n",
		lib + "brotli-1.1.0.dist-info/direct_url.json":                    `{"url":"https://x","archive_info":{"hashes":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}}`,
		lib + "pytest-7.0.dist-info/METADATA":                             "Name: pytest\r\nVersion: 7.0\r\nClassifier: License :: OSI Approved\r\nRequires-Dist: zope.old\r\n\r\n",
		lib + "zope.old-1.0-py3.9.egg-info/PKG-INFO":                      "\ufeffName: zope.old\nVersion: 1.0\n",
		lib + "zope.old-1.0-py3.9.egg-info/requires.txt":                  "setuptools\nBrotli>1\n\n[test]\npytest\n\n[:python_version<'3']\nrequests\n",
		"usr/local/lib/python3.11/site-packages/top-1.dist-info/METADATA": "Name: top\nVersion: 1\nRequires-Dist: requests\nRequires-Dist: top[all]\nRequires-Dist: pytest; extra == \"all\"\n",
	}).want(
		"requests@2.31.0 required ! >charset-normalizer@3.0 >urllib3@2.0.7 (Apache-2.0)",
		"charset-normalizer@3.0 required (MIT)",
		"urllib3@2.0.7 required >pysocks@1.7.1 (MIT OR Apache-2.0)",
		"pysocks@1.7.1 required",
		"brotli@1.1.0 required SHA-256:e3b0c442",
		"pytest@7.0 required >zope-old@1.0",
		"zope-old@1.0 required >brotli@1.1.0 >requests@2.31.0",
		"top@1 required >pytest@7.0 >requests@2.31.0",
	)
}

// Two interpreters, each with its own folder: edges stay in it.
func TestPythonFolders(t *testing.T) {
	t.Parallel()
	readFiles(t, pythonReaders(), map[string]string{
		"py2/site-packages/a-1.dist-info/METADATA": "Name: a\nVersion: 1\nRequires-Dist: b\n",
		"py2/site-packages/b-1.egg-info":           "Name: b\nVersion: 1\n",
		"py3/site-packages/a-2.dist-info/METADATA": "Name: a\nVersion: 2\nRequires-Dist: b\nRequires-Dist: c\n",
		"py3/site-packages/b-2.egg-info/PKG-INFO":  "Name: b\nVersion: 2\n",
	}).want("a@1 required >b@1", "b@1 required", "a@2 required >b@2", "b@2 required")
}

func TestPythonLicenses(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"License-Expression: MIT AND (Apache-2.0 OR BSD-3-Clause)": "[MIT AND (Apache-2.0 OR BSD-3-Clause)]",
		"License: MIT":              "[MIT]",
		"License: MIT License":      "[MIT]",
		"License: UNKNOWN":          "[]",
		"License: Our own, see web": "[Our own, see web]",
		"License: see file\nClassifier: License :: OSI Approved :: MIT License\nClassifier: Topic :: X": "[MIT]",
		"License: MIT License\n\n Copyright":                                                                                 "[MIT]",
		"License: MIT License\n        \n        Copyright (c) somebody":                                                     "[MIT]",
		"Classifier: License :: OSI Approved\nLicense: Custom":                                                               "[Custom]",
		"Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: Apache Software License": "[Apache-2.0 MIT]",
	} {
		m := parseMetadata([]byte(header + "\n"))
		if got := fmt.Sprint(m.licenses()); got != want {
			t.Errorf("%q: %s, not %s", header, got, want)
		}
	}
}

func TestPythonRequirement(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Foo.Bar_baz":                         "{foo-bar-baz [] []}",
		"a (>=1.0)":                           "{a [] []}",
		"a[x, Y_z]>=1;python_version>'3'":     "{a [x y-z] []}",
		"a @ https://x/y.whl":                 "{a [] []}",
		`a; extra == "x" or extra=='y'`:       "{a [] [x y]}",
		`a; (os_name=="nt") and extra == 'z'`: "{a [] [z]}",
		"a; extra ==":                         "{a [] []}",
		"a; extra == 'unclosed":               "{a [] []}",
		"-e .":                                "",
		"":                                    "",
		"[x]":                                 "",
	} {
		r, ok := parseRequirement(text)
		got := ""
		if ok {
			got = fmt.Sprint(r)
		}
		if got != want {
			t.Errorf("%q: %s, not %s", text, got, want)
		}
	}
}

func TestPythonMalformed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":    "",
		"no version": "Name: a\n",
		"no name":    "Version: 1\n",
		"bad name":   "Name: a b\nVersion: 1\n",
		"late":       "\nName: a\nVersion: 1\n",
		"too far":    strings.Repeat("Classifier: x\n", 80_000) + "Name: a\nVersion: 1\n",
	} {
		got := readTree(t, mapTree(map[string]string{"a.dist-info/METADATA": text}), pythonReaders())
		if got.want(); len(got.errors) != 1 {
			t.Errorf("%s: errors %q", name, got.errors)
		}
	}
	// Text without a colon is what old tools made of a field of many lines.
	readFiles(t, pythonReaders(), map[string]string{"a.egg-info": "Name: a\nSummary: first\nsecond\nVersion: 1\nVersion: 2\n"}).want("a@1 required")
}

func TestSdist(t *testing.T) {
	t.Parallel()
	got := readFiles(t, pythonReaders(), map[string]string{
		"a-1.0/PKG-INFO":                    "Name: a\nVersion: 1.0\nLicense: ISC\n",
		"a-1.0/src/a.egg-info/PKG-INFO":     "Name: a\nVersion: 1.0\nLicense: ISC\n",
		"a-1.0/src/a.egg-info/requires.txt": "b\n",
	})
	if list := got.purls(); fmt.Sprint(list) != "[pkg:pypi/a@1.0]" {
		t.Errorf("%q", list)
	}
}

func FuzzPythonMetadata(f *testing.F) {
	f.Add([]byte("Name: a\nVersion: 1\nRequires-Dist: b[c,d] (>=1) ; extra == 'x'\nLicense: a\n  b\n\nbody"))
	f.Add([]byte("License: |\n\t|x\nClassifier: License :: OSI Approved :: MIT License\nname: A_b\nVERSION: 1"))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzFile(t, pythonReaders(), "a-1.dist-info/METADATA", data) })
}

func FuzzPythonRequirement(f *testing.F) {
	f.Add("a[b,c]>=1; extra == 'x'")
	f.Fuzz(func(t *testing.T, text string) {
		if r, ok := parseRequirement(text); ok && !validPythonName(r.name) {
			t.Errorf("%q: name %q", text, r.name)
		}
	})
}
