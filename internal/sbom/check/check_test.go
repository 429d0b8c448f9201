package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

const (
	sha256Hex = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	sha512Hex = "f7fbba6e0636f890e56fbbf3283e524c6fa3204ae298382d624741d0dc6638326e282c41be5e4254d8820772c5518a2c5a8c0c7f7eda19594a7eb539453e1ed7"
)

func wantCode(t testing.TB, err error, want refusal.Code) {
	t.Helper()
	if got := refusal.CodeOf(err); got != want {
		t.Errorf("code = %q, want %q (error: %v)", got, want, err)
	}
}

func checkText(t testing.TB, doc string, w Want) (*sbom.Inventory, *Report, error) {
	t.Helper()
	inv, report, err := Check(t.Context(), strings.NewReader(doc), int64(len(doc)), w, DefaultLimits())
	if err == nil {
		if verr := inv.Validate(); verr != nil {
			t.Errorf("the inventory is not in its form: %v", verr)
		}
	}
	return inv, report, err
}

func cycloneDX() Want { return Want{PredicateType: predicateCycloneDX, SHA256: sha256Hex} }

// official returns the JSON cases of the CycloneDX project: name to text.
func official(t testing.TB) map[string][]byte {
	t.Helper()
	root := vectors.Dir(t, "cyclonedx-spec/tools/src/test/resources")
	cases := map[string][]byte{}
	for _, version := range [...]string{"1.4", "1.5", "1.6", "1.7"} {
		names, err := filepath.Glob(filepath.Join(root, version, "*valid-*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			cases[version+"/"+filepath.Base(name)] = data
		}
	}
	return cases
}

// TestOfficialCases: the documents of the CycloneDX project are judged as their names
// say, all rules of this package applied.
func TestOfficialCases(t *testing.T) {
	t.Parallel()
	cases := official(t)
	valid, invalid := 0, 0
	for name, doc := range cases {
		_, report, err := checkText(t, string(doc), cycloneDX())
		if strings.Contains(name, "/invalid-") {
			invalid++
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			if refusal.CodeOf(err) == "" {
				t.Errorf("%s: no refusal: %v", name, err)
			}
			continue
		}
		valid++
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if report.SpecVersion != name[:3] {
			t.Errorf("%s: version %s", name, report.SpecVersion)
		}
	}
	t.Logf("%d valid, %d invalid", valid, invalid)
	if valid != 171 || invalid != 98 {
		t.Errorf("%d valid and %d invalid cases; want 171 and 98", valid, invalid)
	}
}

// TestEmbeddedSchemas: they are those of the CycloneDX project, unmodified.
func TestEmbeddedSchemas(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t, "cyclonedx-spec/schema")
	names, err := filepath.Glob(filepath.Join(dir, "*.schema.json"))
	if err != nil || len(names) != 7 {
		t.Fatalf("%d schemas, error %v", len(names), err)
	}
	for _, name := range names {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := schemaFiles.ReadFile("schema/" + filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not that of the project", filepath.Base(name))
		}
	}
}

// TestPieces: the schemas of all versions can be divided, and nothing that repeats
// without bound is left in a piece at the top.
func TestPieces(t *testing.T) {
	t.Parallel()
	for name, load := range schemas {
		root, err := load()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for member, s := range root.schema.Properties {
			if _, isList := root.lists[member]; !isList && target(s).Items != nil {
				t.Errorf("%s: %s is not divided", name, member)
			}
		}
		if !strings.HasPrefix(name, "cyclonedx") {
			continue
		}
		component := root.lists["components"].of
		if component.kind != "component" || component.lists["components"].of != component || !component.lists["components"].unique {
			t.Errorf("%s: components are not divided", name)
		}
		if root.parts["metadata"].parts["component"] != component {
			t.Errorf("%s: the subject's components are not divided", name)
		}
		if service := root.lists["services"].of; service.lists["services"].of != service {
			t.Errorf("%s: services are not divided", name)
		}
	}
}

