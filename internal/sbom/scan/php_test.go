package scan

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

const composerLockText = `{
  "content-hash": "x",
  "packages": [
    {"name": "Symfony/Console", "version": "v6.3.0", "license": ["MIT"], "dist": {"shasum": "` + "0123456789012345678901234567890123456789" + `"},
     "require": {"php": ">=8.1", "ext-json": "*", "psr/log-implementation": "1.0", "symfony/string": "^6"}},
    {"name": "symfony/string", "version": "v6.3.0", "license": ["LGPL-2.1-only", "GPL-3.0-or-later"], "dist": {"shasum": ""}, "require": []},
    {"name": "monolog/monolog", "version": "3.4.0", "license": "MIT", "provide": {"psr/log-implementation": "3.0.0"}}
  ],
  "packages-dev": [
    {"name": "phpunit/phpunit", "version": "10.2.0", "license": ["BSD-3-Clause", "proprietary"], "require": {"symfony/console": "*"}}
  ]
}`

func TestComposerLock(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "composer.lock", []byte(composerLockText))
	checkOutline(t, inv, `
		pkg:composer/monolog/monolog@3.4.0 required {MIT}
		pkg:composer/phpunit/phpunit@10.2.0 excluded {BSD-3-Clause OR LicenseRef-proprietary} > pkg:composer/symfony/console@v6.3.0
		pkg:composer/symfony/console@v6.3.0 required {MIT} SHA-1 > pkg:composer/monolog/monolog@3.4.0 pkg:composer/symfony/string@v6.3.0
		pkg:composer/symfony/string@v6.3.0 required {LGPL-2.1-only OR GPL-3.0-or-later}`)
}

func TestComposerInstalled(t *testing.T) {
	t.Parallel()
	const packages = `[{"name": "a/a", "version": "1.0", "require": {"b/b": "*"}}, {"name": "b/b", "version": "dev-main"}]`
	for text, want := range map[string]string{
		packages: "pkg:composer/a/a@1.0 required > pkg:composer/b/b@dev-main\npkg:composer/b/b@dev-main required",
		`{"packages": ` + packages + `, "dev": true, "dev-package-names": ["b/b"]}`: "pkg:composer/a/a@1.0 required > pkg:composer/b/b@dev-main\npkg:composer/b/b@dev-main optional",
	} {
		inv := scanned(t, "src.tar", tarOf(t, inMemory{"vendor/composer/installed.json": text, "other/installed.json": `{"packages":[{"name":"x/x","version":"1"}]}`}))
		checkOutline(t, inv, want, "pkg:composer/a/a@1.0")
	}
	for _, text := range []string{"", "{", "7", `{"packages":[{"name":"","version":"1"}]}`} {
		inv := scanned(t, "composer.lock", []byte(text))
		if len(inv.Components) > 0 || len(inv.Incomplete) == 0 {
			t.Errorf("%q: %q, %v", text, outline(inv), inv.Incomplete)
		}
	}
}

func TestTruthComposerLock(t *testing.T) {
	t.Parallel()
	dir := languageData(t, "php/composerlock")
	for _, name := range []string{"drupal-packages.json", "one-package.json", "one-package-dev.json", "two-packages.json", "two-packages-alt.json"} {
		data := readTestFile(t, filepath.Join(dir, name))
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		var truth []string
		for _, key := range []string{"packages", "packages-dev"} {
			var list []struct{ Name, Version string }
			if err := json.Unmarshal(doc[key], &list); err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				truth = append(truth, "pkg:composer/"+strings.ToLower(p.Name)+"@"+p.Version)
			}
		}
		inv := scanned(t, "composer.lock", data)
		compareTruth(t, name, truth, purlsOf(inv, "composer"))
		if slices.ContainsFunc(inv.Components, func(c sbom.Component) bool { return len(c.Licenses) == 0 }) {
			t.Errorf("%s: a component has no licence", name)
		}
	}
}

func FuzzComposerLock(f *testing.F) {
	fuzzReaders(f, "composer.lock", composerLockText, `{"packages":[{"name":"a/b","version":"1","replace":{"a/b":"1"},"require":{"a/b":"1"},"license":7}]}`)
}
