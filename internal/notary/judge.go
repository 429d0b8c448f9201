package notary

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/notaryproject/notation-core-go/revocation"
	revocationresult "github.com/notaryproject/notation-core-go/revocation/result"
	nsignature "github.com/notaryproject/notation-core-go/signature"
	_ "github.com/notaryproject/notation-core-go/signature/jws" // the envelope format it registers
	nx509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/notaryproject/notation-plugin-framework-go/plugin"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	storeName = "aws-signer"
	// judgeScope stands where notation-go wants a repository. The name cannot exist (RFC 2606).
	judgeScope = "assay.invalid/envelope"
)

// judge has notation-go verify the JWS from its raw bytes, on its own, against an envelope of
// this digest and size, and then holds what it read and did against what was read here.
func (v *Verifier) judge(ctx context.Context, raw []byte, t *token, digest string, size int) (err error) {
	// A panic in foreign code over hostile bytes is a refusal, not the end of the service.
	defer func() {
		if p := recover(); p != nil {
			err = refusal.New(CodeSignatureInvalid, "notation-go panicked: %v", p)
		}
	}()
	p := &signerPlugin{trust: v.trust}
	judge, err := verifier.NewWithOptions(v.policy(), memoryStore{v.trust}, onePlugin{p}, verifier.VerifierOptions{
		RevocationCodeSigningValidator:  noRevocation{},
		RevocationTimestampingValidator: noRevocation{},
	})
	if err != nil {
		return refusal.New(CodeSignatureInvalid, "notation-go takes no policy: %w", err)
	}
	artifact := ocispec.Descriptor{MediaType: MediaTypeEnvelope, Size: int64(size)}
	setText(&artifact.Digest, digest)
	outcome, err := judge.Verify(ctx, artifact, raw, notation.VerifierVerifyOptions{
		ArtifactReference:  judgeScope + "@" + digest,
		SignatureMediaType: MediaTypeSignature,
	})
	if err != nil {
		return refusal.New(CodeSignatureInvalid, "notation-go refuses: %w", err)
	}
	if why := disagreement(outcome, t); why != "" {
		return refusal.New(CodeSignatureInvalid, "notation-go and this verifier disagree about %s", why)
	}
	if !p.identified {
		return refusal.New(CodeSignatureInvalid, "notation-go asked for no identity")
	}
	return nil
}

// setText assigns to a text of a named type.
func setText[T ~string](to *T, text string) { *to = T(text) }

// policy is notation-go's strict level but for two checks that are made here every time: expiry,
// by the injected clock, which notation-go measures by the machine's; and revocation, which
// is asked of AWS Signer.
func (v *Verifier) policy() *trustpolicy.Document {
	return &trustpolicy.Document{
		Version: "1.0",
		TrustPolicies: []trustpolicy.TrustPolicy{{
			Name:           "envelope",
			RegistryScopes: []string{judgeScope},
			SignatureVerification: trustpolicy.SignatureVerification{
				VerificationLevel: trustpolicy.LevelStrict.Name,
				Override: map[trustpolicy.ValidationType]trustpolicy.ValidationAction{
					trustpolicy.TypeExpiry:     trustpolicy.ActionLog,
					trustpolicy.TypeRevocation: trustpolicy.ActionSkip,
				},
			},
			TrustStores:       []string{string(truststore.TypeSigningAuthority) + ":" + storeName},
			TrustedIdentities: v.trust.arns,
		}},
	}
}

// disagreement names what notation-go saw otherwise, or did not check; "" if nothing.
func disagreement(outcome *notation.VerificationOutcome, t *token) string {
	if outcome == nil || outcome.Error != nil || outcome.EnvelopeContent == nil {
		return "the outcome"
	}
	for _, want := range []trustpolicy.ValidationType{
		trustpolicy.TypeIntegrity, trustpolicy.TypeAuthenticity, trustpolicy.TypeAuthenticTimestamp,
	} {
		made := false
		for _, r := range outcome.VerificationResults {
			if r.Type == want {
				made = r.Error == nil && r.Action == trustpolicy.ActionEnforce
			}
		}
		if !made {
			return string(want)
		}
	}
	content, signer := outcome.EnvelopeContent, &outcome.EnvelopeContent.SignerInfo
	switch attributes := &signer.SignedAttributes; {
	case !bytes.Equal(content.Payload.Content, t.content) || content.Payload.ContentType != contentType:
		return "the payload"
	case signer.SignatureAlgorithm != nsignature.AlgorithmES384 || !bytes.Equal(signer.Signature, t.signature):
		return "the signature"
	case attributes.SigningScheme != nsignature.SigningSchemeX509SigningAuthority:
		return "the scheme"
	case !attributes.SigningTime.Equal(t.signed) || !attributes.Expiry.Equal(t.expiry):
		return "the times"
	case !slices.EqualFunc(signer.CertificateChain, t.chain, (*x509.Certificate).Equal):
		return "the certificates"
	case len(attributes.ExtendedAttributes) != 3:
		return "the attributes"
	}
	for name, want := range map[string]string{headerPlugin: pluginName, headerProfile: t.header.Profile, headerJob: t.header.Job} {
		if a, err := signer.ExtendedAttribute(name); err != nil || a.Value != want {
			return name
		}
	}
	return ""
}