func TestUndividable(t *testing.T) {
	t.Parallel()
	for _, list := range [...]string{
		`{"type":"array","items":{"type":"object"},"minItems":1}`,
		`{"type":"array","items":{"type":"object"},"contains":{"required":["a"]}}`,
		`{"items":{"type":"object"}}`,
		`{"type":["array","null"],"items":{"type":"object"}}`,
		`{"type":"array","items":{"type":"object"},"anyOf":[{"maxItems":3}]}`,
	} {
		text := `{"$schema":"http://json-schema.org/draft-07/schema#","properties":{"x":` + list + `}}`
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("urn:x", doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile("urn:x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cut(s); err == nil {
			t.Errorf("%s was divided", list)
		}
	}
}

const whole = `{
  "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
  "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
  "metadata": {"component": {"type": "application", "name": "app", "bom-ref": "app",
    "hashes": [{"alg": "SHA-256", "content": "` + sha256Hex + `"}],
    "components": [{"type": "library", "name": "inside", "bom-ref": "inside", "purl": "pkg:npm/inside@1.0.0"}]}},
  "components": [
    {"type": "library", "bom-ref": "log4j", "group": "org.apache.logging.log4j", "name": "log4j-core", "version": "2.14.1",
     "purl": "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1#sub/path", "scope": "required",
     "hashes": [{"alg": "SHA-1", "content": "9141212B8507AB50A45525B545B39D224614528B"}],
     "licenses": [{"license": {"id": "Apache-2.0"}}],
     "components": [{"type": "library", "bom-ref": "api", "name": "log4j-api", "version": "2.14.1",
       "purl": "pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1", "licenses": [{"expression": "MIT OR Apache-2.0"}]}]},
    {"type": "file", "bom-ref": "readme", "name": "README"}
  ],
  "services": [{"name": "ldap", "bom-ref": "ldap"}],
  "dependencies": [
    {"ref": "app", "dependsOn": ["log4j", "readme"]},
    {"ref": "log4j", "dependsOn": ["api", "ldap"]},
    {"ref": "api"}
  ],
  "compositions": [{"aggregate": "complete", "assemblies": ["app"]}, {"aggregate": "incomplete", "assemblies": ["log4j"]}]
}`

func TestInventory(t *testing.T) {
	t.Parallel()
	inv, report, err := checkText(t, whole, cycloneDX())
	if err != nil {
		t.Fatal(err)
	}
	log4j, api := "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1", "pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1"
	want := &sbom.Inventory{
		Format: "cyclonedx 1.6",
		Bytes:  int64(len(whole)),
		Root:   []string{log4j},
		Components: []sbom.Component{
			{Name: "README", Type: "file"},
			{PURL: api, Name: "log4j-api", Version: "2.14.1", Licenses: licenses([]any{map[string]any{"expression": "MIT OR Apache-2.0"}})},
			{PURL: log4j, Group: "org.apache.logging.log4j", Name: "log4j-core", Version: "2.14.1", Scope: "required",
				Hashes:   []sbom.Hash{{Algorithm: "SHA-1", Value: "9141212b8507ab50a45525b545b39d224614528b"}},
				Licenses: []string{"Apache-2.0"}, DependsOn: []string{api}},
			{PURL: "pkg:npm/inside@1.0.0", Name: "inside"},
		},
	}
	if diff := cmp.Diff(want, inv); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
	wantReport := &Report{Format: "cyclonedx", SpecVersion: "1.6", Components: 4, SelfBound: true, Aggregate: "complete"}
	if diff := cmp.Diff(wantReport, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// TestRefusals changes one thing of a good document.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, old, new string
		want           refusal.Code
		field          string
	}{
		{"version 1.3", `"1.6"`, `"1.3"`, CodeSBOMVersionUnsupported, ""},
		{"version 2.0", `"1.6"`, `"2.0"`, CodeSBOMVersionUnsupported, ""},
		{"version a number", `"1.6"`, `1.6`, CodeSBOMVersionUnsupported, ""},
		{"no version", `"specVersion": "1.6", `, ``, CodeSBOMVersionUnsupported, ""},
		{"another format", `"CycloneDX"`, `"cyclonedx"`, CodeSBOMInvalid, "bomFormat"},
		{"no format", `"bomFormat": "CycloneDX", `, ``, CodeSBOMFormatUnsupported, ""},
		{"duplicate key", `"version": 1`, `"version": 1, "version": 1`, attest.CodeJSONDuplicate, ""},
		{"case variant key", `"version": 1`, `"version": 1, "Version": 1`, attest.CodeJSONCaseVariant, ""},
		{"duplicate key deep inside", `"name": "log4j-api"`, `"name": "log4j-api", "name": "x"`, attest.CodeJSONDuplicate, ""},
		{"unknown key", `"version": 1`, `"version": 1, "versions": 1`, CodeSBOMInvalid, ""},
		{"unknown key of a nested component", `"bom-ref": "api"`, `"bom-ref": "api", "x y": 1`, CodeSBOMInvalid, "components[0].components[0]"},
		{"wrong type", `"name": "README"`, `"name": 1`, CodeSBOMInvalid, "components[1].name"},
		{"missing name", `, "name": "README"`, ``, CodeSBOMInvalid, "components[1]"},
		{"components an object", `"services": [{"name": "ldap", "bom-ref": "ldap"}]`, `"services": {}`, CodeSBOMInvalid, "services"},
		{"unknown type", `"type": "file"`, `"type": "fish"`, CodeSBOMInvalid, "components[1].type"},
		{"unknown licence id", `"id": "Apache-2.0"`, `"id": "Apache-9"`, CodeSBOMInvalid, "components[0].licenses[0].license.id"},
		{"bad hash", `9141212B`, `X141212B`, CodeSBOMInvalid, "components[0].hashes[0].content"},
		{"bad serial number", `urn:uuid:3e67`, `urn:uuid:XX67`, CodeSBOMInvalid, "serialNumber"},
		{"huge number", `"version": 1`, `"version": 1e99999999`, CodeSBOMInvalid, "version"},
		{"long number", `"version": 1`, `"version": 1` + strings.Repeat("0", 100), CodeSBOMInvalid, "version"},
		{"twice the same component", `{"type": "file", "bom-ref": "readme", "name": "README"}`,
			`{"type": "file", "name": "README"}, {"name": "README", "type": "file"}`, CodeSBOMInvalid, "components[2]"},
		{"twice the same dependency", `{"ref": "api"}`, `{"ref": "api"}, {"ref": "api"}`, CodeSBOMInvalid, "dependencies[3]"},
		{"duplicate reference", `"bom-ref": "readme"`, `"bom-ref": "log4j"`, CodeSBOMReferenceDuplicate, "components[1].bom-ref"},
		{"duplicate reference of a service", `"name": "ldap", "bom-ref": "ldap"`, `"name": "ldap", "bom-ref": "api"`, CodeSBOMReferenceDuplicate, "services[0].bom-ref"},
		{"the subject's reference again", `"bom-ref": "readme"`, `"bom-ref": "app"`, CodeSBOMReferenceDuplicate, "metadata.component.bom-ref"},
		{"dependency of nothing", `{"ref": "api"}`, `{"ref": "apis"}`, CodeSBOMReferenceUnknown, "dependencies[2]"},
		{"dependency on nothing", `["api", "ldap"]`, `["api", "sql"]`, CodeSBOMReferenceUnknown, "dependencies[1]"},
		{"provides nothing", `{"ref": "api"}`, `{"ref": "api", "provides": ["x"]}`, CodeSBOMReferenceUnknown, "dependencies[2]"},
		{"bad purl", `pkg:npm/inside@1.0.0`, `npm/inside@1.0.0`, sbom.CodePURLInvalid, "metadata.component.components[0].purl"},
		{"empty purl", `"bom-ref": "readme"`, `"bom-ref": "readme", "purl": ""`, sbom.CodePURLInvalid, "components[1].purl"},
		{"bad purl of the subject", `"bom-ref": "app"`, `"bom-ref": "app", "purl": "pkg:"`, sbom.CodePURLInvalid, "metadata.component.purl"},
		{"bad purl in a pedigree", `"bom-ref": "readme"`,
			`"bom-ref": "readme", "pedigree": {"ancestors": [{"type": "file", "name": "x", "purl": "pkg:/x"}]}`,
			sbom.CodePURLInvalid, "components[1].pedigree.ancestors[0].purl"},
		{"another subject", sha256Hex, strings.Repeat("0", 64), CodeSBOMSubjectMismatch, "metadata.component.hashes[0]"},
		{"another subject besides the right one", `"hashes": [{"alg": "SHA-256"`,
			`"hashes": [{"alg": "SHA-256", "content": "` + strings.Repeat("1", 64) + `"}, {"alg": "SHA-256"`, CodeSBOMSubjectMismatch, "metadata.component.hashes[0]"},
		{"data after the document", "\n}", "\n}{}", attest.CodeJSONInvalid, ""},
		{"cut short", "\n}", "\n", attest.CodeJSONInvalid, ""},
		{"not UTF-8", `README`, "READ\xff", attest.CodeJSONInvalid, ""},
		{"many members", `"name": "README"`, `"name": {"x":1` + manyNames(maxMembers) + `}`, CodeSBOMTooLarge, ""},
		{"many members, all but one in a string", `"name": "README"`, `"name": "` + strings.ReplaceAll(manyNames(maxMembers), `"`, `\"`) + `"`, "", ""},
		{"too deep", `"name": "README"`, `"name": ` + strings.Repeat("[", 70) + strings.Repeat("]", 70), attest.CodeJSONTooDeep, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := strings.LastIndex(whole, tt.old)
			if at < 0 {
				t.Fatalf("nothing to replace: %s", tt.old)
			}
			doc := whole[:at] + tt.new + whole[at+len(tt.old):]
			_, _, err := checkText(t, doc, cycloneDX())
			wantCode(t, err, tt.want)
			first := err
			for range 5 { // the same refusal each time
				if _, _, err := checkText(t, doc, cycloneDX()); fmt.Sprint(err) != fmt.Sprint(first) {
					t.Errorf("once %v, once %v", first, err)
				}
			}
			if r, ok := err.(*refusal.Error); ok && r.Field != tt.field { //nolint:errorlint // Check returns it unwrapped
				t.Errorf("field %q, want %q (%v)", r.Field, tt.field, err)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("%d bytes of message", len(err.Error()))
			}
		})
	}
}

