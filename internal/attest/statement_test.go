package attest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	hex256 = strings.Repeat("0123456789abcdef", 4)
	hex512 = strings.Repeat("fedcba9876543210", 8)
)

func testStatement() *Statement {
	return &Statement{
		Type: StatementTypeV1,
		Subjects: []Subject{
			{Name: "dist/app-1.0.tar.gz", Digest: map[string]string{"sha512": hex512, "sha256": hex256}},
			{Name: "ghcr.io/acme/größe <&>", Digest: map[string]string{"sha256": hex256},
				Annotations: map[string]string{"origin": "claimed", "a": "\"\n\u2028"}},
		},
		PredicateType: PredicateSLSAProvenanceV1,
		Predicate:     json.RawMessage("{ \"n\": 12345678901234567890,\n \"html\": \"<a> \\u003c\", \"e\": [ ] }"),
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSuffix(string(want), "\n"), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestStatementGolden(t *testing.T) {
	got, err := testStatement().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "statement.json", got)
	for range 20 {
		again, err := testStatement().Marshal()
		if err != nil || !bytes.Equal(got, again) {
			t.Fatalf("a second Marshal differs: %s (%v)", again, err)
		}
	}
	// The in-toto project's own type reads the same.
	var theirs intoto.Statement
	if err := protojson.Unmarshal(got, &theirs); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Validate(); err != nil {
		t.Fatal(err)
	}
	for i, s := range testStatement().Subjects {
		if theirs.Subject[i].Name != s.Name || !maps.Equal(theirs.Subject[i].Digest, s.Digest) {
			t.Errorf("subject %d read as %v", i, theirs.Subject[i])
		}
	}
}

func subjectsN(n int) []Subject {
	subjects := make([]Subject, n)
	for i := range subjects {
		subjects[i] = Subject{Name: fmt.Sprintf("f%d", i), Digest: map[string]string{"sha256": hex256}}
	}
	return subjects
}

func TestStatementMarshalRefusals(t *testing.T) {
	oneSubject := func(name string, digest map[string]string) func(*Statement) {
		return func(s *Statement) { s.Subjects = []Subject{{Name: name, Digest: digest}} }
	}
	digests := map[string]string{}
	for i := range MaxDigestsPerSubject {
		digests[fmt.Sprintf("x%d", i)] = "v"
	}
	digests["sha256"] = hex256
	tests := []struct {
		name   string
		change func(*Statement)
		want   refusal.Code
	}{
		{"nothing wrong", func(*Statement) {}, ""},
		{"zero type", func(s *Statement) { s.Type = "" }, CodeStatementTypeUnknown},
		{"old type", func(s *Statement) { s.Type = StatementTypeV01 }, CodeStatementTypeUnknown},
		{"no predicate type", func(s *Statement) { s.PredicateType = "" }, CodeStatementPredicateType},
		{"long predicate type", func(s *Statement) { s.PredicateType = strings.Repeat("x", 1025) }, CodeStatementPredicateType},
		{"blank in predicate type", func(s *Statement) { s.PredicateType = "https://x/ y" }, CodeStatementPredicateType},
		{"predicate type not UTF-8", func(s *Statement) { s.PredicateType = "https://x/\xff" }, CodeStatementPredicateType},
		{"no predicate", func(s *Statement) { s.Predicate = nil }, CodeJSONInvalid},
		{"null predicate", func(s *Statement) { s.Predicate = json.RawMessage("null") }, CodeStatementPredicateInvalid},
		{"array predicate", func(s *Statement) { s.Predicate = json.RawMessage("[]") }, CodeStatementPredicateInvalid},
		{"predicate with a duplicate", func(s *Statement) { s.Predicate = json.RawMessage(`{"a":1,"a":1}`) }, CodeJSONDuplicate},
		{"predicate with a variant", func(s *Statement) { s.Predicate = json.RawMessage(`{"a":1,"A":1}`) }, CodeJSONCaseVariant},
		{"predicate that closes the statement", func(s *Statement) { s.Predicate = json.RawMessage(`{}},"x":{`) }, CodeJSONInvalid},
		{"no subjects", func(s *Statement) { s.Subjects = nil }, CodeNoSubjects},
		{"1024 subjects", func(s *Statement) { s.Subjects = subjectsN(1024) }, ""},
		{"1025 subjects", func(s *Statement) { s.Subjects = subjectsN(1025) }, CodeTooManySubjects},
		{"same name twice", func(s *Statement) { s.Subjects = append(subjectsN(3), subjectsN(1)...) }, CodeSubjectDuplicate},
		{"bad name", oneSubject("../x", map[string]string{"sha256": hex256}), CodeSubjectNameInvalid},
		{"no digest", oneSubject("x", nil), CodeSubjectNoDigest},
		{"empty digest", oneSubject("x", map[string]string{}), CodeSubjectNoDigest},
		{"upper-case hex", oneSubject("x", map[string]string{"sha256": strings.ToUpper(hex256)}), CodeSubjectDigestInvalid},
		{"63 characters", oneSubject("x", map[string]string{"sha256": hex256[1:]}), CodeSubjectDigestInvalid},
		{"one good, one bad", oneSubject("x", map[string]string{"sha256": hex256, "sha512": hex256}), CodeSubjectDigestInvalid},
		{"sha1 only", oneSubject("x", map[string]string{"sha1": hex256[:40]}), CodeSubjectDigestWeak},
		{"git commit only", oneSubject("x", map[string]string{"gitCommit": hex256[:40]}), CodeSubjectDigestWeak},
		{"33 digests", oneSubject("x", digests), CodeSubjectTooManyDigests},
		{"annotation without key", func(s *Statement) { s.Subjects[0].Annotations = map[string]string{"": "x"} }, CodeSubjectAnnotationInvalid},
		{"annotation keys in two cases", func(s *Statement) { s.Subjects[0].Annotations = map[string]string{"k": "1", "\u212a": "2"} }, CodeSubjectAnnotationInvalid},
		{"33 annotations", func(s *Statement) { s.Subjects[0].Annotations = digests }, CodeSubjectAnnotationInvalid},
		{"annotation not UTF-8", func(s *Statement) { s.Subjects[0].Annotations = map[string]string{"a": "\xff"} }, CodeSubjectAnnotationInvalid},
		{"too large", func(s *Statement) {
			s.Predicate = json.RawMessage(`{"a":"` + strings.Repeat("x", MaxStatementBytes-100) + `"}`)
		}, CodeStatementTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := testStatement()
			tt.change(s)
			_, err := s.Marshal()
			wantCode(t, err, tt.want)
		})
	}
}

