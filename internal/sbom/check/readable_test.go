package check

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/sbom"
)

// TestNamesNothing: the schemas allow texts that name nothing, and sbom.Read does not.
func TestNamesNothing(t *testing.T) {
	t.Parallel()
	spdx := spdxSamples()
	for _, name := range []string{" ", `\t`, `\n`, `\u0000`, `\u200b`, `\u00a0 \u2028`, `\ufeff`} {
		for at, doc := range map[string]string{
			"component": `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"` + name + `"}]}`,
			"nested":    `{"bomFormat":"CycloneDX","specVersion":"1.4","version":1,"components":[{"type":"library","name":"a","version":"1","components":[{"type":"library","name":"` + name + `","version":"1"}]}]}`,
			"inside":    `{"bomFormat":"CycloneDX","specVersion":"1.5","metadata":{"component":{"type":"library","name":"a","components":[{"type":"library","name":"` + name + `"}]}}}`,
			"package":   strings.Replace(spdx["2.3"], `"name": "something"`, `"name": "`+name+`"`, 1),
		} {
			want := cycloneDX()
			if at == "package" {
				want.PredicateType = predicateSPDX
				if doc == spdx["2.3"] {
					t.Fatal("the sample has no such package")
				}
			}
			_, readErr := sbom.Read(strings.NewReader(doc), func(sbom.Component) error { return nil })
			_, _, err := checkText(t, doc, want)
			if readErr == nil {
				if err != nil {
					t.Errorf("%s %s: read, and refused: %v", at, name, err)
				}
				continue
			}
			wantCode(t, err, CodeSBOMInvalid)
		}
	}
}

// TestAcceptedIsReadable: whatever is accepted is read, with as many components, when it
// is asked about later.
func TestAcceptedIsReadable(t *testing.T) {
	t.Parallel()
	docs := official(t)
	for name, doc := range spdxSamples() {
		docs["spdx/"+name] = []byte(doc)
	}
	names := slices.Sorted(maps.Keys(docs))
	names = slices.DeleteFunc(names, func(s string) bool { return strings.Contains(s, "/invalid-") })
	accepted := 0
	one := func(t *rapid.T) {
		name := rapid.SampledFrom(names).Draw(t, "document")
		want := Want{PredicateType: predicateCycloneDX}
		if strings.HasPrefix(name, "spdx/") {
			want.PredicateType = predicateSPDX
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(docs[name]))
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(0, 2).Draw(t, "mutations") {
			doc = mutate(t, doc)
		}
		for range rapid.IntRange(0, 3).Draw(t, "texts") {
			renameOne(t, doc)
		}
		text := encode(t, doc)
		_, report, err := Check(t.Context(), bytes.NewReader(text), int64(len(text)), want, DefaultLimits())
		if err != nil {
			return
		}
		accepted++
		n := 0
		if _, err := sbom.Read(bytes.NewReader(text), func(sbom.Component) error { n++; return nil }); err != nil {
			t.Fatalf("accepted, and cannot be read: %v\n%s", err, text)
		}
		if report.Components != n {
			t.Fatalf("%d components are accepted and %d read\n%s", report.Components, n, text)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			one(t)
		}
	})
	if accepted == 0 {
		t.Error("nothing was accepted")
	}
	t.Logf("%d documents accepted", accepted)
}

// renameOne writes an odd text in the place of another.
func renameOne(t *rapid.T, doc any) {
	var texts []place
	for _, p := range places(doc, func(any) {}, nil) {
		obj, ok := p.value.(map[string]any)
		if !ok {
			continue
		}
		for _, name := range []string{"name", "group", "version", "versionInfo", "purl", "referenceLocator"} {
			if _, ok := obj[name].(string); ok {
				texts = append(texts, place{obj[name], func(v any) { obj[name] = v }})
			}
		}
	}
	if len(texts) == 0 {
		return
	}
	odd := []string{" ", "\t", "\u200b", "\u2028", "\x00", "\u202e", strings.Repeat("x", 3000), "pkg:npm/a", "pkg:npm/%20@1", "pkg:generic/%E2%80%8B", "ä"}
	rapid.SampledFrom(texts).Draw(t, "text").set(rapid.SampledFrom(odd).Draw(t, "odd"))
}
