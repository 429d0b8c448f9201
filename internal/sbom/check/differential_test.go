package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
)

// oracle validates whole documents, each version compiled for itself.
type oracle map[string]*jsonschema.Schema

func newOracle(t testing.TB) oracle {
	t.Helper()
	o := oracle{}
	for version, url := range map[string]string{
		"cyclonedx 1.4": cycloneDXSchemas + "bom-1.4.schema.json",
		"cyclonedx 1.5": cycloneDXSchemas + "bom-1.5.schema.json",
		"cyclonedx 1.6": cycloneDXSchemas + "bom-1.6.schema.json",
		"cyclonedx 1.7": cycloneDXSchemas + "bom-1.7.schema.json",
		"spdx 2.2":      ownSchemas + "spdx-2.2.schema.json",
		"spdx 2.3":      ownSchemas + "spdx-2.3.schema.json",
	} {
		s, err := compile(url)
		if err != nil {
			t.Fatal(err)
		}
		o[version] = s
	}
	return o
}

func (o oracle) valid(t testing.TB, version string, doc []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	return o[version].Validate(v)
}

// piecewise judges by the schema alone, by the reader that Check uses.
func piecewise(t testing.TB, version string, doc []byte) error {
	t.Helper()
	if err := attest.CheckJSON(doc, len(doc)); err != nil {
		t.Fatalf("the test made JSON that is none: %v", err)
	}
	root, err := schemas[version]()
	if err != nil {
		t.Fatal(err)
	}
	taken := func(string, any, *path) error { return nil }
	return newReader(t.Context(), doc, DefaultLimits(), taken).document(root)
}

// TestWholeAndPiecewiseAgree on the cases of the CycloneDX project, each judged by the
// schemas of all versions.
func TestWholeAndPiecewiseAgree(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	agreed := map[bool]int{}
	for name, doc := range official(t) {
		for version := range o {
			whole, pieces := o.valid(t, version, doc), piecewise(t, version, doc)
			if (whole == nil) != (pieces == nil) {
				t.Errorf("%s as %s: whole %v; piecewise %v", name, version, whole, pieces)
			}
			agreed[whole == nil]++
		}
	}
	t.Logf("%d judgements: %d valid, %d invalid", agreed[true]+agreed[false], agreed[true], agreed[false])
	if agreed[true] < 171 || agreed[false] < 98 {
		t.Error("too few judgements to mean anything")
	}
}

// TestMutationsAgree: whatever is done to a document, its pieces are judged as the
// whole is.
func TestMutationsAgree(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	docs := official(t)
	for name, doc := range spdxSamples() {
		docs["spdx/"+name] = []byte(doc)
	}
	names := slices.Sorted(maps.Keys(docs))
	names = slices.DeleteFunc(names, func(s string) bool { return strings.Contains(s, "/invalid-") })
	agreed := map[bool]int{}
	one := func(t *rapid.T) {
		name := rapid.SampledFrom(names).Draw(t, "document")
		version := "cyclonedx " + name[:3]
		if rest, ok := strings.CutPrefix(name, "spdx/"); ok {
			version = "spdx " + rest[:3]
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(docs[name]))
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 2).Draw(t, "mutations") {
			doc = mutate(t, doc)
		}
		text := encode(t, doc)
		if attest.CheckJSON(text, len(text)) != nil {
			return // such as a name in two cases
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		whole := o[version].Validate(v)
		root, err := schemas[version]()
		if err != nil {
			t.Fatal(err)
		}
		taken := func(string, any, *path) error { return nil }
		pieces := newReader(t.Context(), text, DefaultLimits(), taken).document(root)
		if (whole == nil) != (pieces == nil) {
			t.Fatalf("%s as %s\nwhole: %v\npiecewise: %v\n%s", name, version, whole, pieces, text)
		}
		agreed[whole == nil]++
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			one(t)
		}
	})
	t.Logf("%d mutated documents: %d still valid, %d invalid", agreed[true]+agreed[false], agreed[true], agreed[false])
}

// place is where a value stands, so that it can be replaced.
type place struct {
	value any
	set   func(any)
}

// places lists all values of a document, in a stable order.
func places(v any, set func(any), all []place) []place {
	all = append(all, place{v, set})
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all = places(v[name], func(n any) { v[name] = n }, all)
		}
	case []any:
		for i := range v {
			all = places(v[i], func(n any) { v[i] = n }, all)
		}
	}
	return all
}

