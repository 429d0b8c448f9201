package attest

import (
	"encoding/json"
	"testing"
)

func TestRawPredicate(t *testing.T) {
	t.Parallel()
	const digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	st := Statement{
		Type: StatementTypeV1, PredicateType: PredicateCycloneDX,
		Subjects: []Subject{{Name: "app", Digest: map[string]string{"sha256": digest}, Annotations: map[string]string{"a": "b"}}},
	}
	for _, predicate := range []string{
		`{}`, "{\n  \"a\" : [ 1, 2.50 ]\n}\n", "\n\t{\"predicate\": {}, \"b\": \"\\u0041 } ,\"} \r\n",
	} {
		st.Predicate = json.RawMessage(predicate)
		payload, err := st.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := RawPredicate(payload)
		if err != nil || string(got) != predicate {
			t.Errorf("RawPredicate = %q, %v; want %q", got, err, predicate)
		}
	}
	// Of somebody else's statement it is what is parsed.
	foreign := `{"predicate": {"x": 1} ,"_type":"` + StatementTypeV1 + `","predicateType":"https://x/y","subject":[{"name":"n","digest":{"sha256":"` + digest + `"}}]}`
	if got, err := RawPredicate([]byte(foreign)); err != nil || string(got) != `{"x": 1}` {
		t.Errorf("foreign: %q, %v", got, err)
	}
	_, err := RawPredicate([]byte(`{}`))
	wantCode(t, err, CodeStatementTypeUnknown)
}
