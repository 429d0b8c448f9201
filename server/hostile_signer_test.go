package server_test

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// signedPolicy wants AWS Signer for prod and nothing of it for dev.
const signedPolicy = `
@id("dev-known-builder")
@message("dev needs provenance")
@remedy("attest")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "dev" }
when { resource has provenance && resource.provenance.trusted };

@id("prod-signed")
@message("prod needs a signature of AWS Signer that is not revoked")
@remedy("attest with signer.profile")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "prod" }
when { resource has provenance && resource.provenance.trusted }
when { resource has signer && !resource.signer.revoked && resource.signer.profile like "*/signing-profiles/release*" };
`

// signerWorld is a world with AWS Signer in it, whose clock stands still.
type signerWorld struct {
	*world
	cloud   *testenv.AWS
	profile *awstest.SigningProfile
	roots   string
}

func newSignerWorld(t *testing.T, validity time.Duration) *signerWorld {
	t.Helper()
	w := newWorld(t, "https://assay.test")
	frozen := time.Now().Truncate(time.Second)
	w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
	x := &signerWorld{world: w, cloud: newAWS(t, w)}
	x.cloud.Service.Allow("signer:SignPayload", "signer:GetRevocationStatus")
	x.profile = x.cloud.World.Account(testenv.ServiceAccount).SigningProfile(testenv.AWSRegion, "release", validity)
	x.roots = filepath.Join(t.TempDir(), "signer.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.cloud.World.SignerRoot().Raw})
	if err := os.WriteFile(x.roots, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return x
}

// config has the service sign with the profile and believe the versions of others.
func (x *signerWorld) config(others ...string) func(*server.Config) {
	return func(c *server.Config) {
		withKMS(x.cloud)(c)
		c.Signer.Profile, c.Signer.RootsFile = "signer:///"+x.profile.Name(), x.roots
		c.Signer.ProfileVersions = append(others, x.profile.VersionARN())
	}
}

func (x *signerWorld) start(t *testing.T, policy string) *life {
	t.Helper()
	edits := []func(*server.Config){x.config()}
	if policy != "" {
		edits = append(edits, withPolicy(t, policy))
	}
	return x.world.start(t, edits...).login(t)
}

// asked is how often AWS Signer was.
func (x *signerWorld) asked() int { return x.cloud.World.Count("signer", "") }

// TestSignerBesideTheBundle: what AWS Signer signed is handed out with the bundle wherever
// that is, is over its exact envelope, and decides where the policy reads it.
func TestSignerBesideTheBundle(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 0)
	l := x.start(t, signedPolicy)
	good := subject("good", "good")
	made := l.digests(t, l.ctx, good).GetAttestation()
	audit := assayv1.NewAuditServiceClient(l.conn)
	got, err := audit.GetAttestation(l.ctx, &assayv1.GetAttestationRequest{AttestationId: made.GetAttestationId()})
	if err != nil {
		t.Fatal(err)
	}
	full, err := audit.ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{IncludeBundles: true})
	if err != nil {
		t.Fatal(err)
	}
	lean, err := audit.ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(lean.GetAttestations()[0].GetDetachedSignatures()); n != 0 {
		t.Errorf("a list without bundles has %d signatures", n)
	}
	repeated := l.digests(t, l.ctx, good).GetAttestation()
	revocations, err := notary.NewRevocations(x.cloud.World.AWSConfig(x.cloud.Service.Session("other"), testenv.AWSRegion), notary.RevocationsConfig{Now: x.now})
	if err != nil {
		t.Fatal(err)
	}
	v, err := notary.NewVerifier(notary.Trust{Roots: x.cloud.World.SignerChain()[2:], ProfileVersionARNs: []string{x.profile.VersionARN()}}, revocations, notary.VerifierConfig{Now: x.now})
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]*assayv1.Attestation{"attest": made, "get": got.GetAttestation(), "list": full.GetAttestations()[0], "repeat": repeated} {
		if len(a.GetDetachedSignatures()) != 1 {
			t.Fatalf("%s: %d detached signatures", name, len(a.GetDetachedSignatures()))
		}
		d := a.GetDetachedSignatures()[0]
		parts, err := attest.ParseOwnBundle(a.GetBundle())
		if err != nil {
			t.Fatal(err)
		}
		ev, err := v.Verify(t.Context(), parts.Envelope.Marshal(), d.GetSignature())
		if err != nil || d.GetKind() != notary.MediaTypeSignature || ev.ProfileVersion() != x.profile.VersionARN() || ev.PredicateType() != a.GetPredicateType() {
			t.Errorf("%s: %s of %v: %v", name, d.GetKind(), ev, err)
		}
		if bytes.Contains(a.GetBundle(), d.GetSignature()) || len(parts.Envelope.Signatures) != 1 {
			t.Errorf("%s: the signature is in the bundle", name)
		}
	}
	l.decide(t, "prod", good, "ALLOWED")
	d := l.decide(t, "prod", good, "ALLOWED")
	kept, err := audit.GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: d.GetDecisionId()})
	if err != nil {
		t.Fatal(err)
	}
	if f := kept.GetDecision().GetFacts(); f["signer.profile"] != x.profile.ARN() || f["signer.profileVersion"] != x.profile.VersionARN() || f["signer.revoked"] != "false" {
		t.Errorf("facts %v", f)
	}
	l.decide(t, "prod", subject("nobody", "nobody"), "NO_ATTESTATION")
}