// mutate does one thing to one value.
func mutate(t *rapid.T, doc any) any {
	all := places(doc, func(n any) { doc = n }, nil)
	// The places near the top are few among many, and those that are divided.
	limit := rapid.SampledFrom([]int{12, 60, len(all)}).Draw(t, "limit")
	p := all[rapid.IntRange(0, min(limit, len(all))-1).Draw(t, "place")]
	switch v := p.value.(type) {
	case map[string]any:
		mutateObject(t, doc, p, v)
	case []any:
		mutateArray(t, p, v)
	default:
		p.set(scalar().Draw(t, "scalar"))
	}
	return doc
}

func mutateObject(t *rapid.T, doc any, p place, v map[string]any) {
	names := slices.Sorted(maps.Keys(v))
	switch op := rapid.IntRange(0, 5).Draw(t, "object"); {
	case op == 0 && len(names) > 0:
		delete(v, rapid.SampledFrom(names).Draw(t, "drop"))
	case op == 1:
		v["unknown"] = scalar().Draw(t, "value")
	case op == 2:
		p.set(scalar().Draw(t, "scalar"))
	case op == 3 && rapid.Bool().Draw(t, "valid"):
		v[rapid.SampledFrom([]string{"properties", "externalReferences", "comment", "description"}).Draw(t, "member")] = []any{}
	case op == 3: // components in components, metadata where it does not belong
		top, ok := doc.(map[string]any)
		if !ok || len(top) == 0 {
			return
		}
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(top))).Draw(t, "borrowed")
		v[name] = clone(top[name])
	case op == 4: // the lists that are taken out
		list := rapid.SampledFrom([]string{"components", "services"}).Draw(t, "list")
		v[list] = []any{map[string]any{"type": "file", "name": "a"}, map[string]any{"name": "b", "type": "file"}}
	case len(names) > 0:
		p.set([]any{clone(v), clone(v)})
	}
}

func mutateArray(t *rapid.T, p place, v []any) {
	switch op := rapid.IntRange(0, 4).Draw(t, "array"); {
	case op == 0 && len(v) > 0: // the same again, perhaps spelt otherwise
		i := rapid.IntRange(0, len(v)-1).Draw(t, "again")
		p.set(append(slices.Clone(v), respell(clone(v[i]))))
	case op == 1 && len(v) > 0:
		p.set(v[1:])
	case op == 2:
		p.set(append(slices.Clone(v), scalar().Draw(t, "element")))
	case op == 3:
		p.set(scalar().Draw(t, "scalar"))
	case len(v) > 0:
		again := clone(v[0])
		rename(again, rapid.StringMatching(`[a-z]{1,3}`).Draw(t, "name"))
		p.set(append(slices.Clone(v), again))
	}
}

// rename makes another element of a copy, as far as it has names.
func rename(v any, name string) {
	obj, ok := v.(map[string]any)
	if !ok {
		return
	}
	for _, member := range [...]string{"name", "bom-ref", "ref", "id", "SPDXID"} {
		if _, ok := obj[member].(string); ok {
			obj[member] = "SPDXRef-" + name
		}
	}
}

// respell writes numbers in another way, which makes no other value of them.
func respell(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			v[name] = respell(e)
		}
	case []any:
		for i, e := range v {
			v[i] = respell(e)
		}
	case json.Number:
		if !strings.ContainsAny(string(v), ".eE") {
			return v + ".0"
		}
	}
	return v
}

func scalar() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.Just[any](nil), rapid.Just[any](true), rapid.Just[any](""), rapid.Just[any]("library"), rapid.Just[any]("not a date"),
		rapid.Just[any]("https://example.com/ä"), rapid.Just[any]("::"), rapid.Just[any]("2026-01-02T03:04:05Z"),
		rapid.Just[any](json.Number("0")), rapid.Just[any](json.Number("1.5")), rapid.Just[any](json.Number("-1e3")),
		rapid.Just[any](map[string]any{}), rapid.Just[any]([]any{}), rapid.Just[any]([]any{"a", "a"}),
	)
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := map[string]any{}
		for name, e := range v {
			c[name] = clone(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = clone(e)
		}
		return c
	}
	return v
}

