package notary

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/outage"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

// site is an AWS with a signing profile, and a signer and a verifier that use it.
type site struct {
	clock    *clock
	world    *awstest.World
	account  *awstest.Account
	role     *awstest.Role
	profile  *awstest.SigningProfile
	verifier *Verifier
	signer   *Signer
	log      *logBuffer
	envelope []byte
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newSite(tb testing.TB) *site {
	tb.Helper()
	s := &site{clock: newClock(), log: &logBuffer{}, envelope: envelopeOf(tb, attest.PredicateSLSAProvenanceV1)}
	w, err := awstest.New(awstest.Config{Now: s.clock.Now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.Close)
	s.world = w
	s.account = w.Account(testAccount)
	s.role = s.account.Role("assay").Allow("signer:SignPayload", "signer:GetRevocationStatus")
	s.profile = s.account.SigningProfile(testRegion, "release", 0)
	s.verifier = s.trusting(tb, s.profile.VersionARN())
	s.signer = s.using(tb, "signer:///release")
	return s
}

func (s *site) config() aws.Config {
	return s.world.AWSConfig(s.role.Session("assay"), testRegion)
}

func (s *site) trusting(tb testing.TB, versions ...string) *Verifier {
	tb.Helper()
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	revocations, err := NewRevocations(s.config(), RevocationsConfig{Now: s.clock.Now, Logger: log})
	if err != nil {
		tb.Fatal(err)
	}
	v, err := NewVerifier(Trust{[]*x509.Certificate{s.world.SignerRoot()}, versions}, revocations, VerifierConfig{Now: s.clock.Now, Logger: log})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func (s *site) using(tb testing.TB, ref string) *Signer {
	tb.Helper()
	signer, err := NewSigner(SignerConfig{
		AWS: s.config(), Ref: ref, Verifier: s.verifier, Now: s.clock.Now, Logger: slog.New(slog.NewJSONHandler(s.log, nil)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return signer
}

func (s *site) sign(tb testing.TB) []byte {
	tb.Helper()
	jws, err := s.signer.Sign(tb.Context(), s.envelope, attest.PredicateSLSAProvenanceV1)
	if err != nil {
		tb.Fatal(err)
	}
	return jws
}

func (s *site) refuses(tb testing.TB, what string, want refusal.Code) error {
	tb.Helper()
	jws, err := s.signer.Sign(tb.Context(), s.envelope, attest.PredicateSLSAProvenanceV1)
	if refusal.CodeOf(err) != want || jws != nil {
		tb.Errorf("%s: got %d bytes, %v; want %s", what, len(jws), err, want)
	}
	return err
}

func TestSign(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jws := s.sign(t)
	ev, err := s.verifier.Verify(t.Context(), s.envelope, jws)
	if err != nil {
		t.Fatal(err)
	}
	jobs := s.account.SigningJobs(testRegion)
	if ev.ProfileVersion() != s.profile.VersionARN() || ev.Profile() != s.profile.ARN() || len(jobs) != 1 || ev.Job() != jobs[0] ||
		!ev.SigningTime().Equal(s.clock.Now()) || !ev.Expiry().Equal(s.clock.Now().AddDate(0, 135, 0)) || ev.Revoked() {
		t.Errorf("got %+v of jobs %q", ev, jobs)
	}
	asked := s.world.Requests("signer", "GetRevocationStatus")
	if len(asked) != 1 || asked[0].Host != "data-signer.eu-west-1.amazonaws.com" || asked[0].Status != http.StatusOK {
		t.Errorf("asked about revocation: %+v", asked)
	}
	// Another verifier, which never saw it.
	if _, err := s.trusting(t, s.profile.VersionARN()).Verify(t.Context(), s.envelope, jws); err != nil {
		t.Error(err)
	}
}

func TestSignRefs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	other := s.world.Account("444455556666").SigningProfile("us-east-1", "shared", time.Hour).Share(testAccount)
	s.verifier = s.trusting(t, s.profile.VersionARN(), other.VersionARN())
	for _, ref := range []string{"signer://release", "signer:///" + s.profile.ARN(), "signer:///" + other.ARN()} {
		s.signer = s.using(t, ref)
		jws := s.sign(t)
		ev, err := s.verifier.Verify(t.Context(), s.envelope, jws)
		if err != nil || !strings.HasSuffix(ref, ev.Profile()) && ev.Profile() != s.profile.ARN() {
			t.Errorf("%s: got %s, %v", ref, ev.Profile(), err)
		}
	}
	regions := map[string]int{}
	for _, r := range s.world.Requests("signer", "") {
		regions[r.Region]++
	}
	if regions["us-east-1"] != 2 || regions[testRegion] != 4 {
		t.Errorf("asked in regions %v", regions)
	}
}

func TestNewSignerRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nowhere := s.config()
	nowhere.Region = ""
	elsewhere := s.config()
	elsewhere.Region = "us-east-1"
	for name, c := range map[string]struct {
		cfg  SignerConfig
		want refusal.Code
	}{
		"no ref":          {SignerConfig{AWS: s.config(), Verifier: s.verifier}, CodeRefInvalid},
		"a version":       {SignerConfig{AWS: s.config(), Verifier: s.verifier, Ref: "signer:///" + s.profile.VersionARN()}, CodeRefInvalid},
		"no region":       {SignerConfig{AWS: nowhere, Verifier: s.verifier, Ref: "signer:///release"}, CodeRefInvalid},
		"no verifier":     {SignerConfig{AWS: s.config(), Ref: "signer:///release"}, CodeTrustInvalid},
		"not pinned":      {SignerConfig{AWS: s.config(), Verifier: s.verifier, Ref: "signer:///other"}, CodeTrustInvalid},
		"another region":  {SignerConfig{AWS: elsewhere, Verifier: s.verifier, Ref: "signer:///release"}, CodeTrustInvalid},
		"another account": {SignerConfig{AWS: s.config(), Verifier: s.verifier, Ref: "signer:///arn:aws:signer:eu-west-1:444455556666:/signing-profiles/release"}, CodeTrustInvalid},
	} {
		_, err := NewSigner(c.cfg)
		if refusal.CodeOf(err) != c.want {
			t.Errorf("%s: got %v; want %s", name, err, c.want)
		}
	}
	if _, err := NewSigner(SignerConfig{AWS: s.config(), Verifier: s.verifier, Ref: "signer:///release", Timeout: -1}); err == nil {
		t.Error("a negative timeout is accepted")
	}
}

func TestSignInput(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	long := "https://example.com/" + strings.Repeat("p", MaxPayloadBytes)
	for name, c := range map[string]struct {
		envelope  []byte
		predicate string
		want      refusal.Code
	}{
		"no envelope":       {nil, attest.PredicateVSA, CodeMalformed},
		"no DSSE":           {[]byte("{}"), attest.PredicateVSA, CodeMalformed},
		"another predicate": {s.envelope, attest.PredicateVSA, CodeDescriptorMismatch},
	} {
		_, err := s.signer.Sign(t.Context(), c.envelope, c.predicate)
		if refusal.CodeOf(err) != c.want {
			t.Errorf("%s: got %v; want %s", name, err, c.want)
		}
	}
	_, err := describe(&signedEnvelope{raw: s.envelope, predicateType: long}, long)
	wantCode(t, err, CodePayloadTooLarge)
	if n := len(s.world.Requests("signer", "")); n != 0 {
		t.Errorf("AWS was asked %d times", n)
	}
}

// A Signer that lies, in each way that the stand-in knows, gets nothing released.
func TestSignDishonestAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, c := range map[string]struct {
		fault awstest.SignerFault
		want  refusal.Code
		cause refusal.Code
	}{
		"descriptor":       {awstest.SignerFault{WrongDescriptor: true}, CodeAnswerInvalid, CodeDescriptorMismatch},
		"size":             {awstest.SignerFault{WrongSize: true}, CodeAnswerInvalid, CodeDescriptorMismatch},
		"media type":       {awstest.SignerFault{WrongMediaType: true}, CodeAnswerInvalid, CodeMediaType},
		"profile":          {awstest.SignerFault{WrongProfile: true}, CodeProfileNotAllowed, ""},
		"expired":          {awstest.SignerFault{Expired: true}, CodeAnswerInvalid, CodeExpired},
		"future":           {awstest.SignerFault{Future: true}, CodeAnswerInvalid, CodeTimeInvalid},
		"no expiry":        {awstest.SignerFault{NoExpiry: true}, CodeAnswerInvalid, CodeAttributes},
		"another chain":    {awstest.SignerFault{OtherChain: true}, CodeUntrusted, ""},
		"no root":          {awstest.SignerFault{ShortChain: true}, CodeUntrusted, ""},
		"a flipped bit":    {awstest.SignerFault{FlipBit: true}, CodeAnswerInvalid, CodeSignatureInvalid},
		"half an answer":   {awstest.SignerFault{Truncate: true}, CodeAnswerInvalid, CodeMalformed},
		"nothing critical": {awstest.SignerFault{NoCritical: true}, CodeAnswerInvalid, CodeAttributes},
		"no plugin":        {awstest.SignerFault{NoPlugin: true}, CodeAnswerInvalid, CodeAttributes},
		"no profile":       {awstest.SignerFault{NoProfile: true}, CodeAnswerInvalid, CodeAttributes},
		"no job":           {awstest.SignerFault{NoJob: true}, CodeAnswerInvalid, CodeAttributes},
		"unknown critical": {awstest.SignerFault{UnknownCritical: true}, CodeAnswerInvalid, CodeAttributes},
		"another plugin":   {awstest.SignerFault{WrongPlugin: true}, CodeAnswerInvalid, CodeAttributes},
		"another scheme":   {awstest.SignerFault{WrongScheme: true}, CodeAnswerInvalid, CodeAttributes},
		// AWS does not know that job.
		"another job": {awstest.SignerFault{WrongJob: true}, CodeRevocationUnknown, ""},
	} {
		c.fault.Times = 1
		s.profile.Fault(c.fault)
		err := s.refuses(t, name, c.want)
		if c.cause != "" && !errors.Is(err, &refusal.Error{Code: c.cause}) {
			t.Errorf("%s: got %v; want cause %s", name, err, c.cause)
		}
	}
	s.sign(t)
}

// Somebody in AWS's place answers with a signature that AWS made once.
func TestSignReplayedAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.verifier.revocations.source = &word{}
	jws := s.sign(t)
	_, job, _ := strings.Cut(s.account.SigningJobs(testRegion)[0], "/signing-jobs/")
	answer := func(job, owner string) {
		s.world.Fail(awstest.Fault{Service: "signer", Action: "SignPayload", Times: 1,
			Header: http.Header{"Content-Type": {"application/json"}},
			Body:   mustJSON(t, map[string]any{"jobId": job, "jobOwner": owner, "signature": jws})})
	}
	for name, c := range map[string]struct{ job, owner string }{
		"another job": {"e218ee67-5dd3-4dc4-8caf-224898b12493", testAccount}, "no job": {"", ""}, "another owner": {job, "444455556666"},
	} {
		answer(c.job, c.owner)
		s.refuses(t, name, CodeAnswerInvalid)
	}
	answer(job, testAccount)
	if again := s.sign(t); !bytes.Equal(again, jws) {
		t.Error("another signature")
	}
	s.clock.Advance(maxClockSkew + time.Second)
	answer(job, testAccount)
	s.refuses(t, "an old one", CodeAnswerInvalid)
}

func TestSignRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jws := s.sign(t)
	verify := func() *Evidence {
		t.Helper()
		ev, err := s.verifier.Verify(t.Context(), s.envelope, jws)
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	job := verify().Job()
	s.world.RevokeSignature(job)
	if verify().Revoked() {
		t.Error("the answer did not hold for its time")
	}
	s.clock.Advance(defaultRevocationTTL)
	if ev := verify(); !ev.Revoked() || ev.RevokedEntities()[0] != job {
		t.Errorf("got %+v", ev)
	}
	s.world.RevokeSignerCertificate(1)
	s.refuses(t, "an authority revoked", CodeRevoked)
	s.profile.Revoke(s.clock.Now().Add(-time.Hour))
	s.clock.Advance(defaultRevocationTTL)
	if ev := verify(); len(ev.RevokedEntities()) != 3 {
		t.Errorf("got %q", ev.RevokedEntities())
	}
	s.refuses(t, "a profile revoked", CodeProfileUnusable)
}

// A profile that is cancelled and made again has its name, and is not trusted.
func TestSignProfileMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jws := s.sign(t)
	s.profile.Cancel()
	s.refuses(t, "cancelled", CodeProfileUnusable)
	s.account.SigningProfile(testRegion, "release", 0)
	s.refuses(t, "made again", CodeProfileNotAllowed)
	if ev, err := s.verifier.Verify(t.Context(), s.envelope, jws); err != nil || ev.Revoked() {
		t.Errorf("what it signed before: %+v, %v", ev, err)
	}
}

func TestSignFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault awstest.Fault
		want  refusal.Code
	}{
		"denied":        {awstest.Fault{Status: 403, Code: "AccessDeniedException", Message: "role-canary"}, CodeAccessDenied},
		"expired token": {awstest.Fault{Status: 403, Code: "ExpiredTokenException"}, CodeAccessDenied},
		"not found":     {awstest.Fault{Status: 404, Code: "ResourceNotFoundException"}, CodeProfileNotFound},
		"invalid":       {awstest.Fault{Status: 400, Code: "ValidationException"}, CodeProfileUnusable},
		"throttled":     {awstest.Fault{Status: 429, Code: "TooManyRequestsException"}, CodeThrottled},
		"over quota":    {awstest.Fault{Status: 402, Code: "ServiceLimitExceededException"}, CodeThrottled},
		"internal":      {awstest.Fault{Status: 500, Code: "InternalServiceErrorException"}, CodeUnavailable},
		"unknown code":  {awstest.Fault{Status: 400, Code: "SomethingNewException"}, CodeUnavailable},
		"no connection": {awstest.Fault{CloseConnection: true}, CodeUnavailable},
		"a redirect":    {awstest.Fault{Status: 307, Redirect: "https://signer.us-east-1.amazonaws.com/"}, CodeUnavailable},
		"half":          {awstest.Fault{Truncate: true}, CodeUnavailable},
		"not JSON":      {awstest.Fault{Body: []byte("<html>")}, CodeAnswerInvalid},
		"empty":         {awstest.Fault{Body: []byte("{}")}, CodeAnswerInvalid},
		"endless":       {awstest.Fault{Body: bytes.Repeat([]byte(" "), maxAnswerBytes+1)}, CodeAnswerInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c.fault.Service = "signer"
			s.world.Fail(c.fault)
			err := s.refuses(t, name, c.want)
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the refusal tells what AWS wrote: %v", err)
			}
			if n := len(s.world.Requests("signer", "")); n > attempts {
				t.Errorf("%d attempts", n)
			}
		})
	}
}

