package check

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	spdxjson "github.com/spdx/tools-golang/json"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
)

const spdx23 = `{
  "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "app",
  "documentNamespace": "https://example.com/spdx/app-1",
  "creationInfo": {"created": "2026-01-02T03:04:05Z", "creators": ["Tool: example-1.0", "Organization: Example ()"]},
  "externalDocumentRefs": [{"externalDocumentId": "DocumentRef-base", "spdxDocument": "https://example.com/spdx/base",
    "checksum": {"algorithm": "SHA1", "checksumValue": "d6a770ba38583ed4bb4525bd96e50461655d2759"}}],
  "packages": [
    {"SPDXID": "SPDXRef-app", "name": "app", "downloadLocation": "NOASSERTION", "primaryPackagePurpose": "APPLICATION",
     "checksums": [{"algorithm": "SHA256", "checksumValue": "` + sha256Hex + `"}],
     "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:generic/app@1"}]},
    {"SPDXID": "SPDXRef-log4j", "name": "log4j-core", "versionInfo": "2.14.1", "downloadLocation": "NOASSERTION",
     "licenseConcluded": "NOASSERTION", "licenseDeclared": "Apache-2.0", "supplier": "Organization: ASF", "hasFiles": ["SPDXRef-file"],
     "checksums": [{"algorithm": "SHA1", "checksumValue": "9141212B8507AB50A45525B545B39D224614528B"}],
     "externalRefs": [
       {"referenceCategory": "SECURITY", "referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:apache:log4j:2.14.1:*:*:*:*:*:*:*"},
       {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1"}]},
    {"SPDXID": "SPDXRef-api", "name": "log4j-api", "versionInfo": "2.14.1", "downloadLocation": "https://example.com/",
     "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1"}]},
    {"SPDXID": "SPDXRef-nameless", "name": "something", "downloadLocation": "NONE"}
  ],
  "files": [{"SPDXID": "SPDXRef-file", "fileName": "./x.class", "checksums": [{"algorithm": "SHA1", "checksumValue": "d6a770ba38583ed4bb4525bd96e50461655d2758"}]}],
  "snippets": [{"SPDXID": "SPDXRef-snippet", "snippetFromFile": "SPDXRef-file",
    "ranges": [{"startPointer": {"reference": "SPDXRef-file", "offset": 1}, "endPointer": {"reference": "SPDXRef-file", "offset": 2}}]}],
  "relationships": [
    {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-app"},
    {"spdxElementId": "SPDXRef-app", "relationshipType": "DEPENDS_ON", "relatedSpdxElement": "SPDXRef-log4j"},
    {"spdxElementId": "SPDXRef-api", "relationshipType": "RUNTIME_DEPENDENCY_OF", "relatedSpdxElement": "SPDXRef-log4j"},
    {"spdxElementId": "SPDXRef-api", "relationshipType": "OTHER", "relatedSpdxElement": "DocumentRef-base:SPDXRef-x"},
    {"spdxElementId": "SPDXRef-api", "relationshipType": "CONTAINS", "relatedSpdxElement": "NOASSERTION"}
  ]
}`

// spdxSamples are valid documents: version and name to text.
func spdxSamples() map[string]string {
	const minimal = `{"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","name":"x",` +
		`"documentNamespace":"https://example.com/x","creationInfo":{"created":"2026-01-02T03:04:05.123Z","creators":["Tool: x"]}}`
	old := strings.NewReplacer(`"SPDX-2.3"`, `"SPDX-2.2"`, `, "primaryPackagePurpose": "APPLICATION"`, ``,
		`"licenseConcluded": "NOASSERTION", "licenseDeclared": "Apache-2.0", `, ``,
		`"downloadLocation": "`, `"licenseConcluded": "NOASSERTION", "licenseDeclared": "Apache-2.0", "copyrightText": "NONE", "downloadLocation": "`,
		`"fileName": `, `"licenseConcluded": "NONE", "licenseInfoInFiles": ["NONE"], "copyrightText": "NONE", "fileName": `,
		`"snippetFromFile": `, `"licenseConcluded": "NONE", "copyrightText": "NONE", "snippetFromFile": `)
	return map[string]string{
		"2.3 minimal": minimal,
		"2.2 minimal": old.Replace(minimal),
		"2.3":         spdx23,
		"2.2":         old.Replace(spdx23),
	}
}

func spdx() Want { return Want{PredicateType: predicateSPDX, SHA256: sha256Hex} }

func TestSPDX(t *testing.T) {
	t.Parallel()
	samples := spdxSamples()
	for _, name := range slices.Sorted(maps.Keys(samples)) {
		_, report, err := checkText(t, samples[name], spdx())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if report.Format != "spdx" || report.SpecVersion != name[:3] {
			t.Errorf("%s: %+v", name, report)
		}
	}
}

