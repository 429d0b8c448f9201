package sbom

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

var update = flag.Bool("update", false, "write the golden files")

func testArtifact() Artifact {
	return Artifact{Name: "dist/app-1.0.tgz", SHA256: strings.Repeat("ab", 32), SHA512: strings.Repeat("cd", 64), Size: 7}
}

func testTool() Tool { return Tool{Name: "assay", Version: "v1.2.3"} }

func smallInventory() *Inventory {
	inv := &Inventory{
		Format: "tar+gzip", Files: 12, Bytes: 3456,
		Components: []Component{
			{PURL: "pkg:npm/%40scope/app@1.0.0", Group: "@scope", Name: "app", Version: "1.0.0", Type: "application", Licenses: []string{"Apache-2.0"},
				DependsOn: []string{"pkg:npm/left@2.0.0", "pkg:npm/right@3.0.0"}, Locations: []string{"package/package.json"}, Scope: "required"},
			{PURL: "pkg:npm/left@2.0.0", Name: "left", Version: "2.0.0", Licenses: []string{"MIT OR Apache-2.0", "ISC"},
				Hashes: []Hash{{"SHA-512", strings.Repeat("0f", 64)}, {"SHA-1", strings.Repeat("0a", 20)}}},
			{PURL: "pkg:npm/right@3.0.0", Name: "right", Version: "3.0.0", Licenses: []string{"SEE LICENSE IN <LICENSE> & co", "MIT"}, Scope: "optional"},
			{PURL: "pkg:deb/debian/libc6@2.36-9?arch=amd64", Group: "debian", Name: "libc6", Version: "2.36-9", Licenses: []string{"BSD", "LGPL-2.1+"}},
			{Name: "nameless thing", Version: "1", Type: "file"},
		},
		Root:       []string{"pkg:npm/%40scope/app@1.0.0"},
		Incomplete: []Reason{{Code: ReasonDepth, Path: "a.zip!/b.zip", Detail: "deeper than 16"}, {Code: ReasonTime}},
	}
	inv.Normalize()
	return inv
}

// TestEncodeGolden pins the document. The version of the library, which is that of the
// module file, is taken out.
func TestEncodeGolden(t *testing.T) {
	t.Parallel()
	doc, err := Encode(testArtifact(), smallInventory(), testTool())
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, doc, "", "  "); err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`("name": "osv-scalibr")(,\s+"version": "[^"]*")?,\s+"purl": "[^"]*"`)
	got := version.ReplaceAllString(indented.String(), "$1")
	got = serialPattern().ReplaceAllString(got, "urn:uuid:SERIAL") + "\n"
	golden(t, "cyclonedx.json", []byte(got))
}

// serialPattern finds the serial number, which depends on the version of the library.
func serialPattern() *regexp.Regexp { return regexp.MustCompile(`urn:uuid:[0-9a-f-]{36}`) }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and look at the difference. Got:\n%s", path, got)
	}
}

