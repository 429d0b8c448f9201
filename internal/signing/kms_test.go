package signing_test

import (
	"crypto"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/mldsakey"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

func TestCoSignatures(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	if l.open(signing.Config{}).CoSigner() != nil {
		t.Fatal("a co-signature key from nowhere")
	}
	l.change(signing.AddKey{Role: signing.RoleCoSignature})
	file := l.active(signing.RoleCoSignature, "")
	if file.Ref != "file:cosignature.pem" {
		t.Errorf("ref %q", file.Ref)
	}
	check := func(want string) *signing.Keyset {
		t.Helper()
		ks := l.open(signing.Config{})
		s := ks.CoSigner()
		sig, err := s.SignMessage(t.Context(), []byte("message"))
		if err != nil || s.KeyID() != want || mldsakey.Verify(s.PublicKey(), []byte("message"), sig) != nil {
			t.Fatalf("%s: %v", s.KeyID(), err)
		}
		return ks
	}
	check(file.KeyID)
	_, ref := l.kmsKey("ML_DSA_65")
	l.change(signing.RotateKey{Role: signing.RoleCoSignature, Ref: ref})
	ks := check(l.active(signing.RoleCoSignature, "").KeyID)
	if k := verifierKey(ks, file.KeyID); k.Role != signing.RoleCoSignature || k.NotAfter.IsZero() {
		t.Errorf("%+v", k)
	}
	if strings.Contains(ks.AttestationKeysPEM(), string(file.PEM())) {
		t.Error("a co-signature key is in the list of attestation keys")
	}
	for _, spec := range []awstest.KeySpec{"ML_DSA_44", "ECC_NIST_P256"} {
		_, ref := l.kmsKey(spec)
		if err := l.try(signing.RotateKey{Role: signing.RoleCoSignature, Ref: ref}); err == nil {
			t.Errorf("a %s key signs messages", spec)
		}
	}
	l.openers.KMSMessage = nil
	if _, err := l.tryOpen(signing.Config{}); codeOf(err) != signing.CodeKeySchemeUnsupported {
		t.Errorf("opened without a way to KMS: %v", err)
	}
}

// Keys in AWS KMS, of every kind that signs attestations.
func TestKMSKeys(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	for _, spec := range []awstest.KeySpec{"ECC_NIST_P256", "ECC_NIST_P384", "RSA_2048"} {
		_, ref := l.kmsKey(spec)
		l.at = l.at.Add(time.Hour)
		l.change(signing.RotateKey{Role: signing.RoleAttestation, Ref: ref})
		e := l.active(signing.RoleAttestation, "")
		if e.Ref != ref || e.Alias != "" {
			t.Errorf("%+v", e)
		}
		ks := l.open(signing.Config{})
		signs(t, ks, signing.RoleAttestation, "", e.KeyID)
		if k := verifierKey(ks, e.KeyID); k.PSS != strings.HasPrefix(string(spec), "RSA") {
			t.Errorf("%s: PSS %t", spec, k.PSS)
		}
		l.root(ks)
		l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeyChangeInvalid) // no alias says where to go
		l.refused(signing.RotateKey{Role: signing.RoleAttestation, Ref: ref}, signing.CodeKeyReused)
		l.refused(signing.AddKey{Role: signing.RoleAttestation, Tier: signing.TierBuild, Ref: ref}, signing.CodeKeyReused)
	}
	for _, role := range []signing.Role{signing.RoleLog, signing.RoleTimestamp} {
		for _, spec := range []awstest.KeySpec{"ECC_NIST_P384", "RSA_2048"} {
			_, ref := l.kmsKey(spec)
			l.refused(signing.RotateKey{Role: role, Ref: ref}, signing.CodeKeyChangeInvalid)
		}
		_, ref := l.kmsKey("ECC_NIST_P256")
		l.change(signing.RotateKey{Role: role, Ref: ref})
	}
	ks := l.open(signing.Config{})
	if _, err := ks.TSA().Timestamp(t.Context(), []byte("signature")); err != nil {
		t.Error(err)
	}
	calls := l.world.Count("kms", "")
	l.open(signing.Config{})
	if n := l.world.Count("kms", "") - calls; n != 0 {
		t.Errorf("opening asked AWS %d times", n)
	}
	l.openers.KMS = nil
	if _, err := l.tryOpen(signing.Config{}); codeOf(err) != signing.CodeKeySchemeUnsupported {
		t.Errorf("opened without a way to KMS: %v", err)
	}
}

// An alias is asked when keys are rotated and at no other time.
func TestKMSAlias(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	first := l.account.Key(region, "ECC_NIST_P256")
	l.account.Alias(region, "alias/assay", first)
	l.change(signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///alias/assay"})
	e := l.active(signing.RoleAttestation, "")
	if e.Ref != "awskms:///"+first.ARN() || e.Alias != "awskms:///alias/assay" {
		t.Fatalf("%+v", e)
	}
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeyReused)
	second := l.account.Key(region, "ECC_NIST_P256")
	l.account.UpdateAlias(region, "alias/assay", second)
	signs(t, l.open(signing.Config{}), signing.RoleAttestation, "", e.KeyID)
	plan, err := l.plan(signing.RotateKey{Role: signing.RoleAttestation})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, plan.Effects(), "signs in place of "+e.KeyID[:12], second.ARN())
	mentions(t, plan.Effects(), first.ARN(), "can be disabled")
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := l.active(signing.RoleAttestation, ""); e.Ref != "awskms:///"+second.ARN() || e.Alias != "awskms:///alias/assay" {
		t.Errorf("%+v", e)
	}
	// The old key does not come back by the alias either.
	l.account.UpdateAlias(region, "alias/assay", first)
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeyReused)
}

// A key that cannot sign is found before anything depends on it.
func TestTrialSignature(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	key, ref := l.kmsKey("ECC_NIST_P256")
	key.Fault(awstest.KMSFault{Action: "Sign", FlipBit: true})
	l.refused(signing.RotateKey{Role: signing.RoleAttestation, Ref: ref}, "KMS_SIGNATURE_INVALID")
	l.change(signing.AddKey{Role: signing.RoleAttestation, Ref: ref, SkipTrial: true})
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, "KMS_SIGNATURE_INVALID") // not promoted either
	l.change(signing.RotateKey{Role: signing.RoleAttestation, SkipTrial: true})
}

// What answers for a key has to be that key.
func TestOpenerOfAnotherKey(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	_, ref := l.kmsKey("ECC_NIST_P256")
	l.change(signing.RotateKey{Role: signing.RoleAttestation, Ref: ref})
	other, err := signing.OpenFile(filepath.Join(t.TempDir(), "other.pem"), true)
	if err != nil {
		t.Fatal(err)
	}
	l.openers.KMS = func(string, crypto.PublicKey) (signing.Signer, error) { return other, nil }
	if _, err := l.tryOpen(signing.Config{}); codeOf(err) != signing.CodeKeyMismatch {
		t.Errorf("%v", err)
	}
}
