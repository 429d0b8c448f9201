package verify

import (
	"encoding/hex"
	"regexp"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeExpectationInvalid refuses a question that could be satisfied by nothing
	// in particular: no artifact, no signer, two signers, or half an identity.
	CodeExpectationInvalid refusal.Code = "EXPECTATION_INVALID"
	// CodeIdentityMismatch refuses a certificate for someone else.
	CodeIdentityMismatch refusal.Code = "IDENTITY_MISMATCH"
	// CodeIssuerMismatch refuses a certificate whose identity another provider vouched for.
	CodeIssuerMismatch refusal.Code = "ISSUER_MISMATCH"
)

// Digest is one digest of an artifact: "sha256" and lower-case hex.
type Digest struct{ Algorithm, Hex string }

// Identity is who must have signed. SAN and SANRegexp exclude each other and one of
// them is needed, and so is Issuer. A regular expression must match the whole name:
// it is anchored here, whether or not it is written so.
type Identity struct {
	SAN       string
	SANRegexp string
	Issuer    string // exact
}

// Expectation is what the caller needs to be true of a foreign bundle. Exactly one
// of Identity, Key and RootKey says who may have signed it; there is no "anyone".
type Expectation struct {
	// Artifact holds the digests of one artifact. Those in an algorithm that the
	// bundle uses must match, and at least one must be in such an algorithm.
	Artifact []Digest
	// AnyArtifact asks for no particular artifact. The statement's subjects are then
	// the answer, so it cannot be used with a signature over an artifact.
	AnyArtifact bool
	// PredicateType, unless empty, must be that of the signed statement.
	PredicateType string

	Identity *Identity
	Key      *PublicKey
	RootKey  bool // any key of the Root, found by the bundle's hint
}

// expected is an Expectation that was found to be complete.
type expected struct {
	Expectation
	san *regexp.Regexp
}

func (x Expectation) compile() (*expected, error) {
	signers := 0
	for _, set := range []bool{x.Identity != nil, x.Key != nil, x.RootKey} {
		if set {
			signers++
		}
	}
	if signers != 1 {
		return nil, refusal.New(CodeExpectationInvalid, "want exactly one of Identity, Key and RootKey, got %d", signers)
	}
	if x.AnyArtifact == (len(x.Artifact) > 0) {
		return nil, refusal.New(CodeExpectationInvalid, "want either the artifact's digests or AnyArtifact")
	}
	for _, d := range x.Artifact {
		if err := attest.CheckDigest(d.Algorithm, d.Hex); err != nil {
			return nil, refusal.New(CodeExpectationInvalid, "artifact digest: %v", err)
		}
		if _, err := hex.DecodeString(d.Hex); err != nil {
			return nil, refusal.New(CodeExpectationInvalid, "artifact digest: %v", err)
		}
	}
	e := &expected{Expectation: x}
	if x.Identity == nil {
		return e, nil
	}
	if x.Identity.Issuer == "" || (x.Identity.SAN == "") == (x.Identity.SANRegexp == "") {
		return nil, refusal.New(CodeExpectationInvalid, "an identity needs an issuer and either a name or a pattern")
	}
	if x.Identity.SANRegexp != "" {
		re, err := compileAnchored(x.Identity.SANRegexp)
		if err != nil {
			return nil, refusal.New(CodeExpectationInvalid, "identity pattern: %v", err)
		}
		e.san = re
	}
	return e, nil
}

// compileAnchored returns the pattern so that it matches whole names only. The
// pattern is compiled alone first: "a)|(?:.*" would otherwise close our group and
// leave its second half free. And it is \A…\z, not ^…$, which a (?m) inside the
// pattern would turn into line anchors.
func compileAnchored(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// checkIdentity compares what the certificate says with what was expected.
func (x *expected) checkIdentity(san, issuer string) error {
	if issuer != x.Identity.Issuer {
		return refusal.New(CodeIssuerMismatch, "certificate names issuer %q, expected %q", issuer, x.Identity.Issuer)
	}
	if x.san != nil && x.san.MatchString(san) || x.san == nil && san == x.Identity.SAN {
		return nil
	}
	return refusal.New(CodeIdentityMismatch, "certificate names %q", san)
}
