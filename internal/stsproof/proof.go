package stsproof

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeProofInvalid: a part of a proof that is not of its form.
	CodeProofInvalid refusal.Code = "STS_PROOF_INVALID"
	// CodeRegionUnknown: not the name of an AWS region.
	CodeRegionUnknown refusal.Code = "AWS_REGION_UNKNOWN"
	// CodeCredentialsLongLived: an access key that does not expire: of an IAM user
	// or a root account, and never of a role.
	CodeCredentialsLongLived refusal.Code = "AWS_CREDENTIALS_LONG_LIVED"
)

const (
	// NonceBytes is the length of a challenge.
	NonceBytes = 32
	// DateFormat is the form of Proof.Date.
	DateFormat = "20060102T150405Z"

	// maxTokenBytes bounds the session token. AWS gives 4096 as its own limit and
	// warns that tokens grow.
	maxTokenBytes    = 8 << 10
	maxAudienceBytes = 512
	signatureBytes   = sha256.Size
)

// The fixed parts of the request.
const (
	body           = "Action=GetCallerIdentity&Version=2011-06-15"
	contentType    = "application/x-www-form-urlencoded"
	accept         = "application/json"
	service        = "sts"
	signedHeaders  = "accept;content-length;content-type;host;x-amz-date;x-amz-security-token;x-assay-audience;x-assay-nonce;x-assay-request-sha256"
	headerDate     = "X-Amz-Date"
	headerToken    = "X-Amz-Security-Token"
	headerAudience = "X-Assay-Audience"
	headerNonce    = "X-Assay-Nonce"
	headerHash     = "X-Assay-Request-Sha256"
	hashDomain     = "assay sts proof v1\x00"
	userAgent      = "assay"
)