// officialSchema is that of CycloneDX 1.6, with formats asserted.
func officialSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir := vectors.Dir(t, "cyclonedx-spec/schema")
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, name := range []string{"bom-1.6", "spdx", "jsf-0.82"} {
		file, err := os.Open(filepath.Join(dir, name+".schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+name+".schema.json", doc); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestEncodeConforms: whatever was found, the document passes the official schema and
// the rules for what we sign, is the same each time, and reads back as what was encoded.
func TestEncodeConforms(t *testing.T) {
	t.Parallel()
	schema := officialSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		inv := hostileInventory().Draw(t, "inventory")
		inv.Normalize()
		a := testArtifact()
		a.Name = hostileText().Draw(t, "artifact")
		doc, err := Encode(a, inv, Tool{Name: hostileText().Draw(t, "tool"), Version: hostileText().Draw(t, "version")})
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if err := attest.CheckJSON(doc, 1<<20); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		checkBOMRefs(t, doc)
		checkReadBack(t, a, inv, doc)
	})
}

// checkBOMRefs: each bom-ref is there once, and every reference leads to one.
func checkBOMRefs(t *rapid.T, doc []byte) {
	var bom struct {
		Metadata struct {
			Component struct {
				Ref string `json:"bom-ref"`
			}
		}
		Components []struct {
			Ref string `json:"bom-ref"`
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
		Compositions []struct{ Assemblies []string }
	}
	if err := json.Unmarshal(doc, &bom); err != nil {
		t.Fatal(err)
	}
	refs := map[string]bool{bom.Metadata.Component.Ref: true}
	for _, c := range bom.Components {
		if refs[c.Ref] {
			t.Fatalf("%q twice", c.Ref)
		}
		refs[c.Ref] = true
	}
	if len(bom.Dependencies) != len(refs) || len(bom.Compositions) != 1 {
		t.Fatalf("%d dependencies of %d components, %d compositions", len(bom.Dependencies), len(refs), len(bom.Compositions))
	}
	for _, d := range bom.Dependencies {
		for _, ref := range append(d.DependsOn, d.Ref, bom.Compositions[0].Assemblies[0]) {
			if !refs[ref] {
				t.Fatalf("%q leads nowhere", ref)
			}
		}
	}
}

// checkReadBack: Read gives what was encoded, but for the edges.
func checkReadBack(t *rapid.T, a Artifact, inv *Inventory, doc []byte) {
	var got []Component
	h, err := Read(bytes.NewReader(doc), func(c Component) error { got = append(got, c); return nil })
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	want := inv.clone()
	for i := range want.Components {
		want.Components[i].DependsOn = nil
	}
	if len(got)+len(want.Components) > 0 && !reflect.DeepEqual(got, want.Components) {
		t.Fatalf("read\n%+v\nwant\n%+v\n%s", got, want.Components, doc)
	}
	sum := Summarize(inv)
	if h.Aggregate != inv.aggregate() || !reflect.DeepEqual(h.Incomplete, sum.Incomplete) || h.ArtifactFormat != inv.Format ||
		h.Hashes[0].Value != a.SHA256 || h.Format != FormatCycloneDX || h.SpecVersion != "1.6" {
		t.Fatalf("header %+v\n%s", h, doc)
	}
}

func TestEncodeDeterministic(t *testing.T) {
	t.Parallel()
	first, err := Encode(testArtifact(), smallInventory(), testTool())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, err := Encode(testArtifact(), smallInventory(), testTool()); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("another document, %v", err)
		}
	}
	serial := func(doc []byte) string {
		h, err := Read(bytes.NewReader(doc), func(Component) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return h.Serial
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(serial(first)) {
		t.Errorf("serial number %s", serial(first))
	}
	other := smallInventory()
	other.Components[1].Version = "2"
	changed, err := Encode(testArtifact(), other, testTool())
	if err != nil || serial(changed) == serial(first) {
		t.Errorf("another document has the same serial number, %v", err)
	}
}

func TestEncodeAggregate(t *testing.T) {
	t.Parallel()
	one := []Component{{PURL: "pkg:npm/a@1", Name: "a"}}
	for want, inv := range map[string]*Inventory{
		AggregateComplete:   {Components: one},
		AggregateIncomplete: {Components: one, Incomplete: []Reason{{Code: ReasonTime}}},
		AggregateUnknown:    {Incomplete: []Reason{{Code: ReasonOpaque}}},
	} {
		doc, err := Encode(testArtifact(), inv, testTool())
		if err != nil {
			t.Fatal(err)
		}
		if h, err := Read(bytes.NewReader(doc), func(Component) error { return nil }); err != nil || h.Aggregate != want {
			t.Errorf("%s: %+v, %v", want, h, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for _, a := range []Artifact{{}, {SHA256: "AB"}, {SHA256: strings.Repeat("AB", 32)}, {SHA256: strings.Repeat("ab", 32), SHA512: "x"}} {
		if _, err := Encode(a, &Inventory{}, testTool()); refusal.CodeOf(err) != CodeArtifactInvalid {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if _, err := Encode(testArtifact(), &Inventory{Files: -1}, testTool()); refusal.CodeOf(err) != CodeInventoryInvalid {
		t.Error(err)
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	got := Summarize(smallInventory())
	want := Summary{
		Components: 5, ByType: map[string]int{"npm": 3, "deb": 1, "": 1},
		Licenses:   []string{"Apache-2.0", "ISC", "LGPL-2.1-or-later", "LicenseRef-BSD", "MIT", "SEE LICENSE IN <LICENSE> & co"},
		Incomplete: []string{"depth-limit", "time-limit"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestLarge: 100k components are encoded and read in a time that nobody notices.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a document of 60 MB")
	}
	inv := largeInventory(100_000)
	start := time.Now()
	doc, err := Encode(testArtifact(), inv, testTool())
	encoded := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	n := 0
	if _, err := Read(bytes.NewReader(doc), func(Component) error { n++; return nil }); err != nil || n != 100_000 {
		t.Fatal(n, err)
	}
	t.Logf("%d bytes: encoded in %s, read in %s", len(doc), encoded, time.Since(start))
}

func BenchmarkEncode(b *testing.B) {
	inv := largeInventory(1000)
	for b.Loop() {
		if _, err := Encode(testArtifact(), inv, testTool()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	doc, err := Encode(testArtifact(), largeInventory(1000), testTool())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(doc), func(Component) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// TestArtifactType: the words are those of scans.
func TestArtifactType(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]cdx.ComponentType{
		"go-binary": cdx.ComponentTypeApplication, "elf": cdx.ComponentTypeApplication, "pe": cdx.ComponentTypeApplication,
		"mach-o": cdx.ComponentTypeApplication, "oci-layout": cdx.ComponentTypeContainer, "tar+gzip": cdx.ComponentTypeFile, "": cdx.ComponentTypeFile,
	} {
		if got := artifactType(format); got != want {
			t.Errorf("%q: %s, want %s", format, got, want)
		}
	}
}
