package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
	"github.com/assay-build/assay/internal/tlog"
)

// conformanceRefusals says for each case that must be refused what it was written
// for, as its README tells: the code and, where one code covers several faults, the
// end of the field. sigstore-go refuses nine of them for other reasons.
var conformanceRefusals = map[string]struct {
	code  refusal.Code
	field string
}{
	"bundle-empty-certificate-chain_fail":  {CodeChainEmpty, ""},
	"bundle-from-wrong-instance_fail":      {CodeLogUnknown, ""},
	"bundle-invalid-base64-signature_fail": {CodeBundleBase64, "messageSignature.signature"},
	"bundle-malformed-json_fail":           {attest.CodeJSONInvalid, ""},
	"bundle-negative-log-index_fail":       {CodeLogIndexNegative, ""},
	"bundle-unknown-version_fail":          {CodeBundleVersionUnknown, ""},
	"bundle-with-root-cert_fail":           {CodeChainHasRoot, ""},

	"checkpoint-bad-keyhint_fail":       {CodeCheckpointSignerUnknown, ""},
	"checkpoint-wrong-roothash_fail":    {CodeCheckpointRootMismatch, ""},
	"invalid-checkpoint-signature_fail": {tlog.CodeCheckpointSignatureInvalid, ""},

	"dsse-invalid-sig_fail":       {CodeSignatureInvalid, ""},
	"dsse-mismatch-envelope_fail": {CodeLogEntryMismatch, ":digest"},
	"dsse-mismatch-sig_fail":      {CodeLogEntryMismatch, ":signature"},

	"inclusion-proof-corrupted-hash_fail": {tlog.CodeInclusionProofInvalid, ""},
	"invalid-inclusion-proof_fail":        {tlog.CodeInclusionProofInvalid, ""},
	"incorrect-public-key_fail":           {CodeLogEntryMismatch, ":key"},
	"integrated-time-in-future_fail":      {CodeCertificateOutsideValidity, ""},
	"invalid-ct-key_fail":                 {CodeSCTInvalid, ""},
	"set-invalid-signature_fail":          {CodeSETInvalid, ""},

	"intoto-expired-certificate_fail":                 {CodeCertificateOutsideAuthority, ""},
	"intoto-log-entry-mismatch_fail":                  {CodeLogEntryMismatch, ""},
	"intoto-missing-inclusion-proof_fail":             {CodeInclusionProofMissing, ""},
	"intoto-set-outside-signing-cert-validity_fail":   {CodeCertificateOutsideValidity, ""},
	"intoto-tsa-timestamp-outside-cert-validity_fail": {CodeCertificateOutsideValidity, ""},

	"managed-key-no-key_fail":    {CodeKeyUnknown, ""},
	"managed-key-wrong-key_fail": {CodeKeyMismatch, ""},

	"message-digest-mismatch_fail": {CodeMessageDigestMismatch, ""},
	"signature-mismatch_fail":      {CodeSignatureInvalid, ""},
	"wrong-material_fail":          {CodeArtifactMismatch, ""},

	"wrong-hashedrekord-artifact_fail":     {CodeLogEntryMismatch, ":digest"},
	"wrong-hashedrekord-cert-and-sig_fail": {CodeLogEntryMismatch, ":signature"},
	"wrong-hashedrekord-entry_fail":        {CodeLogEntryMismatch, ""},

	"rekor2-checkpoint-missing-log-signature_fail": {CodeCheckpointUnsigned, ""},
	"rekor2-checkpoint-missing-origin_fail":        {tlog.CodeCheckpointInvalid, ""},
	"rekor2-checkpoint-missing-root-hash_fail":     {tlog.CodeCheckpointInvalid, ""},
	"rekor2-checkpoint-missing-size_fail":          {tlog.CodeCheckpointInvalid, ""},
	"rekor2-checkpoint-no-matching-signature_fail": {CodeCheckpointSignerUnknown, ""},
	"rekor2-dsse-invalid-sig_fail":                 {CodeSignatureInvalid, ""},
	"rekor2-dsse-mismatch-envelope_fail":           {CodeLogEntryMismatch, ":digest"},
	"rekor2-dsse-mismatch-sig_fail":                {CodeLogEntryMismatch, ":signature"},
	"rekor2-no-inclusion-proof_fail":               {CodeInclusionProofMissing, ""},
	"rekor2-no-timestamp_fail":                     {CodeNoTrustedTime, ""},

	"rekor2-timestamp-outside-trust-root-tsa-validity_fail":     {CodeTimestampOutsideAuthority, ""},
	"rekor2-timestamp-outside-tsa-cert-validity_fail":           {CodeTimestampOutsideCertificate, ""},
	"rekor2-timestamp-payload-mismatch_fail":                    {CodeTimestampMismatch, ""},
	"rekor2-timestamp-untrusted-tsa-with-embedded-cert_fail":    {CodeTimestampUntrusted, ""},
	"rekor2-timestamp-untrusted-tsa-without-embedded-cert_fail": {CodeTimestampUntrusted, ""},
	"rekor2-timestamp-with-incorrect-time_fail":                 {CodeCertificateOutsideValidity, ""},

	"trust-root-tlog-missing-validity-start_fail": {CodeTrustedRootValidityMissing, ""},
}