var (
	reAccessKeyID  = regexp.MustCompile(`^ASIA[A-Z0-9]{12,60}$`)
	reLongLivedKey = regexp.MustCompile(`^AKIA[A-Z0-9]{12,60}$`)
	reToken        = regexp.MustCompile(`^[A-Za-z0-9+/_-]+={0,2}$`)
	reBuildID      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:/_-]{0,511}$`)
	// Visible ASCII: SigV4 folds spaces, so with them two audiences could sign alike.
	reAudience = regexp.MustCompile(`^[!-~]+$`)
)

// Proof is what a client sends of the request that it signed.
type Proof struct {
	AccessKeyID string
	Region      string
	// Date is X-Amz-Date, in DateFormat.
	Date         string
	SessionToken string
	// Signature is of 32 bytes: the number, not its hexadecimal text.
	Signature []byte
	Nonce     []byte
	// BuildID is the CodeBuild build the client says it is; empty for a plain role.
	BuildID string
}

// String names what is not secret, so that a proof printed or logged by mistake
// gives nothing away.
func (p Proof) String() string { return fmt.Sprintf("STS proof for region %q", p.Region) }

// GoString is String, for %#v.
func (p Proof) GoString() string { return p.String() }

// LogValue is String, for log/slog.
func (p Proof) LogValue() slog.Value { return slog.StringValue(p.String()) }

// Sign signs the request with creds, which must be those of a role session.
func Sign(ctx context.Context, creds aws.Credentials, region, audience string, nonce []byte, buildID string, now time.Time) (*Proof, error) {
	p := &Proof{
		AccessKeyID: creds.AccessKeyID, SessionToken: creds.SessionToken, Region: region,
		Date: now.UTC().Format(DateFormat), Nonce: nonce, BuildID: buildID,
	}
	req, err := p.unsigned(ctx, audience)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(hash[:]), service, region, now.UTC()); err != nil {
		return nil, refusal.New(CodeProofInvalid, "the request could not be signed: %w", err)
	}
	// The service will write this header itself; if the signer does not sign what
	// the service is going to send, say so here rather than there.
	signature, ok := strings.CutPrefix(req.Header.Get("Authorization"), p.authorization(""))
	if !ok {
		return nil, refusal.New(CodeProofInvalid, "the signer signed other headers than the fixed ones")
	}
	if p.Signature, err = hex.DecodeString(signature); err != nil || len(p.Signature) != signatureBytes {
		return nil, refusal.New(CodeProofInvalid, "the signer's signature is malformed").InField("signature")
	}
	return p, nil
}

// Request rebuilds the signed request, byte for byte as the package comment has
// it, from p and the caller's own audience. It refuses a field that is not of its
// form, and never quotes one that may be secret. The two headers that are not
// signed, Accept-Encoding and User-Agent, are fixed too.
func (p *Proof) Request(ctx context.Context, audience string) (*http.Request, error) {
	req, err := p.unsigned(ctx, audience)
	if err != nil {
		return nil, err
	}
	if len(p.Signature) != signatureBytes {
		return nil, invalid("signature", "%d bytes; %d are needed", len(p.Signature), signatureBytes)
	}
	req.Header.Set("Authorization", p.authorization(hex.EncodeToString(p.Signature)))
	req.Header.Set("User-Agent", userAgent)
	// A compressed answer could be far larger than the reader's limit on it.
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// SignedAt returns the time of Date.
func (p *Proof) SignedAt() (time.Time, error) {
	t, err := time.Parse(DateFormat, p.Date)
	// time.Parse is lenient with fractions; a date has one spelling.
	if err != nil || t.Format(DateFormat) != p.Date {
		return time.Time{}, invalid("date", "not of the form YYYYMMDDThhmmssZ")
	}
	return t, nil
}

// unsigned returns the request with every header that is to be signed.
func (p *Proof) unsigned(ctx context.Context, audience string) (*http.Request, error) {
	host, err := p.check(audience)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/", strings.NewReader(body))
	if err != nil {
		return nil, refusal.New(CodeProofInvalid, "no request can be made of it")
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set(headerDate, p.Date)
	req.Header.Set(headerToken, p.SessionToken)
	req.Header.Set(headerAudience, audience)
	req.Header.Set(headerNonce, base64.RawURLEncoding.EncodeToString(p.Nonce))
	req.Header.Set(headerHash, requestHash(audience, p.Nonce, p.BuildID))
	return req, nil
}

// check holds every field but the signature against its form, and returns the host.
func (p *Proof) check(audience string) (host string, err error) {
	host, _, ok := Endpoint(p.Region)
	if !ok {
		return "", refusal.New(CodeRegionUnknown, "%.64q is not the name of an AWS region", p.Region).InField("region")
	}
	if _, err := p.SignedAt(); err != nil {
		return "", err
	}
	switch {
	case !ValidAudience(audience):
		return "", invalid("audience", "must be 1 to %d visible ASCII characters", maxAudienceBytes)
	case reLongLivedKey.MatchString(p.AccessKeyID):
		return "", refusal.New(CodeCredentialsLongLived, "the access key is a long-lived one, of a user; a role session is needed").InField("access_key_id")
	case !reAccessKeyID.MatchString(p.AccessKeyID):
		return "", invalid("access_key_id", "not the key id of temporary credentials")
	case p.SessionToken == "" || len(p.SessionToken) > maxTokenBytes:
		return "", invalid("session_token", "%d bytes; 1 to %d are accepted", len(p.SessionToken), maxTokenBytes)
	case !reToken.MatchString(p.SessionToken):
		return "", invalid("session_token", "not base64")
	case len(p.Nonce) != NonceBytes:
		return "", invalid("nonce", "%d bytes; %d are needed", len(p.Nonce), NonceBytes)
	case p.BuildID != "" && !reBuildID.MatchString(p.BuildID):
		return "", invalid("build_id", "not the id or ARN of a build")
	}
	return host, nil
}

// ValidAudience reports whether audience can stand in a signed header, with one
// spelling only.
func ValidAudience(audience string) bool {
	return len(audience) <= maxAudienceBytes && reAudience.MatchString(audience)
}

func (p *Proof) authorization(signature string) string {
	return "AWS4-HMAC-SHA256 Credential=" + p.AccessKeyID + "/" + p.Date[:len("20060102")] + "/" + p.Region + "/" + service +
		"/aws4_request, SignedHeaders=" + signedHeaders + ", Signature=" + signature
}

func requestHash(audience string, nonce []byte, buildID string) string {
	in := []byte(hashDomain)
	for _, part := range [...]string{audience, string(nonce), buildID} {
		in = binary.BigEndian.AppendUint64(in, uint64(len(part)))
		in = append(in, part...)
	}
	sum := sha256.Sum256(in)
	return hex.EncodeToString(sum[:])
}

func invalid(field, format string, args ...any) error {
	return refusal.New(CodeProofInvalid, format, args...).InField(field)
}