// TestSignerRevoked: a revocation of the signature, of the profile from before it on, or
// of any certificate denies as soon as the answer of before is too old.
func TestSignerRevoked(t *testing.T) {
	t.Parallel()
	for name, revoke := range map[string]func(x *signerWorld){
		"signature": func(x *signerWorld) {
			for _, job := range x.cloud.World.Account(testenv.ServiceAccount).SigningJobs(testenv.AWSRegion) {
				x.cloud.World.RevokeSignature(job)
			}
		},
		"profile":      func(x *signerWorld) { x.profile.Revoke(x.now().Add(-time.Hour)) },
		"leaf":         func(x *signerWorld) { x.cloud.World.RevokeSignerCertificate(0) },
		"intermediate": func(x *signerWorld) { x.cloud.World.RevokeSignerCertificate(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newSignerWorld(t, 0)
			l := x.start(t, signedPolicy)
			good := subject("good", "good")
			l.digests(t, l.ctx, good)
			l.decide(t, "prod", good, "ALLOWED")
			x.advance(31 * time.Second)
			l.decide(t, "prod", good, "ALLOWED") // still, and asked again
			revoke(x)
			x.advance(30 * time.Second)
			l.decide(t, "prod", good, "REQUIREMENT_UNMET")
			l.decide(t, "dev", good, "ALLOWED")
			l.stop()
			l = x.start(t, signedPolicy) // a new life has forgotten all answers
			l.decide(t, "prod", good, "REQUIREMENT_UNMET")
			_, err := l.tryDigests(subject("next", "next"))
			switch name {
			case "signature":
				if err != nil {
					t.Errorf("another signature: %v", err)
				}
			case "profile":
				wantOutage(t, err, "SIGNER_PROFILE_UNUSABLE")
			default:
				wantOutage(t, err, "NOTARY_REVOKED")
			}
		})
	}
	t.Run("profile, after it signed", func(t *testing.T) {
		t.Parallel()
		x := newSignerWorld(t, 0)
		l := x.start(t, signedPolicy)
		good := subject("good", "good")
		l.digests(t, l.ctx, good)
		x.profile.Revoke(x.now().Add(time.Minute))
		x.advance(2 * time.Minute)
		l.decide(t, "prod", good, "ALLOWED")
	})
}

