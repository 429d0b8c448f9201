package store

import (
	"context"
	"reflect"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
)

// FuzzFilter runs whatever parses: no filter may reach SQLite as anything but
// comparisons that it accepts.
func FuzzFilter(f *testing.F) {
	seeds := []string{
		"", "subject.digest = sha256:" + number("x", 1), `builder_id = "…/builders/dev" AND create_time > "2026-01-01T00:00:00Z"`,
		`subject.name='a\'b' AND commit!="\\"`, "slsa_build_level >= 2", "commit = a OR 1=1 --", "commit = ') OR 1=1 --", "(", "AND", "commit=\"",
	}
	for _, s := range append(seeds, naughtyStrings(f)...) {
		f.Add(s)
	}
	s := openNew(f)
	f.Fuzz(func(t *testing.T, filter string) {
		for _, list := range []func(Query) error{
			func(q Query) error { _, _, err := s.ListAttestations(context.Background(), q); return err },
			func(q Query) error { _, _, err := s.ListDecisions(context.Background(), q); return err },
		} {
			if err := list(Query{Filter: filter}); err != nil {
				wantCode(t, err, CodeFilterInvalid)
			}
		}
		terms, err := parseFilter("commit = "+QuoteFilter(filter), attestationFields())
		if refusal.CodeOf(err) == CodeFilterInvalid {
			return // too long, or not UTF-8
		}
		if len(terms) != 1 || terms[0].arg != filter {
			t.Fatalf("%q became %v (%v)", filter, terms, err)
		}
	})
}

// FuzzPageToken looks for a token that is taken and was not made by seal.
func FuzzPageToken(f *testing.F) {
	key := make([]byte, 32)
	l := listing{kind: "attestations", filter: "commit = a", order: "desc"}
	for _, c := range []cursor{{}, {1, 2}, {-1, -1}, {1 << 62, 1 << 62}} {
		token := l.seal(key, c)
		if got, err := l.open(key, token); err != nil || got != c {
			f.Fatalf("%v came back as %v, %v", c, got, err)
		}
		f.Add(token, "attestations", "commit = a", "desc")
		f.Add(token, "attestations", "commit = b", "desc")
		f.Add(token, "attestationscommit = a", "", "desc")
		f.Add(token[1:], "decisions", "", "asc")
	}
	f.Fuzz(func(t *testing.T, token, kind, filter, order string) {
		other := listing{kind: kind, filter: filter, order: order}
		c, err := other.open(key, token)
		if err != nil {
			wantCode(t, err, CodePageTokenInvalid)
			return
		}
		if other.seal(key, c) != token {
			t.Fatalf("%q was taken, and is not what seal makes", token)
		}
	})
}

// FuzzUnpackRecord reads damaged rows, and rows written by a later version.
func FuzzUnpackRecord(f *testing.F) {
	r := testPending(1).Record
	packed := packRecord(r, appendSubjects(nil, r.Subjects))
	var back Attestation
	if err := unpackRecord(packed, &back); err != nil || len(back.Subjects) != 2 {
		f.Fatalf("%v %v", back, err)
	}
	f.Add(packed)
	f.Add(append(packed, 0x7a, 2, 1, 2)) // field 15, unknown
	f.Add(packed[:len(packed)-3])
	f.Fuzz(func(t *testing.T, b []byte) {
		var a, again Attestation
		if unpackRecord(b, &a) != nil {
			return
		}
		if err := unpackRecord(packRecord(&a, appendSubjects(nil, a.Subjects)), &again); err != nil {
			t.Fatal(err)
		}
		if len(a.Caller) == 0 {
			a.Caller = nil
		}
		if !reflect.DeepEqual(a, again) {
			t.Fatalf("%+v became %+v", a, again)
		}
	})
}
