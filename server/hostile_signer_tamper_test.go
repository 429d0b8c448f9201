package server_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// alterDetached rewrites the signatures beside the bundle of an attestation on disk.
func (l *life) alterDetached(t *testing.T, id string, change func(detached [][]byte) [][]byte) {
	t.Helper()
	db := database(t, l.world.data)
	defer db.Close()
	var packed []byte
	where := raw(t, id)
	if err := db.QueryRowContext(t.Context(), "SELECT subjects FROM attestations WHERE id = ?", where).Scan(&packed); err != nil {
		t.Fatal(err)
	}
	kept, detached := detachedIn(t, packed)
	for _, d := range change(detached) {
		kept = protowire.AppendBytes(protowire.AppendTag(kept, 12, protowire.BytesType), d)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE attestations SET subjects = ? WHERE id = ?", kept, where); err != nil {
		t.Fatal(err)
	}
}

// detachedIn takes the detached signatures out of a packed record.
func detachedIn(t testing.TB, packed []byte) (kept []byte, detached [][]byte) {
	t.Helper()
	for rest := packed; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			t.Fatalf("a packed record of %d bytes cannot be read", len(packed))
		}
		m := protowire.ConsumeFieldValue(num, typ, rest[n:])
		if m < 0 {
			t.Fatalf("a packed record of %d bytes cannot be read", len(packed))
		}
		if num == 12 {
			v, _ := protowire.ConsumeBytes(rest[n:])
			detached = append(detached, v)
		} else {
			kept = append(kept, rest[:n+m]...)
		}
		rest = rest[n+m:]
	}
	return slices.Clip(kept), detached
}

// TestSignerTampered: on disk, a Notary signature of another attestation, a changed one,
// or two of them are no signature; a removed one is missing.
func TestSignerTampered(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 0)
	l := x.start(t, signedPolicy)
	good, other := subject("good", "good"), subject("other", "other")
	goodID := l.digests(t, l.ctx, good).GetAttestation().GetAttestationId()
	otherID := l.digests(t, l.ctx, other).GetAttestation().GetAttestationId()
	l.stop()
	var own, others []byte
	l.alterDetached(t, otherID, func(d [][]byte) [][]byte { others = d[0]; return d })
	l.alterDetached(t, goodID, func(d [][]byte) [][]byte { own = d[0]; return d })
	at := func(field string) []byte { // a byte of the JWS after the name of a field
		out := bytes.Clone(own)
		i := bytes.Index(out, []byte(field))
		if i < 0 {
			t.Fatalf("no %s", field)
		}
		out[i+len(field)+12] ^= 1
		return out
	}
	for _, tt := range []struct {
		name   string
		change [][]byte
		reason string
	}{
		{"untouched", [][]byte{own}, "ALLOWED"},
		{"another attestation's", [][]byte{others}, "REQUIREMENT_UNMET"},
		{"removed", nil, "REQUIREMENT_UNMET"},
		{"a changed payload", [][]byte{at(`"payload":"`)}, "REQUIREMENT_UNMET"},
		{"a changed signature", [][]byte{at(`"signature":"`)}, "REQUIREMENT_UNMET"},
		{"a changed header", [][]byte{at(`"protected":"`)}, "REQUIREMENT_UNMET"},
		{"another's before its own", [][]byte{others, own}, "REQUIREMENT_UNMET"},
		{"put back", [][]byte{own}, "ALLOWED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.alterDetached(t, goodID, func([][]byte) [][]byte { return tt.change })
			l := x.start(t, signedPolicy)
			defer l.stop()
			l.decide(t, "prod", good, tt.reason)
			l.decide(t, "dev", good, "ALLOWED")
			l.decide(t, "prod", other, "ALLOWED")
			if tt.reason != "ALLOWED" && len(tt.change) > 0 && !strings.Contains(l.logs.String(), "a Notary signature does not count") {
				t.Error("nothing in the log")
			}
		})
	}
}
