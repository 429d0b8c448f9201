package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
	"github.com/assay-build/assay/internal/tlog"
)

func TestVerifyOwn(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		in := newInstance(t, format)
		for i := range 3 { // trees of 1 to 3 entries: proofs of 0 to 2 hashes
			artifact := fmt.Sprintf("artifact %d", i)
			bundle := in.attest(t, statement(t, artifact))
			v := in.verifier(t)
			for _, round := range []string{"cold", "warm"} {
				ev, err := v.VerifyOwn(bundle)
				if err != nil {
					t.Fatalf("%s: %v", round, err)
				}
				if !ev.Valid() || !ev.Own() || ev.LogIndex() != int64(i) || ev.SignerKeyID() != in.keys.AttestationSigner().KeyID() {
					t.Fatalf("%s: evidence %+v", round, ev)
				}
				if d := sha256Of([]byte(artifact))[0]; !ev.HasDigest(d.Algorithm, d.Hex) || ev.HasDigest("sha512", d.Hex) || ev.HasDigest("", "") {
					t.Fatalf("%s: wrong digests", round)
				}
				if ev.PredicateType() != attest.PredicateSLSAProvenanceV1 || ev.SigningTime().IsZero() || ev.IntegratedTime().IsZero() == (format == tlog.RekorV1) {
					t.Fatalf("%s: evidence %+v", round, ev)
				}
			}
			foreign, err := v.Verify(bundle, Expectation{Artifact: sha256Of([]byte(artifact)), RootKey: true, PredicateType: attest.PredicateSLSAProvenanceV1})
			if err != nil {
				t.Fatalf("the other entrance: %v", err)
			}
			own, _ := v.VerifyOwn(bundle)
			if !sameContent(own, foreign) || !own.SigningTime().Equal(foreign.SigningTime()) || !own.IntegratedTime().Equal(foreign.IntegratedTime()) {
				t.Fatalf("the entrances differ:\n%+v\n%+v", own, foreign)
			}
		}
	})
}

// sameContent compares what was signed and by whom.
func sameContent(a, b *Evidence) bool {
	return bytes.Equal(a.Payload(), b.Payload()) && a.SignerKeyID() == b.SignerKeyID() && a.LogIndex() == b.LogIndex() &&
		bytes.Equal(a.LogID(), b.LogID()) && reflect.DeepEqual(a.Statement(), b.Statement()) && a.artifact == b.artifact
}

// TestZeroEvidence: data that nobody verified proves nothing.
func TestZeroEvidence(t *testing.T) {
	for _, e := range []*Evidence{nil, {}, {statement: &attest.Statement{PredicateType: "x"}, keyID: "k", payload: []byte("p")}} {
		if e.Valid() || e.Own() || e.Statement() != nil || e.Payload() != nil || e.PredicateType() != "" || e.HasDigest("sha256", "ab") ||
			e.SignerKeyID() != "" || e.Identity() != "" || e.Issuer() != "" || e.LogID() != nil || e.LogIndex() != -1 ||
			!e.SigningTime().IsZero() || !e.IntegratedTime().IsZero() {
			t.Errorf("%+v says something", e)
		}
	}
}

// TestOwnMutations flips each bit of each byte of a good bundle, one at a time, in both
// entry formats. VerifyOwn must refuse every one: all bytes of a bundle of ours are
// either signed, held against something signed, or have only one spelling. There is no
// list of harmless flips because there are none.
func TestOwnMutations(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		in := newInstance(t, format)
		in.attest(t, statement(t, "other"))
		bundle := in.attest(t, statement(t, "artifact"))
		v := in.verifier(t)
		good, err := v.VerifyOwn(bundle)
		if err != nil {
			t.Fatal(err)
		}
		codes := make(map[string]int)
		for i := range bundle {
			for bit := range 8 {
				mutant := bytes.Clone(bundle)
				mutant[i] ^= 1 << bit
				ev, err := v.VerifyOwn(mutant)
				if err == nil {
					t.Errorf("byte %d bit %d accepted: …%s…, same content %v", i, bit, around(mutant, i), sameContent(ev, good))
					continue
				}
				codes[codeOf(err)]++
			}
		}
		t.Logf("%d bytes, %d flips: %v", len(bundle), len(bundle)*8, codes)
	})
}

