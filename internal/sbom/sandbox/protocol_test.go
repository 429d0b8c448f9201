package sandbox

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
)

func sample() *answer {
	return &answer{
		Inventory: &sbom.Inventory{
			Format: "jar",
			Components: []sbom.Component{
				{PURL: "pkg:npm/a@1", Name: "a", Version: "1", DependsOn: []string{"pkg:npm/b@1"}, Licenses: []string{"MIT"}, Locations: []string{"a"}},
				{PURL: "pkg:npm/b@1", Name: "b", Version: "1", Hashes: []sbom.Hash{{Algorithm: "SHA-1", Value: strings.Repeat("0a", 20)}}},
			},
			Root:       []string{"pkg:npm/a@1"},
			Incomplete: []sbom.Reason{{Code: sbom.ReasonDepth, Path: "x"}},
			Files:      3,
			Bytes:      99,
		},
		Confined: Isolation{Seccomp: true},
		Memory:   1 << 20,
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	t.Parallel()
	checked := sample()
	checked.Report = &check.Report{Format: "spdx", SpecVersion: "2.3", SelfBound: true}
	for task, a := range map[string]*answer{
		taskScan:  sample(),
		taskCheck: checked,
		taskProbe: {Confined: Isolation{Namespaces: true, Landlock: true, Seccomp: true}},
	} {
		var one, two bytes.Buffer
		if err := writeAnswer(&one, a); err != nil {
			t.Fatal(err)
		}
		got, err := readAnswer(bytes.NewReader(one.Bytes()), int64(one.Len()))
		if err != nil {
			t.Fatalf("%s: %v\n%s", task, err, &one)
		}
		if err := got.check(task); err != nil {
			t.Errorf("%s: %v", task, err)
		}
		if err := writeAnswer(&two, got); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Errorf("%s: %v\n%s\n%s", task, err, &one, &two)
		}
		if _, err := readAnswer(bytes.NewReader(one.Bytes()), int64(one.Len()-1)); err == nil {
			t.Errorf("%s: one byte more than may be was read", task)
		}
	}
}

// TestAnswerBounds has little text ask for much memory.
func TestAnswerBounds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ before, each, after, want string }{
		"components":   {`{"inventory":{"components":[`, `{},`, `{}]}}`, "list of more than 200000"},
		"root":         {`{"inventory":{"root":[`, `"",`, `""]}}`, "more than 4194304 strings"},
		"hashes":       {`{"inventory":{"components":[{"hashes":[`, `{},`, `{}]}]}}`, "list of more than 64"},
		"reasons":      {`{"inventory":{"incomplete":[`, `{},`, `{}]}}`, "list of more than 64"},
		"nested":       {`{"inventory":`, `[`, ``, ""},
		"not a string": {`{"inventory":{"root":[`, `1,`, `1]}}`, "not a string"},
		"not a list":   {`{"inventory":{"root":"`, `x`, `"}}`, "not an array"},
		"null":         {`{"inventory":{"root":null`, ``, `}}`, "not an array"},
	} {
		n := 1 << 18
		if name == "root" {
			n = maxStrings
		}
		_, err := readAnswer(strings.NewReader(tt.before+strings.Repeat(tt.each, n)+tt.after), 64<<20)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	// What a check refuses with arrives, cut and cleaned.
	a := do(job{request: request{Limits: DefaultLimits()}}, testTasks()["refuse-check"])
	if err := a.check(taskCheck); err != nil {
		t.Errorf("%+v: %v", a.Refusal, err)
	}
	if a.Refusal.Code != "SBOM_TEST" || a.Refusal.Field != "a b" || len(a.Refusal.Detail) > maxFailureBytes {
		t.Errorf("%+v", a.Refusal)
	}
	for _, r := range []refused{
		{Code: "", Detail: "x"}, {Code: "lower", Detail: "x"}, {Code: "A__B"}, {Code: "A", Detail: "a\nb"},
		{Code: "A", Field: "\x1b[0m"}, {Code: "A", Detail: strings.Repeat("x", maxFailureBytes+1)},
		{Code: refusal.Code(strings.Repeat("A", 65))},
	} {
		if r.check() == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
	if _, _, err := w.ask(context.Background(), artifact(t, "x"), request{Task: "no such task"}); refusal.CodeOf(err) != CodeScannerUnavailable {
		t.Errorf("no such task: %v", err)
	}
}

// FuzzAnswer: whatever a child says is refused, or is an answer that says the same
// again.
func FuzzAnswer(f *testing.F) {
	var b bytes.Buffer
	if err := writeAnswer(&b, sample()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"refusal":{"code":"SBOM_X","field":"a","detail":"b"}}`))
	f.Add([]byte(`{"failure":"x","memory":1e3}`))
	f.Add([]byte(`{"inventory":{"components":[{"hashes":[{}],"dependsOn":["x"]}],"incomplete":[{}]}} `))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readAnswer(bytes.NewReader(data), 1<<20)
		if err != nil {
			return
		}
		for _, task := range []string{taskScan, taskCheck, taskProbe} {
			if a.check(task) != nil {
				continue
			}
			var again bytes.Buffer
			if err := writeAnswer(&again, a); err != nil {
				t.Fatal(err)
			}
			if b, err := readAnswer(&again, 2<<20); err != nil || b.check(task) != nil {
				t.Errorf("%s: %v", &again, err)
			}
		}
	})
}
