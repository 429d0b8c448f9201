package notary

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signer"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// SignerConfig configures a Signer.
type SignerConfig struct {
	// AWS holds the credentials, which need signer:SignPayload, and the region of a
	// profile that Ref gives by its bare name.
	AWS aws.Config
	// Ref names the signing profile: see ParseRef.
	Ref string
	// Verifier verifies every signature before it is released. It must trust a version of
	// the profile.
	Verifier *Verifier

	Now           func() time.Time // time.Now if nil
	Logger        *slog.Logger     // none if nil
	Timeout       time.Duration    // of one signature, retries included; 5 s if zero
	MaxConcurrent int              // signatures under way; 32 if zero
	// Endpoint replaces AWS's own, for tests.
	Endpoint string
}

// Signer has AWS Signer sign envelopes. It is safe for concurrent use.
type Signer struct {
	service  *service
	ref      Ref // with a region
	verifier *Verifier
}

// NewSigner asks nothing of AWS yet. It refuses a profile of which no version is trusted:
// what that would sign could never be released.
func NewSigner(cfg SignerConfig) (*Signer, error) {
	ref, err := ParseRef(cfg.Ref)
	if err != nil {
		return nil, err
	}
	if ref.Region == "" {
		ref.Region = cfg.AWS.Region
	}
	if !isRegion(ref.Region) {
		return nil, refusal.New(CodeRefInvalid, "%s names no region, and there is no other", ref)
	}
	if cfg.Verifier == nil {
		return nil, refusal.New(CodeTrustInvalid, "nothing to verify signatures with").InField("verifier")
	}
	if !slices.ContainsFunc(cfg.Verifier.trust.profiles, ref.names) {
		return nil, refusal.New(CodeTrustInvalid, "no version of %s in %s is trusted", ref, ref.Region).InField("profile_versions")
	}
	s, err := newService(cfg.AWS, serviceConfig{
		region: ref.Region, endpoint: cfg.Endpoint, timeout: cfg.Timeout, maxConcurrent: cfg.MaxConcurrent,
		now: cfg.Now, log: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Signer{service: s, ref: ref, verifier: cfg.Verifier}, nil
}

// Sign returns a JWS over the descriptor of exactly these bytes of a DSSE envelope, whose
// statement must be of the predicate type given. The signature was verified, revocation
// included; what does not verify is not released.
func (s *Signer) Sign(ctx context.Context, envelope []byte, predicateType string) ([]byte, error) {
	if len(envelope) == 0 || len(envelope) > attest.MaxBundleBytes {
		return nil, malformed("envelope", "%d bytes; 1 to %d are accepted", len(envelope), attest.MaxBundleBytes)
	}
	e := &signedEnvelope{raw: envelope, sha256: sha256.Sum256(envelope)}
	payload, err := describe(e, predicateType)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.service.timeout)
	defer cancel()
	begun := s.service.now()
	out, err := s.ask(ctx, bounded, payload)
	if err != nil {
		return nil, err
	}
	ev, err := s.verifier.verify(bounded, e, out.Signature)
	switch refusal.CodeOf(err) {
	case "":
	case CodeRevocationUnknown, CodeProfileNotAllowed, CodeUntrusted: // who runs the service, or time, can mend these
		return nil, err
	default:
		return nil, refusal.New(CodeAnswerInvalid, "what AWS Signer returned does not verify: %w", err)
	}
	if err := s.checkAnswer(ev, out, begun); err != nil {
		return nil, err
	}
	return out.Signature, nil
}

// describe writes the payload that Signer signs.
func describe(e *signedEnvelope, predicateType string) ([]byte, error) {
	inside, err := e.readPredicateType()
	if err != nil {
		return nil, err
	}
	if predicateType != inside {
		return nil, refusal.New(CodeDescriptorMismatch, "predicate type %.120q, but the statement's is %.120q", predicateType, inside)
	}
	payload, err := json.Marshal(notaryPayload{target{
		MediaType:   MediaTypeEnvelope,
		Digest:      "sha256:" + hex.EncodeToString(e.sha256[:]),
		Size:        int64(len(e.raw)),
		Annotations: map[string]string{AnnotationPredicateType: predicateType},
	}})
	if err != nil {
		return nil, malformed("envelope", "%w", err)
	}
	if len(payload) > MaxPayloadBytes {
		return nil, refusal.New(CodePayloadTooLarge, "a descriptor of %d bytes; AWS Signer signs at most %d", len(payload), MaxPayloadBytes)
	}
	return payload, nil
}

func (s *Signer) ask(caller, ctx context.Context, payload []byte) (*signer.SignPayloadOutput, error) {
	in := &signer.SignPayloadInput{
		Payload:       payload,
		PayloadFormat: aws.String(contentType),
		ProfileName:   aws.String(s.ref.Profile),
	}
	if s.ref.Account != "" {
		in.ProfileOwner = aws.String(s.ref.Account)
	}
	var out *signer.SignPayloadOutput
	err := s.service.call(caller, ctx, "SignPayload", func() (err error) {
		out, err = s.service.client.SignPayload(ctx, in)
		return err
	})
	return out, err
}

// checkAnswer wants the signature to be the one that was asked for: by this profile, in
// this job, now. An older signature over the same envelope verifies as well.
func (s *Signer) checkAnswer(ev *Evidence, out *signer.SignPayloadOutput, begun time.Time) error {
	job, ok := parseJobARN(ev.Job())
	switch {
	case !s.ref.names(ev.signature.profile):
		return refusal.New(CodeAnswerInvalid, "%s signed, not %s", ev.ProfileVersion(), s.ref)
	case !ok || job.id != aws.ToString(out.JobId) || job.account != aws.ToString(out.JobOwner):
		return refusal.New(CodeAnswerInvalid, "the signature is of job %s, not of the one that AWS Signer names", ev.Job())
	case ev.SigningTime().Before(begun.Add(-maxClockSkew)):
		return refusal.New(CodeAnswerInvalid, "the signature was made at %s, before it was asked for", ev.SigningTime().Format(time.RFC3339))
	case ev.Revoked():
		return refusal.New(CodeRevoked, "AWS Signer has revoked what it signs with: %s", ev.RevokedEntities()[0])
	}
	return nil
}
