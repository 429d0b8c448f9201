package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// plant makes a canary: letters alone, so that no rule about how secrets look finds
// it by its looks.
func (s secrets) plant(name string) string {
	sum := sha256.Sum256([]byte(name))
	canary := "canary" + strings.NewReplacer("0", "g", "1", "h", "2", "i", "3", "j", "4", "k", "5", "l", "6", "m", "7", "n", "8", "o", "9", "p").Replace(hex.EncodeToString(sum[:12]))
	s[name] = []byte(canary)
	return canary
}

// credentials adds what of a session of AWS is secret.
func (s secrets) credentials(name string, c aws.Credentials) aws.Credentials {
	s[name+" secret key"], s[name+" session token"] = []byte(c.SecretAccessKey), []byte(c.SessionToken)
	return c
}

// signature adds a signature in the forms in which it travels.
func (s secrets) signature(name string, wire *assayv1.StsProof) *assayv1.StsProof {
	sig := wire.GetSignature()
	s[name+" signature"], s[name+" signature, hex"] = sig, []byte(hex.EncodeToString(sig))
	return wire
}

// encoded adds each secret as it would look in hexadecimal, and within longer text
// in base64, wherever in that text it began.
func (s secrets) encoded() secrets {
	out := secrets{}
	for name, secret := range s {
		out[name], out[name+" in hex"] = secret, []byte(hex.EncodeToString(secret))
		for skip := range 3 {
			part := secret[skip:]
			part = part[:len(part)/3*3]
			out[fmt.Sprintf("%s in base64, %d", name, skip)] = []byte(base64.StdEncoding.EncodeToString(part))
			out[fmt.Sprintf("%s in base64url, %d", name, skip)] = []byte(base64.RawURLEncoding.EncodeToString(part))
		}
	}
	return out
}

// heard is everything that the service told anybody.
type heard struct {
	mu    sync.Mutex
	texts []string
}

func (h *heard) say(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.texts = append(h.texts, text)
}

func (h *heard) message(m proto.Message) { h.say(protojson.Format(m)) }

func (h *heard) attestation(t testing.TB, a *assayv1.Attestation) {
	h.message(a)
	h.say(string(statementOf(t, a.GetBundle()).Predicate))
}

func (h *heard) refusal(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	wantReason(t, err, code, reason)
	h.say(fmt.Sprintf("%v %+v", err, err))
}

// canaryProject gives the stand-in's project secrets wherever one can be.
func canaryProject(cloud *testenv.AWS, hidden secrets) {
	plain := func(name, value string) cbtypes.EnvironmentVariable {
		return cbtypes.EnvironmentVariable{Name: &name, Value: &value, Type: cbtypes.EnvironmentVariableTypePlaintext}
	}
	stored := func(kind cbtypes.EnvironmentVariableType, name, value string) cbtypes.EnvironmentVariable {
		return cbtypes.EnvironmentVariable{Name: &name, Value: &value, Type: kind}
	}
	digits := "a1B2" + strings.ToUpper(hidden.plant("value of digits and letters"))[6:22] + "9z8Y7x6W"
	hidden["value of digits and letters"] = []byte(digits)
	cloud.Project.Edit(func(p *cbtypes.Project) {
		p.Environment.EnvironmentVariables = []cbtypes.EnvironmentVariable{
			plain("STAGE", "told-in-the-open"), // allowed, and not secret: it must be there
			plain("GREETING", hidden.plant("plain name, not allowed")),
			plain("stage", hidden.plant("allowed name in another case")),
			plain("STAGE_2", hidden.plant("longer than an allowed name")),
			plain("DB_PASSWORD", hidden.plant("secret name, not allowed")),
			plain("API_TOKEN", hidden.plant("secret name, allowed")),
			plain("AWS_SECRET_ACCESS_KEY", hidden.plant("name of AWS, allowed")),
			plain("FLAG_1", "ghp_"+hidden.plant("token of GitHub, allowed name")),
			plain("FLAG_2", "--index https://user:"+hidden.plant("password in an address, allowed name")+"@pypi.example.com/simple"),
			plain("FLAG_3", "-----BEGIN PRIVATE KEY-----\n"+hidden.plant("PEM, allowed name")),
			plain("FLAG_4", "x password="+hidden.plant("password in a text, allowed name")),
			plain("FLAG_5", "Authorization: Bearer "+hidden.plant("bearer, allowed name")),
			plain("FLAG_6", digits),
			plain("FLAG_7", "line\n"+hidden.plant("two lines, allowed name")),
			stored(cbtypes.EnvironmentVariableTypeParameterStore, "DB", "/acme/db/told-as-name"),
			stored(cbtypes.EnvironmentVariableTypeParameterStore, "DB2", "https://user:"+hidden.plant("parameter that is a secret")+"@x.example.com"),
			stored(cbtypes.EnvironmentVariableTypeSecretsManager, "DB3", "ghp_"+hidden.plant("secret's name that is a secret")),
		}
		p.Source.Location = aws.String("https://user:" + hidden.plant("password in the source") + "@github.com/acme/app.git")
		p.Source.Auth = &cbtypes.SourceAuth{Type: cbtypes.SourceAuthTypeOauth, Resource: aws.String(hidden.plant("source auth"))}
		p.Source.Buildspec = aws.String("version: 0.2\nphases:\n  build:\n    commands:\n      - curl -H 'X-Key: " + hidden.plant("buildspec of the project") + "' https://x.example.com\n")
		p.Environment.RegistryCredential = &cbtypes.RegistryCredential{Credential: aws.String(hidden.plant("registry credential")), CredentialProvider: cbtypes.CredentialProviderTypeSecretsManager}
	})
}