func around(b []byte, i int) []byte { return b[max(0, i-24):min(len(b), i+24)] }

func codeOf(err error) string {
	code, _, _ := strings.Cut(err.Error(), ":")
	return code
}

// TestForeignMutations does the same, with two flips a byte, for the entrance with
// sigstore-go behind it. Here too nothing is harmless: what sigstore-go lets pass, the
// checks before it do not. No flip may divide the two: neither a mutant that only the
// judge refuses, nor one that the lean path accepts and this path does not.
func TestForeignMutations(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		in := newInstance(t, format)
		in.attest(t, statement(t, "other"))
		bundle := in.attest(t, statement(t, "artifact"))
		v := in.verifier(t)
		want := Expectation{Artifact: sha256Of([]byte("artifact")), RootKey: true}
		good, err := v.Verify(bundle, want)
		if err != nil {
			t.Fatal(err)
		}
		codes := make(map[string]int)
		for i := range bundle {
			for _, flip := range []byte{1 << (i % 7), 1 << ((i + 3) % 7)} {
				mutant := bytes.Clone(bundle)
				mutant[i] ^= flip
				ev, err := v.Verify(mutant, want)
				if _, ownErr := v.VerifyOwn(mutant); ownErr == nil && err != nil {
					t.Errorf("byte %d: the lean path accepts, this one says %v", i, err)
				}
				if err == nil {
					t.Errorf("byte %d flip %#x accepted: …%s…, same content %v", i, flip, around(mutant, i), sameContent(ev, good))
					continue
				}
				codes[codeOf(err)]++
				if refusal.CodeOf(err) == CodeJudgeDisagrees {
					t.Errorf("byte %d flip %#x: %v", i, flip, err)
				}
			}
		}
		t.Logf("%d bytes, %d flips: %v", len(bundle), len(bundle)*2, codes)
	})
}

// TestOwnRefusesVectors: no bundle of anyone else is of our own shape.
func TestOwnRefusesVectors(t *testing.T) {
	v := newInstance(t, tlog.RekorV1).verifier(t)
	n := 0
	for _, dir := range []string{"sigstore-conformance", "sigstore-go", "sigstore-js"} {
		err := filepath.WalkDir(vectors.Dir(t, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n++
			if ev, err := v.VerifyOwn(data); err == nil || ev.Valid() {
				t.Errorf("%s accepted", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 150 {
		t.Errorf("only %d files tried", n)
	}
}

// BenchmarkVerifyOwn measures both entrances beside their limit: one ECDSA verification.
// The lean path makes three of them for rekor-v1 and two for rekor-v2 when warm.
func BenchmarkVerifyOwn(b *testing.B) {
	b.Run("limit/one-ecdsa-verify", func(b *testing.B) {
		k := newTestKey(b)
		digest := sha256.Sum256([]byte("message"))
		sig := k.sign(b, []byte("message"))
		for b.Loop() {
			if !ecdsa.VerifyASN1(&k.PublicKey, digest[:], sig) {
				b.Fatal("invalid")
			}
		}
	})
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		in := newInstance(b, format)
		for range 40 {
			in.attest(b, statement(b, "other"))
		}
		bundle := in.attest(b, statement(b, "artifact"))
		v := in.verifier(b)
		run := func(name string, one func() error) {
			b.Run(string(format)+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := one(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("warm", func() error { _, err := v.VerifyOwn(bundle); return err })
		run("cold", func() error { _, err := New(v.root).VerifyOwn(bundle); return err })
		run("foreign", func() error {
			_, err := v.Verify(bundle, Expectation{Artifact: sha256Of([]byte("artifact")), RootKey: true})
			return err
		})
	}
}
