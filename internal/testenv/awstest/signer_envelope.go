package awstest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"
)

const (
	payloadFormat    = "application/vnd.cncf.notary.payload.v1+json"
	signerPlugin     = "com.amazonaws.signer.notation.plugin"
	attributePlugin  = "io.cncf.notary.verificationPlugin"
	attributeProfile = "com.amazonaws.signer.signingProfileVersion"
	attributeJob     = "com.amazonaws.signer.signingJob"
)

// notaryPayload is what is signed: a descriptor of an artifact.
type notaryPayload struct {
	TargetArtifact struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	} `json:"targetArtifact"`
}

// envelope signs a payload as the job, with the JWS JSON envelope of the Notary
// Project in its scheme for signing authorities, or with what a fault makes of it.
func (w *World) envelope(job *signerJob, payload notaryPayload, f SignerFault) []byte {
	p, now := job.profile, w.now().UTC().Truncate(time.Second)
	chain, forged := w.data.signer.chains()
	if f.OtherChain {
		chain = forged
	}
	certificates := chain.certificates
	request := &signature.SignRequest{
		SigningTime: now, Expiry: p.expiry(now), SigningAgent: "AWS Signer/1.0",
		SigningScheme:            signature.SigningSchemeX509SigningAuthority,
		ExtendedSignedAttributes: job.attributes(f),
	}
	switch {
	case f.Expired:
		request.SigningTime, request.Expiry = now.Add(-time.Hour), now.Add(-time.Minute)
	case f.Future:
		request.SigningTime = now.AddDate(0, 0, 1)
		request.Expiry = p.expiry(request.SigningTime)
	}
	if f.NoExpiry {
		request.Expiry = time.Time{}
	}
	if f.WrongScheme {
		request.SigningScheme = signature.SigningSchemeX509
	}
	if f.WrongDescriptor {
		payload.TargetArtifact.Digest = "sha256:" + randomHex(32)
	}
	if f.WrongSize {
		payload.TargetArtifact.Size++
	}
	if f.WrongMediaType {
		payload.TargetArtifact.MediaType = "application/vnd.oci.image.manifest.v1+json"
	}
	request.Payload = signature.Payload{ContentType: payloadFormat, Content: mustJSON(payload)}
	signer, err := signature.NewLocalSigner(certificates, chain.key)
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	request.Signer = signer
	out, err := jws.NewEnvelope().Sign(request)
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	return f.spoil(out)
}

// attributes are the signed attributes of Signer.
func (job *signerJob) attributes(f SignerFault) []signature.Attribute {
	critical := !f.NoCritical
	profile, id, plugin := job.profile.VersionARN(), job.arn, signerPlugin
	if f.WrongProfile {
		profile = job.profile.ARN() + "_other/" + randomText(10, alphanumeric{})
	}
	if f.WrongJob {
		id += "0"
	}
	if f.WrongPlugin {
		plugin = "com.example.plugin"
	}
	var out []signature.Attribute
	if !f.NoPlugin {
		out = append(out, signature.Attribute{Key: attributePlugin, Critical: critical, Value: plugin})
	}
	if !f.NoProfile {
		out = append(out, signature.Attribute{Key: attributeProfile, Critical: critical, Value: profile})
	}
	if !f.NoJob {
		out = append(out, signature.Attribute{Key: attributeJob, Critical: critical, Value: id})
	}
	if f.UnknownCritical {
		out = append(out, signature.Attribute{Key: "com.example.unknown", Critical: true, Value: "1"})
	}
	return out
}

// spoil changes a finished envelope as the fault says.
func (f SignerFault) spoil(envelope []byte) []byte {
	if f.Truncate {
		return envelope[:len(envelope)/2]
	}
	if !f.FlipBit && !f.ShortChain {
		return envelope
	}
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	if f.FlipBit {
		raw, err := base64.RawURLEncoding.DecodeString(e["signature"].(string))
		if err != nil {
			panic(fmt.Sprintf("awstest: %v", err))
		}
		raw[0] ^= 1
		e["signature"] = base64.RawURLEncoding.EncodeToString(raw)
	}
	if f.ShortChain {
		header := e["header"].(map[string]any)
		header["x5c"] = header["x5c"].([]any)[:2]
	}
	return mustJSON(e)
}