func encode(t *rapid.T, v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestDigest: two values have one digest exactly if JSON Schema calls them equal.
func TestDigest(t *testing.T) {
	t.Parallel()
	classes := [...][]string{
		{`null`}, {`true`}, {`false`}, {`""`}, {`"0"`}, {`[]`}, {`{}`}, {`[[]]`}, {`[{}]`}, {`[[],[]]`},
		{`0`, `-0`, `0.0`, `0e5`}, {`1`, `1.0`, `10e-1`, `0.1E+1`}, {`1e3`, `1000`}, {`0.5`, `5e-1`}, {`-1`},
		{`"a"`, `"\u0061"`}, {`"ab"`}, {`["a","b"]`}, {`["b","a"]`}, {`["ab"]`}, {`["a",["b"]]`}, {`[["a"],"b"]`},
		{`{"a":1,"b":2}`, `{"b":2.0,"a":1}`}, {`{"a":2,"b":1}`}, {`{"a":{"b":2}}`}, {`{"ab":2}`}, {`["a",1,"b",2]`}, {`{"a":null}`},
	}
	digests := map[digest]string{}
	for _, class := range classes {
		var first digest
		for i, text := range class {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			d := digestOf(v, nil)
			if i == 0 {
				first = d
				if other, ok := digests[d]; ok {
					t.Errorf("%s and %s have one digest", text, other)
				}
				digests[d] = text
			} else if d != first {
				t.Errorf("%s and %s are equal and differ in digest", text, class[0])
			}
		}
	}
	a, b := innerList{"a", digest{1}}, innerList{"b", digest{2}}
	obj := map[string]any{"a": []any{}, "b": []any{}}
	if digestOf(obj, []innerList{a, b}) != digestOf(obj, []innerList{b, a}) {
		t.Error("the order of members counts")
	}
	if digestOf(obj, []innerList{a}) == digestOf(obj, nil) {
		t.Error("what was taken out does not count")
	}
}

// TestUniqueness is where taking elements out could go wrong: equal components whose
// components differ are not equal, whatever the order of their members.
func TestUniqueness(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	file := func(name, rest string) string { return `{"type":"file","name":"` + name + `"` + rest + `}` }
	with := func(children ...string) string { return file("x", `,"components":[`+strings.Join(children, ",")+`]`) }
	reordered := `{"components":[{"name":"a","type":"file"}],"name":"x","type":"file"}`
	for _, tt := range []struct {
		a, b  string
		equal bool
	}{
		{with(file("a", "")), with(file("b", "")), false},
		{with(file("a", "")), with(file("a", "")), true},
		{with(file("a", "")), reordered, true},
		{with(file("a", ""), file("b", "")), with(file("b", ""), file("a", "")), false},
		{with(), file("x", ""), false},
		{with(), with(), true},
		{with(with(file("a", ""))), with(with(file("b", ""))), false},
		{with(with(file("a", ""))), with(with(file("a", ""))), true},
		{file("x", `,"version":"1"`), file("x", ""), false},
	} {
		for _, format := range [...]string{
			`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[%s,%s]}`,
			`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"file","name":"s","components":[%s,%s]}}}`,
		} {
			doc := fmt.Appendf(nil, format, tt.a, tt.b)
			whole, pieces := o.valid(t, "cyclonedx 1.6", doc), piecewise(t, "cyclonedx 1.6", doc)
			if (whole == nil) == tt.equal || (pieces == nil) == tt.equal {
				t.Errorf("%s\nwhole: %v\npiecewise: %v", doc, whole, pieces)
			}
		}
	}
}

// TestViolationOrder: the message does not depend on the order of maps.
func TestViolationOrder(t *testing.T) {
	t.Parallel()
	doc := []byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"zz":1,"aa":2,"name":3,"version":4,"hashes":[{"alg":"x"}],"licenses":[{"license":{"id":"x","name":"y"},"expression":1}]}]}`)
	said := map[string]bool{}
	for range 50 {
		said[piecewise(t, "cyclonedx 1.6", doc).Error()] = true
	}
	if len(said) != 1 {
		all := slices.Collect(maps.Keys(said))
		sort.Strings(all)
		t.Errorf("%d messages:\n%s", len(said), strings.Join(all, "\n"))
	}
}
