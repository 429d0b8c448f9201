package check

import (
	"bytes"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/assay-build/assay/internal/refusal"
)

// FuzzCheck: no document makes Check panic, fail without a code, or answer differently
// the second time; what it accepts is valid as a whole, and its inventory in its form.
func FuzzCheck(f *testing.F) {
	for _, doc := range official(f) {
		if len(doc) < 4<<10 {
			f.Add(doc, true)
		}
	}
	f.Add([]byte(whole), true)
	for _, doc := range spdxSamples() {
		f.Add([]byte(doc), false)
	}
	o := newOracle(f)
	f.Fuzz(func(t *testing.T, doc []byte, cyclonedx bool) {
		w := cycloneDX()
		if !cyclonedx {
			w.PredicateType = predicateSPDX
		}
		inv, report, err := Check(t.Context(), bytes.NewReader(doc), int64(len(doc)), w, DefaultLimits())
		_, _, again := Check(t.Context(), bytes.NewReader(doc), int64(len(doc)), w, DefaultLimits())
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("no code: %v", err)
			}
			if again == nil || again.Error() != err.Error() {
				t.Fatalf("once %v, once %v", err, again)
			}
			return
		}
		if again != nil {
			t.Fatalf("accepted, then %v", again)
		}
		if err := inv.Validate(); err != nil {
			t.Fatalf("the inventory is not in its form: %v", err)
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(doc)))
		if err != nil {
			t.Fatal(err)
		}
		if err := o[report.Format+" "+report.SpecVersion].Validate(v); err != nil {
			t.Fatalf("accepted, and as a whole: %v", err)
		}
	})
}
