package notary

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

// Names and values of the protected header, from the Notary Project's specification of
// JWS envelopes and the documentation of AWS Signer.
const (
	algES384        = "ES384"
	contentType     = "application/vnd.cncf.notary.payload.v1+json"
	signingScheme   = "notary.x509.signingAuthority"
	pluginName      = "com.amazonaws.signer.notation.plugin"
	platform        = "Notation-OCI-SHA384-ECDSA"
	headerScheme    = "io.cncf.notary.signingScheme"
	headerTime      = "io.cncf.notary.authenticSigningTime"
	headerExpiry    = "io.cncf.notary.expiry"
	headerPlugin    = "io.cncf.notary.verificationPlugin"
	headerProfile   = "com.amazonaws.signer.signingProfileVersion"
	headerJob       = "com.amazonaws.signer.signingJob"
	p384FieldBytes  = 48
	maxCertificate  = 8 << 10
	maxProtected    = 4 << 10
	maxSigningAgent = 256
)

// token is a JWS that was read, and not yet verified. Nothing in it is to be believed.
type token struct {
	protected, payload string // as they were signed: base64url
	signature          []byte
	chain              []*x509.Certificate

	header  header
	target  target
	content []byte // the payload, decoded
	signed  time.Time
	expiry  time.Time
	profile profileARN
	job     jobARN
}

// header is the protected header of a signature by AWS Signer. It has no other members.
type header struct {
	Algorithm   string   `json:"alg"`
	ContentType string   `json:"cty"`
	Critical    []string `json:"crit"`
	Scheme      string   `json:"io.cncf.notary.signingScheme"`
	SigningTime string   `json:"io.cncf.notary.authenticSigningTime"`
	Expiry      string   `json:"io.cncf.notary.expiry"`
	Plugin      string   `json:"io.cncf.notary.verificationPlugin"`
	Profile     string   `json:"com.amazonaws.signer.signingProfileVersion"`
	Job         string   `json:"com.amazonaws.signer.signingJob"`
}

// target is the descriptor of what was signed, and the whole of a Notary payload.
type target struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type notaryPayload struct {
	TargetArtifact target `json:"targetArtifact"`
}

// parseToken reads a JWS in the flattened JSON serialization (RFC 7515, 7.2.2). What
// two readers could understand differently is refused, so notation-go, which reads it
// again with encoding/json, sees the same.
func parseToken(raw []byte) (*token, error) {
	var wire struct {
		Payload   string `json:"payload"`
		Protected string `json:"protected"`
		Header    struct {
			Chain []string `json:"x5c"`
			Agent string   `json:"io.cncf.notary.signingAgent"`
		} `json:"header"`
		Signature string `json:"signature"`
	}
	if len(raw) == 0 {
		return nil, malformed("signature", "no bytes")
	}
	if err := decode(raw, MaxSignatureBytes, "signature", &wire); err != nil {
		return nil, err
	}
	if len(wire.Header.Agent) > maxSigningAgent {
		return nil, malformed("header", "a signing agent of %d bytes; at most %d are accepted", len(wire.Header.Agent), maxSigningAgent)
	}
	t := &token{protected: wire.Protected, payload: wire.Payload}
	protected, ok := decodeBase64URL(wire.Protected)
	if !ok {
		return nil, malformed("protected", "not base64url, or empty")
	}
	if t.content, ok = decodeBase64URL(wire.Payload); !ok {
		return nil, malformed("payload", "not base64url, or empty")
	}
	if t.signature, ok = decodeBase64URL(wire.Signature); !ok {
		return nil, malformed("signature", "not base64url, or empty")
	}
	if err := decode(t.content, MaxPayloadBytes, "payload", &struct {
		TargetArtifact *target `json:"targetArtifact"`
	}{&t.target}); err != nil {
		return nil, err
	}
	if err := t.readHeader(protected); err != nil {
		return nil, err
	}
	return t, t.readChain(wire.Header.Chain)
}

// readHeader judges the algorithm before the attributes, so that a signature of another
// kind is refused for what it is.
func (t *token) readHeader(protected []byte) error {
	if err := attest.CheckJSON(protected, maxProtected); err != nil {
		return refusal.New(CodeMalformed, "%w", err).InField("protected")
	}
	if err := attest.DecodeStrict(protected, maxProtected, &t.header); err != nil {
		// Well formed, but with an attribute that is unknown or not text. RFC 7515 lets
		// one that is not critical be ignored; Signer sends none, and what is
		// signed and not understood is not vouched for here.
		return refusal.New(CodeAttributes, "%w", err).InField("protected")
	}
	h := &t.header
	if h.Algorithm != algES384 {
		return refusal.New(CodeAlgorithm, "alg is %.40q, want %s", h.Algorithm, algES384)
	}
	for _, want := range []struct{ name, have, want string }{
		{"cty", h.ContentType, contentType},
		{headerScheme, h.Scheme, signingScheme},
		{headerPlugin, h.Plugin, pluginName},
	} {
		if want.have != want.want {
			return refusal.New(CodeAttributes, "%s is %.80q, want %s", want.name, want.have, want.want)
		}
	}
	if err := checkCritical(h.Critical); err != nil {
		return err
	}
	var err error
	if t.signed, err = readTime(headerTime, h.SigningTime); err != nil {
		return err
	}
	if t.expiry, err = readTime(headerExpiry, h.Expiry); err != nil {
		return err
	}
	if !t.expiry.After(t.signed) {
		return refusal.New(CodeAttributes, "%s is %s, not after %s %s", headerExpiry, h.Expiry, headerTime, h.SigningTime)
	}
	return t.readNames()
}