// manyNames are n more members of an object.
func manyNames(n int) string {
	var sb strings.Builder
	for i := range n {
		fmt.Fprintf(&sb, `,"%d":0`, i)
	}
	return sb.String()
}

func TestFormats(t *testing.T) {
	t.Parallel()
	minimal := `{"bomFormat":"CycloneDX","specVersion":"1.5"}`
	tests := []struct {
		name, predicate, doc string
		want                 refusal.Code
	}{
		{"minimal", predicateCycloneDX, minimal, ""},
		{"version in the predicate type", predicateCycloneDX + "/v1.5", minimal, ""},
		{"another version in the predicate type", predicateCycloneDX + "/v1.6", minimal, CodeSBOMFormatUnsupported},
		{"predicate type of something else", "https://slsa.dev/provenance/v1", minimal, CodeSBOMFormatUnsupported},
		{"predicate type that only starts alike", predicateCycloneDX + "x", minimal, CodeSBOMFormatUnsupported},
		{"predicate type with an empty version", predicateCycloneDX + "/v", minimal, CodeSBOMFormatUnsupported},
		{"no predicate type", "", minimal, CodeSBOMFormatUnsupported},
		{"CycloneDX as SPDX", predicateSPDX, minimal, CodeSBOMFormatUnsupported},
		{"SPDX as CycloneDX", predicateCycloneDX, `{"spdxVersion":"SPDX-2.3"}`, CodeSBOMFormatUnsupported},
		{"both at once", predicateCycloneDX, `{"spdxVersion":"SPDX-2.3",` + minimal[1:], CodeSBOMInvalid},
		{"SPDX 3", predicateSPDX, `{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[]}`, CodeSBOMVersionUnsupported},
		{"SPDX 2.1", predicateSPDX, `{"spdxVersion":"SPDX-2.1"}`, CodeSBOMVersionUnsupported},
		{"SPDX 3 by version", predicateSPDX, `{"spdxVersion":"SPDX-3.0"}`, CodeSBOMVersionUnsupported},
		{"XML", predicateCycloneDX, `<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/1.6"/>`, CodeSBOMFormatUnsupported},
		{"XML with a document type", predicateCycloneDX, "\n" + `<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><bom/>`, CodeSBOMFormatUnsupported},
		{"protobuf", predicateCycloneDX, "\n\x031.6\x1a\x2durn:uuid", CodeSBOMFormatUnsupported},
		{"SPDX tag-value", predicateSPDX, "SPDXVersion: SPDX-2.3\n", CodeSBOMFormatUnsupported},
		{"UTF-16", predicateCycloneDX, "\xff\xfe{\x00}\x00", CodeSBOMFormatUnsupported},
		{"byte order mark", predicateCycloneDX, "\xef\xbb\xbf" + minimal, attest.CodeJSONInvalid},
		{"array", predicateCycloneDX, `[]`, CodeSBOMFormatUnsupported},
		{"nothing", predicateCycloneDX, ``, CodeSBOMFormatUnsupported},
		{"empty object", predicateCycloneDX, `{}`, CodeSBOMFormatUnsupported},
	}
	for _, tt := range tests {
		_, _, err := checkText(t, tt.doc, Want{PredicateType: tt.predicate, SHA256: sha256Hex})
		if got := refusal.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q (%v)", tt.name, got, tt.want, err)
		}
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	doc := func(hashes string) string {
		return `{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"file","name":"x","hashes":[` + hashes + `]}}}`
	}
	h := func(alg, content string) string { return `{"alg":"` + alg + `","content":"` + content + `"}` }
	both := Want{PredicateType: predicateCycloneDX, SHA256: sha256Hex, SHA512: sha512Hex}
	tests := []struct {
		name, doc string
		want      Want
		bound     bool
		code      refusal.Code
	}{
		{"no digest", doc(``), both, false, ""},
		{"sha256", doc(h("SHA-256", sha256Hex)), both, true, ""},
		{"sha256 in upper case", doc(h("SHA-256", strings.ToUpper(sha256Hex))), both, true, ""},
		{"sha512", doc(h("SHA-512", sha512Hex)), both, true, ""},
		{"both", doc(h("SHA-256", sha256Hex) + "," + h("SHA-512", sha512Hex)), both, true, ""},
		{"one of two wrong", doc(h("SHA-256", sha256Hex) + "," + h("SHA-512", strings.Repeat("a", 128))), both, false, CodeSBOMSubjectMismatch},
		{"an algorithm that is not known", doc(h("SHA-1", strings.Repeat("a", 40))), both, false, ""},
		{"sha512 that is not known", doc(h("SHA-512", sha512Hex)), cycloneDX(), false, ""},
		{"nothing known", doc(h("SHA-256", sha256Hex)), Want{PredicateType: predicateCycloneDX}, false, ""},
	}
	for _, tt := range tests {
		_, report, err := checkText(t, tt.doc, tt.want)
		if got := refusal.CodeOf(err); got != tt.code {
			t.Errorf("%s: code %q, want %q (%v)", tt.name, got, tt.code, err)
		}
		if err == nil && report.SelfBound != tt.bound {
			t.Errorf("%s: SelfBound %v", tt.name, report.SelfBound)
		}
	}
}