func TestSPDXInventory(t *testing.T) {
	t.Parallel()
	inv, report, err := checkText(t, spdx23, spdx())
	if err != nil {
		t.Fatal(err)
	}
	log4j, api := "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1", "pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1"
	want := &sbom.Inventory{
		Format: "spdx 2.3",
		Bytes:  int64(len(spdx23)),
		Root:   []string{log4j},
		Components: []sbom.Component{
			{Name: "something"},
			{PURL: api, Name: "log4j-api", Version: "2.14.1"},
			{PURL: log4j, Name: "log4j-core", Version: "2.14.1", Licenses: []string{"Apache-2.0"},
				Hashes: []sbom.Hash{{Algorithm: "SHA-1", Value: "9141212b8507ab50a45525b545b39d224614528b"}}, DependsOn: []string{api}},
		},
	}
	if diff := cmp.Diff(want, inv); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&Report{Format: "spdx", SpecVersion: "2.3", Components: 3, SelfBound: true}, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestSPDXRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, old, new string
		want           refusal.Code
		field          string
	}{
		{"no namespace", `"documentNamespace": "https://example.com/spdx/app-1",`, ``, CodeSBOMInvalid, ""},
		{"namespace with a fragment", `spdx/app-1"`, `spdx/app-1#x"`, CodeSBOMInvalid, "documentNamespace"},
		{"another data licence", `CC0-1.0`, `MIT`, CodeSBOMInvalid, "dataLicense"},
		{"another identifier of the document", `"SPDXID": "SPDXRef-DOCUMENT"`, `"SPDXID": "SPDXRef-document"`, CodeSBOMInvalid, "SPDXID"},
		{"no creators", `["Tool: example-1.0", "Organization: Example ()"]`, `[]`, CodeSBOMInvalid, "creationInfo.creators"},
		{"a creator of no kind", `Tool: example-1.0`, `example-1.0`, CodeSBOMInvalid, "creationInfo.creators[0]"},
		{"created without zone", `03:04:05Z`, `03:04:05`, CodeSBOMInvalid, "creationInfo.created"},
		{"package without a name", `"name": "log4j-core", `, ``, CodeSBOMInvalid, "packages[1]"},
		{"package without download location", `"versionInfo": "2.14.1", "downloadLocation": "https://example.com/"`, `"versionInfo": "2.14.1"`, CodeSBOMInvalid, "packages[2]"},
		{"unknown member", `"name": "log4j-core"`, `"name": "log4j-core", "purl": "x"`, CodeSBOMInvalid, "packages[1]"},
		{"bad identifier", `"SPDXRef-nameless"`, `"SPDXRef-name less"`, CodeSBOMInvalid, "packages[3].SPDXID"},
		{"unknown algorithm", `{"algorithm": "SHA256"`, `{"algorithm": "SHA-256"`, CodeSBOMInvalid, "packages[0].checksums[0].algorithm"},
		{"unknown relationship", `DEPENDS_ON`, `NEEDS`, CodeSBOMInvalid, "relationships[1].relationshipType"},
		{"file without checksum", `, "checksums": [{"algorithm": "SHA1", "checksumValue": "d6a770ba38583ed4bb4525bd96e50461655d2758"}]`, ``, CodeSBOMInvalid, "files[0]"},
		{"identifier twice", `"SPDXRef-nameless"`, `"SPDXRef-api"`, CodeSBOMReferenceDuplicate, "packages[3].SPDXID"},
		{"identifier of the document", `"SPDXRef-nameless"`, `"SPDXRef-DOCUMENT"`, CodeSBOMReferenceDuplicate, "packages[3].SPDXID"},
		{"a file and a package of one identifier", `"SPDXID": "SPDXRef-file"`, `"SPDXID": "SPDXRef-api"`, CodeSBOMReferenceDuplicate, "files[0].SPDXID"},
		{"relationship to nothing", `"DEPENDS_ON", "relatedSpdxElement": "SPDXRef-log4j"`, `"DEPENDS_ON", "relatedSpdxElement": "SPDXRef-log5j"`, CodeSBOMReferenceUnknown, "relationships[1]"},
		{"relationship of nothing", `"SPDXRef-api", "relationshipType": "OTHER"`, `"SPDXRef-apix", "relationshipType": "OTHER"`, CodeSBOMReferenceUnknown, "relationships[3]"},
		{"document that is not declared", `"DocumentRef-base:`, `"DocumentRef-other:`, CodeSBOMReferenceUnknown, "relationships[3]"},
		{"relationship of NONE", `"spdxElementId": "SPDXRef-app"`, `"spdxElementId": "NONE"`, CodeSBOMInvalid, "relationships[1].spdxElementId"},
		{"file that is not there", `["SPDXRef-file"]`, `["SPDXRef-fil"]`, CodeSBOMReferenceUnknown, "packages[1]"},
		{"describes nothing", `"relationships"`, `"documentDescribes": ["SPDXRef-x"], "relationships"`, CodeSBOMReferenceUnknown, "documentDescribes[0]"},
		{"bad purl", `pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1`, `pkg:maven`, sbom.CodePURLInvalid, "packages[2].externalRefs[0].referenceLocator"},
		{"another subject", sha256Hex, strings.Repeat("0", 64), CodeSBOMSubjectMismatch, ""},
		{"2.3 in 2.2", `"SPDX-2.3"`, `"SPDX-2.2"`, CodeSBOMInvalid, "packages[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(spdx23, tt.old) {
				t.Fatalf("nothing to replace: %s", tt.old)
			}
			_, _, err := checkText(t, strings.Replace(spdx23, tt.old, tt.new, 1), spdx())
			wantCode(t, err, tt.want)
			if r, ok := err.(*refusal.Error); ok && r.Field != tt.field { //nolint:errorlint // Check returns it unwrapped
				t.Errorf("field %q, want %q (%v)", r.Field, tt.field, err)
			}
		})
	}
}

