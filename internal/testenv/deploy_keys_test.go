package testenv_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

const (
	kmsDenied         = "KMS_ACCESS_DENIED"
	signerDenied      = "SIGNER_ACCESS_DENIED"
	revocationUnknown = "NOTARY_REVOCATION_UNKNOWN"
	administer        = "AdministerAndNeverSign"
	mldsaSpec         = "ML_DSA_65"
	adminRole         = "arn:aws:iam::" + serviceID + ":role/key-admin"
	keyAccount        = "222233334444"
)

// keyDeployment is a service with keys in the stand-in for AWS, whose roles may do what
// docs/deploy says and nothing else.
type keyDeployment struct {
	*testenv.Env
	world    *awstest.World
	service  *awstest.Role
	keys     map[string]*awstest.KMSKey // by the spec
	policies map[string]*iamPolicy      // of the keys
	recorder *recorder
}

// recorder keeps what the service asks KMS to sign.
type recorder struct {
	next aws.HTTPClient
	mu   sync.Mutex
	sign []signRequest
}

type signRequest struct {
	KeyID                         string `json:"KeyId"`
	MessageType, SigningAlgorithm string
}

func (r *recorder) Do(req *http.Request) (*http.Response, error) {
	if req.Header.Get("X-Amz-Target") == "TrentService.Sign" {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		var asked signRequest
		if err := json.Unmarshal(body, &asked); err != nil {
			return nil, err
		}
		r.mu.Lock()
		r.sign = append(r.sign, asked)
		r.mu.Unlock()
	}
	return r.next.Do(req)
}

// keyConditions are those that Terraform puts into the policy of a key.
func keyConditions() map[string]map[string]any {
	out := map[string]map[string]any{}
	for spec, algorithm := range map[string]string{"ECC_NIST_P256": "ECDSA_SHA_256", "ECC_NIST_P384": "ECDSA_SHA_384", "RSA_3072": "RSASSA_PSS_SHA_256", "ML_DSA_65": "ML_DSA_SHAKE_256"} {
		kind := "DIGEST"
		if spec == "ML_DSA_65" {
			kind = "EXTERNAL_MU"
		}
		out[spec] = map[string]any{"signing_algorithm": algorithm, "message_type": kind, "admin_role_arns": []string{adminRole}}
	}
	return out
}

// deployKeys makes the keys in an account, and a service with a profile of AWS Signer.
func deployKeys(t testing.TB, account string, edit func(template string, doc *iamPolicy)) *keyDeployment {
	t.Helper()
	w, err := awstest.New(awstest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	policy := func(template string, vars map[string]any) *iamPolicy {
		doc := parsePolicy(t, template, vars)
		if edit != nil {
			edit(template, doc)
		}
		return doc
	}
	d := &keyDeployment{world: w, keys: map[string]*awstest.KMSKey{}, policies: map[string]*iamPolicy{}}
	d.service = w.Account(serviceID).Role(serviceRole, awstest.TrustService("ecs-tasks.amazonaws.com"))
	var arns []string
	for spec, vars := range keyConditions() {
		vars["service_role_arn"] = d.service.ARN()
		doc, key := policy("key-signing.json", vars), w.Account(account).Key(deployRegion, awstest.KeySpec(spec), awstest.PolicyOnly())
		for _, s := range doc.Statement {
			for _, principal := range s.Principal["AWS"] {
				key.AllowPolicy(principal, s.Action...)
			}
		}
		d.keys[spec], d.policies[spec] = key, doc
		if spec != "ML_DSA_65" {
			arns = append(arns, key.ARN())
		}
	}
	profile := w.Account(serviceID).SigningProfile(deployRegion, "assay", 0)
	allow := func(doc *iamPolicy) {
		for _, s := range doc.Statement {
			for _, action := range s.Action {
				d.service.AllowOn(action, s.Resource...) // the stand-in knows no conditions; checkConditions does
			}
		}
	}
	if account != serviceID {
		allow(policy("service-kms.json", map[string]any{"key_arns": arns}))
		allow(policy("service-kms-mldsa.json", map[string]any{"key_arns": []string{d.keys["ML_DSA_65"].ARN()}}))
	}
	allow(policy("service-signer.json", map[string]any{"profile_arns": []string{profile.ARN()}}))
	roots := filepath.Join(t.TempDir(), "signer.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.SignerRoot().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Env = testenv.New(t, func(c *server.Config) {
		clients := w.AWSConfig(d.service.Session("task"), deployRegion)
		d.recorder = &recorder{next: clients.HTTPClient}
		clients.HTTPClient = d.recorder
		c.AWS, c.AWSClients, c.AWSTransport, c.SandboxAWS = server.AWSConf{}, &clients, w.Transport(), false
		c.Signer = server.SignerConf{Profile: "signer:///assay", RootsFile: roots, ProfileVersions: []string{profile.VersionARN()}}
	})
	return d
}

