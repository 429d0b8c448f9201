package attest

import (
	stdjson "encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

func wantCode(t *testing.T, err error, want refusal.Code) {
	t.Helper()
	if got := refusal.CodeOf(err); got != want {
		t.Errorf("code = %q, want %q (error: %v)", got, want, err)
	}
}

func TestCheckJSON(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name, text string
		want       refusal.Code
	}{
		{"object", `{"a":1,"b":[true,false,null,"x",{"c":{}}]}`, ""},
		{"scalar", ` "x" `, ""},
		{"same name in siblings' children", `[{"a":1},{"A":1},{"x":{"a":1},"y":{"A":1}}]`, ""},
		{"same name in parent and child", `{"a":{"A":{"a":1}},"b":1}`, ""},
		{"string equal to a later name", `{"a":"A","b":"a"}`, ""},
		{"dash and underscore are letters of their own", `{"a-b":1,"a_b":2,"ab":3}`, ""},
		{"a final sigma is not a latin s", `{"ς":1,"s":2}`, ""},
		{"64 levels", nested(64), ""},
		{"64 levels of objects", strings.Repeat(`{"a":`, 63) + "{}" + strings.Repeat("}", 63), ""},
		{"wide after deep", `[` + nested(63) + `,` + nested(63) + `]`, ""},

		{"empty", ``, CodeJSONInvalid},
		{"white space only", " \n", CodeJSONInvalid},
		{"byte order mark", "\ufeff{}", CodeJSONInvalid},
		{"two values", `{} {}`, CodeJSONInvalid},
		{"trailing brace", `{}}`, CodeJSONInvalid},
		{"trailing comma", `{"a":1,}`, CodeJSONInvalid},
		{"trailing NUL", "{}\x00", CodeJSONInvalid},
		{"truncated", `{"a":`, CodeJSONInvalid},
		{"stray bracket", `]`, CodeJSONInvalid},
		{"mismatched brackets", `[}`, CodeJSONInvalid},
		{"comment", `{/**/}`, CodeJSONInvalid},
		{"leading zero", `[01]`, CodeJSONInvalid},
		{"NaN", `[NaN]`, CodeJSONInvalid},
		{"invalid UTF-8 in a value", "[\"\xff\"]", CodeJSONInvalid},
		{"invalid UTF-8 in a name", "{\"\xc3\x28\":1}", CodeJSONInvalid},
		{"lone surrogate", `["\ud800"]`, CodeJSONInvalid},
		{"control character", "[\"a\nb\"]", CodeJSONInvalid},

		{"duplicate", `{"a":1,"a":1}`, CodeJSONDuplicate},
		{"duplicate through an escape", `{"a":1,"\u0061":1}`, CodeJSONDuplicate},
		{"duplicate at depth", `[[{"x":{"a":1,"b":2,"a":3}}]]`, CodeJSONDuplicate},
		{"duplicate empty name", `{"":1,"":2}`, CodeJSONDuplicate},

		{"case variant", `{"predicateType":1,"PredicateType":2}`, CodeJSONCaseVariant},
		{"long s", `{"subject":1,"ſubject":2}`, CodeJSONCaseVariant},
		{"long s first", `{"ſubject":1,"subject":2}`, CodeJSONCaseVariant},
		{"long s and capital", `{"ſubject":1,"SUBJECT":2}`, CodeJSONCaseVariant},
		{"Kelvin sign", `{"key":1,"\u212aey":2}`, CodeJSONCaseVariant},
		{"Greek sigmas", `{"σ":1,"x":{},"ς":2}`, CodeJSONCaseVariant},
		{"Cyrillic", `{"Ж":1,"ж":2}`, CodeJSONCaseVariant},
		{"variant after a nested object", `{"a":{"b":{"c":1}},"A":1}`, CodeJSONCaseVariant},

		{"65 levels", nested(65), CodeJSONTooDeep},
		{"65 levels of objects", strings.Repeat(`{"a":`, 64) + "{}" + strings.Repeat("}", 64), CodeJSONTooDeep},
		{"a million open brackets", strings.Repeat("[", 1<<20), CodeJSONTooDeep},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, CheckJSON([]byte(tt.text), 2<<20), tt.want) })
	}
}