// canaryBuild starts a build whose overrides are secrets as well.
func canaryBuild(cloud *testenv.AWS, hidden secrets, name string) *awstest.Build {
	in := awstest.StartBuild{}
	in.EnvironmentVariablesOverride = []cbtypes.EnvironmentVariable{
		{Name: aws.String("GREETING"), Value: aws.String(hidden.plant("override of a plain name " + name))},
		{Name: aws.String("ADDED"), Value: aws.String(hidden.plant("variable added " + name))},
		{Name: aws.String("FLAG_1"), Value: aws.String("github_pat_" + hidden.plant("override of an allowed name "+name))},
	}
	in.BuildspecOverride = aws.String("version: 0.2\nenv:\n  variables:\n    KEY: " + hidden.plant("buildspec of the build "+name) + "\n")
	in.SourceLocationOverride = aws.String("https://x-access-token:" + hidden.plant("password in the source override "+name) + "@github.com/acme/app2.git")
	in.SourceAuthOverride = &cbtypes.SourceAuth{Type: cbtypes.SourceAuthTypeOauth, Resource: aws.String(hidden.plant("source auth override " + name))}
	in.RegistryCredentialOverride = &cbtypes.RegistryCredential{Credential: aws.String(hidden.plant("registry credential override " + name)), CredentialProvider: cbtypes.CredentialProviderTypeSecretsManager}
	b := cloud.Project.StartBuild(in)
	b.Advance(cbtypes.BuildPhaseTypeBuild)
	return b
}