// Nothing is released of which it is not known whether it is revoked.
func TestSignRevocationUnknown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.world.Fail(awstest.Fault{Service: "signer", Action: "GetRevocationStatus", Status: 403, Code: "AccessDeniedException", Times: 1})
	err := s.refuses(t, "denied", CodeRevocationUnknown)
	if !errors.Is(err, &refusal.Error{Code: CodeAccessDenied}) || !strings.Contains(err.Error(), string(CodeAccessDenied)) {
		t.Errorf("got %v", err)
	}
	s.sign(t)
}

// An outage is felt by few: after five failures AWS is left alone, and asked by one caller
// when the pause is over.
func TestSignOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.signer.service.timeout = 200 * time.Millisecond // ends the SDK's pauses between attempts
	s.world.Fail(awstest.Fault{Service: "signer", Action: "SignPayload", Status: 500, Code: "InternalServiceErrorException"})
	for range outage.OpenAfter {
		s.refuses(t, "outage", CodeUnavailable)
	}
	before := len(s.world.Requests("signer", "SignPayload"))
	for range 100 {
		s.refuses(t, "outage", CodeUnavailable)
	}
	if n := len(s.world.Requests("signer", "SignPayload")); n != before {
		t.Errorf("%d requests while AWS is left alone", n-before)
	}
	s.world.Heal()
	s.refuses(t, "pause", CodeUnavailable)
	s.signer.service.timeout = defaultTimeout
	s.clock.Advance(outage.FirstPause)
	s.sign(t)
	s.sign(t)
}

