package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
)

const (
	gitLabURL = "https://gitlab.example.com"
	orgID     = "0184990a-477b-4fa8-9968-496074483a77" // of oidctest's Buildkite job
	builderID = "spiffe://acme.example/builders/linux"
	builderIP = "builder-1.acme.example"
)

func withGitLab(i *oidctest.Issuer) func(*server.Config) {
	return func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{URL: i.URL(), Type: "gitlab", ServerURL: gitLabURL, Allow: map[string][]string{"namespace_id": {"72"}}})
	}
}

func withBuildkite(i *oidctest.Issuer) func(*server.Config) {
	return func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{URL: i.URL(), Type: "buildkite", Allow: map[string][]string{"organization_id": {orgID}}})
	}
}

// TestGitLabJobs: a job of an allowed namespace is a build of its project; look-alike
// ids, forks and tokens of people are not.
func TestGitLabJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	i := platform(t, w, oidctest.GitLabJob())
	l := w.start(t, withGitLab(i))
	mint := func(c oidctest.Claims) string { return i.Mint(w.instance, c) }
	for name, job := range map[string]any{"text": "12345678901234567", "number": json.Number("12345678901234567")} {
		c, a := l.admit(t, mint(oidctest.Claims{"job_id": job, "project_id": json.Number("9007199254740993"), "namespace_id": 72}))
		const invocation = gitLabURL + "/octo-group/octo-app/-/jobs/12345678901234567"
		if c.GetWorkload().GetPlatform() != "gitlab" || c.GetWorkload().GetRepositoryId() != "9007199254740993" || a.GetInvocationId() != invocation ||
			a.GetSlsaBuildLevel() != 2 || a.GetBuilderId() != w.instance+"/builders/gitlab/hosted" || a.GetSourceUri() != "git+"+gitLabURL+"/octo-group/octo-app@refs/heads/main" {
			t.Errorf("id as %s: %v\n%v", name, c, a)
		}
		if p := string(statementOf(t, a.GetBundle()).Predicate); !strings.Contains(p, `"`+invocation+`"`) || !strings.Contains(p, `"9007199254740993"`) {
			t.Errorf("predicate %s", p)
		}
	}
	if c, _ := l.admit(t, mint(oidctest.Claims{"runner_environment": "self-hosted"})); c.GetBuilderId() != w.instance+"/builders/gitlab/self-hosted" || c.GetSlsaBuildLevel() != 1 {
		t.Errorf("on a runner of one's own: %v", c)
	}
	if c, _ := l.admit(t, mint(oidctest.Claims{"pipeline_source": "merge_request_event"})); !c.GetWorkload().GetPullRequest() {
		t.Errorf("a merge request: %v", c)
	}
	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	l.refuses(t, map[string]refusedToken{
		"namespace with a digit more":   {mint(oidctest.Claims{"namespace_id": "720"}), denied, "CALLER_NOT_ALLOWED"},
		"namespace with a digit before": {mint(oidctest.Claims{"namespace_id": 172}), denied, "CALLER_NOT_ALLOWED"},
		"namespace with a fraction":     {mint(oidctest.Claims{"namespace_id": json.RawMessage("72.0")}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"namespace of the same name":    {mint(oidctest.Claims{"namespace_id": "73"}), denied, "CALLER_NOT_ALLOWED"},
		"a list of namespaces":          {mint(oidctest.Claims{"namespace_id": []string{"72", "73"}}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"a fork's merge request":        {mint(oidctest.Claims{"namespace_id": "666", "namespace_path": "evil", "project_id": "667", "project_path": "evil/octo-app", "pipeline_source": "merge_request_event"}), denied, "CALLER_NOT_ALLOWED"},
		"job id in floating point":      {mint(oidctest.Claims{"job_id": json.RawMessage("1.2345678901234567e16")}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"project that walks":            {mint(oidctest.Claims{"project_path": "octo-group/../evil"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"project with a fragment":       {mint(oidctest.Claims{"project_path": "octo-group/app#"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"ref of an unknown type":        {mint(oidctest.Claims{"ref_type": "merge"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"ref that walks":                {mint(oidctest.Claims{"ref": "a/../main"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"sha of seven":                  {mint(oidctest.Claims{"sha": "714a629"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"a person of the same issuer":   {mint(oidctest.Claims{"job_id": nil, "pipeline_id": nil, "runner_environment": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"no jti":                        {mint(oidctest.Claims{"jti": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"a job of GitHub":               {i.Mint(w.instance, oidctest.DefaultJob(), oidctest.Claims{"namespace_id": "72", "project_id": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
	})
}

// TestBuildkiteJobs: all of Buildkite's customers share an issuer; the id of the
// organization is what tells them apart.
func TestBuildkiteJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	i := platform(t, w, oidctest.BuildkiteJob())
	l := w.start(t, withBuildkite(i))
	mint := func(c oidctest.Claims) string { return i.Mint(w.instance, oidctest.Claims{"jti": nil}, c) }
	token := mint(oidctest.Claims{"build_number": json.Number("12345678901234567")})
	c, a := l.admit(t, token)
	if want := "https://buildkite.com/acme-inc/super-duper-app/builds/12345678901234567#0184990a-477b-4fa8-9968-496074483cee"; a.GetInvocationId() != want ||
		c.GetWorkload().GetAccountId() != orgID || a.GetBuilderId() != w.instance+"/builders/buildkite/hosted" || a.GetSlsaBuildLevel() != 2 ||
		!strings.Contains(string(statementOf(t, a.GetBundle()).Predicate), want) {
		t.Errorf("%v\n%v", c, a)
	}
	if c, _ := l.admit(t, mint(oidctest.Claims{"build_branch": "evil:main", "build_commit": "HEAD"})); !c.GetWorkload().GetPullRequest() || c.GetWorkload().GetRef() != "" || c.GetWorkload().GetCommit() != "" {
		t.Errorf("a build of a fork: %v", c)
	}
	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	l.refuses(t, map[string]refusedToken{
		"again, without a jti":        {token, unauthenticated, "TOKEN_REPLAYED"},
		"another organization":        {mint(oidctest.Claims{"organization_id": "0184990a-477b-4fa8-9968-496074483a78"}), denied, "CALLER_NOT_ALLOWED"},
		"organization in capitals":    {mint(oidctest.Claims{"organization_id": strings.ToUpper(orgID)}), denied, "CALLER_NOT_ALLOWED"},
		"organization with more":      {mint(oidctest.Claims{"organization_id": orgID + "0"}), denied, "CALLER_NOT_ALLOWED"},
		"organization by its slug":    {mint(oidctest.Claims{"organization_id": "acme-inc"}), denied, "CALLER_NOT_ALLOWED"},
		"no organization id":          {mint(oidctest.Claims{"organization_id": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"no pipeline id":              {mint(oidctest.Claims{"pipeline_id": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"slug that walks":             {mint(oidctest.Claims{"organization_slug": ".."}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"pipeline with a slash":       {mint(oidctest.Claims{"pipeline_slug": "../evil"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"job that is another address": {mint(oidctest.Claims{"job_id": "x#y"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
	})
}

// TestOtherIssuers: the claims of any other issuer are read as configured; what it
// vouches for is a workload, and only a run of one is a build.
func TestOtherIssuers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	i := platform(t, w, oidctest.Claims{"sub": "system:serviceaccount:builds:kaniko", "ns": "builds", "sa": "kaniko"})
	l := w.start(t, func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{
			URL: i.URL(), Type: "workload", Allow: map[string][]string{"ns": {"builds"}},
			Claims: &server.ClaimsConf{
				Platform: "tekton", Subject: "{ns}/{sa}", Required: []string{"sa"},
				Repository: "{repo}", Ref: "refs/heads/{branch}", InvocationID: "{server_url}/runs/{run}",
			}, ServerURL: "https://tekton.example.com",
		})
		c.Access.Roles = append(c.Access.Roles, server.RoleConf{Role: "attestor", Members: []server.MemberConf{{Issuer: i.URL(), Subject: "builds/signer"}}})
	})
	mint := func(c oidctest.Claims) string { return i.Mint(w.instance, c) }
	attest := func(ctx context.Context) error {
		_, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: digests("app", okDigest)})
		return err
	}
	wantReason(t, attest(l.session(t, mint(nil))), codes.PermissionDenied, "ACCESS_DENIED")
	wantReason(t, attest(l.session(t, mint(oidctest.Claims{"sa": "signer2"}))), codes.PermissionDenied, "ACCESS_DENIED")
	if err := attest(l.session(t, mint(oidctest.Claims{"sa": "signer"}))); err != nil {
		t.Errorf("an attestor: %v", err)
	}
	c, a := l.admit(t, mint(oidctest.Claims{"run": json.Number("12345678901234567"), "repo": "https://git.example.com/acme/app", "branch": "main"}))
	if a.GetInvocationId() != "https://tekton.example.com/runs/12345678901234567" || a.GetBuilderId() != w.instance+"/builders/workload" || c.GetSlsaBuildLevel() != 1 {
		t.Errorf("a run: %v\n%v", c, a)
	}
	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	l.refuses(t, map[string]refusedToken{
		"another namespace":        {mint(oidctest.Claims{"ns": "builds2"}), denied, "CALLER_NOT_ALLOWED"},
		"namespace with more":      {mint(oidctest.Claims{"ns": "xbuilds"}), denied, "CALLER_NOT_ALLOWED"},
		"subject that is not one":  {mint(oidctest.Claims{"ns": "builds", "sa": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"repository of no address": {mint(oidctest.Claims{"run": "1", "repo": "javascript:alert(1)"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"repository with a user":   {mint(oidctest.Claims{"run": "1", "repo": "https://user:pass@git.example.com/x"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"run that walks":           {mint(oidctest.Claims{"run": "../../admin"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
	})
}

// TestPeople: a person is who the company's provider says, with the groups that it
// says, and a token that is not an ID token for this client is nobody's.
func TestPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp, other := people(t, w), people(t, w)
	l := w.start(t, withPeople(idp), func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{URL: other.URL(), Type: "human", Audience: []string{"other-client"}, Allow: map[string][]string{"hd": {"example.com"}}})
		c.Access.Roles = append(c.Access.Roles, server.RoleConf{Role: "breakglass", Members: []server.MemberConf{{Issuer: idp.URL(), Email: "chief@example.com"}}})
	})
	roles := func(i *oidctest.Issuer, claims oidctest.Claims) []string {
		all := oidctest.Claims{"aud": clientID, "sub": "u-1", "hd": "example.com"}
		if i == other {
			all["aud"] = "other-client"
		}
		resp, err := l.exchange(t.Context(), i.Forge(oidctest.Forgery{Claims: all.With(claims)}))
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetCaller().GetBuilderId() != "" || resp.GetCaller().GetKind() != assayv1.CallerKind_CALLER_KIND_HUMAN {
			t.Errorf("a person as %v", resp.GetCaller())
		}
		return resp.GetCaller().GetRoles()
	}
	for name, tt := range map[string]struct {
		issuer *oidctest.Issuer
		claims oidctest.Claims
		want   []string
	}{
		"a member":                   {idp, oidctest.Claims{"groups": []string{"security"}}, []string{"security"}},
		"a group in capitals":        {idp, oidctest.Claims{"groups": []string{"Security", "SECURITY "}}, nil},
		"a longer group":             {idp, oidctest.Claims{"groups": []string{"security2", "xsecurity", "security,admin"}}, nil},
		"a member of the other's":    {other, oidctest.Claims{"groups": []string{"security", "admin"}}, nil},
		"an address that is proved":  {idp, oidctest.Claims{"email": "chief@example.com", "email_verified": true}, []string{"breakglass"}},
		"one that is not":            {idp, oidctest.Claims{"email": "chief@example.com", "email_verified": false}, nil},
		"one of which nothing is":    {idp, oidctest.Claims{"email": "chief@example.com"}, nil},
		"one at the other's":         {other, oidctest.Claims{"email": "chief@example.com", "email_verified": true}, nil},
		"a role named as a property": {idp, oidctest.Claims{"roles": []string{"admin"}, "role": "admin"}, nil},
	} {
		if got := roles(tt.issuer, tt.claims); !slices.Equal(got, tt.want) {
			t.Errorf("%s has the roles %v; want %v", name, got, tt.want)
		}
	}
	forge := func(c oidctest.Claims) string {
		all := oidctest.Claims{"aud": clientID, "sub": "u-1", "hd": "example.com"}
		for k, v := range c {
			all[k] = v
		}
		return idp.Forge(oidctest.Forgery{Claims: all})
	}
	const unauthenticated, denied = codes.Unauthenticated, codes.PermissionDenied
	l.refuses(t, map[string]refusedToken{
		"for another client":        {forge(oidctest.Claims{"aud": "other-client"}), unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
		"for the service itself":    {forge(oidctest.Claims{"aud": w.instance}), unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
		"for two":                   {forge(oidctest.Claims{"aud": []string{clientID, "other-client"}}), unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
		"got by another client":     {forge(oidctest.Claims{"azp": "other-client"}), unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
		"of another company":        {forge(oidctest.Claims{"hd": "example.com.evil.example"}), denied, "CALLER_NOT_ALLOWED"},
		"of a company in front":     {forge(oidctest.Claims{"hd": "notexample.com"}), denied, "CALLER_NOT_ALLOWED"},
		"of no company":             {forge(oidctest.Claims{"hd": nil}), denied, "CALLER_NOT_ALLOWED"},
		"an access token":           {forge(oidctest.Claims{"token_use": "access"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"a job's, for the client":   {forge(oidctest.Claims{"job_id": "302", "project_id": "20"}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"groups that are no list":   {forge(oidctest.Claims{"groups": map[string]string{"security": "x"}}), unauthenticated, "TOKEN_CLAIM_INVALID"},
		"no sub":                    {forge(oidctest.Claims{"sub": nil}), unauthenticated, "TOKEN_CLAIM_MISSING"},
		"a GitHub job for a person": {w.issuer.Mint(clientID, oidctest.Claims{"hd": "example.com"}), unauthenticated, "TOKEN_AUDIENCE_MISMATCH"},
	})
}

// certs is an authority of a test.
type certs struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCerts(t testing.TB) *certs {
	t.Helper()
	c := &certs{}
	pair := c.issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	c.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	c.cert = pair.Leaf
	return c
}

func (c *certs) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.Subject = pkix.Name{CommonName: "spiffe://acme.example/builders/linux"} // it is never read
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// client is a certificate for a client, with names.
func (c *certs) client(t testing.TB, names ...string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, name := range names {
		if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return c.issue(t, template)
}

func writePEM(t testing.TB, name string, blocks ...*pem.Block) string {
	t.Helper()
	var data []byte
	for _, b := range blocks {
		data = append(data, pem.EncodeToMemory(b)...)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestClientCertificates: over TLS, who shows a certificate of a configured
// authority with exactly one allowed name is that workload, for no longer than the
// certificate; everybody else may connect and is nobody.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	ours, evil := newCerts(t), newCerts(t)
	served := ours.issue(t, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	der, err := x509.MarshalECPrivateKey(served.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	l := w.start(t, func(c *server.Config) {
		c.TLS.CertFile = writePEM(t, "tls.crt", &pem.Block{Type: "CERTIFICATE", Bytes: served.Certificate[0]})
		c.TLS.KeyFile = writePEM(t, "tls.key", &pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
		c.Identity.ClientCertificates = []server.CertificateAuthorityConf{{
			Name: "onprem", CAFile: writePEM(t, "ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw}),
			TrustDomain: "acme.example", AllowedURIs: []string{builderID}, AllowedDNS: []string{builderIP},
		}}
		c.Access.Roles = append(c.Access.Roles, server.RoleConf{Role: "attestor", Members: []server.MemberConf{{Issuer: "x509:onprem", Subject: builderIP}}})
	})
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	dial := func(t *testing.T, certificates ...tls.Certificate) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:"+l.addr(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: roots, ServerName: "127.0.0.1", Certificates: certificates, MinVersion: tls.VersionTLS12,
		})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	exchange := func(conn *grpc.ClientConn) (*assayv1.ExchangeResponse, error) {
		return assayv1.NewIdentityServiceClient(conn).Exchange(t.Context(), &assayv1.ExchangeRequest{
			Credential: &assayv1.ExchangeRequest_ClientCertificate{ClientCertificate: &assayv1.ClientCertificate{}},
		})
	}
	for name, attests := range map[string]bool{builderID: false, builderIP: true} {
		conn := dial(t, ours.client(t, name))
		resp, err := exchange(conn)
		if err != nil {
			t.Fatal(err)
		}
		c := resp.GetCaller()
		if c.GetKind() != assayv1.CallerKind_CALLER_KIND_WORKLOAD || c.GetWorkload().GetPlatform() != "x509" || c.GetWorkload().GetSubject() != name || c.GetIssuer() != "x509:onprem" || c.GetSlsaBuildLevel() != 0 {
			t.Errorf("%s: %v", name, c)
		}
		got, err := assayv1.NewAttestationServiceClient(conn).AttestDigests(bearing(t.Context(), resp.GetSessionToken()), &assayv1.AttestDigestsRequest{Subjects: digests("app", okDigest)})
		if !attests {
			wantReason(t, err, codes.PermissionDenied, "ACCESS_DENIED")
		} else if a := got.GetResult().GetAttestation(); err != nil || a.GetBuilderId() != w.instance+"/builders/x509" || a.GetSlsaBuildLevel() != 0 {
			t.Errorf("%s: %v, %v", name, a, err)
		}
		if _, err := exchange(conn); err != nil { // a handshake is proof each time
			t.Errorf("%s, a second time: %v", name, err)
		}
	}
	soon := ours.client(t, builderID)
	soon = ours.issue(t, &x509.Certificate{URIs: soon.Leaf.URIs, ExtKeyUsage: soon.Leaf.ExtKeyUsage, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(5 * time.Minute)})
	if resp, err := exchange(dial(t, soon)); err != nil || resp.GetExpireTime().AsTime().After(soon.Leaf.NotAfter) {
		t.Errorf("the session outlives the certificate: %v, %v", resp, err)
	}

	uri := ours.client(t, builderID).Leaf.URIs
	past := time.Now().Add(-time.Minute)
	const invalid, nobody = "CLIENT_CERTIFICATE_INVALID", "CLIENT_CERTIFICATE_IDENTITY_INVALID"
	clients := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		code         codes.Code
		reason       string
	}{
		"no certificate":       {nil, codes.Unauthenticated, "CLIENT_CERTIFICATE_MISSING"},
		"another authority":    {[]tls.Certificate{evil.client(t, builderID)}, codes.Unauthenticated, invalid},
		"a longer id":          {[]tls.Certificate{ours.client(t, builderID+"2")}, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		"an id below":          {[]tls.Certificate{ours.client(t, builderID+"/x")}, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		"another trust domain": {[]tls.Certificate{ours.client(t, "spiffe://acme.example.evil/builders/linux")}, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		"id in capitals":       {[]tls.Certificate{ours.client(t, "spiffe://acme.example/Builders/linux")}, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		"a host below":         {[]tls.Certificate{ours.client(t, "x."+builderIP)}, codes.PermissionDenied, "CALLER_NOT_ALLOWED"},
		"a wildcard":           {[]tls.Certificate{ours.client(t, "*.acme.example")}, codes.Unauthenticated, nobody},
		"an id that walks":     {[]tls.Certificate{ours.client(t, "spiffe://acme.example/x/../builders/linux")}, codes.Unauthenticated, nobody},
		"an id with a query":   {[]tls.Certificate{ours.client(t, builderID+"?x")}, codes.Unauthenticated, nobody},
		"two ids":              {[]tls.Certificate{ours.client(t, builderID, "spiffe://acme.example/x")}, codes.Unauthenticated, nobody},
		"two hosts":            {[]tls.Certificate{ours.client(t, builderIP, "x.acme.example")}, codes.Unauthenticated, nobody},
		"the common name":      {[]tls.Certificate{ours.client(t)}, codes.Unauthenticated, nobody},
		"a server's":           {[]tls.Certificate{ours.issue(t, &x509.Certificate{URIs: uri, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})}, codes.Unauthenticated, invalid},
		"for anything":         {[]tls.Certificate{ours.issue(t, &x509.Certificate{URIs: uri})}, codes.Unauthenticated, invalid},
		"expired":              {[]tls.Certificate{ours.issue(t, &x509.Certificate{URIs: uri, ExtKeyUsage: clients, NotBefore: past.Add(-time.Hour), NotAfter: past})}, codes.Unauthenticated, invalid},
		"an authority's":       {[]tls.Certificate{ours.issue(t, &x509.Certificate{URIs: uri, ExtKeyUsage: clients, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})}, codes.Unauthenticated, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, tt.certificates...)
			before := l.kept(t)
			_, err := exchange(conn)
			wantReason(t, err, tt.code, tt.reason)
			l.unchanged(t, before)
			// It may call what is open to everybody.
			if _, err := assayv1.NewAuditServiceClient(conn).GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{}); err != nil {
				t.Errorf("GetTrustedRoot: %v", err)
			}
		})
	}
}

// TestCredentialKinds: a kind of credential that nobody configured opens nothing.
func TestCredentialKinds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	ids := assayv1.NewIdentityServiceClient(l.conn)
	_, err := ids.Challenge(t.Context(), &assayv1.ChallengeRequest{})
	wantReason(t, err, codes.InvalidArgument, "CREDENTIAL_NOT_CONFIGURED")
	for name, tt := range map[string]struct {
		req    *assayv1.ExchangeRequest
		reason string
	}{
		"proof":       {&assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_StsProof{StsProof: &assayv1.StsProof{}}}, "CREDENTIAL_NOT_CONFIGURED"},
		"certificate": {&assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_ClientCertificate{ClientCertificate: &assayv1.ClientCertificate{}}}, "CREDENTIAL_NOT_CONFIGURED"},
		"none":        {&assayv1.ExchangeRequest{}, "REQUEST_INVALID"},
	} {
		before := l.kept(t)
		_, err := ids.Exchange(t.Context(), tt.req)
		if wantReason(t, err, codes.InvalidArgument, tt.reason); t.Failed() {
			t.Fatal(name)
		}
		l.unchanged(t, before)
	}
	_, err = assayv1.NewAttestationServiceClient(l.login(t).conn).AttestBuild(l.ctx, &assayv1.AttestBuildRequest{BuildArn: "arn:aws:codebuild:eu-central-1:111122223333:build/app:00000000-0000-4000-8000-000000000000"})
	wantReason(t, err, codes.InvalidArgument, "CREDENTIAL_NOT_CONFIGURED")
}
