package identity

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCallerRoundTrip(t *testing.T) {
	c := testCaller()
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(`"run_id":12345678901234567`)) {
		t.Errorf("%s lacks the exact run_id", data)
	}
	back, err := UnmarshalCaller(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, back); diff != "" {
		t.Errorf("-stored +read\n%s", diff)
	}
}

func TestCallerMarshalRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Caller){
		"nobody":        func(c *Caller) { *c = Caller{} },
		"kind zero":     func(c *Caller) { c.Kind = 0 },
		"kind unknown":  func(c *Caller) { c.Kind = 99 },
		"no issuer":     func(c *Caller) { c.Issuer = "" },
		"no facts":      func(c *Caller) { c.GitHub = nil },
		"no repository": func(c *Caller) { c.GitHub.Repository = "" },
		"no owner id":   func(c *Caller) { c.GitHub.RepositoryOwnerID = 0 },
		"negative run":  func(c *Caller) { c.GitHub.RunID = -1 },
	} {
		c := testCaller()
		edit(c)
		_, err := c.Marshal()
		t.Run(name, func(t *testing.T) { wantCode(t, err, CodeCallerInvalid) })
	}
	_, err := (*Caller)(nil).Marshal()
	wantCode(t, err, CodeCallerInvalid)
}

func TestUnmarshalCallerRefuses(t *testing.T) {
	data, err := testCaller().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	for name, stored := range map[string]string{
		"empty":            "",
		"null":             "null",
		"object":           "{}",
		"list":             "[" + good + "]",
		"two values":       good + good,
		"kind unknown":     strings.Replace(good, `"github-actions"`, `"github"`, 1),
		"kind a number":    strings.Replace(good, `"github-actions"`, `1`, 1),
		"kind null":        strings.Replace(good, `"github-actions"`, `null`, 1),
		"unknown key":      strings.Replace(good, `"kind"`, `"admin":true,"kind"`, 1),
		"case variant key": strings.Replace(good, `"kind"`, `"Sandbox":false,"sandbox":true,"kind"`, 1),
		"wrong case":       strings.Replace(good, `"kind"`, `"Kind"`, 1),
		"duplicate key":    strings.Replace(good, `"repository_id":1`, `"repository_id":1,"repository_id":2`, 1),
		"id a float":       strings.Replace(good, `"run_id":12345678901234567`, `"run_id":1.5`, 1),
		"id with exponent": strings.Replace(good, `"run_id":12345678901234567`, `"run_id":1e3`, 1),
		"id too large":     strings.Replace(good, `"run_id":12345678901234567`, `"run_id":9223372036854775808`, 1),
		"id a string":      strings.Replace(good, `"run_id":12345678901234567`, `"run_id":"1"`, 1),
		"facts null":       `{"kind":"github-actions","issuer":"x","github":null}`,
		"too large":        strings.Replace(good, `"display_name":"`, `"display_name":"`+strings.Repeat("x", maxCallerBytes), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if stored == good {
				t.Fatal("the case changes nothing")
			}
			_, err := UnmarshalCaller([]byte(stored))
			wantCode(t, err, CodeCallerInvalid)
		})
	}
}

func TestKindString(t *testing.T) {
	for k, want := range map[Kind]string{0: "Kind(0)", KindGitHubActions: "github-actions", 99: "Kind(99)", -1: "Kind(-1)"} {
		if got := k.String(); got != want {
			t.Errorf("%d: %s; want %s", int(k), got, want)
		}
	}
}

func FuzzUnmarshalCaller(f *testing.F) {
	seeds := []*Caller{testCaller(), {Kind: KindGitHubActions, Issuer: "x", Sandbox: true, GitHub: testCaller().GitHub}}
	for _, c := range seeds {
		f.Add(must(c.Marshal()))
	}
	f.Add([]byte(`{"kind":"github-actions","issuer":"x","github":{"repository":"\u2028<&>"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := UnmarshalCaller(data)
		if err != nil {
			wantCode(t, err, CodeCallerInvalid)
			return
		}
		stored, err := c.Marshal()
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		if again := must(must(UnmarshalCaller(stored)).Marshal()); !bytes.Equal(stored, again) {
			t.Fatalf("%s became %s", stored, again)
		}
	})
}
