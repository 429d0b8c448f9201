package scan

import (
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// The digest of nothing, as any digest.
const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestRequirements(t *testing.T) {
	t.Parallel()
	readFiles(t, pythonReaders(), map[string]string{
		"requirements.txt": "\ufeff# comment\n-r other.txt\n--index-url https://x\nDjango==4.2.1 # why\nplain\nrange>=1\nstar==1.*\ntwo==1,==1.0\n" +
			"one==1.0 \\\n    --hash=sha256:" + digest + "\n" +
			"many==1.0 --hash=sha256:" + digest + " \\\n --hash=sha256:" + strings.Repeat("0", 64) + "\n" +
			"extra [a, b] == 2.0 ; python_version < '3'\nodd===2.0-custom\nvar==${X}\nurl @ https://x/==1.0.zip\nbroken==\nparen (==3.0)\nlast==1.0 \\",
		"other.txt":                            "other==1.0\n-r sub/more.lst\n-r requirements-dev.txt\n",
		"sub/more.lst":                         "-rmore.lst\n--requirement=../other.txt\nmore==2.0\n",
		"requirements-dev.txt":                 "black==23.1.0\r\n",
		"requirements/base.txt":                "base==1\n",
		"lib/site-packages/x/requirements.txt": "not==1\n",
		"constraints.txt":                      "no==1\n",
	}).want(
		"django@4.2.1 !",
		"other@1.0 !", "more@2.0 !",
		"plain !", "range !", "star !", "two !", "var !", "url !", "broken !",
		"one@1.0 ! SHA-256:e3b0c442",
		"many@1.0 !",
		"extra@2.0 !",
		"odd@2.0-custom !",
		"paren@3.0 !",
		"last@1.0 !",
		"black@23.1.0 excluded !",
		"base@1 !",
	)
}

// What is required by an address or a path is named by it; what cannot be, and what is
// included and not there, is said.
func TestRequirementsElsewhere(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"evil2 @ https://x/evil2-1.0-py3-none-any.whl":         "evil2@1.0 !",
		"https://x/dl/My_Pkg-2.0.tar.gz#sha256=00":             "my-pkg@2.0 !",
		"git+https://github.com/x/y@main#egg=y[extra]":         "y !",
		"-e git+https://github.com/x/y.git#egg=y&subdirectory": "y !",
		"name[a] @ git+https://github.com/x/y ; x":             "name !",
		"--editable=.":                            "",
		"./here":                                  "",
		"wheels/a-1.0-py3-none-any.whl":           "a@1.0 !",
		"any --hash=sha256:00":                    "any !",
		"-c constraints.txt":                      "",
		"--index-url https://x":                   "",
		"https://github.com/x/y/archive/main.zip": "unsupported",
		"-r https://x/requirements.txt":           "unsupported",
		"-r absent.txt":                           "malformed",
		"-r ../../etc/x":                          "malformed",
		"./absent":                                "malformed",
		"==1.0":                                   "malformed",
		"these are words":                         "malformed",
	} {
		inv := scanned(t, "a.tar", tarOf(t, inMemory{"requirements.txt": line + "\nlast==1\n", "here/setup.py": ""}))
		got := ""
		for _, c := range inv.Components {
			if c.Name != "last" {
				got = strings.TrimPrefix(c.PURL, "pkg:pypi/") + " !"
			}
		}
		for _, r := range inv.Incomplete {
			got = string(r.Code)
		}
		if got != want || len(inv.Components) == 0 {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

const poetryText = `
[[package]]
name = "Requests"
version = "2.31.0"
optional = false
files = [{file = "requests-2.31.0.tar.gz", hash = "sha256:` + digest + `"}]
groups = ["main", "dev"]

[package.dependencies]
urllib3 = {version = ">=1.21", extras = ["socks"]}
certifi = ">=2017"
win = [{version = "1", markers = "x"}, {version = "2", markers = "y"}]

[package.extras]
socks = ["PySocks"]

[[package]]
name = "urllib3"
version = "2.0.7"
optional = false
groups = ["main"]
files = [{file = "a", hash = "sha256:` + digest + `"}, {file = "b", hash = "sha256:00"}]

[[package]]
name = "pytest"
version = "7.0"
optional = false
groups = ["dev"]

[[package]]
name = "win"
version = "1"
optional = true
groups = ["main"]

[[package]]
name = "win"
version = "2"
optional = true
groups = ["main"]

[[package]]
name = "neighbour"
version = "0.1"
[package.source]
type = "directory"
url = "../neighbour"

[[package]]
name = "fork"
version = "3.0"
[package.source]
type = "git"
url = "https://x"
resolved_reference = "0123"

[metadata]
lock-version = "2.1"
`

func TestPoetryLock(t *testing.T) {
	t.Parallel()
	readFiles(t, pythonReaders(), map[string]string{
		"poetry.lock":    poetryText,
		"pyproject.toml": "[tool.poetry.dependencies]\npython='^3'\nrequests='*'\n[tool.poetry.group.dev.dependencies]\npytest='*'\n[project]\ndependencies=['Fork>1']\n",
	}).want(
		"requests@2.31.0 required ! >urllib3@2.0.7 >win@1 >win@2 SHA-256:e3b0c442",
		"urllib3@2.0.7 required",
		"pytest@7.0 excluded !",
		"win@1 optional",
		"win@2 optional",
		"fork@3.0 !",
	)
	readFiles(t, pythonReaders(), map[string]string{"poetry.lock": `
[[package]]
name = "a"
version = "1"
category = "main"
optional = false
[[package]]
name = "b"
version = "1"
category = "dev"
optional = false
[metadata]
lock-version = "1.1"
[metadata.files]
a = [{file = "a.whl", hash = "sha256:` + digest + `"}]
b = []
`}).want("a@1 required SHA-256:e3b0c442", "b@1 excluded")
}

const uvText = `version = 1
[[package]]
name = "app"
version = "0.1"
source = { editable = "." }
dependencies = [{ name = "a", extra = ["fast"] }, { name = "c", version = "2", marker = "x" }]
[package.optional-dependencies]
more = [{ name = "opt" }]
[package.dev-dependencies]
dev = [{ name = "tool" }]

[[package]]
name = "a"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "b" }]
sdist = { url = "https://x/a.tar.gz", hash = "sha256:` + digest + `", size = 1 }
[package.optional-dependencies]
fast = [{ name = "speed" }]
slow = [{ name = "opt" }]

[[package]]
name = "b"
version = "1.0"
source = { git = "https://x#0123" }
[[package]]
name = "c"
version = "1"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "c"
version = "2"
source = { registry = "https://pypi.org/simple" }
wheels = [{ hash = "sha256:` + digest + `" }, { hash = "sha256:11" }]
[[package]]
name = "opt"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "speed"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "tool"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "b" }, { name = "c", version = "1" }]
`

func TestUVLock(t *testing.T) {
	t.Parallel()
	readFiles(t, pythonReaders(), map[string]string{"uv.lock": uvText}).want(
		"a@1.0 required ! >b@1.0 >speed@1.0 SHA-256:e3b0c442",
		"b@1.0 required",
		"c@1 excluded",
		"c@2 required !",
		"opt@1.0 optional !",
		"speed@1.0 required",
		"tool@1.0 excluded ! >b@1.0 >c@1",
	)
}

func TestPDMLock(t *testing.T) {
	t.Parallel()
	readFiles(t, pythonReaders(), map[string]string{
		"pdm.lock": `
[metadata]
groups = ["default", "dev"]
[[package]]
name = "a"
version = "1.0"
groups = ["default", "dev"]
dependencies = ["B>=1; python_version > '3'", "absent"]
files = [{file = "a.whl", hash = "sha256:` + digest + `"}]
[[package]]
name = "b"
version = "2.0"
groups = ["dev"]
[[package]]
name = "c"
version = "3.0"
[[package]]
name = "here"
version = "0"
path = "./here"
`,
		"pyproject.toml": "[project]\ndependencies = ['a']\n[tool.pdm.dev-dependencies]\ntest = ['c[x]>1']\n",
	}).want("a@1.0 required ! >b@2.0 SHA-256:e3b0c442", "b@2.0 optional", "c@3.0 !")
}

func TestPipfileLock(t *testing.T) {
	t.Parallel()
	readFiles(t, pythonReaders(), map[string]string{"Pipfile.lock": `{"_meta":{"hash":{"sha256":"x"}},
		"default":{"A_b":{"version":"==1.0","hashes":["sha256:` + digest + `"]},"git":{"git":"https://x","ref":"01"}},
		"develop":{"tool":{"version":"==2.0","hashes":["sha256:00","sha256:01"]},"a-b":{"version":"==1.0"}}}`}).want(
		"a-b@1.0 required SHA-256:e3b0c442",
		"tool@2.0 excluded",
		"a-b@1.0 excluded",
	)
}

func TestPylock(t *testing.T) {
	t.Parallel()
	text := `lock-version = "1.0"
[[packages]]
name = "a"
version = "1.0"
dependencies = [{ name = "b" }]
wheels = [{ url = "https://x", hashes = { sha256 = "` + digest + `" } }]
[[packages]]
name = "b"
version = "2.0"
vcs = { type = "git", url = "https://x", commit-id = "01" }
[[packages]]
name = "own"
version = "1"
directory = { path = "." }
[[packages]]
name = "unknown-version"
`
	want := []string{"a@1.0 >b@2.0 SHA-256:e3b0c442", "b@2.0"}
	readFiles(t, pythonReaders(), map[string]string{"pylock.toml": text}).want(want...)
	readFiles(t, pythonReaders(), map[string]string{"pylock.dev.toml": text, "pylock.a.b.toml": "no", "pylock.txt": "no", "pylock": "no"}).want(want...)
}

func TestPythonLocksMalformed(t *testing.T) {
	t.Parallel()
	deep := "x = " + strings.Repeat("[", 100_000)
	for _, name := range []string{"poetry.lock", "uv.lock", "pdm.lock", "pylock.toml", "Pipfile.lock"} {
		for _, text := range []string{"{{", "package = 7\npackages = 7", deep} {
			got := readTree(t, mapTree(map[string]string{name: text}), pythonReaders())
			if got.want(); len(got.errors) != 1 {
				t.Errorf("%s: %.20q: errors %q", name, text, got.errors)
			}
		}
	}
	// A pyproject.toml that nobody can read tells nothing, and the lock still counts.
	readFiles(t, pythonReaders(), map[string]string{"pyproject.toml": deep, "poetry.lock": "[[package]]\nname='a'\nversion='1'\n"}).want("a@1")
}

func TestTOMLDepth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		``:                                 0,
		`a = 1 # [[[`:                      0,
		`a = [[1], [2]]`:                   2,
		"[[x]]\n[y]\na = {b = [{}]}":       3,
		`a = "[[[" # ]` + "\nb = [1]":      1,
		`a = "\"[["` + "\nb='[[\\'":        0,
		"a = \"\"\"[\"[[\\\"\"\"\" \nb=[]": 1,
		"a = '''['[[''''' \nb=[]":          1,
		"a = \"unclosed [\nb = [[1]]":      2,
		`a = """ [`:                        0,
	} {
		if got := tomlDepth(text); got != want {
			t.Errorf("%q: %d, not %d", text, got, want)
		}
	}
}

// Whatever the parser takes is no deeper than was measured.
func FuzzTOMLDepth(f *testing.F) {
	f.Add(poetryText)
	f.Add("a = \"\"\"x\"\"\"\"\"\nb = ['''y''''', \"]\", {c = [[]]}]")
	f.Fuzz(func(t *testing.T, text string) {
		var v map[string]any
		if _, err := toml.Decode(text, &v); err != nil {
			return
		}
		if got, want := tomlDepth(text), valueDepth(v)-1; got < want {
			// Dotted keys nest tables without a bracket, and the parser follows them in a loop.
			if !strings.Contains(text, ".") {
				t.Errorf("%q: measured %d, is %d", text, got, want)
			}
		}
	})
}

func valueDepth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, valueDepth(e))
		}
	case []map[string]any:
		for _, e := range v {
			deepest = max(deepest, valueDepth(e))
		}
	case []any:
		for _, e := range v {
			deepest = max(deepest, valueDepth(e))
		}
	default:
		return 0
	}
	return deepest + 1
}

func FuzzPythonLocks(f *testing.F) {
	f.Add(0, []byte(poetryText))
	f.Add(1, []byte(uvText))
	f.Add(2, []byte("[[package]]\nname='a'\nversion='1'\ndependencies=['b']\n"))
	f.Add(3, []byte("[[packages]]\nname='a'\nversion='1'\n"))
	f.Add(4, []byte(`{"default":{"a":{"version":"==1"}}}`))
	f.Add(5, []byte("a==1 --hash=sha256:00 \\\n--hash=x\nb[c]==2;x"))
	names := []string{"poetry.lock", "uv.lock", "pdm.lock", "pylock.toml", "Pipfile.lock", "requirements.txt"}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		fuzzFile(t, pythonReaders(), names[uint(i)%uint(len(names))], data)
	})
}
