package verify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeJudgeDisagrees refuses a bundle that passed every check here and that sigstore-go
// does not accept. No known bundle is refused so; one that is shows a fault in one of
// the two, and until it is known which, the answer is no.
const CodeJudgeDisagrees refusal.Code = "JUDGE_DISAGREES"

// trustWithKey is the root together with the one key that may have signed, if it was a key.
type trustWithKey struct {
	*sgroot.TrustedRoot
	key *trustedKey
}

// PublicKeyVerifier gives sigstore-go the key, whatever the hint: findKey has chosen.
func (m trustWithKey) PublicKeyVerifier(string) (sgroot.TimeConstrainedVerifier, error) {
	if m.key == nil {
		return nil, errors.New("no key")
	}
	return timedKey{m.key.verifier, m.key}, nil
}

// timedKey is a key as sigstore-go wants it: a verifier that knows its window.
type timedKey struct {
	signature.Verifier
	key *trustedKey
}

// ValidAtTime completes sigstore-go's TimeConstrainedVerifier.
func (k timedKey) ValidAtTime(t time.Time) bool { return k.key.checkTime(t) == nil }

var _ sgroot.TimeConstrainedVerifier = timedKey{}

// judge has sigstore-go verify the bundle from its raw bytes, on its own. matched are
// the digests that the statement shares with the artifact.
func (v *Verifier) judge(raw []byte, s *signer, x *expected, matched []Digest) (err error) {
	// A panic in foreign code over hostile bytes is a refusal, not the end of the service.
	defer func() {
		if p := recover(); p != nil {
			err = refusal.New(CodeJudgeDisagrees, "sigstore-go panicked: %v", p)
		}
	}()
	b := new(sgbundle.Bundle)
	if err := b.UnmarshalJSON(raw); err != nil {
		return refusal.New(CodeJudgeDisagrees, "sigstore-go cannot read the bundle: %w", err)
	}
	options := []sgverify.VerifierOption{
		sgverify.WithTransparencyLog(1), sgverify.WithObserverTimestamps(1), sgverify.WithoutStatementPredicate(),
	}
	if s.cert != nil && len(v.root.sigstore.CTLogs()) > 0 {
		options = append(options, sgverify.WithSignedCertificateTimestamps(1))
	}
	verifier, err := sgverify.NewVerifier(trustWithKey{v.root.sigstore, s.key}, options...)
	if err != nil {
		return refusal.New(CodeJudgeDisagrees, "%w", err)
	}
	policy, err := judgePolicy(x, matched)
	if err != nil {
		return refusal.New(CodeJudgeDisagrees, "%w", err)
	}
	if _, err := verifier.Verify(b, policy); err != nil {
		return refusal.New(CodeJudgeDisagrees, "sigstore-go refuses: %w", err)
	}
	return nil
}

func judgePolicy(x *expected, matched []Digest) (sgverify.PolicyBuilder, error) {
	artifact := sgverify.WithoutArtifactUnsafe()
	if !x.AnyArtifact {
		digests := make([]sgverify.ArtifactDigest, len(matched))
		for i, d := range matched {
			raw, err := hex.DecodeString(d.Hex)
			if err != nil {
				return sgverify.PolicyBuilder{}, err
			}
			digests[i] = sgverify.ArtifactDigest{Algorithm: d.Algorithm, Digest: raw}
		}
		artifact = sgverify.WithArtifactDigests(digests)
	}
	if x.Identity == nil {
		return sgverify.NewPolicy(artifact, sgverify.WithKey()), nil
	}
	pattern := ""
	if x.san != nil {
		pattern = x.san.String()
	}
	id, err := sgverify.NewShortCertificateIdentity(x.Identity.Issuer, "", x.Identity.SAN, pattern)
	if err != nil {
		return sgverify.PolicyBuilder{}, fmt.Errorf("identity: %w", err)
	}
	return sgverify.NewPolicy(artifact, sgverify.WithCertificateIdentity(id)), nil
}