// TestCanaries: through successes and refusals of every kind of credential, with
// everything logged that can be, no secret of a token, of AWS, of a build or of the
// GitHub API is found in logs, errors, answers, metrics, provenance or at rest.
func TestCanaries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	hidden, out := secrets{}, new(heard)
	cloud := newAWS(t, w)
	p := newTrap(cloud)
	canaryProject(cloud, hidden)
	hidden["external id"] = []byte(testenv.AWSExternalID)
	idp, gitLab, buildkite := people(t, w), platform(t, w, oidctest.GitLabJob()), platform(t, w, oidctest.BuildkiteJob())
	api := newCanaryAPI(t, hidden)
	own := cloud.Account.EnableWebIdentity()
	cloud.Deploy.Allow("sts:TagGetWebIdentityToken")
	service := hidden.credentials("service's", cloud.Service.Session("assayd"))
	l := w.start(t, withTrap(cloud, p), withPeople(idp), withGitLab(gitLab), withBuildkite(buildkite), withWebIdentity(own, testenv.AWSAccount, ""), func(c *server.Config) {
		c.Identity.Issuers[0].Recheck = &server.RecheckConf{APIURL: api.url, TokenFile: api.token}
		c.AWS.PlaintextVariables = []string{"STAGE", "API_TOKEN", "AWS_SECRET_ACCESS_KEY", "FLAG_1", "FLAG_2", "FLAG_3", "FLAG_4", "FLAG_5", "FLAG_6", "FLAG_7"}
		c.AWSClients.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return service, nil
		}))
	})

	// Credentials that open sessions, with what nobody asked for in them.
	unknown := func(of string) oidctest.Claims {
		return oidctest.Claims{
			"enterprise": hidden.plant(of + " claim enterprise"), "user_email": hidden.plant(of+" claim email") + "@example.com", "user_login": hidden.plant(of + " claim login"),
			"nonce": hidden.plant(of + " claim nonce"), "secret_sauce": map[string]any{"deep": []string{hidden.plant(of + " claim deep")}},
		}
	}
	tokens := map[string]string{
		"GitHub":    w.issuer.Mint(w.instance, unknown("GitHub"), oidctest.Claims{"sub": "repo:" + hidden.plant("GitHub claim sub")}),
		"GitLab":    gitLab.Mint(w.instance, unknown("GitLab"), oidctest.Claims{"user_identities": []any{map[string]string{"extern_uid": hidden.plant("GitLab claim uid")}}}),
		"Buildkite": buildkite.Mint(w.instance, oidctest.Claims{"jti": nil}, unknown("Buildkite")),
		"person":    idp.Forge(oidctest.Forgery{Claims: unknown("person").With(oidctest.Claims{"aud": clientID, "sub": "u-1", "hd": "example.com", "groups": []string{"auditor"}, "phone_number": hidden.plant("person claim phone"), "at_hash": hidden.plant("person claim at_hash")})}),
		"role":      mustWebIdentity(t, cloud, hidden.credentials("deploy's", cloud.Deploy.Session("deploy-1")), w.instance, "note", hidden.plant("request tag")),
	}
	sessions := map[string]context.Context{}
	for name, token := range tokens {
		resp, err := l.exchange(t.Context(), hidden.jwt(name+" token", token))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out.message(resp.GetCaller())
		sessions[name] = bearing(t.Context(), resp.GetSessionToken())
		hidden.session(t, name+" session", resp.GetSessionToken())
		_, err = l.exchange(t.Context(), token)
		out.refusal(t, err, codes.Unauthenticated, "TOKEN_REPLAYED")
	}
	b := canaryBuild(cloud, hidden, "1")
	wire := hidden.signature("build's", l.signed(t, claim{creds: hidden.credentials("build's", b.Credentials()), build: b.ID}))
	resp, err := l.submit(t.Context(), wire)
	if err != nil {
		t.Fatal(err)
	}
	out.message(resp.GetCaller())
	sessions["build"] = bearing(t.Context(), resp.GetSessionToken())
	hidden.session(t, "build's session", resp.GetSessionToken())

	// Attestations, decisions and reads.
	for _, name := range []string{"GitHub", "GitLab", "Buildkite", "build"} {
		ctx := metadata.AppendToOutgoingContext(sessions[name], "x-amz-security-token", hidden.plant("metadata of "+name), "cookie", "s="+hidden.plant("cookie of "+name))
		out.attestation(t, l.upload(t, ctx, "app-"+name, "the app of "+name).GetAttestation())
	}
	finished := canaryBuild(cloud, hidden, "2")
	attestations := assayv1.NewAttestationServiceClient(l.conn)
	_, err = attestations.AttestBuild(sessions["build"], &assayv1.AttestBuildRequest{BuildArn: finished.ARN})
	out.refusal(t, err, codes.FailedPrecondition, "CODEBUILD_NOT_FINISHED")
	finished.UploadFiles(map[string][]byte{"app": []byte("the app")})
	finished.Finish(cbtypes.StatusTypeSucceeded)
	post, err := attestations.AttestBuild(sessions["build"], &assayv1.AttestBuildRequest{BuildArn: finished.ARN})
	if err != nil {
		t.Fatal(err)
	}
	out.attestation(t, post.GetResult().GetAttestation())
	for _, s := range []*assayv1.Subject{subject("app", "the app of build"), subject("app", "nobody's")} {
		d, err := assayv1.NewVerificationServiceClient(l.conn).Verify(sessions["build"], &assayv1.VerifyRequest{Environment: "prod", Subjects: []*assayv1.Subject{s}})
		if err != nil {
			t.Fatal(err)
		}
		out.message(d)
	}
	for name, ctx := range sessions {
		for _, path := range []string{"/v1/identity", "/v1/attestations?include_bundles=true", "/v1/decisions"} {
			_, body := overJSON(t, l, bearerOf(ctx), http.MethodGet, path, "")
			out.say(name + " " + body)
		}
	}
	canaryRefusals(t, l, cloud, api, hidden, out, b)

	_, metrics := httpGet(t, l.Server+"/metrics")
	l.stop()
	p.sprung(t)
	all := strings.Join(out.texts, "\n")
	for _, told := range []string{"told-in-the-open", "/acme/db/told-as-name", "environment.environmentVariables.GREETING", "https://github.com/acme/app2"} {
		if !strings.Contains(all, told) {
			t.Errorf("%q is told nowhere; the test tests nothing", told)
		}
	}
	if len(hidden) < 80 || !strings.Contains(l.logs.String(), "CODEBUILD_RECORD_SECRET") || !strings.Contains(l.logs.String(), "AWS_STS_ANSWER_INVALID") {
		t.Errorf("%d canaries; what was refused was not logged", len(hidden))
	}
	every := hidden.encoded()
	every.absent(t, "what was told", []byte(all))
	every.absent(t, "/metrics", []byte(metrics))
	every.absent(t, "the log", []byte(l.logs.String()))
	atRest(t, w.data, every)
}

