package notary

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// VerifierConfig configures a Verifier. Its zero value is usable.
type VerifierConfig struct {
	Now    func() time.Time // time.Now if nil
	Logger *slog.Logger     // none if nil
	// RevocationTTL is how long AWS Signer's word counts: 30 s if zero, 5 minutes at most.
	RevocationTTL time.Duration
}

const (
	defaultRevocationTTL = 30 * time.Second
	maxRevocationTTL     = 5 * time.Minute
	// maxRemembered bounds what is remembered, some 3 KiB each.
	maxRemembered = 4096
)

// Verifier turns signatures into Evidence. It is safe for concurrent use.
type Verifier struct {
	trust       *trusted
	revocations *answers
	now         func() time.Time
	// known remembers what does not change: signatures that verified, by the bytes of
	// envelope and JWS. What depends on the time of day is checked each time.
	known *lru.Cache[pair, *signature]
}

// pair is SHA-256 of the envelope, and of the JWS.
type pair [2][sha256.Size]byte

// signature is a signature that passed every check that does not depend on now.
type signature struct {
	envelope       [sha256.Size]byte
	predicateType  string
	profile        profileARN
	job            string
	signed, expiry time.Time
	query          RevocationQuery
	queryKey       [sha256.Size]byte
}

// NewVerifier checks the trust it is given: NOTARY_TRUST_INVALID.
func NewVerifier(trust Trust, revocations Revocations, cfg VerifierConfig) (*Verifier, error) {
	t, err := trust.check()
	if err != nil {
		return nil, err
	}
	switch {
	case revocations == nil:
		return nil, refusal.New(CodeTrustInvalid, "nobody to ask about revocation").InField("revocations")
	case cfg.RevocationTTL < 0 || cfg.RevocationTTL > maxRevocationTTL:
		return nil, refusal.New(CodeTrustInvalid, "%s; at most %s is accepted", cfg.RevocationTTL, maxRevocationTTL).InField("revocation_ttl")
	case cfg.RevocationTTL == 0:
		cfg.RevocationTTL = defaultRevocationTTL
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	known, err := lru.New[pair, *signature](maxRemembered)
	if err != nil {
		return nil, err
	}
	asked, err := newAnswers(revocations, &cfg)
	if err != nil {
		return nil, err
	}
	return &Verifier{trust: t, revocations: asked, now: cfg.Now, known: known}, nil
}

// Verify verifies a JWS over exactly these bytes of a DSSE envelope. The signatures inside
// the envelope are not its matter.
func (v *Verifier) Verify(ctx context.Context, envelope, jws []byte) (*Evidence, error) {
	if len(envelope) == 0 || len(envelope) > attest.MaxBundleBytes {
		return nil, malformed("envelope", "%d bytes; 1 to %d are accepted", len(envelope), attest.MaxBundleBytes)
	}
	return v.verify(ctx, &signedEnvelope{raw: envelope, sha256: sha256.Sum256(envelope)}, jws)
}

func (v *Verifier) verify(ctx context.Context, e *signedEnvelope, jws []byte) (*Evidence, error) {
	if len(jws) > MaxSignatureBytes {
		return nil, malformed("signature", "%d bytes; at most %d are accepted", len(jws), MaxSignatureBytes)
	}
	key := pair{e.sha256, sha256.Sum256(jws)}
	s, ok := v.known.Get(key)
	if !ok {
		var err error
		if s, err = v.static(ctx, e, jws); err != nil {
			return nil, err
		}
		v.known.Add(key, s)
	}
	if err := s.checkNow(v.now()); err != nil {
		return nil, err
	}
	revoked, err := v.revocations.get(ctx, s)
	if err != nil {
		return nil, err
	}
	return &Evidence{signature: s, revoked: revoked}, nil
}

// static makes every check that does not depend on the time of day.
func (v *Verifier) static(ctx context.Context, e *signedEnvelope, jws []byte) (*signature, error) {
	t, err := parseToken(jws)
	if err != nil {
		return nil, err
	}
	if err := t.verifySignature(); err != nil {
		return nil, err
	}
	if err := v.trust.checkChain(t.chain, t.signed); err != nil {
		return nil, err
	}
	if !v.trust.allows(t.profile) {
		return nil, refusal.New(CodeProfileNotAllowed, "%s is not a profile version that is trusted", t.profile)
	}
	digest, err := t.target.checkIs(e)
	if err != nil {
		return nil, err
	}
	if err := v.judge(ctx, jws, t, digest, len(e.raw)); err != nil {
		return nil, err
	}
	s := &signature{
		envelope: e.sha256, predicateType: t.target.Annotations[AnnotationPredicateType],
		profile: t.profile, job: t.header.Job, signed: t.signed, expiry: t.expiry,
		query: RevocationQuery{
			Region: t.profile.region, ProfileVersion: t.header.Profile, Job: t.header.Job,
			SigningTime: t.signed, CertificateHashes: certificateHashes(t.chain),
		},
	}
	s.queryKey = s.query.key()
	return s, nil
}

func (s *signature) checkNow(now time.Time) error {
	if ahead := s.signed.Sub(now); ahead > maxClockSkew {
		return refusal.New(CodeTimeInvalid, "%s is %s in the future; at most %s is accepted", headerTime, ahead, maxClockSkew)
	}
	if !now.Before(s.expiry) {
		return refusal.New(CodeExpired, "%s was %s", headerExpiry, s.expiry.Format(time.RFC3339))
	}
	return nil
}

// checkChain wants every certificate that is there to be part of one chain to a root, in
// order and valid at the time.
func (t *trusted) checkChain(chain []*x509.Certificate, at time.Time) error {
	for i, cert := range chain {
		if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
			return refusal.New(CodeTimeInvalid, "%s is %s; certificate %d was valid from %s to %s", headerTime,
				at.Format(time.RFC3339), i, cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	key := chainKey(chain)
	if t.chains.Contains(key) {
		return nil
	}
	if err := t.checkIssued(chain, at); err != nil {
		return err
	}
	t.chains.Add(key, struct{}{})
	return nil
}

// checkIssued makes the checks of a chain that hold for good, as long as every certificate
// is valid at the time. Signer uses a certificate for days and P-384 is slow, so
// chains that pass are remembered.
func (t *trusted) checkIssued(chain []*x509.Certificate, at time.Time) error {
	last := len(chain) - 1
	if !slices.ContainsFunc(t.roots, chain[last].Equal) {
		return refusal.New(CodeUntrusted, "the chain does not end in a root that is trusted")
	}
	if chain[0].IsCA {
		return refusal.New(CodeUntrusted, "the signing certificate is an authority's")
	}
	intermediates := x509.NewCertPool()
	for i, cert := range chain[:last] {
		if err := cert.CheckSignatureFrom(chain[i+1]); err != nil {
			return refusal.New(CodeUntrusted, "certificate %d is not issued by the next: %w", i, err)
		}
		if i > 0 {
			intermediates.AddCert(cert)
		}
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: intermediates, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}); err != nil {
		return refusal.New(CodeUntrusted, "%w", err)
	}
	return notationChain(chain)
}

func chainKey(chain []*x509.Certificate) (key [sha256.Size]byte) {
	h := sha256.New()
	for _, cert := range chain {
		sum := sha256.Sum256(cert.Raw)
		h.Write(sum[:])
	}
	h.Sum(key[:0])
	return key
}

// certificateHashes identifies certificates as GetRevocationStatus wants it: the digest of
// each and that of its issuer, the root being its own.
func certificateHashes(chain []*x509.Certificate) []string {
	own := make([]string, len(chain))
	for i, cert := range chain {
		sum := sha512.Sum384(cert.RawTBSCertificate)
		own[i] = hex.EncodeToString(sum[:])
	}
	out := make([]string, len(chain))
	for i := range own {
		out[i] = own[i] + own[min(i+1, len(own)-1)]
	}
	return out
}

// signedEnvelope is the artifact.
type signedEnvelope struct {
	raw           []byte
	sha256        [sha256.Size]byte
	predicateType string // "": not read yet
}

// readPredicateType reads the type of the statement inside.
func (e *signedEnvelope) readPredicateType() (string, error) {
	if e.predicateType != "" {
		return e.predicateType, nil
	}
	env, err := attest.ParseEnvelope(e.raw)
	if err != nil {
		return "", refusal.New(CodeMalformed, "%w", err).InField("envelope")
	}
	if env.PayloadType != attest.PayloadTypeInToto {
		return "", malformed("envelope", "a payload of type %.80q, want %s", env.PayloadType, attest.PayloadTypeInToto)
	}
	st, err := attest.ParseStatement(env.Payload)
	if err != nil {
		return "", refusal.New(CodeMalformed, "%w", err).InField("envelope.payload")
	}
	e.predicateType = st.PredicateType
	return e.predicateType, nil
}

// checkIs compares all of a descriptor with what the envelope itself says, and returns the
// envelope's digest as it is computed here.
func (t *target) checkIs(e *signedEnvelope) (string, error) {
	mismatch := func(field, format string, args ...any) (string, error) {
		return "", refusal.New(CodeDescriptorMismatch, format, args...).InField("targetArtifact." + field)
	}
	if strings.HasPrefix(t.MediaType, "application/vnd.oci.") || strings.HasPrefix(t.MediaType, "application/vnd.docker.") {
		return "", refusal.New(CodeMediaType, "the signature is over %.120q, which is no attestation", t.MediaType).InField("targetArtifact.mediaType")
	}
	if t.MediaType != MediaTypeEnvelope {
		return mismatch("mediaType", "%.120q, want %s", t.MediaType, MediaTypeEnvelope)
	}
	if t.Size != int64(len(e.raw)) {
		return mismatch("size", "%d, but the envelope has %d bytes", t.Size, len(e.raw))
	}
	digest := "sha256:" + hex.EncodeToString(e.sha256[:])
	if strings.HasPrefix(t.Digest, "sha384:") {
		h := sha512.Sum384(e.raw)
		digest = "sha384:" + hex.EncodeToString(h[:])
	}
	if t.Digest != digest {
		return mismatch("digest", "%.120q, but the envelope has %s", t.Digest, digest)
	}
	// Nothing but the predicate type: an annotation that nobody checks would look signed for.
	signed, ok := t.Annotations[AnnotationPredicateType]
	if !ok || len(t.Annotations) != 1 {
		return mismatch("annotations", "%d annotations, want %s alone", len(t.Annotations), AnnotationPredicateType)
	}
	inside, err := e.readPredicateType()
	if err != nil {
		return "", err
	}
	if signed != inside {
		return mismatch("annotations", "%s is %.120q, but the statement's is %.120q", AnnotationPredicateType, signed, inside)
	}
	return digest, nil
}