// A caller who goes away says nothing about AWS.
func TestSignCallerGone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.world.Fail(awstest.Fault{Service: "signer", Action: "SignPayload", Delay: time.Minute, Times: 2 * outage.OpenAfter})
	for range 2 * outage.OpenAfter {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := s.signer.Sign(ctx, s.envelope, attest.PredicateSLSAProvenanceV1)
		wantCode(t, err, CodeUnavailable)
		cancel()
	}
	s.world.Heal()
	s.sign(t)
}

func TestSignConcurrencyBound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.signer.service.slots = make(chan struct{}, 1)
	s.signer.service.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := s.signer.Sign(ctx, s.envelope, attest.PredicateSLSAProvenanceV1)
	wantCode(t, err, CodeUnavailable)
	if n := len(s.world.Requests("signer", "")); n != 0 {
		t.Errorf("%d requests past the bound", n)
	}
	<-s.signer.service.slots
	s.sign(t)
}

func TestLogsHoldNoSignature(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jws := s.sign(t)
	s.profile.Fault(awstest.SignerFault{FlipBit: true, Times: 1})
	s.refuses(t, "flipped", CodeAnswerInvalid)
	s.world.Fail(awstest.Fault{Service: "signer", Status: 400, Code: "ValidationException", Times: 1})
	s.refuses(t, "invalid", CodeProfileUnusable)
	if log := s.log.String(); !strings.Contains(log, "SIGNER_PROFILE_UNUSABLE") || strings.Contains(log, string(jws[20:60])) {
		t.Errorf("log: %s", log)
	}
}