// canaryRefusals are calls that fail in every part that handles a secret.
func canaryRefusals(t *testing.T, l *life, cloud *testenv.AWS, api *canaryAPI, hidden secrets, out *heard, b *awstest.Build) {
	t.Helper()
	ids := assayv1.NewIdentityServiceClient(l.conn)
	proof := func(name string, c claim) *assayv1.StsProof {
		return hidden.signature(name, l.signed(t, c))
	}
	creds := hidden.credentials("refused", b.Credentials())
	for i, tt := range []struct {
		claim  claim
		code   codes.Code
		reason string
	}{
		{claim{creds: creds, build: cloud.RunningBuild().ID}, codes.Unauthenticated, "CODEBUILD_SESSION_MISMATCH"},
		{claim{creds: creds}, codes.PermissionDenied, "AWS_ROLE_NOT_ALLOWED"},
		{claim{creds: creds, audience: "https://assay.elsewhere.test", build: b.ID}, codes.Unauthenticated, "AWS_STS_REFUSED"},
		{claim{creds: creds, region: "us-east-1", build: b.ID}, codes.PermissionDenied, "AWS_REGION_NOT_ALLOWED"},
		{claim{creds: creds, edit: func(p *assayv1.StsProof) { p.SessionToken += "\n" }}, codes.InvalidArgument, "STS_PROOF_INVALID"},
		{claim{creds: creds, edit: func(p *assayv1.StsProof) { p.AccessKeyId = p.GetSessionToken()[:40] }}, codes.InvalidArgument, "STS_PROOF_INVALID"},
		{claim{creds: creds, edit: func(p *assayv1.StsProof) { p.Date = p.GetSessionToken()[:40] }}, codes.InvalidArgument, "STS_PROOF_INVALID"},
		{claim{creds: creds, edit: func(p *assayv1.StsProof) { p.Nonce = p.GetSignature() }}, codes.Unauthenticated, "STS_NONCE_INVALID"},
	} {
		_, err := l.submit(t.Context(), proof(fmt.Sprint("refused proof ", i), tt.claim))
		out.refusal(t, err, tt.code, tt.reason)
	}
	// Answers that give back what was sent.
	asJSON := http.Header{"Content-Type": {"application/json"}}
	for i, f := range []awstest.Fault{
		{Service: "sts", Action: "GetCallerIdentity", Body: []byte(identityAnswer(creds.SessionToken, "codebuild-app", creds.SessionToken, creds.SessionToken)), Header: asJSON},
		{Service: "sts", Action: "GetCallerIdentity", Body: []byte(creds.SessionToken), Header: http.Header{"Content-Type": {creds.SessionToken}}},
		{Service: "sts", Action: "GetCallerIdentity", Status: 302, Redirect: "https://sts.eu-central-1.amazonaws.com/?" + creds.SessionToken},
	} {
		cloud.World.Fail(f)
		_, err := l.submit(t.Context(), proof(fmt.Sprint("echoed proof ", i), claim{creds: creds, build: b.ID}))
		cloud.World.Heal()
		out.refusal(t, err, codes.Unauthenticated, "AWS_STS_ANSWER_INVALID")
	}
	for name, f := range map[string]awstest.Fault{
		"error text of STS":       {Service: "sts", Action: "GetCallerIdentity", Status: 500, Code: "InternalFailure", Message: hidden.plant("error text of STS")},
		"error text of CodeBuild": {Service: "codebuild", Status: 500, Code: "InternalFailure", Message: hidden.plant("error text of CodeBuild")},
		"denial of CodeBuild":     {Service: "codebuild", Status: 400, Code: "AccessDeniedException", Message: hidden.plant("denial of CodeBuild")},
		"answer of CodeBuild":     {Service: "codebuild", Body: []byte(`{"builds":"` + hidden.plant("answer of CodeBuild") + `"}`), Header: asJSON},
	} {
		cloud.World.Fail(f)
		_, err := l.submit(t.Context(), proof("proof for "+name, claim{creds: creds, build: b.ID}))
		cloud.World.Heal()
		code, want := codes.Unavailable, "CODEBUILD_UNAVAILABLE"
		switch name {
		case "error text of STS":
			want = "AWS_STS_UNAVAILABLE"
		case "denial of CodeBuild":
			code, want = codes.FailedPrecondition, "CODEBUILD_READER_DENIED"
		}
		out.refusal(t, err, code, want)
	}
	// A secret where provenance has to tell what is there.
	for field, edit := range map[string]func(*cbtypes.Build, string){
		"image":     func(r *cbtypes.Build, s string) { r.Environment.Image = &s },
		"initiator": func(r *cbtypes.Build, s string) { r.Initiator = &s },
		"version":   func(r *cbtypes.Build, s string) { r.SourceVersion = &s },
		"name of a variable": func(r *cbtypes.Build, s string) {
			r.Environment.EnvironmentVariables = []cbtypes.EnvironmentVariable{{Name: &s, Value: aws.String("x")}}
		},
	} {
		secret := cloud.RunningBuild()
		secret.Edit(func(r *cbtypes.Build) { edit(r, "x/ghp_"+hidden.plant("secret as "+field)) })
		_, err := l.submit(t.Context(), proof("proof for "+field, claim{creds: hidden.credentials(field, secret.Credentials()), build: secret.ID}))
		out.refusal(t, err, codes.FailedPrecondition, "CODEBUILD_RECORD_SECRET")
	}
	// The GitHub API, well and ill.
	for i, ill := range []int{http.StatusNotFound, http.StatusInternalServerError, http.StatusFound, http.StatusOK} {
		api.status.Store(int64(ill))
		l.world.advance(time.Minute) // what it said of the run before is good for less
		_, err := l.exchange(t.Context(), hidden.jwt(fmt.Sprint("rechecked token ", i), l.world.issuer.Mint(l.world.instance)))
		reason, _ := reasonOf(err)
		want := codes.Unavailable
		if reason == "RUN_RECHECK_FAILED" {
			want = codes.Unauthenticated
		}
		out.refusal(t, err, want, reason)
	}
	if api.asked.Load() < 5 {
		t.Error("the GitHub API was not given its credential; the test tests nothing")
	}
	// What is no session, and what is no credential.
	for _, value := range []string{"Basic " + hidden.plant("basic authorization"), "Bearer " + hidden.plant("bearer authorization"), hidden.plant("naked authorization")} {
		_, err := ids.WhoAmI(metadata.AppendToOutgoingContext(t.Context(), "authorization", value), &assayv1.WhoAmIRequest{})
		reason, _ := reasonOf(err)
		out.refusal(t, err, codes.Unauthenticated, reason)
		_, body := overJSON(t, l, value, http.MethodGet, "/v1/identity", "")
		out.say(body)
	}
	for _, body := range []string{`{"oidc_token":"` + hidden.plant("token that is none") + `"}`, `{"` + hidden.plant("token as a name") + `":1}`, `{"sts_proof":{"session_token":"` + hidden.plant("token alone") + `"}}`} {
		if body[2:8] == "canary" {
			delete(hidden, "token as a name") // the name of an unknown field is told
		}
		_, answer := overJSON(t, l, "", http.MethodPost, "/v1/identity:exchange", body)
		out.say(answer)
	}
}

// canaryAPI is a GitHub API that wants a credential, confirms the run of the default
// job, and tells everything it was sent when it is ill.
type canaryAPI struct {
	url, token string
	status     atomic.Int64
	asked      atomic.Int64
}

func newCanaryAPI(t testing.TB, hidden secrets) *canaryAPI {
	t.Helper()
	a := &canaryAPI{token: filepath.Join(t.TempDir(), "token")}
	credential := "ghs_" + hidden.plant("credential of the GitHub API")
	if err := os.WriteFile(a.token, []byte(credential+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+credential {
			http.Error(rw, "no credential", http.StatusUnauthorized)
			return
		}
		a.asked.Add(1)
		if ill := a.status.Load(); ill != 0 {
			rw.Header().Set("Location", "https://evil.example/?"+credential)
			rw.WriteHeader(int(ill))
			fmt.Fprintf(rw, `{"message":%q,"id":%q}`, r.Header, credential)
			return
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{
			"id": 14918273645, "run_attempt": 1, "head_sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "event": "push", "status": "in_progress",
			"repository": map[string]any{"id": 476830123}, "head_repository": map[string]any{"id": 476830123},
		})
	}))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}