func TestAggregate(t *testing.T) {
	t.Parallel()
	for compositions, want := range map[string]string{
		`[]`:                         "",
		`[{"aggregate":"complete"}]`: "complete",
		`[{"aggregate":"complete","assemblies":["a"]}]`:                                                 "complete",
		`[{"aggregate":"complete","assemblies":["b"]}]`:                                                 "",
		`[{"aggregate":"complete","dependencies":["a"]},{"aggregate":"incomplete","assemblies":["b"]}]`: "complete",
		`[{"aggregate":"complete","assemblies":["a"]},{"aggregate":"incomplete_third_party_only"}]`:     "incomplete",
		`[{"aggregate":"complete","assemblies":["a"]},{"aggregate":"not_specified"}]`:                   "unknown",
		`[{"aggregate":"unknown","assemblies":["a"]}]`:                                                  "unknown",
	} {
		_, report, err := checkText(t, `{"bomFormat":"CycloneDX","specVersion":"1.6","compositions":`+compositions+
			`,"metadata":{"component":{"type":"file","name":"x","bom-ref":"a"}}}`, cycloneDX())
		if err != nil {
			t.Errorf("%s: %v", compositions, err)
		} else if report.Aggregate != want {
			t.Errorf("%s: %q, want %q", compositions, report.Aggregate, want)
		}
	}
}