const (
	beaconIdentity = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
	beaconIssuer   = "https://token.actions.githubusercontent.com"
)

func TestSigstoreConformance(t *testing.T) {
	dir := vectors.Dir(t, "sigstore-conformance/test/assets/bundle-verify")
	public := readFile(t, filepath.Join(vectors.Dir(t, "sigstore-root-signing"), "targets", "trusted_root.json"))
	cases, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	refused, total := 0, 0
	for _, c := range cases {
		if !c.IsDir() {
			continue
		}
		total++
		if strings.HasSuffix(c.Name(), "_fail") {
			refused++
		}
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			ev, err := runConformanceCase(t, filepath.Join(dir, c.Name()), public)
			want, mustRefuse := conformanceRefusals[c.Name()]
			if mustRefuse != strings.HasSuffix(c.Name(), "_fail") {
				t.Fatal("the table does not know this case")
			}
			if !mustRefuse {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if !ev.Valid() || ev.SigningTime().IsZero() || ev.SignerKeyID() == "" || ev.LogIndex() < 0 {
					t.Fatalf("evidence is not whole: %+v", ev)
				}
				return
			}
			assertRefused(t, ev, err, want.code)
			var r *refusal.Error
			if errors.As(err, &r); !strings.HasSuffix(r.Field, want.field) {
				t.Errorf("field %q, want …%q", r.Field, want.field)
			}
		})
	}
	if total != 70 || refused != len(conformanceRefusals) {
		t.Errorf("%d cases, %d to refuse; the table was made for 70 and %d", total, refused, len(conformanceRefusals))
	}
}

func runConformanceCase(t *testing.T, dir string, public []byte) (*Evidence, error) {
	t.Helper()
	override := func(name string, otherwise []byte) []byte {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return b
		}
		return otherwise
	}
	root, err := NewRoot(override("trusted_root.json", public))
	if err != nil {
		return nil, err
	}
	artifact := override("artifact", readFile(t, filepath.Join(dir, "..", "a.txt")))
	want := Expectation{Artifact: sha256Of(artifact)}
	if key := override("key.pub", nil); key != nil {
		want.Key = &PublicKey{PEM: key}
	} else {
		want.Identity = &Identity{
			SAN:    strings.TrimSpace(string(override("identity", []byte(beaconIdentity)))),
			Issuer: strings.TrimSpace(string(override("issuer", []byte(beaconIssuer)))),
		}
	}
	return New(root).Verify(readFile(t, filepath.Join(dir, "bundle.sigstore.json")), want)
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sha256Of(artifact []byte) []Digest {
	sum := sha256.Sum256(artifact)
	return []Digest{{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
}

func assertRefused(t *testing.T, ev *Evidence, err error, want refusal.Code) {
	t.Helper()
	if err == nil || ev.Valid() {
		t.Fatalf("accepted, want %s", want)
	}
	if got := refusal.CodeOf(err); got != want {
		t.Fatalf("refused with %v, want %s", err, want)
	}
}