// memoryStore is a trust store without files.
type memoryStore struct{ trust *trusted }

// GetCertificates completes truststore.X509TrustStore.
func (s memoryStore) GetCertificates(_ context.Context, kind truststore.Type, name string) ([]*x509.Certificate, error) {
	if kind != truststore.TypeSigningAuthority || name != storeName {
		return nil, errors.New("no such trust store")
	}
	return s.trust.roots, nil
}

// noRevocation stands where notation-go would make an HTTP client.
type noRevocation struct{}

// ValidateContext completes revocation.Validator. It is never called, and never says yes.
func (noRevocation) ValidateContext(context.Context, revocation.ValidateContextOptions) ([]*revocationresult.CertRevocationResult, error) {
	return nil, errors.New("revocation is AWS Signer's to tell")
}

// onePlugin is a plugin manager without files or processes.
type onePlugin struct{ plugin *signerPlugin }

// Get completes notation-go's plugin.Manager.
func (m onePlugin) Get(_ context.Context, name string) (plugin.Plugin, error) {
	if name != pluginName {
		return nil, errors.New("no such plugin")
	}
	return m.plugin, nil
}

// List completes notation-go's plugin.Manager.
func (m onePlugin) List(context.Context) ([]string, error) { return []string{pluginName}, nil }

// signerPlugin plays AWS Signer's plugin as far as identity goes, and is stricter: whole
// ARNs with version, letter for letter. It serves one verification.
type signerPlugin struct {
	trust      *trusted
	identified bool
}

// GetMetadata completes plugin.GenericPlugin.
func (p *signerPlugin) GetMetadata(context.Context, *plugin.GetMetadataRequest) (*plugin.GetMetadataResponse, error) {
	return &plugin.GetMetadataResponse{
		Name: pluginName, Version: "1.0.0", SupportedContractVersions: []string{plugin.ContractVersion},
		Capabilities: []plugin.Capability{plugin.CapabilityTrustedIdentityVerifier},
	}, nil
}

// VerifySignature answers whether a pinned profile version signed.
func (p *signerPlugin) VerifySignature(_ context.Context, req *plugin.VerifySignatureRequest) (*plugin.VerifySignatureResponse, error) {
	if req.ContractVersion != plugin.ContractVersion || req.Signature.CriticalAttributes.SigningScheme != signingScheme ||
		!slices.Equal(req.TrustPolicy.SignatureVerification, []plugin.Capability{plugin.CapabilityTrustedIdentityVerifier}) {
		return nil, errors.New("a question that this plugin does not answer")
	}
	name, _ := req.Signature.CriticalAttributes.ExtendedAttributes[headerProfile].(string)
	version, ok := parseProfileARN(name)
	p.identified = ok && p.trust.allows(version)
	return &plugin.VerifySignatureResponse{
		VerificationResults: map[plugin.Capability]*plugin.VerificationResult{
			plugin.CapabilityTrustedIdentityVerifier: {Success: p.identified, Reason: "profile version"},
		},
		ProcessedAttributes: []any{headerProfile, headerJob},
	}, nil
}

var errSignsNothing = errors.New("this plugin signs nothing")

// DescribeKey completes plugin.SignPlugin.
func (*signerPlugin) DescribeKey(context.Context, *plugin.DescribeKeyRequest) (*plugin.DescribeKeyResponse, error) {
	return nil, errSignsNothing
}

// GenerateSignature completes plugin.SignPlugin.
func (*signerPlugin) GenerateSignature(context.Context, *plugin.GenerateSignatureRequest) (*plugin.GenerateSignatureResponse, error) {
	return nil, errSignsNothing
}

// GenerateEnvelope completes plugin.SignPlugin.
func (*signerPlugin) GenerateEnvelope(context.Context, *plugin.GenerateEnvelopeRequest) (*plugin.GenerateEnvelopeResponse, error) {
	return nil, errSignsNothing
}

// notationChain holds the chain to the Notary Project's own requirements of certificates,
// such as key usages, which crypto/x509 does not know.
func notationChain(chain []*x509.Certificate) error {
	if err := nx509.ValidateCodeSigningCertChain(chain, nil); err != nil {
		return refusal.New(CodeUntrusted, "%w", err)
	}
	return nil
}