func TestCheckJSONSize(t *testing.T) {
	text := []byte(`{"a":"12345"}`)
	wantCode(t, CheckJSON(text, len(text)), "")
	wantCode(t, CheckJSON(text, len(text)-1), CodeJSONTooLarge)
}

// A document that is one huge object must not cost quadratic time, and the check
// for variants must hold beyond the point where names are hashed.
func TestCheckJSONManyNames(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{`)
	for i := range 200_000 {
		b.WriteString(`"k` + itoa(i) + `":0,`)
	}
	text := b.String()
	start := time.Now()
	wantCode(t, CheckJSON([]byte(text+`"x":0}`), 16<<20), "")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("200,000 names took %s", d)
	}
	wantCode(t, CheckJSON([]byte(text+`"K7":0}`), 16<<20), CodeJSONCaseVariant)
	for n := range 60 {
		var b strings.Builder
		b.WriteString(`{"first":0`)
		for i := range n {
			b.WriteString(`,"k` + itoa(i) + `":{"a":1}`)
		}
		wantCode(t, CheckJSON([]byte(b.String()+`}`), 1<<20), "")
		wantCode(t, CheckJSON([]byte(b.String()+`,"First":0}`), 1<<20), CodeJSONCaseVariant)
	}
}

func itoa(n int) string { b, _ := stdjson.Marshal(n); return string(b) }

// foldRune must make exactly those characters equal that simple folding does.
func TestFoldAgreesWithEqualFold(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0xD800 && r <= 0xDFFF {
			continue
		}
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			a, b := appendFold(nil, []byte(string(r))), appendFold(nil, []byte(string(other)))
			if string(a) != string(b) {
				t.Fatalf("%U and %U fold to %q and %q", r, other, a, b)
			}
		}
		if folded := string(appendFold(nil, []byte(string(r)))); !strings.EqualFold(folded, string(r)) {
			t.Fatalf("%U folds to %q, which is not equal to it", r, folded)
		}
	}
}

// Every text of JSONTestSuite that a parser must accept we accept, but for those
// that use a name twice; every one it must refuse we refuse.
func TestJSONTestSuite(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "JSONTestSuite"), "test_parsing")
	// RFC 8259 lets an object use a name twice. Signed documents must not: readers
	// differ on which member counts.
	onPurpose := map[string]refusal.Code{
		"y_object_duplicated_key.json":           CodeJSONDuplicate,
		"y_object_duplicated_key_and_value.json": CodeJSONDuplicate,
	}
	counts := map[byte]int{}
	for _, path := range globFiles(t, dir, "*.json") {
		name := filepath.Base(path)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		counts[name[0]]++
		err = CheckJSON(data, 1<<20)
		switch name[0] {
		case 'y':
			if got := refusal.CodeOf(err); got != onPurpose[name] {
				t.Errorf("%s: code %q, want %q", name, got, onPurpose[name])
			}
			delete(onPurpose, name)
		case 'n':
			if err == nil {
				t.Errorf("%s: accepted, must be refused", name)
			}
		}
	}
	if len(onPurpose) != 0 {
		t.Errorf("files not seen: %v", onPurpose)
	}
	if want := map[byte]int{'y': 95, 'n': 188, 'i': 35}; !cmp.Equal(counts, want) {
		t.Errorf("files by kind = %v, want %v", counts, want)
	}
}

// What we canonicalise (RFC 8785) we do with a library; it must reproduce the
// vectors, and our parser must judge input and output alike.
func TestJCSVectors(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "jcs"), "testdata")
	inputs := globFiles(t, filepath.Join(dir, "input"), "*.json")
	if len(inputs) != 6 {
		t.Errorf("%d inputs, want 6", len(inputs))
	}
	for _, path := range inputs {
		name := filepath.Base(path)
		input, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, "output", name))
		if err != nil {
			t.Fatal(err)
		}
		// structures.json has the sibling names "F" and "f", which we refuse on purpose.
		var wantRefusal refusal.Code
		if name == "structures.json" {
			wantRefusal = CodeJSONCaseVariant
		}
		wantCode(t, CheckJSON(input, 1<<20), wantRefusal)
		wantCode(t, CheckJSON(want, 1<<20), wantRefusal)
		got, err := jsoncanonicalizer.Transform(input)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func globFiles(t testing.TB, dir, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s in %s (%v)", pattern, dir, err)
	}
	slices.Sort(paths)
	return paths
}

func TestDecodeStrict(t *testing.T) {
	type inner struct {
		Any any `json:"any"`
	}
	type doc struct {
		Name  string             `json:"name"`
		Count int64              `json:"count"`
		Small int8               `json:"small"`
		Raw   stdjson.RawMessage `json:"raw"`
		Inner inner              `json:"inner"`
	}
	tests := []struct {
		name, text string
		want       refusal.Code
	}{
		{"all", `{"name":"x","count":9007199254740993,"raw":{"a": 1e400},"inner":{"any":12345678901234567890}}`, ""},
		{"empty", `{}`, ""},
		{"unknown", `{"nam":"x"}`, CodeJSONUnknownKey},
		{"unknown at depth", `{"inner":{"Any":1}}`, CodeJSONUnknownKey},
		{"case", `{"Name":"x"}`, CodeJSONUnknownKey},
		{"NUL after the key", `{"name\u0000":"x"}`, CodeJSONUnknownKey},
		{"wrong type", `{"name":1}`, CodeJSONWrongType},
		{"array for an object", `[]`, CodeJSONWrongType},
		{"exponent in an integer", `{"count":1e3}`, CodeJSONWrongType},
		{"fraction in an integer", `{"count":1.0}`, CodeJSONWrongType},
		{"integer too large", `{"count":9223372036854775808}`, CodeJSONWrongType},
		{"integer too large for its field", `{"small":128}`, CodeJSONWrongType},
		{"duplicate", `{"name":"x","name":"y"}`, CodeJSONDuplicate},
		{"duplicate inside a raw field", `{"raw":{"a":1,"a":2}}`, CodeJSONDuplicate},
		{"variant inside a raw field", `{"raw":{"a":1,"A":2}}`, CodeJSONCaseVariant},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d doc
			wantCode(t, DecodeStrict([]byte(tt.text), 1<<20, &d), tt.want)
		})
	}

	var d doc
	if err := DecodeStrict([]byte(tests[0].text), 1<<20, &d); err != nil {
		t.Fatal(err)
	}
	want := doc{Name: "x", Count: 9007199254740993, Raw: stdjson.RawMessage(`{"a": 1e400}`),
		Inner: inner{Any: stdjson.Number("12345678901234567890")}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	var v any
	if err := DecodeStrict([]byte(`{"a":[0.10,{"b":1e2}]}`), 100, &v); err != nil {
		t.Fatal(err)
	}
	wantAny := map[string]any{"a": []any{stdjson.Number("0.10"), map[string]any{"b": stdjson.Number("1e2")}}}
	if diff := cmp.Diff(wantAny, v); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func FuzzCheckJSON(f *testing.F) {
	seeds := []string{`{"a":1}`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"s":1,"ſ":2}`, `[1,2,[3]]`, `"\ud800"`, `{} {}`, ``,
		"\ufeff{}", `{"a":{"b":[{"c":null}]}}`, strings.Repeat("[", 65) + strings.Repeat("]", 65), `-0.0e+10`}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := CheckJSON(data, 1<<20)
		valid := stdjson.Valid(data)
		switch code := refusal.CodeOf(err); {
		case err == nil && !valid:
			t.Fatalf("accepted what encoding/json calls invalid: %q", data)
		case code == CodeJSONInvalid && valid:
			// encoding/json lets invalid UTF-8 and lone surrogates through, replacing them.
			var v any
			if stdjson.Unmarshal(data, &v) != nil {
				return // beyond its own limits, such as 1e999
			}
			again, _ := stdjson.Marshal(v)
			if !strings.Contains(string(again), `\ufffd`) && !strings.Contains(string(again), "\ufffd") {
				t.Fatalf("refused what encoding/json accepts unchanged: %q: %v", data, err)
			}
		case err != nil && code == "":
			t.Fatalf("a refusal without a code: %v", err)
		}
		if err == nil {
			var v any
			if err := DecodeStrict(data, 1<<20, &v); err != nil {
				t.Fatalf("checked but not decoded: %v", err)
			}
		}
	})
}
