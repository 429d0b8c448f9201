package awstest

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/signer"
	signertypes "github.com/aws/aws-sdk-go-v2/service/signer/types"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"
)

const testPayload = `{"targetArtifact":{"mediaType":"application/vnd.dsse.envelope.v1+json","digest":"sha384:` +
	`38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b","size":0,"annotations":{"a":"b"}}}`

func signerClient(w *World, a *Account) *signer.Client {
	return signer.NewFromConfig(once(w.AWSConfig(a.Role("signer").Allow("signer:*").Session("assay"), testRegion)))
}

func signPayload(t *testing.T, c *signer.Client, profile string) *signer.SignPayloadOutput {
	t.Helper()
	out, err := c.SignPayload(t.Context(), &signer.SignPayloadInput{
		Payload: []byte(testPayload), PayloadFormat: aws.String(payloadFormat), ProfileName: aws.String(profile),
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// open verifies an envelope by the chain that it brings, and that chain by the
// world's root.
func open(t *testing.T, w *World, envelope []byte) *signature.EnvelopeContent {
	t.Helper()
	e, err := jws.ParseEnvelope(envelope)
	if err != nil {
		t.Fatal(err)
	}
	content, err := e.Verify()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signature.VerifyAuthenticity(&content.SignerInfo, w.SignerChain()[2:]); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestSignPayload(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	acct := w.Account(testAccount)
	p := acct.SigningProfile(testRegion, "assay_release", 0)
	out := signPayload(t, signerClient(w, acct), "assay_release")
	want(t, "owner", aws.ToString(out.JobOwner), testAccount)
	content := open(t, w, out.Signature)
	want(t, "media type", content.Payload.ContentType, payloadFormat)
	payload, err := readPayload(content.Payload.Content)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "payload", string(mustJSON(payload)), testPayload)
	info := content.SignerInfo
	now := clk.now().Truncate(time.Second)
	want(t, "scheme", info.SignedAttributes.SigningScheme, signature.SigningSchemeX509SigningAuthority)
	want(t, "time", info.SignedAttributes.SigningTime.UTC(), now.UTC())
	want(t, "expiry", info.SignedAttributes.Expiry.UTC(), now.UTC().AddDate(0, 135, 0))
	want(t, "algorithm", info.SignatureAlgorithm, signature.AlgorithmES384)
	want(t, "chain", len(info.CertificateChain), 3)
	want(t, "attributes", len(info.SignedAttributes.ExtendedAttributes), 3)
	for name, value := range map[string]string{
		attributePlugin: signerPlugin, attributeProfile: p.VersionARN(),
		attributeJob: "arn:aws:signer:" + testRegion + ":" + testAccount + ":/signing-jobs/" + aws.ToString(out.JobId),
	} {
		a, err := info.ExtendedAttribute(name)
		if err != nil || !a.Critical || a.Value != value {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
	want(t, "jobs", acct.SigningJobs(testRegion), []string{out.Metadata["signingJobArn"]})
	if d := time.Hour; acct.SigningProfile(testRegion, "short", d).expiry(now) != now.Add(d) {
		t.Error("the validity of a profile does not count")
	}
}

// TestSignPayloadRefused holds requests to the model and to the profile.
func TestSignPayloadRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, away := w.Account(testAccount), w.Account(otherAccount)
	c := signerClient(w, home)
	home.SigningProfile(testRegion, "good", 0)
	home.SigningProfile("us-west-2", "elsewhere", 0)
	home.SigningProfile(testRegion, "cancelled", 0).Cancel()
	home.SigningProfile(testRegion, "revoked", 0).Revoke(w.now())
	away.SigningProfile(testRegion, "foreign", 0)
	away.SigningProfile(testRegion, "shared", 0).Share(testAccount)
	fill := func(n int) string {
		return strings.Replace(testPayload, `"a":"b"`, `"a":"`+strings.Repeat("b", n-len(testPayload)+1)+`"`, 1)
	}
	for _, tt := range []struct{ name, payload, format, profile, owner, code string }{
		{"4096 bytes", fill(4096), payloadFormat, "good", "", ""},
		{"4097 bytes", fill(4097), payloadFormat, "good", "", "ValidationException"},
		{"own account named", testPayload, payloadFormat, "good", testAccount, ""},
		{"shared", testPayload, payloadFormat, "shared", otherAccount, ""},
		{"not shared", testPayload, payloadFormat, "foreign", otherAccount, "AccessDeniedException"},
		{"unknown and foreign", testPayload, payloadFormat, "none", otherAccount, "AccessDeniedException"},
		{"unknown", testPayload, payloadFormat, "none", "", "ResourceNotFoundException"},
		{"of another region", testPayload, payloadFormat, "elsewhere", "", "ResourceNotFoundException"},
		{"cancelled", testPayload, payloadFormat, "cancelled", "", "ValidationException"},
		{"revoked", testPayload, payloadFormat, "revoked", "", "ValidationException"},
		{"empty", "", payloadFormat, "good", "", "ValidationException"},
		{"no JSON", "payload", payloadFormat, "good", "", "ValidationException"},
		{"no descriptor", `{}`, payloadFormat, "good", "", "ValidationException"},
		{"short digest", strings.Replace(testPayload, "sha384:38", "sha384:", 1), payloadFormat, "good", "", "ValidationException"},
		{"another format", testPayload, "application/json", "good", "", "ValidationException"},
		{"no format", testPayload, "", "good", "", "ValidationException"},
		{"profile ARN", testPayload, payloadFormat, "arn:aws:signer", "", "ValidationException"},
		{"no account", testPayload, payloadFormat, "good", "1", "ValidationException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := &signer.SignPayloadInput{Payload: []byte(tt.payload), PayloadFormat: aws.String(tt.format), ProfileName: aws.String(tt.profile)}
			if tt.owner != "" {
				in.ProfileOwner = aws.String(tt.owner)
			}
			_, err := c.SignPayload(t.Context(), in)
			if tt.code != "" {
				wantCode(t, err, tt.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	denied := signer.NewFromConfig(once(w.AWSConfig(home.Role("nobody").AllowOn("signer:SignPayload", "arn:aws:signer:*:*:/signing-profiles/other").Session("s"), testRegion)))
	_, err := denied.SignPayload(t.Context(), &signer.SignPayloadInput{Payload: []byte(testPayload), PayloadFormat: aws.String(payloadFormat), ProfileName: aws.String("good")})
	wantCode(t, err, "AccessDeniedException")
	wantStatus(t, err, http.StatusForbidden)
	w.Throttle("signer", "SignPayload", 0)
	_, err = c.SignPayload(t.Context(), &signer.SignPayloadInput{Payload: []byte(testPayload), PayloadFormat: aws.String(payloadFormat), ProfileName: aws.String("good")})
	var many *signertypes.TooManyRequestsException
	if !errors.As(err, &many) {
		t.Errorf("%v, want TooManyRequestsException", err)
	}
	wantStatus(t, err, http.StatusTooManyRequests)
}

func wantStatus(t *testing.T, err error, status int) {
	t.Helper()
	var answer *awshttp.ResponseError
	if !errors.As(err, &answer) || answer.HTTPStatusCode() != status {
		t.Errorf("%v, want status %d", err, status)
	}
}

// TestSignerProfileVersions makes a profile again that was cancelled.
func TestSignerProfileVersions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := signerClient(w, acct)
	one := acct.SigningProfile(testRegion, "release", 36*time.Hour)
	if acct.SigningProfile(testRegion, "release", 0) != one {
		t.Error("an active profile was made again")
	}
	get := func() *signer.GetSigningProfileOutput {
		out, err := c.GetSigningProfile(t.Context(), &signer.GetSigningProfileInput{ProfileName: aws.String("release")})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := get()
	want(t, "version", aws.ToString(out.ProfileVersionArn), one.VersionARN())
	want(t, "status", out.Status, signertypes.SigningProfileStatusActive)
	want(t, "validity", out.SignatureValidityPeriod.Value, 2)
	want(t, "unit", out.SignatureValidityPeriod.Type, signertypes.ValidityTypeDays)
	one.Cancel()
	want(t, "status", get().Status, signertypes.SigningProfileStatusCanceled)
	two := acct.SigningProfile(testRegion, "release", 0)
	if one.ARN() != two.ARN() || one.Version() == two.Version() {
		t.Error("the version made again is the same")
	}
	since := time.Now().Add(-time.Minute).Truncate(time.Second)
	revoke := &signer.RevokeSigningProfileInput{
		ProfileName: aws.String("release"), ProfileVersion: aws.String(one.Version()), Reason: aws.String("stolen"), EffectiveTime: aws.Time(since),
	}
	_, err := c.RevokeSigningProfile(t.Context(), revoke)
	wantCode(t, err, "ResourceNotFoundException")
	revoke.ProfileVersion = aws.String(two.Version())
	if _, err := c.RevokeSigningProfile(t.Context(), revoke); err != nil {
		t.Fatal(err)
	}
	out = get()
	want(t, "status", out.Status, signertypes.SigningProfileStatusRevoked)
	want(t, "since", out.RevocationRecord.RevocationEffectiveFrom.UTC(), since.UTC())
	revoke.Reason = aws.String("")
	_, err = c.RevokeSigningProfile(t.Context(), revoke)
	wantCode(t, err, "ValidationException")
}

// revocations asks as a verifier does: of an envelope, with hashes computed by other
// code than the stand-in's.
func revocations(t *testing.T, w *World, envelope []byte) *signer.GetRevocationStatusInput {
	t.Helper()
	info := open(t, w, envelope).SignerInfo
	in := &signer.GetRevocationStatusInput{PlatformId: aws.String(signerPlatform), SignatureTimestamp: aws.Time(info.SignedAttributes.SigningTime)}
	for _, a := range info.SignedAttributes.ExtendedAttributes {
		switch value := a.Value.(string); a.Key {
		case attributeProfile:
			in.ProfileVersionArn = aws.String(value)
		case attributeJob:
			in.JobArn = aws.String(value)
		}
	}
	for i, child := range info.CertificateChain {
		parent := child
		if i+1 < len(info.CertificateChain) {
			parent = info.CertificateChain[i+1]
		}
		a, b := sha512.Sum384(child.RawTBSCertificate), sha512.Sum384(parent.RawTBSCertificate)
		in.CertificateHashes = append(in.CertificateHashes, hex.EncodeToString(a[:])+hex.EncodeToString(b[:]))
	}
	return in
}

func TestGetRevocationStatus(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	acct, away := w.Account(testAccount), w.Account(otherAccount)
	c := signerClient(w, acct)
	verifier := signer.NewFromConfig(once(w.AWSConfig(away.Role("verifier").Allow("signer:GetRevocationStatus").Session("s"), testRegion)))
	p := acct.SigningProfile(testRegion, "release", 0)
	old := revocations(t, w, signPayload(t, c, "release").Signature)
	clk.add(time.Minute)
	between := clk.now()
	clk.add(time.Minute)
	young := signPayload(t, c, "release")
	in := revocations(t, w, young.Signature)
	ask := func(in *signer.GetRevocationStatusInput) []string {
		t.Helper()
		out, err := verifier.GetRevocationStatus(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return out.RevokedEntities
	}
	want(t, "none", ask(in), []string{})
	want(t, "host", w.Requests("signer", "GetRevocationStatus")[0].Host, "data-signer."+testRegion+".amazonaws.com")
	if _, err := c.RevokeSignature(t.Context(), &signer.RevokeSignatureInput{JobId: young.JobId, Reason: aws.String("mistake")}); err != nil {
		t.Fatal(err)
	}
	want(t, "job", ask(in), []string{aws.ToString(in.JobArn)})
	want(t, "other job", ask(old), []string{})
	w.RevokeSignature(aws.ToString(old.JobArn))
	want(t, "other job", ask(old), []string{aws.ToString(old.JobArn)})
	p.Revoke(between)
	want(t, "profile, before", ask(old), []string{aws.ToString(old.JobArn)})
	want(t, "profile, after", ask(in), []string{p.VersionARN(), aws.ToString(in.JobArn)})
	w.RevokeSignerCertificate(1)
	want(t, "certificate", ask(in), []string{p.VersionARN(), aws.ToString(in.JobArn), in.CertificateHashes[1]})

	for name, edit := range map[string]func(*signer.GetRevocationStatusInput){
		"no hashes":                   func(in *signer.GetRevocationStatusInput) { in.CertificateHashes = []string{} },
		"short hash":                  func(in *signer.GetRevocationStatusInput) { in.CertificateHashes[0] = in.CertificateHashes[0][:96] },
		"hash of nothing":             func(in *signer.GetRevocationStatusInput) { in.CertificateHashes[0] = strings.Repeat("0", 192) },
		"platform":                    func(in *signer.GetRevocationStatusInput) { in.PlatformId = aws.String("AWSLambda-SHA384-ECDSA") },
		"job of nobody":               func(in *signer.GetRevocationStatusInput) { in.JobArn = aws.String((*in.JobArn)[:60] + "0") },
		"profile without its version": func(in *signer.GetRevocationStatusInput) { in.ProfileVersionArn = aws.String(p.ARN()) },
		"another region": func(in *signer.GetRevocationStatusInput) {
			in.JobArn = aws.String(strings.Replace(*in.JobArn, testRegion, "us-west-2", 1))
		},
		"another partition": func(in *signer.GetRevocationStatusInput) {
			in.JobArn = aws.String(strings.Replace(*in.JobArn, "arn:aws:", "arn:aws-cn:", 1))
		},
		"another profile": func(in *signer.GetRevocationStatusInput) {
			in.ProfileVersionArn = aws.String(acct.SigningProfile(testRegion, "other", 0).VersionARN())
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := *in
			bad.CertificateHashes = slices.Clone(in.CertificateHashes)
			edit(&bad)
			_, err := verifier.GetRevocationStatus(t.Context(), &bad)
			wantCode(t, err, "ValidationException")
		})
	}
	nobody := signer.NewFromConfig(once(w.AWSConfig(away.Role("nobody").Session("s"), testRegion)))
	_, err := nobody.GetRevocationStatus(t.Context(), in)
	wantCode(t, err, "AccessDeniedException")
	_, err = c.RevokeSignature(t.Context(), &signer.RevokeSignatureInput{JobId: aws.String("00000000-0000-0000-0000-000000000000"), Reason: aws.String("x")})
	wantCode(t, err, "ResourceNotFoundException")
	_, err = c.ListSigningJobs(t.Context(), &signer.ListSigningJobsInput{})
	wantCode(t, err, "UnknownOperationException")
}

// TestSignerFaults looks at what each dishonest answer is.
func TestSignerFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := signerClient(w, acct)
	p := acct.SigningProfile(testRegion, "release", 0)
	now := time.Now()
	for name, tt := range map[string]struct {
		fault SignerFault
		check func(c *signature.EnvelopeContent) bool
	}{
		"descriptor": {SignerFault{WrongDescriptor: true}, func(c *signature.EnvelopeContent) bool {
			return !strings.Contains(string(c.Payload.Content), "sha384:38b060")
		}},
		"size": {SignerFault{WrongSize: true}, func(c *signature.EnvelopeContent) bool {
			return strings.Contains(string(c.Payload.Content), `"size":1`)
		}},
		"media type": {SignerFault{WrongMediaType: true}, func(c *signature.EnvelopeContent) bool {
			return strings.Contains(string(c.Payload.Content), "oci.image.manifest")
		}},
		"profile": {SignerFault{WrongProfile: true}, func(c *signature.EnvelopeContent) bool {
			a, _ := c.SignerInfo.ExtendedAttribute(attributeProfile)
			return a.Value != p.VersionARN() && signerVersionARN.MatchString(a.Value.(string))
		}},
		"job": {SignerFault{WrongJob: true}, func(c *signature.EnvelopeContent) bool {
			a, _ := c.SignerInfo.ExtendedAttribute(attributeJob)
			return !slices.Contains(acct.SigningJobs(testRegion), a.Value.(string))
		}},
		"expired": {SignerFault{Expired: true}, func(c *signature.EnvelopeContent) bool {
			return c.SignerInfo.SignedAttributes.Expiry.Before(now)
		}},
		"future": {SignerFault{Future: true}, func(c *signature.EnvelopeContent) bool {
			return c.SignerInfo.SignedAttributes.SigningTime.After(now.Add(time.Hour))
		}},
		"no expiry": {SignerFault{NoExpiry: true}, func(c *signature.EnvelopeContent) bool {
			return c.SignerInfo.SignedAttributes.Expiry.IsZero()
		}},
		"not critical": {SignerFault{NoCritical: true}, func(c *signature.EnvelopeContent) bool {
			a, err := c.SignerInfo.ExtendedAttribute(attributeProfile)
			return err == nil && !a.Critical
		}},
		"no plugin":  {SignerFault{NoPlugin: true}, without(attributePlugin)},
		"no profile": {SignerFault{NoProfile: true}, without(attributeProfile)},
		"no job":     {SignerFault{NoJob: true}, without(attributeJob)},
		"unknown attribute": {SignerFault{UnknownCritical: true}, func(c *signature.EnvelopeContent) bool {
			return len(c.SignerInfo.SignedAttributes.ExtendedAttributes) == 4
		}},
		"plugin": {SignerFault{WrongPlugin: true}, func(c *signature.EnvelopeContent) bool {
			a, _ := c.SignerInfo.ExtendedAttribute(attributePlugin)
			return a.Value != signerPlugin
		}},
		"scheme": {SignerFault{WrongScheme: true}, func(c *signature.EnvelopeContent) bool {
			return c.SignerInfo.SignedAttributes.SigningScheme == signature.SigningSchemeX509
		}},
	} {
		tt.fault.Times = 1
		p.Fault(tt.fault)
		if !tt.check(open(t, w, signPayload(t, c, "release").Signature)) {
			t.Errorf("%s: the answer is honest", name)
		}
	}
	for name, fault := range map[string]SignerFault{
		"chain": {OtherChain: true}, "short": {ShortChain: true}, "bit": {FlipBit: true}, "half": {Truncate: true},
	} {
		fault.Times = 1
		p.Fault(fault)
		e, err := jws.ParseEnvelope(signPayload(t, c, "release").Signature)
		var content *signature.EnvelopeContent
		if err == nil {
			content, err = e.Verify()
		}
		if err == nil {
			_, err = signature.VerifyAuthenticity(&content.SignerInfo, w.SignerChain()[2:])
		}
		if err == nil {
			t.Errorf("%s: the answer is honest", name)
		}
	}
	p.Fault(SignerFault{Truncate: true})
	p.ClearFaults()
	open(t, w, signPayload(t, c, "release").Signature)
}

func without(name string) func(*signature.EnvelopeContent) bool {
	return func(c *signature.EnvelopeContent) bool {
		_, err := c.SignerInfo.ExtendedAttribute(name)
		return err != nil
	}
}

// TestSignerProtocol sends what the SDK does not: other hosts, methods, bodies, and
// requests that were changed on the way.
func TestSignerProtocol(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	acct.SigningProfile(testRegion, "release", 0)
	creds := acct.Role("all").Allow("*").Session("s")
	body := string(mustJSON(map[string]any{"payload": []byte(testPayload), "payloadFormat": payloadFormat, "profileName": "release"}))
	type request struct{ method, host, path, body, contentType string }
	honest := request{http.MethodPost, "signer", "/signing-jobs/with-payload", body, "application/json"}
	for name, tt := range map[string]struct {
		edit   func(*request)
		change func(*http.Request) // after it was signed
		status int
		code   string
	}{
		"honest":             {status: 200},
		"data host":          {edit: func(r *request) { r.host = "data-signer" }, status: 404, code: "UnknownOperationException"},
		"data operation":     {edit: func(r *request) { *r = request{http.MethodGet, "signer", "/revocations", "", ""} }, status: 404, code: "UnknownOperationException"},
		"method":             {edit: func(r *request) { r.method = http.MethodPut }, status: 404, code: "UnknownOperationException"},
		"no such operation":  {edit: func(r *request) { r.path = "/signing-jobs" }, status: 404, code: "UnknownOperationException"},
		"content type":       {edit: func(r *request) { r.contentType = "text/plain" }, status: 415, code: "UnsupportedMediaTypeException"},
		"no JSON":            {edit: func(r *request) { r.body = "{" }, status: 400, code: "SerializationException"},
		"no base64":          {edit: func(r *request) { r.body = `{"payload":"!"}` }, status: 400, code: "SerializationException"},
		"nothing":            {edit: func(r *request) { r.body = "{}" }, status: 400, code: "ValidationException"},
		"unsigned":           {change: func(r *http.Request) { r.Header.Del("Authorization") }, status: 403, code: "MissingAuthenticationTokenException"},
		"other path":         {change: func(r *http.Request) { r.URL.Path = "/signing-profiles/release/revoke"; r.Method = http.MethodPut }, status: 403, code: "InvalidSignatureException"},
		"other query":        {change: func(r *http.Request) { r.URL.RawQuery = "a=b" }, status: 403, code: "InvalidSignatureException"},
		"other content type": {change: func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, status: 403, code: "InvalidSignatureException"},
		"other token":        {change: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, status: 403, code: "UnrecognizedClientException"},
	} {
		t.Run(name, func(t *testing.T) {
			in := honest
			if tt.edit != nil {
				tt.edit(&in)
			}
			r, err := http.NewRequestWithContext(t.Context(), in.method, "https://"+in.host+"."+testRegion+".amazonaws.com"+in.path, strings.NewReader(in.body))
			if err != nil {
				t.Fatal(err)
			}
			if in.contentType != "" {
				r.Header.Set("Content-Type", in.contentType)
			}
			if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hexSHA256([]byte(in.body)), "signer", testRegion, time.Now()); err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(r)
			}
			resp, err := w.HTTPClient().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			want(t, "status", resp.StatusCode, tt.status)
			want(t, "code", resp.Header.Get("X-Amzn-Errortype"), tt.code)
			want(t, "content type", resp.Header.Get("Content-Type"), "application/json")
		})
	}
}