// TestSignerRevocationUnknown: while AWS does not say whether a signature is revoked,
// there is none, and no ALLOW; what does not look at it goes on.
func TestSignerRevocationUnknown(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 0)
	l := x.start(t, signedPolicy)
	good := subject("good", "good")
	l.digests(t, l.ctx, good)
	l.decide(t, "prod", good, "ALLOWED")
	api := func(status int, code string) awstest.Fault { return awstest.Fault{Status: status, Code: code} }
	faults := map[string]awstest.Fault{
		"throttled":         api(429, "ThrottlingException"),
		"internal error":    api(500, "InternalServiceErrorException"),
		"access denied":     api(403, "AccessDeniedException"),
		"not found":         api(404, "ResourceNotFoundException"),
		"invalid":           api(400, "ValidationException"),
		"unknown":           api(418, "SomethingNewException"),
		"connection broken": {CloseConnection: true},
		"broken off":        {Truncate: true},
		"garbage":           {Body: []byte("<html>"), Header: http.Header{"Content-Type": {"text/html"}}},
		"not JSON at all":   {Body: []byte(`["`)},
		"wrong types":       {Body: []byte(`{"revokedEntities":"none"}`)},
		"huge":              {Body: bytes.Repeat([]byte(" "), 1<<20)},
		"redirect":          {Status: 307, Redirect: "https://evil.example/"},
		"hangs":             {Delay: time.Minute},
	}
	for name, fault := range faults {
		if testing.Short() && (fault.Delay > 0 || fault.CloseConnection || fault.Status == 429 || fault.Status == 500) {
			continue // the SDK tries again, and takes its time
		}
		t.Run(name, func(t *testing.T) {
			fault.Service, fault.Action = "signer", "GetRevocationStatus"
			x.cloud.World.Fail(fault)
			x.advance(31 * time.Second)
			if x.ahead.Load() > int64(10*time.Minute) {
				l.login(t)
			}
			l.decide(t, "prod", good, "REQUIREMENT_UNMET")
			asked, late := x.asked(), 0
			if fault.Delay > 0 {
				late = 1 // the question goes on when the decision no longer waits for it, and is counted when it ends
			}
			for range 20 {
				l.decide(t, "prod", good, "REQUIREMENT_UNMET")
			}
			if n := x.asked() - asked; n > late {
				t.Errorf("AWS was asked %d times more about what is not known", n)
			}
			l.decide(t, "dev", good, "ALLOWED")
			before := l.kept(t)
			_, err := l.tryDigests(subject("no", name))
			wantOutage(t, err, "NOTARY_REVOCATION_UNKNOWN")
			l.unchanged(t, before)
			x.cloud.World.Heal()
			x.advance(31 * time.Second) // the answer that nothing is known, and any circuit, are over
			l.decide(t, "prod", good, "ALLOWED")
		})
	}
}

// TestSignerExpired: a signature counts until its own expiry, and no longer.
func TestSignerExpired(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 24*time.Hour)
	l := x.start(t, signedPolicy)
	good := subject("good", "good")
	l.digests(t, l.ctx, good)
	x.advance(24*time.Hour - time.Minute)
	l.login(t)
	l.decide(t, "prod", good, "ALLOWED")
	x.advance(2 * time.Minute)
	l.decide(t, "prod", good, "REQUIREMENT_UNMET")
	l.decide(t, "dev", good, "ALLOWED")
}

// TestSignerLies: an answer of AWS Signer that is not the signature asked for is refused,
// whatever is wrong with it, before anything is stored; verifying goes on.
func TestSignerLies(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 0)
	l := x.start(t, signedPolicy)
	good := subject("good", "good")
	first := l.digests(t, l.ctx, good).GetAttestation()
	l.decide(t, "prod", good, "ALLOWED")
	codes := map[string]string{
		"OtherChain": "NOTARY_UNTRUSTED", "ShortChain": "NOTARY_UNTRUSTED", "WrongProfile": "NOTARY_PROFILE_NOT_ALLOWED",
		"WrongJob": "NOTARY_REVOCATION_UNKNOWN", // AWS knows nothing of such a job
	}
	faults := reflect.TypeFor[awstest.SignerFault]()
	tried := 0
	for i := range faults.NumField() {
		name := faults.Field(i).Name
		if name == "Times" {
			continue
		}
		tried++
		t.Run(name, func(t *testing.T) {
			var fault awstest.SignerFault
			reflect.ValueOf(&fault).Elem().Field(i).SetBool(true)
			before := l.kept(t)
			x.profile.Fault(fault)
			_, err := l.tryDigests(subject("no", name))
			x.profile.ClearFaults()
			want := codes[name]
			if want == "" {
				want = "SIGNER_ANSWER_INVALID"
			}
			wantOutage(t, err, want)
			l.unchanged(t, before)
			l.decide(t, "prod", good, "ALLOWED")
		})
	}
	if next := l.digests(t, l.ctx, subject("next", "next")).GetAttestation(); next.GetLogIndex() != first.GetLogIndex()+2 {
		t.Errorf("log index %d after %d and a summary: something that was refused is in the log", next.GetLogIndex(), first.GetLogIndex())
	}
	if tried < 15 {
		t.Errorf("%d faults", tried)
	}
}

