package verify

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// FuzzVerifyBundle feeds changed bundles to both entrances. Nothing panics, every
// refusal has a code, and whatever is accepted has signed content that a seed had: the
// fuzzer holds no key, so it cannot have made any other.
func FuzzVerifyBundle(f *testing.F) {
	l := newLab(f)
	v := l.verifier()
	signed := make(map[string]bool)
	seeds := 0
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		payload := statement(f, "artifact of "+string(format))
		signed[string(payload)] = true
		f.Add(l.marshal(l.seal(format, attest.PayloadTypeInToto, payload)))
		seeds++
	}
	key := newTestKey(f)
	payload := statement(f, "certified artifact")
	signed[string(payload)] = true
	f.Add(l.certified(payload, key, l.leaf(key, labSAN, labIssuer)))
	for _, file := range vectorBundles() {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(data)
			seeds++
		}
	}
	if seeds < 2 {
		f.Fatal("no seeds")
	}
	byCert := Expectation{AnyArtifact: true, Identity: &Identity{SAN: labSAN, Issuer: labIssuer}}
	f.Fuzz(func(t *testing.T, data []byte) {
		own, ownErr := v.VerifyOwn(data)
		foreign, foreignErr := v.Verify(data, Expectation{AnyArtifact: true, RootKey: true})
		certified, certErr := v.Verify(data, byCert)
		for _, r := range []struct {
			ev  *Evidence
			err error
		}{{own, ownErr}, {foreign, foreignErr}, {certified, certErr}} {
			switch {
			case r.err == nil && (!r.ev.Valid() || !signed[string(r.ev.Payload())]):
				t.Fatalf("accepted %q, which nobody signed", r.ev.Payload())
			case r.err != nil && (r.ev.Valid() || refusal.CodeOf(r.err) == ""):
				t.Fatalf("refused without a code: %v", r.err)
			}
		}
		if ownErr == nil && (foreignErr != nil || !sameContent(own, foreign)) {
			t.Fatalf("the lean path accepts what sigstore-go does not: %v", foreignErr)
		}
	})
}

// vectorBundles lists the bundles of others where they are at hand; the fuzz target
// must run without them.
func vectorBundles() []string {
	root := os.Getenv("ASSAY_VECTORS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "vectors")
	}
	var files []string
	for _, pattern := range []string{"sigstore-conformance/test/assets/bundle-verify/*/bundle.sigstore.json", "sigstore-js/tests/bundles/*", "sigstore-go/pkg/testing/data/bundles/*"} {
		found, _ := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		files = append(files, found...)
	}
	return files
}

// FuzzTimestampToken: the lean reader of timestamps takes nothing that the library with
// sigstore-go behind it would not.
func FuzzTimestampToken(f *testing.F) {
	l := newLab(f)
	v := l.verifier()
	sig := []byte("a signature")
	good := l.stamp(sig)
	f.Add(good)
	f.Add(l.stamp([]byte("another")))
	f.Add(l.libraryStamp(sig, l.tsaLeaf, l.tsa, true))
	f.Fuzz(func(t *testing.T, der []byte) {
		at, err := leanTimestamp(v.root, der, sig)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		if want, _, err := v.root.checkTimestamp(der, sig); err != nil || !want.at.Equal(at.at) || !bytes.Equal(der, good) {
			t.Fatalf("lean says %v, the library %v %v", at, want, err)
		}
	})
}

// leanTimestamp is checkOwnTimestamp without the way round for other authorities.
func leanTimestamp(r *Root, der, sig []byte) (trustedTime, error) {
	t, ok := parseToken(der)
	if !ok {
		return trustedTime{}, refusal.New(CodeTimestampMalformed, "not of our own shape")
	}
	tsa := r.findTSA(t)
	if tsa == nil {
		return trustedTime{}, refusal.New(CodeTimestampUntrusted, "no such authority")
	}
	return tsa.check(t, sig)
}

// FuzzNewRoot: a trusted root is read whole or refused with a code, whatever it is.
func FuzzNewRoot(f *testing.F) {
	l := newLab(f)
	f.Add(l.root())
	for _, seed := range []string{`{}`, `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`, `{"tlogs":[{}]}`, `{"tlogs":null}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewRoot(data)
		if (r == nil) == (err == nil) {
			t.Fatalf("root %v, error %v", r, err)
		}
		if err != nil && refusal.CodeOf(err) == "" {
			t.Fatalf("refused without a code: %v", err)
		}
	})
}
