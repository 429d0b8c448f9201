package verify

import (
	"encoding/hex"

	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"encoding/base64"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeSignatureCount refuses an envelope that has not exactly one signature.
	CodeSignatureCount refusal.Code = "SIGNATURE_COUNT"
	// CodeSignatureInvalid refuses a signature that its key did not make over this content.
	CodeSignatureInvalid refusal.Code = "SIGNATURE_INVALID"
	// CodeArtifactMismatch refuses a good signature over another artifact.
	CodeArtifactMismatch refusal.Code = "ARTIFACT_MISMATCH"
	// CodeMessageDigestMismatch refuses a bundle whose unsigned digest contradicts the
	// artifact that its signature is over.
	CodeMessageDigestMismatch refusal.Code = "MESSAGE_DIGEST_MISMATCH"
	// CodeArtifactRequired refuses to judge a signature over an artifact without a
	// digest of that artifact in the algorithm of the signature.
	CodeArtifactRequired refusal.Code = "ARTIFACT_REQUIRED"
	// CodePayloadTypeUnknown refuses an envelope of anything but an in-toto statement.
	CodePayloadTypeUnknown refusal.Code = "PAYLOAD_TYPE_UNKNOWN"
	// CodePredicateTypeMismatch refuses a statement of another kind than was asked for.
	CodePredicateTypeMismatch refusal.Code = "PREDICATE_TYPE_MISMATCH"
	// CodeSubjectMismatch refuses a statement about other artifacts.
	CodeSubjectMismatch refusal.Code = "SUBJECT_MISMATCH"
)

// checkCount refuses what is not signed exactly once. SPEC (bundle): DSSE envelopes in
// a bundle MUST have exactly one signature.
func checkCount(f *foreign) error {
	if f.envelope != nil && len(f.envelope.sigs) != 1 {
		return refusal.New(CodeSignatureCount, "%d signatures, want exactly 1", len(f.envelope.sigs)).InField("dsseEnvelope.signatures")
	}
	if len(f.signature()) == 0 {
		return refusal.New(CodeSignatureCount, "an empty signature")
	}
	return nil
}

// signature is the one signature; call it after checkCount.
func (f *foreign) signature() []byte {
	if f.envelope != nil {
		return f.envelope.sigs[0]
	}
	return f.message.sig
}

// checkSignature verifies the signature over what the bundle carries or, for a
// signature over an artifact, over the digest that the caller has.
func (v *Verifier) checkSignature(f *foreign, s *signer, x *expected) error {
	if f.envelope != nil {
		if err := checkKeyID(f.envelope.keyid, s); err != nil {
			return err
		}
		env := &sgbundle.Envelope{Envelope: &dsse.Envelope{
			PayloadType: f.envelope.payloadType,
			Payload:     base64.StdEncoding.EncodeToString(f.envelope.payload),
			Signatures:  []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(f.envelope.sigs[0])}},
		}}
		if err := sgverify.VerifySignature(env, s, trustWithKey{v.root.sigstore, s.key}); err != nil {
			return refusal.New(CodeSignatureInvalid, "%w", err).InField("dsseEnvelope.signatures[0].sig")
		}
		return nil
	}
	return v.checkMessageSignature(f.message, s, x)
}

// checkKeyID refuses a keyid that is not the signer's. It is only a hint, but a false one
// makes sigstore-go skip the signature.
func checkKeyID(keyid string, s *signer) error {
	if keyid == "" {
		return nil
	}
	if want, err := Fingerprint(s.publicKey()); err != nil || keyid != want {
		return refusal.New(CodeKeyMismatch, "keyid %.80q, want %q or none", keyid, want).InField("dsseEnvelope.signatures[0].keyid")
	}
	return nil
}

// checkMessageSignature tells three things apart. The digest inside the bundle is an
// unsigned hint, and the artifact is the caller's; the signature says which is right.
func (v *Verifier) checkMessageSignature(m *message, s *signer, x *expected) error {
	var artifact []byte
	for _, d := range x.Artifact {
		if d.Algorithm == m.algorithm {
			artifact, _ = hex.DecodeString(d.Hex) // compile has checked it
		}
	}
	if artifact == nil {
		return refusal.New(CodeArtifactRequired, "the signature is over an artifact; its %s is needed", m.algorithm)
	}
	over := func(digest []byte) bool {
		content := sgbundle.NewMessageSignature(digest, m.algorithm, m.sig)
		return sgverify.VerifySignatureWithArtifactDigests(content, s, trustWithKey{v.root.sigstore, s.key},
			[]sgverify.ArtifactDigest{{Algorithm: m.algorithm, Digest: digest}}) == nil
	}
	switch same := string(artifact) == string(m.digest); {
	case over(artifact) && same:
		return nil
	case over(artifact):
		return refusal.New(CodeMessageDigestMismatch, "the bundle says %x, the signed artifact is %x", m.digest, artifact).
			InField("messageSignature.messageDigest.digest")
	case !same && over(m.digest):
		return refusal.New(CodeArtifactMismatch, "the signature is over %s:%x, the artifact is %x", m.algorithm, m.digest, artifact)
	}
	return refusal.New(CodeSignatureInvalid, "not over this artifact by this key").InField("messageSignature.signature")
}

// checkStatement reads the signed payload and holds it against what was asked for.
// Only what is inside the signature counts. It returns the digests that were matched.
func checkStatement(env *envelope, x *expected) (*attest.Statement, []Digest, error) {
	if env.payloadType != attest.PayloadTypeInToto {
		return nil, nil, refusal.New(CodePayloadTypeUnknown, "payload type %.80q", env.payloadType).InField("dsseEnvelope.payloadType")
	}
	st, err := attest.ParseStatement(env.payload)
	if err != nil {
		return nil, nil, err
	}
	if x.PredicateType != "" && st.PredicateType != x.PredicateType {
		return nil, nil, refusal.New(CodePredicateTypeMismatch, "the statement is %.120q, want %q", st.PredicateType, x.PredicateType)
	}
	if x.AnyArtifact {
		return st, nil, nil
	}
	for i := range st.Subjects {
		if matched := matchSubject(&st.Subjects[i], x.Artifact); len(matched) > 0 {
			return st, matched, nil
		}
	}
	return nil, nil, refusal.New(CodeSubjectMismatch, "none of %d subjects is %s:%s", len(st.Subjects), x.Artifact[0].Algorithm, x.Artifact[0].Hex)
}

// matchSubject returns the digests that subject and artifact share. One contradiction
// is none: an artifact cannot be half of a subject.
func matchSubject(s *attest.Subject, artifact []Digest) []Digest {
	var matched []Digest
	for _, d := range artifact {
		got, ok := s.Digest[d.Algorithm]
		switch {
		case ok && got != d.Hex:
			return nil
		case ok:
			matched = append(matched, d)
		}
	}
	return matched
}
