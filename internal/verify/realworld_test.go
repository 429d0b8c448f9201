package verify

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

const githubLogin = "https://github.com/login/oauth"

// anyoneAt accepts every identity that the issuer vouched for: these tests are about
// everything else. The pattern is the caller's own doing and says so.
func anyoneAt(issuer string) *Identity { return &Identity{SANRegexp: ".+", Issuer: issuer} }

func TestSigstoreJSBundles(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "sigstore-js"), "tests", "bundles")
	v := publicGood(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.sigstore"))
	if err != nil || len(files) != 9 {
		t.Fatalf("want 9 bundles, got %d (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ev, err := v.Verify(readFile(t, file), Expectation{AnyArtifact: true, Identity: anyoneAt(githubLogin)})
			if err != nil {
				t.Fatal(err)
			}
			if ev.Statement() == nil || len(ev.Statement().Subjects) == 0 || ev.Identity() == "" || ev.IntegratedTime().IsZero() {
				t.Fatalf("evidence is not whole: %+v", ev)
			}
		})
	}
}

func TestSigstoreGoBundles(t *testing.T) {
	dir := vectors.Dir(t, "sigstore-go")
	public := filepath.Join(dir, "examples", "trusted-root-public-good.json")
	data := filepath.Join(dir, "pkg", "testing", "data")
	npm := Expectation{AnyArtifact: true, Identity: anyoneAt(beaconIssuer)}
	person := Expectation{AnyArtifact: true, Identity: anyoneAt(githubLogin)}
	expired := Expectation{Artifact: sha256Of([]byte("test content")), Key: &PublicKey{
		PEM: readFile(t, filepath.Join(data, "public-keys", "public-key-validity.pem")), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}}
	unlogged := expired
	unlogged.Key = &PublicKey{PEM: expired.Key.PEM}
	tests := []struct {
		name, bundle, root string
		want               Expectation
		code               refusal.Code // "" is accepted
	}{
		{"npm provenance", "examples/bundle-provenance.json", public, npm, ""},
		{"npm publish is signed with a key", "examples/bundle-publish.json", public, npm, CodeKeyUnknown},
		{"two signatures", "pkg/testing/data/bundles/dsse-2sigs.sigstore.json", public, npm, CodeSignatureCount},
		{"envelope", "pkg/testing/data/bundles/dsse.sigstore.json", public, person, ""},
		{"sigstore-js 2.0.0", "pkg/testing/data/bundles/sigstore.js@2.0.0-provenance.sigstore.json", public, npm, ""},
		{"key used outside its window (CVE-2026-54787)", "pkg/testing/data/bundles/public-key-validity.sigstore.json",
			filepath.Join(data, "trusted-roots", "public-key-validity.json"), expired, CodeKeyOutsideValidity},
		{"same key, no window: but never logged", "pkg/testing/data/bundles/public-key-validity.sigstore.json",
			filepath.Join(data, "trusted-roots", "public-key-validity.json"), unlogged, CodeLogEntryMissing},
		{"othername identity", "pkg/testing/data/bundles/othername.sigstore.json",
			filepath.Join(data, "trusted-roots", "scaffolding.json"), Expectation{
				Artifact: []Digest{{"sha256", "bc103b4a84971ef6459b294a2b98568a2bfb72cded09d4acd1e16366a401f95b"}},
				Identity: &Identity{SAN: "foo!oidc.local", Issuer: "http://oidc.local:8080"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bundle := readFile(t, filepath.Join(dir, filepath.FromSlash(tt.bundle)))
			root, err := NewRoot(readFile(t, tt.root))
			if err != nil {
				t.Fatal(err)
			}
			ev, err := New(root).Verify(bundle, tt.want)
			if tt.code != "" {
				assertRefused(t, ev, err, tt.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func publicGood(t testing.TB) *Verifier {
	t.Helper()
	root, err := NewRoot(readFile(t, filepath.Join(vectors.Dir(t, "sigstore-root-signing"), "targets", "trusted_root.json")))
	if err != nil {
		t.Fatal(err)
	}
	return New(root)
}
