package scan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// repeated joins what f gives for each number.
func repeated(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

// TestHostileLocks reads files that are small, and that a reader without bounds would be
// busy with for minutes or fill the memory with: work that grows with the square of what
// is in the file, or more.
func TestHostileLocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, content string
		want          sbom.ReasonCode // "" where the file is read to its end
	}{
		"members of one YAML mapping": {
			"pnpm-lock.yaml", "lockfileVersion: '6.0'\npackages:\n" + repeated(100_000, func(i int) string { return fmt.Sprintf("  /%d:\n", i) }),
			sbom.ReasonMalformed,
		},
		"aliases of YAML in each other": {
			"pnpm-lock.yaml", "a0: &a0 [x]\n" + repeated(60, func(i int) string { return fmt.Sprintf("a%d: &a%[1]d {k: *a%d, l: *a%[2]d}\n", i+1, i) }),
			sbom.ReasonMalformed,
		},
		"members of YAML that scalibr reads": {
			"pubspec.lock", "packages:\n" + repeated(100_000, func(i int) string { return fmt.Sprintf("  a%d:\n", i) }), sbom.ReasonMalformed,
		},
		"dots in a TOML key": {"Cargo.lock", strings.Repeat("a.", 100_000) + "a = 1\n", sbom.ReasonMalformed},
		"brackets in TOML":   {"Cargo.lock", "a = " + strings.Repeat("[", 100_000), sbom.ReasonMalformed},
		"npm entries in each other": {
			"package-lock.json", `{"dependencies":` + strings.Repeat(`{"a":{"version":"1.0.0","dependencies":`, 1000) + `{}` + strings.Repeat(`}}`, 1000) + `}`,
			sbom.ReasonMalformed,
		},
		"folders to look for npm packages in": {
			"package-lock.json", `{"packages":{"node_modules/b":{"version":"1.0.0"},"` + strings.Repeat("a/", 2000) + `node_modules/p":{"version":"1.0.0","dependencies":{` +
				repeated(20_000, func(i int) string { return fmt.Sprintf(`"d%d":"",`, i) }) + `"b":""}}}}`,
			"",
		},
		"names that all provide and all need": {
			"var/lib/dpkg/status", repeated(5_000, func(i int) string {
				return fmt.Sprintf("Package: p%d\nStatus: install ok installed\nVersion: 1\nProvides: x\nDepends: x\n\n", i)
			}),
			"",
		},
		"errors in a go.mod": {"go.mod", strings.Repeat("x y z\n", 50_000), sbom.ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inv := scanned(t, "a.tar", tarOf(t, inMemory{c.file: c.content}))
			has := slices.ContainsFunc(inv.Incomplete, func(r sbom.Reason) bool { return r.Code == c.want })
			if c.want != "" && !has || c.want == "" && (len(inv.Incomplete) > 0 || len(inv.Components) < 2) {
				t.Errorf("%d components, incomplete %v, want %q", len(inv.Components), inv.Incomplete, c.want)
			}
		})
	}
}

// TestExtrasInChain follows extras that ask for each other, the last file first.
func TestExtrasInChain(t *testing.T) {
	t.Parallel()
	const n = 2_000
	files := inMemory{"site-packages/z-1.dist-info/METADATA": fmt.Sprintf("Name: z\nVersion: 1\nRequires-Dist: p%04d[x]\n", n-1)}
	for i := range n {
		files[fmt.Sprintf("site-packages/p%04d-1.dist-info/METADATA", i)] =
			fmt.Sprintf("Name: p%04d\nVersion: 1\nRequires-Dist: p%04d[x]; extra == 'x'\n", i, i-1)
	}
	inv := scanned(t, "a.tar", tarOf(t, files))
	edges := 0
	for _, c := range inv.Components {
		edges += len(c.DependsOn)
	}
	if len(inv.Components) != n+1 || edges != n {
		t.Errorf("%d components with %d edges, want %d with %d", len(inv.Components), edges, n+1, n)
	}
}
