package provenance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The examples in the pages of the build types are statements that this package
// wrote, and the chapters of docs/slsa.md are what Builders says.
func TestDocs(t *testing.T) {
	t.Parallel()
	for page, name := range map[string]string{
		"codebuild-v1.md": "codebuild-post-build", "ci-job-v1.md": "gitlab", "principal-v1.md": "aws-role",
	} {
		for _, g := range goldens() {
			if g.name == name {
				text := "```json\n" + string(indent(t, statement(t, g.writer(t), g.caller()))) + "```\n"
				compareBlock(t, filepath.Join(buildTypeDocs, page), "example", text)
			}
		}
	}
	compareBlock(t, filepath.Join("..", "..", "docs", "slsa.md"), "builders", builderChapters(writer(t)))
}

// Every downgrade has its row, with the cap that the code has.
func TestDowngradesDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "slsa.md"))
	if err != nil {
		t.Fatal(err)
	}
	words := []string{DowngradeSourceUnknown}
	for word := range faults() {
		words = append(words, word)
	}
	for _, word := range words {
		if row := fmt.Sprintf("| `%s` | %d |", word, levelCap(word)); strings.Count(string(text), row) != 1 {
			t.Errorf("docs/slsa.md has not one row %q", row)
		}
	}
}

func builderChapters(w *Writer) string {
	var out strings.Builder
	fmt.Fprintf(&out, "| builder (`<instance>/builders/…`) | level | %s | %s | %s | %s | %s |\n|---|---|---|---|---|---|---|\n",
		requirementExists, requirementAuthentic, requirementUnforgeable, requirementHosted, requirementIsolated)
	for _, p := range w.Builders() {
		fmt.Fprintf(&out, "| `%s` | %d |", strings.TrimPrefix(p.Path, "/builders/"), p.Level)
		for _, r := range p.Requirements {
			fmt.Fprintf(&out, " %s |", yes(r.Met))
		}
		out.WriteByte('\n')
	}
	out.WriteString("\nExists is asked for from L1 on, Authentic and Hosted from L2, Unforgeable and Isolated at L3.\n")
	for _, p := range w.Builders() {
		fmt.Fprintf(&out, "\n### `%s`\n\n%s. At most level %d: %s.\n\n| requirement | met | |\n|---|---|---|\n",
			strings.TrimPrefix(p.Path, "/builders/"), p.Title, p.Level, p.Why)
		for _, r := range p.Requirements {
			fmt.Fprintf(&out, "| %s (L%d) | %s | %s |\n", r.Name, r.Level, yes(r.Met), r.How)
		}
		fmt.Fprintf(&out, "\nThe tenant controls: %s.\n", strings.Join(p.Tenant, "; "))
	}
	return out.String()
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "no"
}

// compareBlock compares, or with -update rewrites, what stands between two marks.
func compareBlock(t *testing.T, path, mark, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+mark+" -->\n", "<!-- end "+mark+" -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no block %s", path, mark)
	}
	compare(t, path, []byte(before+begin+want+end+after))
}
