package awstest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// signerAction names the operation of a request. GetRevocationStatus has a host of
// its own, where nothing else is answered.
func signerAction(e endpoint, r *http.Request) string {
	if e.data {
		if r.Method == http.MethodGet && r.URL.Path == "/revocations" {
			return "GetRevocationStatus"
		}
		return ""
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/signing-jobs/with-payload":
		return "SignPayload"
	case r.Method == http.MethodGet && len(parts) == 2 && parts[0] == "signing-profiles":
		return "GetSigningProfile"
	case r.Method == http.MethodPut && len(parts) == 3 && parts[0] == "signing-profiles" && parts[2] == "revoke":
		return "RevokeSigningProfile"
	case r.Method == http.MethodPut && len(parts) == 3 && parts[0] == "signing-jobs" && parts[2] == "revoke":
		return "RevokeSignature"
	}
	return ""
}

func (w *World) serveSigner(c *call) *reply {
	switch c.action {
	case "SignPayload":
		return c.signPayload()
	case "GetRevocationStatus":
		return c.getRevocationStatus()
	case "GetSigningProfile":
		return c.getSigningProfile()
	case "RevokeSigningProfile":
		return c.revokeSigningProfile()
	case "RevokeSignature":
		return c.revokeSignature()
	}
	return c.fail(http.StatusNotFound, "UnknownOperationException", "")
}

// label is a part of the path: of /signing-profiles/NAME/revoke, 1 is NAME.
func (c *call) label(n int) string {
	return strings.Split(strings.TrimPrefix(c.r.URL.Path, "/"), "/")[n]
}

const accountPattern = `^[0-9]{12}$`

// profile finds the current version of a profile that the caller may use for its
// action. Of another account's, only who may use it learns whether it exists.
func (c *call) profile(name, owner string) (*SigningProfile, *reply) {
	home := c.principal.account
	account := home.id
	if owner != "" {
		account = owner
	}
	arn := fmt.Sprintf("arn:%s:signer:%s:%s:/signing-profiles/%s", home.partition, c.region, account, name)
	if refused := c.allow(arn); refused != nil {
		return nil, refused
	}
	store := c.w.data.signer
	store.mu.Lock()
	p := store.profiles[arn]
	store.mu.Unlock()
	switch {
	case account != home.id && (p == nil || !p.sharedWith(home)):
		return nil, c.fail(http.StatusForbidden, "AccessDeniedException", fmt.Sprintf(
			"User: %s is not authorized to perform: signer:%s on resource: %s because no resource-based policy allows the signer:%s action",
			c.principal.arn, c.action, arn, c.action))
	case p == nil:
		return nil, c.fail(http.StatusNotFound, "ResourceNotFoundException", "Signing profile not found: "+name)
	}
	return p, nil
}

func (c *call) signPayload() *reply {
	var in struct {
		Payload       []byte `json:"payload"`
		PayloadFormat string `json:"payloadFormat"`
		ProfileName   string `json:"profileName"`
		ProfileOwner  string `json:"profileOwner"`
	}
	if refused := c.readJSON(&in, blobRule("payload", &in.Payload, 1, 4096),
		enumRule("payloadFormat", &in.PayloadFormat, true, payloadFormat),
		stringRule("profileName", &in.ProfileName, true, 2, 64, profileName.String()),
		stringRule("profileOwner", &in.ProfileOwner, false, 12, 12, accountPattern)); refused != nil {
		return refused
	}
	payload, err := readPayload(in.Payload)
	if err != nil {
		return c.invalidInput(fmt.Sprintf("Payload is no %s: %v", payloadFormat, err))
	}
	p, refused := c.profile(in.ProfileName, in.ProfileOwner)
	if refused != nil {
		return refused
	}
	if status, _ := p.state(); status != "Active" {
		return c.invalidInput(fmt.Sprintf("Signing profile %s is %s.", p.ARN(), strings.ToLower(status)))
	}
	id := uuid.NewString()
	job := &signerJob{arn: c.principal.account.arn("signer", c.region, "/signing-jobs/"+id), owner: c.principal.account, profile: p}
	envelope := c.w.envelope(job, payload, p.takeFault())
	store := c.w.data.signer
	store.mu.Lock()
	store.jobs[job.arn] = job
	store.mu.Unlock()
	return jsonReply(http.StatusOK, map[string]any{
		"jobId": id, "jobOwner": job.owner.id, "signature": envelope,
		"metadata": map[string]string{"signingJobArn": job.arn, "signingProfileVersionArn": p.VersionARN()},
	})
}