// TestSPDXBinding: one of the things that a document describes is the subject, where it
// states digests of any.
func TestSPDXBinding(t *testing.T) {
	t.Parallel()
	const right, wrong = `{"algorithm":"SHA256","checksumValue":"` + sha256Hex + `"}`, `{"algorithm":"SHA256","checksumValue":"00"}`
	doc := func(a, b, describes string) string {
		pkg := func(id, sum string) string {
			return `{"SPDXID":"SPDXRef-` + id + `","name":"` + id + `","downloadLocation":"NONE","checksums":[` + sum + `]}`
		}
		return strings.Replace(spdxSamples()["2.3 minimal"], `"name":"x"`,
			`"name":"x","documentDescribes":[`+describes+`],"packages":[`+pkg("a", a)+`,`+pkg("b", b)+`]`, 1)
	}
	const a, b = `"SPDXRef-a"`, `"SPDXRef-b"`
	tests := []struct {
		name, doc  string
		bound      bool
		want       refusal.Code
		components int
	}{
		{"nothing described", doc(right, wrong, ``), false, "", 2},
		{"described without digest", doc(``, right, a), false, "", 1},
		{"described with it", doc(right, wrong, a), true, "", 1},
		{"another described", doc(right, wrong, b), false, CodeSBOMSubjectMismatch, 0},
		{"both described", doc(right, wrong, a+","+b), true, "", 2},
		{"both described, none of them it", doc(wrong, wrong, a+","+b), false, CodeSBOMSubjectMismatch, 0},
		{"both described, one without digest", doc(``, wrong, a+","+b), false, CodeSBOMSubjectMismatch, 0},
		{"one of two digests wrong", doc(right+","+wrong, ``, a), false, CodeSBOMSubjectMismatch, 0},
		{"described twice", doc(right, ``, a+","+a), true, "", 1},
	}
	for _, tt := range tests {
		_, report, err := checkText(t, tt.doc, spdx())
		if got := refusal.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q (%v)", tt.name, got, tt.want, err)
		}
		if err == nil && (report.SelfBound != tt.bound || report.Components != tt.components) {
			t.Errorf("%s: %+v", tt.name, report)
		}
	}
}

// TestSPDXManyNames: a package of several package URLs is found by each, and is one
// subject; their number is limited.
func TestSPDXManyNames(t *testing.T) {
	t.Parallel()
	purl := func(name string) string {
		return `{"referenceCategory":"PACKAGE-MANAGER","referenceType":"purl","referenceLocator":"pkg:npm/` + name + `@1"}`
	}
	doc := strings.Replace(spdxSamples()["2.3 minimal"], `"name":"x"`, `"name":"x","documentDescribes":["SPDXRef-a"],"packages":[`+
		`{"SPDXID":"SPDXRef-a","name":"a","downloadLocation":"NONE","externalRefs":[`+purl("a")+`,`+purl("aa")+`]},`+
		`{"SPDXID":"SPDXRef-b","name":"b","downloadLocation":"NONE","externalRefs":[`+purl("b")+`,`+purl("bb")+`]}]`, 1)
	inv, report, err := checkText(t, doc, spdx())
	if err != nil {
		t.Fatal(err)
	}
	var purls []string
	for _, c := range inv.Components {
		purls = append(purls, c.PURL)
	}
	if want := []string{"pkg:npm/b@1", "pkg:npm/bb@1"}; !slices.Equal(purls, want) || report.Components != 1 {
		t.Errorf("%v, %+v; want %v of one package", purls, report, want)
	}
	l := DefaultLimits()
	l.Components = 3
	_, _, err = Check(t.Context(), strings.NewReader(doc), int64(len(doc)), spdx(), l)
	wantCode(t, err, CodeSBOMTooManyComponents)
}

// TestSPDXSecondReader: the samples, and what the library of the SPDX project writes of
// them, are read alike.
func TestSPDXSecondReader(t *testing.T) {
	t.Parallel()
	doc, err := spdxjson.Read(strings.NewReader(spdx23))
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Packages) != 4 || len(doc.Relationships) < 5 {
		t.Fatalf("the library reads %d packages and %d relationships", len(doc.Packages), len(doc.Relationships))
	}
	var buf bytes.Buffer
	if err := spdxjson.Write(doc, &buf); err != nil {
		t.Fatal(err)
	}
	inv, _, err := checkText(t, buf.String(), spdx())
	if err != nil {
		t.Fatalf("%v\n%s", err, buf.String())
	}
	want, _, err := checkText(t, spdx23, spdx())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Components, inv.Components); diff != "" {
		t.Errorf("components (-ours +the library's):\n%s", diff)
	}
}
