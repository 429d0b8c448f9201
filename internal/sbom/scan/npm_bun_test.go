package scan

import "testing"

const bunText = `{
  // a comment with "quotes", and a comma,
  "lockfileVersion": 1,
  "workspaces": {
    "": {"name": "app", "dependencies": {"a": "^1"}, "devDependencies": {"@s/tool": "1",},},
    "packages/w": {"name": "w", "dependencies": {"b": "1"}},
  },
  "packages": {
    "a": ["a@1.0.0", "", {"dependencies": {"b": "^2"}, "optionalDependencies": {"opt": "1"}}, "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="],
    "a/b": ["b@2.0.0", "", {}, "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="],
    "b": ["b@1.0.0", "", {}, ""],
    "opt": ["opt@1.0.0", "", { /* , ] */ }, ""],
    "@s/tool": ["@s/tool@1.0.0", "", {"dependencies": {"@s/dep": "1"}}, "", ],
    "@s/tool/@s/dep": ["@s/dep@1.0.0", "", {}, ""],
    "git": ["git@github:x/git#0123abc", {}, "x-git-0123abc"],
    "w": ["w@workspace:packages/w"],
    "folder": ["folder@file:../folder", {}],
  },
}
`

func TestBunLock(t *testing.T) {
	t.Parallel()
	readFiles(t, npmReaders(), map[string]string{"bun.lock": bunText}).want(
		"a@1.0.0 required ! >b@2.0.0 >opt@1.0.0 SHA-1:da39a3ee",
		"b@2.0.0 required SHA-1:da39a3ee",
		"b@1.0.0 required !",
		"opt@1.0.0 optional",
		"%40s/tool@1.0.0 excluded ! >%40s/dep@1.0.0",
		"%40s/dep@1.0.0 excluded",
		"git@0123abc",
	)
}

func TestPlainJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a":1,}`:             `{"a":1 }`,
		`["//",",]",]`:         `["//",",]" ]`,
		"[1,// x\n]":           "[1     \n]",
		`[1,/* ] */]`:          `[1        ]`,
		`["\",]"]`:             `["\",]"]`,
		`[1/*`:                 `[1  `,
		`"\`:                   `"\`,
		`{"a":[1,],"b":{},  }`: `{"a":[1 ],"b":{}   }`,
	} {
		if got := string(plainJSON([]byte(in))); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}

func FuzzBunLock(f *testing.F) {
	f.Add([]byte(bunText))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzFile(t, npmReaders(), "bun.lock", data) })
}