var payloadDigest = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$`)

// readPayload reads a payload of the Notary Project.
func readPayload(b []byte) (notaryPayload, error) {
	var p notaryPayload
	if err := json.Unmarshal(b, &p); err != nil {
		return p, err
	}
	d := p.TargetArtifact
	if d.MediaType == "" || !payloadDigest.MatchString(d.Digest) || d.Size < 0 {
		return p, fmt.Errorf("targetArtifact has no media type, digest or size")
	}
	return p, nil
}

func (c *call) getSigningProfile() *reply {
	name, owner := c.label(1), c.r.URL.Query().Get("profileOwner")
	if why := stringRule("profileName", &name, true, 2, 64, profileName.String())(); why != "" {
		return c.invalidInput("1 validation error detected: " + why)
	}
	p, refused := c.profile(name, owner)
	if refused != nil {
		return refused
	}
	status, since := p.state()
	out := map[string]any{
		"arn": p.ARN(), "profileName": p.name, "profileVersion": p.version, "profileVersionArn": p.VersionARN(),
		"platformId": signerPlatform, "platformDisplayName": "Notation for Container Registries", "status": status,
	}
	if p.validity == 0 {
		out["signatureValidityPeriod"] = map[string]any{"type": "MONTHS", "value": 135}
	} else {
		out["signatureValidityPeriod"] = map[string]any{"type": "DAYS", "value": int(math.Ceil(p.validity.Hours() / 24))}
	}
	if status == "Revoked" {
		out["revocationRecord"] = map[string]any{"revocationEffectiveFrom": wireTime(since)}
	}
	return jsonReply(http.StatusOK, out)
}

func (c *call) revokeSigningProfile() *reply {
	var in struct {
		ProfileVersion string   `json:"profileVersion"`
		Reason         string   `json:"reason"`
		EffectiveTime  *float64 `json:"effectiveTime"`
	}
	name := c.label(1)
	if refused := c.readJSON(&in, stringRule("profileName", &name, true, 2, 64, profileName.String()),
		stringRule("profileVersion", &in.ProfileVersion, true, 10, 10, `^[a-zA-Z0-9]{10}$`),
		stringRule("reason", &in.Reason, true, 1, 500, ""), func() string {
			if in.EffectiveTime == nil {
				return "Value null at 'effectiveTime' failed to satisfy constraint: Member must not be null"
			}
			return ""
		}); refused != nil {
		return refused
	}
	p, refused := c.profile(name, "")
	if refused != nil {
		return refused
	}
	if p.version != in.ProfileVersion {
		return c.fail(http.StatusNotFound, "ResourceNotFoundException", "Signing profile version not found: "+in.ProfileVersion)
	}
	p.Revoke(time.UnixMilli(int64(math.Round(*in.EffectiveTime * 1000))))
	return jsonReply(http.StatusOK, struct{}{})
}

func (c *call) revokeSignature() *reply {
	var in struct {
		JobOwner string `json:"jobOwner"`
		Reason   string `json:"reason"`
	}
	if refused := c.readJSON(&in, stringRule("reason", &in.Reason, true, 1, 500, ""),
		stringRule("jobOwner", &in.JobOwner, false, 12, 12, accountPattern)); refused != nil {
		return refused
	}
	account := c.principal.account
	arn := account.arn("signer", c.region, "/signing-jobs/"+c.label(1))
	if refused := c.allow(arn); refused != nil {
		return refused
	}
	store := c.w.data.signer
	store.mu.Lock()
	defer store.mu.Unlock()
	job := store.jobs[arn]
	if job == nil || in.JobOwner != "" && in.JobOwner != account.id {
		return c.fail(http.StatusNotFound, "ResourceNotFoundException", "Signing job not found: "+c.label(1))
	}
	job.revoked = true
	return jsonReply(http.StatusOK, struct{}{})
}

var (
	signerVersionARN = regexp.MustCompile(`^arn:([a-z-]+):signer:([a-z0-9-]+):([0-9]{12}):/signing-profiles/[a-zA-Z0-9_]{2,64}/[a-zA-Z0-9]{10}$`)
	signerJobARN     = regexp.MustCompile(`^arn:([a-z-]+):signer:([a-z0-9-]+):([0-9]{12}):/signing-jobs/[0-9a-f-]{36}$`)
	certificateHash  = regexp.MustCompile(`^[0-9a-fA-F]{192}$`)
)

// getRevocationStatus tells which of the things named are revoked. What it does not
// know, it refuses rather than vouch for: a job, a profile version or a certificate
// that was never Signer's, a job of another profile version than the one named.
func (c *call) getRevocationStatus() *reply {
	q := c.r.URL.Query()
	for _, name := range []string{"jobArn", "platformId", "profileVersionArn", "signatureTimestamp"} {
		if len(q[name]) != 1 {
			return c.invalidInput(fmt.Sprintf("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", name))
		}
	}
	at, err := time.Parse(time.RFC3339, q.Get("signatureTimestamp"))
	if err != nil {
		return c.fail(http.StatusBadRequest, "SerializationException", "signatureTimestamp is no time")
	}
	jobARN, versionARN, hashes := q.Get("jobArn"), q.Get("profileVersionArn"), q["certificateHashes"]
	for name, m := range map[string][]string{
		"jobArn": signerJobARN.FindStringSubmatch(jobARN), "profileVersionArn": signerVersionARN.FindStringSubmatch(versionARN),
	} {
		if m == nil || m[1] != c.endpoint.partition || m[2] != c.region {
			return c.invalidInput(fmt.Sprintf("%s is no ARN of Signer in %s of partition %s.", name, c.region, c.endpoint.partition))
		}
	}
	if q.Get("platformId") != signerPlatform {
		return c.invalidInput("platformId is not " + signerPlatform + ".")
	}
	if len(hashes) == 0 || slices.ContainsFunc(hashes, func(h string) bool { return !certificateHash.MatchString(h) }) {
		return c.invalidInput("certificateHashes are not hashes of SHA-384, of a certificate and its issuer.")
	}
	if refused := c.allow("*"); refused != nil {
		return refused
	}
	known := chainHashes(c.w.SignerChain())
	store := c.w.data.signer
	store.mu.Lock()
	defer store.mu.Unlock()
	p, job := store.versions[versionARN], store.jobs[jobARN]
	if p == nil || job == nil || job.profile != p {
		return c.invalidInput("Signer knows no such job of the profile version.")
	}
	revoked := []string{}
	if p.status == "Revoked" && !at.Before(p.since) {
		revoked = append(revoked, versionARN)
	}
	if job.revoked {
		revoked = append(revoked, jobARN)
	}
	for _, h := range hashes {
		switch h = strings.ToLower(h); {
		case !slices.Contains(known, h):
			return c.invalidInput("Signer knows no such certificate: " + h)
		case store.revoked[h]:
			revoked = append(revoked, h)
		}
	}
	return jsonReply(http.StatusOK, map[string]any{"revokedEntities": revoked})
}