// An endpoint that is given is used as it is, without a prefix before its host.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const endpoint = "https://signer.eu-west-1.amazonaws.com"
	signer, err := NewSigner(SignerConfig{AWS: s.config(), Ref: "signer:///release", Verifier: s.verifier, Now: s.clock.Now, Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(t.Context(), s.envelope, attest.PredicateSLSAProvenanceV1); err != nil {
		t.Error(err)
	}
	r, err := NewRevocations(s.config(), RevocationsConfig{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Revoked(t.Context(), RevocationQuery{Region: testRegion, ProfileVersion: testVersion, Job: testJob, CertificateHashes: []string{"x"}}); err == nil {
		t.Error("the stand-in answers at the wrong host")
	}
	asked := s.world.Requests("signer", "")
	if last := asked[len(asked)-1]; last.Path != "/revocations" || last.Host != "signer.eu-west-1.amazonaws.com" {
		t.Errorf("asked %+v", last)
	}
}

func TestSignConcurrently(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var wg sync.WaitGroup
	for range 2 * defaultMaxConcurrent {
		wg.Go(func() {
			jws, err := s.signer.Sign(t.Context(), s.envelope, attest.PredicateSLSAProvenanceV1)
			if err == nil {
				_, err = s.verifier.Verify(t.Context(), s.envelope, jws)
			}
			// A machine that is busy may not make all of them in time.
			if code := refusal.CodeOf(err); err != nil && code != CodeUnavailable && code != CodeRevocationUnknown {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkSign(b *testing.B) {
	s := newSite(b)
	for b.Loop() {
		s.sign(b)
	}
}