// readNames reads who signed, and in which job. Both are of one region: GetRevocationStatus
// is asked about both at once.
func (t *token) readNames() error {
	var ok bool
	if t.profile, ok = parseProfileARN(t.header.Profile); !ok || t.profile.version == "" {
		return refusal.New(CodeAttributes, "%s is %.160q, not the ARN of a profile's version", headerProfile, t.header.Profile)
	}
	if t.job, ok = parseJobARN(t.header.Job); !ok {
		return refusal.New(CodeAttributes, "%s is %.160q, not the ARN of a signing job", headerJob, t.header.Job)
	}
	if t.job.partition != t.profile.partition || t.job.region != t.profile.region {
		return refusal.New(CodeAttributes, "%s and %s are of different regions", headerJob, headerProfile)
	}
	return nil
}

// checkCritical wants each attribute that decides to be critical, so that no verifier
// passes over it, and none that is not processed here (RFC 7515, 4.1.11). Profile version and
// job are processed whether they are critical or not.
func checkCritical(critical []string) error {
	must := []string{headerScheme, headerTime, headerExpiry, headerPlugin}
	may := []string{headerProfile, headerJob}
	for i, name := range critical {
		switch {
		case slices.Contains(critical[:i], name):
			return refusal.New(CodeAttributes, "crit names %.80q twice", name)
		case !slices.Contains(must, name) && !slices.Contains(may, name):
			return refusal.New(CodeAttributes, "crit names %.80q, which is not understood", name)
		}
	}
	for _, name := range must {
		if !slices.Contains(critical, name) {
			return refusal.New(CodeAttributes, "%s is not critical", name)
		}
	}
	return nil
}

func readTime(name, text string) (time.Time, error) {
	var at time.Time
	// UnmarshalText is stricter about RFC 3339 than time.Parse.
	if err := at.UnmarshalText([]byte(text)); err != nil || at.IsZero() {
		return time.Time{}, refusal.New(CodeAttributes, "%s is %.40q, not a time", name, text)
	}
	return at.UTC(), nil
}

// readChain reads the certificates, leaf first. The algorithm is the leaf's to allow: a
// header that says ES384 beside a key of another kind is refused.
func (t *token) readChain(x5c []string) error {
	if len(x5c) < 2 || len(x5c) > maxChain {
		return malformed("header.x5c", "%d certificates; 2 to %d are accepted", len(x5c), maxChain)
	}
	for i, text := range x5c {
		der, ok := decodeBase64(text)
		if !ok || len(der) > maxCertificate {
			return malformed("header.x5c", "certificate %d is not base64, or has more than %d bytes", i, maxCertificate)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return malformed("header.x5c", "certificate %d: %w", i, err)
		}
		t.chain = append(t.chain, cert)
	}
	key, ok := t.chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return refusal.New(CodeAlgorithm, "the signing certificate's key is not on P-384")
	}
	return nil
}

// verifySignature verifies ES384 (RFC 7518, 3.4): SHA-384, and r and s of 48 bytes each.
func (t *token) verifySignature() error {
	key, ok := t.chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || len(t.signature) != 2*p384FieldBytes {
		return refusal.New(CodeSignatureInvalid, "%d bytes, want %d", len(t.signature), 2*p384FieldBytes)
	}
	h := sha512.New384()
	h.Write([]byte(t.protected))
	h.Write([]byte{'.'})
	h.Write([]byte(t.payload))
	r := new(big.Int).SetBytes(t.signature[:p384FieldBytes])
	s := new(big.Int).SetBytes(t.signature[p384FieldBytes:])
	if !ecdsa.Verify(key, h.Sum(nil), r, s) {
		return refusal.New(CodeSignatureInvalid, "it is not the signing certificate's")
	}
	return nil
}

// decode is attest.DecodeStrict with the code of this package.
func decode(data []byte, limit int, field string, v any) error {
	if err := attest.DecodeStrict(data, limit, v); err != nil {
		return refusal.New(CodeMalformed, "%w", err).InField(field)
	}
	return nil
}

func malformed(field, format string, args ...any) error {
	return refusal.New(CodeMalformed, format, args...).InField(field)
}

// decodeBase64URL decodes unpadded base64url of one spelling: encoding/base64 alone skips
// line breaks, and would let one value be written in two ways.
func decodeBase64URL(text string) ([]byte, bool) {
	out, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return out, err == nil && len(out) > 0 && !strings.ContainsAny(text, "\r\n")
}

func decodeBase64(text string) ([]byte, bool) {
	out, err := base64.StdEncoding.Strict().DecodeString(text)
	return out, err == nil && len(out) > 0 && !strings.ContainsAny(text, "\r\n")
}