// TestSignerAway: while AWS Signer does not sign, nothing is attested, for the reason that
// there is, and what does not look at its signatures does not ask it anything.
func TestSignerAway(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 0)
	l := x.start(t, "") // the default policy
	good := subject("good", "good")
	l.digests(t, l.ctx, good)
	asked := x.asked()
	for _, environment := range []string{"dev", "staging", "prod"} {
		l.verify(t, environment, good, subject("nobody", "nobody"))
	}
	if n := x.asked() - asked; n != 0 {
		t.Errorf("a policy that does not read signer asked AWS Signer %d times", n)
	}
	for name, tt := range map[string]struct {
		fault  awstest.Fault
		reason string
	}{
		"throttled":      {awstest.Fault{Status: 429, Code: "ThrottlingException"}, "SIGNER_THROTTLED"},
		"internal error": {awstest.Fault{Status: 500, Code: "InternalServiceErrorException"}, "SIGNER_UNAVAILABLE"},
		"access denied":  {awstest.Fault{Status: 403, Code: "AccessDeniedException", Message: "arn:aws:sts::999988887777:assumed-role/assayd"}, "SIGNER_ACCESS_DENIED"},
		"no such":        {awstest.Fault{Status: 404, Code: "ResourceNotFoundException"}, "SIGNER_PROFILE_NOT_FOUND"},
		"invalid":        {awstest.Fault{Status: 400, Code: "ValidationException"}, "SIGNER_PROFILE_UNUSABLE"},
		"garbage":        {awstest.Fault{Body: []byte("<html>")}, "SIGNER_ANSWER_INVALID"},
		"empty":          {awstest.Fault{Body: []byte("{}")}, "SIGNER_ANSWER_INVALID"},
		"huge":           {awstest.Fault{Body: bytes.Repeat([]byte(" "), 1<<20)}, "SIGNER_ANSWER_INVALID"},
		"redirect":       {awstest.Fault{Status: 307, Redirect: "https://evil.example/"}, "SIGNER_UNAVAILABLE"},
		"hangs":          {awstest.Fault{Delay: time.Minute}, "SIGNER_UNAVAILABLE"},
	} {
		if testing.Short() && (tt.fault.Delay > 0 || tt.fault.Status == 429) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			before, began := l.kept(t), time.Now()
			tt.fault.Service, tt.fault.Action = "signer", "SignPayload"
			x.cloud.World.Fail(tt.fault)
			_, err := l.tryDigests(subject("no", name))
			wantOutage(t, err, tt.reason)
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("it took %s", took)
			}
			l.unchanged(t, before)
			settle(tt.fault)
			l.goesOn(t, x.cloud, good)
			x.cloud.World.Heal()
			x.advance(30 * time.Second) // past any circuit
			l.digests(t, l.ctx, subject("no", name))
		})
	}
	x.profile.Cancel()
	_, err := l.tryDigests(subject("no", "cancelled"))
	wantOutage(t, err, "SIGNER_PROFILE_UNUSABLE")
	again := x.cloud.World.Account(testenv.ServiceAccount).SigningProfile(testenv.AWSRegion, "release", 0)
	if again.VersionARN() == x.profile.VersionARN() {
		t.Fatal("the profile has no new version")
	}
	_, err = l.tryDigests(subject("no", "made again"))
	wantOutage(t, err, "NOTARY_PROFILE_NOT_ALLOWED")
	if n := l.kept(t).Pending; n != 0 {
		t.Errorf("%d pending", n)
	}
}