// specs are in the order in which use tries them. A co-signature key signs from then on
// beside every other.
func specs() []string { return []string{"ECC_NIST_P256", "ECC_NIST_P384", "RSA_3072", "ML_DSA_65"} }

// use has every key found and sign, one after the other, and returns the reason codes of
// those steps that were refused, empty for the others.
func (d *keyDeployment) use(t testing.TB) map[string]string {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:"+strings.TrimPrefix(d.Server, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	session, err := assayv1.NewIdentityServiceClient(conn).Exchange(t.Context(), &assayv1.ExchangeRequest{
		Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: d.Issuer.Mint(d.Server)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+session.GetSessionToken())
	got := map[string]string{}
	attest := func(step string) {
		digest := fmt.Sprintf("%064x", len(got))
		_, err := assayv1.NewAttestationServiceClient(conn).AttestDigests(ctx, &assayv1.AttestDigestsRequest{
			Subjects: []*assayv1.Subject{{Name: "app", Digest: map[string]string{"sha256": digest}}},
		})
		got[step] = reasonOf(t, err)
	}
	attest("sign file")
	for _, spec := range specs() {
		var change signing.Change = signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///" + d.keys[spec].ARN(), SkipTrial: true}
		if spec == mldsaSpec {
			change = signing.AddKey{Role: signing.RoleCoSignature, Ref: "awskms:///" + d.keys[spec].ARN(), SkipTrial: true}
		}
		err := d.Change(ctx, change)
		if got["find "+spec] = string(refusal.CodeOf(err)); err != nil && got["find "+spec] == "" {
			t.Fatal(err)
		}
		attest("sign " + spec)
	}
	return got
}

// refusedWithout says what is refused for want of an action in a template.
func refusedWithout(template, action, step string) string {
	kind, spec, _ := strings.Cut(step, " ")
	affected := spec != "file" && (template == "key-signing.json" || (template == "service-kms-mldsa.json") == (spec == mldsaSpec))
	switch action {
	case "kms:Sign":
		if kind == "sign" && (affected || spec == mldsaSpec) { // which signs beside the last of the others
			return kmsDenied
		}
	case "kms:DescribeKey", "kms:GetPublicKey":
		if kind == "find" && affected {
			return kmsDenied
		}
	case "signer:SignPayload":
		if kind == "sign" {
			return signerDenied
		}
	case "signer:GetRevocationStatus":
		if kind == "sign" {
			return revocationUnknown
		}
	}
	return ""
}

// TestKeyDeployment: with the policies of docs/deploy every kind of key signs, in the
// service's own account by the key's policy alone, and in another by both; each action is
// needed for what its table says, and for nothing else.
func TestKeyDeployment(t *testing.T) {
	t.Parallel()
	for _, account := range []string{serviceID, keyAccount} {
		type removal struct{ template, action string }
		removals := map[removal]bool{}
		whole := deployKeys(t, account, func(template string, doc *iamPolicy) {
			for _, s := range doc.Statement {
				for _, action := range s.Action {
					if s.Sid != administer {
						removals[removal{template, action}] = true
					}
				}
			}
		})
		for step, reason := range whole.use(t) {
			if reason != "" {
				t.Errorf("keys in %s: %s: %s", account, step, reason)
			}
		}
		for _, r := range whole.world.Requests("", "") {
			if r.Status != http.StatusOK {
				t.Errorf("%s %s was answered with %d %s", r.Service, r.Action, r.Status, r.Code)
			}
		}
		whole.checkConditions(t)
		whole.checkOthers(t)
		if want := map[string]int{serviceID: 5, keyAccount: 11}[account]; len(removals) != want {
			t.Errorf("%d actions, want %d", len(removals), want)
		}
		if testing.Short() {
			continue
		}
		for r := range removals {
			t.Run(account+" "+r.template+" "+r.action, func(t *testing.T) {
				t.Parallel()
				for step, reason := range deployKeys(t, account, func(template string, doc *iamPolicy) {
					if template == r.template {
						doc.without(r.action, "")
					}
				}).use(t) {
					if want := refusedWithout(r.template, r.action, step); reason != want {
						t.Errorf("%s: reason %q, want %q", step, reason, want)
					}
				}
			})
		}
	}
}