// statementJSON builds a statement text around one subject list.
func statementJSON(subject string) string {
	return `{"_type":"` + StatementTypeV1 + `","subject":` + subject + `,"predicateType":"https://x/y","predicate":{}}`
}

func TestParseStatement(t *testing.T) {
	digest := `"digest":{"sha256":"` + hex256 + `"}`
	many := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{`+digest+`},`, n), ",") + "]"
	}
	manyDigests := func(n int) string {
		var b strings.Builder
		for i := range n - 1 {
			fmt.Fprintf(&b, `"x%d":"v",`, i)
		}
		return `[{"digest":{` + b.String() + `"sha256":"` + hex256 + `"}}]`
	}
	tests := []struct {
		name, text string
		want       refusal.Code
	}{
		{"smallest", statementJSON(`[{` + digest + `}]`), ""},
		{"any order, white space", "\n{ \"predicateType\": \"https://x/y\", \"subject\": [ {" + digest + "} ], \"_type\": \"" + StatementTypeV01 + "\" }\n", ""},
		{"all descriptor fields", statementJSON(`[{"name":"a","uri":"https://x","content":"aGk=","downloadLocation":"https://y","mediaType":"text/plain","annotations":{"n":1,"s":"t"},` + digest + `}]`), ""},
		{"a name that is not ours to judge", statementJSON(`[{"name":"pkg:npm/%40a/b@1.0?x=//../",` + digest + `}]`), ""},
		{"own encoding of an unknown algorithm", statementJSON(`[{"digest":{"goModuleH1":"h1:abc+/="}}]`), ""},
		{"git commit only", statementJSON(`[{"digest":{"gitCommit":"` + hex256[:40] + `"}}]`), ""},
		{"1024 subjects", statementJSON(many(1024)), ""},
		{"32 digests", statementJSON(manyDigests(32)), ""},

		{"1025 subjects", statementJSON(many(1025)), CodeTooManySubjects},
		{"33 digests", statementJSON(manyDigests(33)), CodeSubjectTooManyDigests},
		{"no subjects", statementJSON(`[]`), CodeNoSubjects},
		{"null subjects", statementJSON(`null`), CodeNoSubjects},
		{"null subject", statementJSON(`[null]`), CodeSubjectNoDigest},
		{"subjects an object", statementJSON(`{}`), CodeJSONWrongType},
		{"empty digest", statementJSON(`[{"name":"x","digest":{}}]`), CodeSubjectNoDigest},
		{"null digest", statementJSON(`[{"name":"x","digest":null}]`), CodeSubjectNoDigest},
		{"null digest value", statementJSON(`[{"digest":{"sha256":null}}]`), CodeSubjectDigestInvalid},
		{"second subject without digest", statementJSON(`[{` + digest + `},{"name":"x"}]`), CodeSubjectNoDigest},
		{"upper-case hex", statementJSON(`[{"digest":{"sha256":"` + strings.ToUpper(hex256) + `"}}]`), CodeSubjectDigestInvalid},
		{"63 characters", statementJSON(`[{"digest":{"sha256":"` + hex256[1:] + `"}}]`), CodeSubjectDigestInvalid},
		{"algorithm misspelled", statementJSON(`[{"digest":{"SHA256":"` + hex256 + `"}}]`), CodeSubjectDigestInvalid},
		{"sha1 only", statementJSON(`[{"digest":{"sha1":"` + hex256[:40] + `"}}]`), CodeSubjectDigestWeak},
		{"md5 and sha1 only", statementJSON(`[{"digest":{"sha1":"` + hex256[:40] + `","md5":"` + hex256[:32] + `"}}]`), CodeSubjectDigestWeak},
		{"unknown subject field", statementJSON(`[{"nmae":"x",` + digest + `}]`), CodeJSONUnknownKey},
		{"digest twice", statementJSON(`[{` + digest + `,` + digest + `}]`), CodeJSONDuplicate},
		{"digest in two cases", statementJSON(`[{` + digest + `,"Digest":{}}]`), CodeJSONCaseVariant},

		{"unknown statement field", `{"_type":"` + StatementTypeV1 + `","subjects":[]}`, CodeJSONUnknownKey},
		{"subject with a long s", strings.Replace(statementJSON(`[{`+digest+`}]`), "{", `{"ſubject":[],`, 1), CodeJSONCaseVariant},
		{"PredicateType beside predicateType", strings.Replace(statementJSON(`[{`+digest+`}]`), "{", `{"PredicateType":"",`, 1), CodeJSONCaseVariant},
		{"subject only with a long s", strings.Replace(statementJSON(`[{`+digest+`}]`), `"subject"`, `"ſubject"`, 1), CodeJSONUnknownKey},
		{"no type", strings.Replace(statementJSON(`[{`+digest+`}]`), StatementTypeV1, "", 1), CodeStatementTypeUnknown},
		{"type with a slash more", strings.Replace(statementJSON(`[{`+digest+`}]`), StatementTypeV1, StatementTypeV1+"/", 1), CodeStatementTypeUnknown},
		{"no predicate type", strings.Replace(statementJSON(`[{`+digest+`}]`), "https://x/y", "", 1), CodeStatementPredicateType},
		{"predicate a string", strings.Replace(statementJSON(`[{`+digest+`}]`), `"predicate":{}`, `"predicate":"{}"`, 1), CodeStatementPredicateInvalid},
		{"predicate null", strings.Replace(statementJSON(`[{`+digest+`}]`), `"predicate":{}`, `"predicate":null`, 1), CodeStatementPredicateInvalid},
		{"duplicate in the predicate", strings.Replace(statementJSON(`[{`+digest+`}]`), `"predicate":{}`, `"predicate":{"a":{"b":1,"b":1}}`, 1), CodeJSONDuplicate},
		{"null", `null`, CodeStatementTypeUnknown},
		{"empty", ``, CodeJSONInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseStatement([]byte(tt.text))
			wantCode(t, err, tt.want)
		})
	}
	_, err := ParseStatement(make([]byte, MaxStatementBytes+1))
	wantCode(t, err, CodeJSONTooLarge)
}

func TestParseStatementKeeps(t *testing.T) {
	payload, err := testStatement().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseStatement(payload)
	if err != nil {
		t.Fatal(err)
	}
	want := testStatement()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statement (-want +got):\n%s", diff)
	}

	// Of foreign annotations only text is kept.
	got, err = ParseStatement([]byte(statementJSON(`[{"name":"a","annotations":{"n":1,"s":"t\u0021","o":{"s":"x"}},"digest":{"sha256":"` + hex256 + `"}}]`)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"s": "t!"}, got.Subjects[0].Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

// Statements that others wrote must be readable.
func TestParseStatementVectors(t *testing.T) {
	files := map[string]string{
		vectors.Dir(t, "slsa-gha-buildtype") + "/workflow/v1/example.json":                    PredicateSLSAProvenanceV1,
		vectors.Dir(t, "sigstore-go") + "/examples/statement-provenance-sigstorejs1.3.0.json": "https://slsa.dev/provenance/v0.2",
	}
	for path, want := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseStatement(data)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if s.PredicateType != want {
			t.Errorf("%s: predicate type %s, want %s", path, s.PredicateType, want)
		}
	}
}

func TestStatementRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`[a-zA-Z0-9ßé世][a-zA-Z0-9 ._@+ßé世-]{0,20}x`)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(name, 1, 8, rapid.ID[string]).Draw(t, "names")
		s := &Statement{Type: StatementTypeV1, PredicateType: "https://example.com/" + rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "type")}
		for _, name := range names {
			subject := Subject{Name: name, Digest: map[string]string{"sha256": rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "digest")}}
			if notes := rapid.MapOfN(rapid.StringN(1, 8, -1), rapid.String(), 0, 3).Draw(t, "annotations"); len(notes) > 0 {
				subject.Annotations = notes
			}
			s.Subjects = append(s.Subjects, subject)
		}
		predicate, err := json.Marshal(map[string]string{"x": rapid.String().Draw(t, "predicate")})
		if err != nil {
			t.Fatal(err)
		}
		s.Predicate = predicate
		payload, err := s.Marshal()
		if err != nil {
			if refusal.CodeOf(err) == CodeSubjectAnnotationInvalid {
				t.Skip(err) // two generated keys differ only by case
			}
			t.Fatal(err)
		}
		got, err := ParseStatement(payload)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func FuzzParseStatement(f *testing.F) {
	payload, err := testStatement().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{payload, []byte(statementJSON(`[{"digest":{"sha256":"` + hex256 + `"}}]`)), []byte(`{}`), []byte(`null`)}
	if len(payload) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseStatement(data)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("a refusal without a code: %v", err)
			}
			return
		}
		if len(s.Subjects) == 0 || s.PredicateType == "" {
			t.Fatalf("accepted without subjects or predicate type: %q", data)
		}
		// What we would sign again we must read again, the same.
		s.Type = StatementTypeV1
		again, err := s.Marshal()
		if err != nil {
			return
		}
		s2, err := ParseStatement(again)
		if err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		if !cmp.Equal(s.Subjects, s2.Subjects) || s.PredicateType != s2.PredicateType {
			t.Fatalf("%q reads differently", again)
		}
	})
}