// TestLimits: the error says the limit, and what is at the limit passes.
func TestLimits(t *testing.T) {
	t.Parallel()
	components := func(n int) string {
		one := `{"type":"file","name":"%"}`
		var all []string
		for i := range n {
			all = append(all, strings.Replace(one, "%", strings.Repeat("x", i+1), 1))
		}
		return `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Join(all, ",") + `]}`
	}
	base := Limits{Bytes: 1 << 20, Components: 10, Values: 1000, OpenValues: 1000}
	with := func(f func(*Limits)) Limits { l := base; f(&l); return l }
	nested := `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.Repeat(`{"type":"file","name":"x","components":[`, 11) + strings.Repeat(`]}`, 11) + `]}`
	tests := []struct {
		name, doc string
		limits    Limits
		want      refusal.Code
		says      string
	}{
		{"bytes", components(3), with(func(l *Limits) { l.Bytes = 100 }), CodeSBOMTooLarge, "100"},
		{"bytes at the limit", components(3), with(func(l *Limits) { l.Bytes = int64(len(components(3))) }), "", ""},
		{"components", components(11), base, CodeSBOMTooManyComponents, "10"},
		{"components at the limit", components(10), base, "", ""},
		{"nested components", nested, base, CodeSBOMTooManyComponents, "10"},
		{"values", components(10), with(func(l *Limits) { l.Values = 33 }), CodeSBOMTooLarge, "33"},
		{"values at the limit", components(10), with(func(l *Limits) { l.Values = 34 }), "", ""},
		{"values of many pieces", components(10), with(func(l *Limits) { l.OpenValues = 7 }), "", ""},
		{"values of one piece", components(10), with(func(l *Limits) { l.OpenValues = 6 }), CodeSBOMTooLarge, "6"},
		{"values of nested pieces", nested, with(func(l *Limits) { l.Components, l.OpenValues = 20, 40 }), CodeSBOMTooLarge, "40"},
	}
	for _, tt := range tests {
		_, _, err := Check(t.Context(), strings.NewReader(tt.doc), int64(len(tt.doc)), cycloneDX(), tt.limits)
		if got := refusal.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q (%v)", tt.name, got, tt.want, err)
		}
		if err != nil && !regexp.MustCompile(`\b`+tt.says+`\b`).MatchString(err.Error()) {
			t.Errorf("%s: %v does not say %s", tt.name, err, tt.says)
		}
	}
}

func TestReadError(t *testing.T) {
	t.Parallel()
	_, _, err := Check(t.Context(), strings.NewReader("{}"), 10, cycloneDX(), DefaultLimits())
	if err == nil || refusal.CodeOf(err) != "" {
		t.Errorf("a document shorter than said: %v; want an error of ours, and no refusal", err)
	}
}

// TestIDNEmail: mail addresses of any script, and nothing without "@".
func TestIDNEmail(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"a@example.com": true, "δοκιμή@παράδειγμα.gr": true, "a@b@example.com": true,
		"": false, "a": false, "@example.com": false, "a@": false, "a b@example.com": false,
	} {
		if got := idnEmail(s) == nil; got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
	if idnEmail(json.Number("1")) != nil {
		t.Error("a format is about strings alone")
	}
}