// checkConditions holds what the service asked KMS for to the conditions of the policies,
// which the stand-in does not evaluate, and these to everything else that KMS could do.
func (d *keyDeployment) checkConditions(t *testing.T) {
	t.Helper()
	asked := map[string]bool{}
	for _, req := range d.recorder.sign {
		asked[req.KeyID] = true
	}
	if len(asked) != len(d.keys) {
		t.Errorf("%d keys signed, want %d", len(asked), len(d.keys))
	}
	both := []*iamPolicy{
		parsePolicy(t, "service-kms.json", map[string]any{"key_arns": []string{d.keys["ECC_NIST_P256"].ARN()}}),
		parsePolicy(t, "service-kms-mldsa.json", map[string]any{"key_arns": []string{d.keys[mldsaSpec].ARN()}}),
	}
	for spec, key := range d.keys {
		ofKey, ofRole := d.policies[spec].Statement[0], both[0].Statement[0]
		if spec == mldsaSpec {
			ofRole = both[1].Statement[0]
		}
		holds := func(s iamStatement, algorithm, kind string) bool {
			return s.holds(t, question{"kms:signingalgorithm": {algorithm}, "kms:messagetype": {kind}}, asNull)
		}
		var mine signRequest
		for _, req := range d.recorder.sign {
			if req.KeyID != key.ARN() {
				continue
			}
			mine = req
			if !holds(ofKey, req.SigningAlgorithm, req.MessageType) || !holds(ofRole, req.SigningAlgorithm, req.MessageType) {
				t.Errorf("%s: the policies do not allow %+v", spec, req)
			}
		}
		for _, kind := range []string{"RAW", "DIGEST", "EXTERNAL_MU", ""} {
			for _, algorithm := range []string{"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512", "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_512", "RSASSA_PKCS1_V1_5_SHA_256", "ML_DSA_SHAKE_256", ""} {
				same := kind == mine.MessageType && algorithm == mine.SigningAlgorithm
				if holds(ofKey, algorithm, kind) != same {
					t.Errorf("%s: the key's policy on %s %s: %v", spec, algorithm, kind, !same)
				}
				if kind != mine.MessageType && holds(ofRole, algorithm, kind) {
					t.Errorf("%s: the role's policy allows %s %s", spec, algorithm, kind)
				}
			}
		}
	}
}

// checkOthers: nobody but the service signs, whatever IAM of the account says, and the
// service administers nothing.
func (d *keyDeployment) checkOthers(t *testing.T) {
	t.Helper()
	key := d.keys["ECC_NIST_P256"]
	all := d.world.Account(serviceID).Role("administrator").Allow("*")
	admin := d.world.Account(serviceID).Role("key-admin").Allow("kms:*")
	sign := func(creds aws.Credentials) error {
		_, err := kms.NewFromConfig(d.world.AWSConfig(creds, deployRegion)).Sign(t.Context(), &kms.SignInput{
			KeyId: aws.String(key.ARN()), Message: make([]byte, 32), MessageType: types.MessageTypeDigest, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		})
		return err
	}
	for name, creds := range map[string]aws.Credentials{"an administrator of the account": all.Session("s"), "the administrator of the key": admin.Session("s")} {
		if err := sign(creds); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s signs: %v", name, err)
		}
	}
	if _, err := kms.NewFromConfig(d.world.AWSConfig(admin.Session("s"), deployRegion)).DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(key.ARN())}); err != nil {
		t.Errorf("the administrator: %v", err)
	}
	_, err := kms.NewFromConfig(d.world.AWSConfig(d.service.Session("s"), deployRegion)).CreateGrant(t.Context(), &kms.CreateGrantInput{
		KeyId: aws.String(key.ARN()), GranteePrincipal: aws.String(all.ARN()), Operations: []types.GrantOperation{types.GrantOperationSign},
	})
	if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the service delegates: %v", err)
	}
	for spec, doc := range d.policies {
		for _, s := range doc.Statement {
			forbidden := []string{"kms:CreateGrant", "kms:ScheduleKeyDeletion", "kms:ReplicateKey"}
			if s.Sid == administer {
				forbidden = append(forbidden, "kms:Sign")
			}
			if slices.ContainsFunc(forbidden, func(a string) bool { return slices.Contains(s.Action, a) }) {
				t.Errorf("%s: %s allows %q", spec, s.Sid, s.Action)
			}
		}
	}
}
