package policy_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/provenance"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv/vectors"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/internal/verify"
)

const (
	host     = "assay.example.test"
	instance = "https://" + host
)

var digest = strings.Repeat("5f", 32)

// signer is a real instance below its RPCs: what it signs is logged and
// timestamped, and what Decide sees has been verified.
type signer struct {
	keys     *signing.Keyset
	log      *posix.Log
	verifier *verify.Verifier
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	ctx := context.Background()
	keys, err := signing.OpenKeyset(ctx, filepath.Join(t.TempDir(), "keys"), signing.Config{Host: host, Now: time.Now, Create: true})
	must(t, err)
	log, err := posix.Open(ctx, posix.Config{Dir: filepath.Join(t.TempDir(), "log"), Host: host, Signer: keys.LogSigner(), Format: tlog.RekorV2})
	must(t, err)
	t.Cleanup(func() { log.Close(context.Background()) })
	trusted, err := keys.TrustedRoot()
	must(t, err)
	key := keys.Attestation[0]
	root, err := verify.NewRoot(trusted, verify.PublicKey{PEM: key.PEM(), NotBefore: key.NotBefore, NotAfter: key.NotAfter})
	must(t, err)
	return &signer{keys: keys, log: log, verifier: verify.New(root)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sign makes the bundle that the service would store.
func (s *signer) sign(t *testing.T, st *attest.Statement) []byte {
	t.Helper()
	ctx := context.Background()
	payload, err := st.Marshal()
	must(t, err)
	pae := sha256.Sum256(attest.PAE(attest.PayloadTypeInToto, payload))
	key := s.keys.AttestationSigner()
	sig, err := key.Sign(ctx, pae[:])
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	keyid, err := verify.Fingerprint(key.Public())
	must(t, err)
	entry, err := s.log.Add(ctx, tlog.EntryBodyHashedRekord002(pae, sig, spki))
	must(t, err)
	stamp, err := s.keys.TSA().Timestamp(ctx, sig)
	must(t, err)
	kind, version := tlog.RekorV2.KindVersion()
	bundle, err := attest.MarshalBundle(&attest.BundleParts{
		PublicKeyHint: keyid,
		Envelope:      &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{KeyID: keyid, Sig: sig}}},
		LogEntry: attest.LogEntry{LogIndex: int64(entry.Index), LogID: s.log.LogID(), Kind: kind, Version: version,
			RootHash: entry.RootHash, TreeSize: int64(entry.TreeSize), Hashes: entry.Hashes, Checkpoint: entry.Checkpoint, CanonicalizedBody: entry.Body},
		Timestamps: [][]byte{stamp},
	})
	must(t, err)
	return bundle
}

func caller(sandbox bool) *identity.Caller {
	return &identity.Caller{
		Kind: identity.KindGitHubActions, Issuer: "https://token.actions.githubusercontent.com", Sandbox: sandbox, DisplayName: "acme/app",
		GitHub: &identity.GitHubActions{
			Repository: "acme/app", RepositoryID: 9007199254740993, RepositoryOwner: "acme", RepositoryOwnerID: 77,
			WorkflowRef: "acme/app/.github/workflows/release.yml@refs/heads/main", JobWorkflowRef: "acme/builders/.github/workflows/build.yml@refs/tags/v2",
			JobWorkflowSHA: strings.Repeat("b", 40), Ref: "refs/heads/main", SHA: strings.Repeat("c", 40), EventName: "push",
			RunnerEnvironment: "github-hosted", RunID: 7, RunAttempt: 1, ServerURL: "https://github.com",
		},
	}
}

func ask(environment string, evidence ...*verify.Evidence) policy.Question {
	return policy.Question{
		Principal:   policy.Principal{ID: "github-actions:1", Kind: "github-actions", Issuer: "https://token.actions.githubusercontent.com"},
		Environment: environment,
		Subject:     attest.Subject{Name: "app", Digest: map[string]string{"sha256": digest}},
		Evidence:    evidence,
		Now:         time.Now(),
		BuilderLevels: map[string]int{
			instance + "/builders/github-actions/github-hosted": 2,
			instance + "/builders/github-actions/self-hosted":   1,
			instance + "/builders/dev":                          0,
		},
	}
}

// TestRealEvidence goes the whole way: claims, provenance, signature, log,
// timestamp, verification, decision.
func TestRealEvidence(t *testing.T) {
	s := newSigner(t)
	set, err := policy.Compile([]byte(policy.DefaultPolicy()))
	must(t, err)
	subjects := []attest.Subject{
		{Name: "app", Digest: map[string]string{"sha256": digest}},
		{Name: "other", Digest: map[string]string{"sha256": strings.Repeat("0", 64)}},
	}
	writer, err := provenance.New(provenance.Config{Instance: instance})
	must(t, err)
	attested := func(sandbox bool) []byte {
		st, err := writer.Statement(caller(sandbox), subjects)
		must(t, err)
		return s.sign(t, st)
	}
	hostedBundle := attested(false)
	hosted, err := s.verifier.VerifyOwn(hostedBundle)
	must(t, err)
	sandbox, err := s.verifier.VerifyOwn(attested(true))
	must(t, err)
	// The same bytes, as somebody else's bundle: the signature is good, and it does
	// not make the signer an authority on our builders.
	foreign, err := s.verifier.Verify(hostedBundle, verify.Expectation{AnyArtifact: true, RootKey: true})
	must(t, err)

	for _, tt := range []struct {
		name     string
		question policy.Question
		code     refusal.Code
		used     *verify.Evidence
		level    int
	}{
		{"hosted in prod", ask("prod", hosted), policy.CodeAllowed, hosted, 2},
		{"hosted beside the sandbox", ask("prod", sandbox, hosted), policy.CodeAllowed, hosted, 2},
		{"sandbox in dev", ask("dev", sandbox), policy.CodeAllowed, sandbox, 0},
		{"sandbox in prod", ask("prod", sandbox), policy.CodeDeniedByRule, sandbox, 0},
		{"foreign in dev", ask("dev", foreign), policy.CodeRequirementUnmet, foreign, 0},
		{"foreign beside the sandbox", ask("staging", foreign, sandbox), policy.CodeDeniedByRule, foreign, 0},
		{"zero among good", ask("prod", hosted, &verify.Evidence{}), policy.CodeEvidenceUnverified, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := set.Decide(tt.question)
			if d.Code != tt.code || d.Allowed != (tt.code == policy.CodeAllowed) || d.SLSABuildLevel != tt.level {
				t.Fatalf("%s at level %d, want %s at %d: %s", d.Code, d.SLSABuildLevel, tt.code, tt.level, d.Message)
			}
			if tt.used != nil && (len(d.Used) != 1 || d.Used[0] != tt.used) {
				t.Errorf("the answer rests on other evidence")
			}
		})
	}

	t.Run("another digest", func(t *testing.T) {
		q := ask("prod", hosted)
		q.Subject.Digest = map[string]string{"sha256": strings.Repeat("5e", 32)}
		if d := set.Decide(q); d.Code != policy.CodeSubjectMismatch {
			t.Errorf("%s", d.Code)
		}
	})
	t.Run("every fact", func(t *testing.T) {
		d := set.Decide(ask("prod", hosted))
		for name, want := range map[string]string{
			"repository": "https://github.com/acme/app", "repositoryId": "9007199254740993", "repositoryOwnerId": "77",
			"ref": "refs/heads/main", "eventName": "push", "sourceCommit": strings.Repeat("c", 40),
			"sourceUri": "git+https://github.com/acme/app@refs/heads/main", "workflowPath": ".github/workflows/release.yml",
			"jobWorkflowRef": "acme/builders/.github/workflows/build.yml@refs/tags/v2", "jobWorkflowSha": strings.Repeat("b", 40),
			"runnerEnvironment": "github-hosted", "subjectOrigin": "hashed", "sandbox": "false", "trusted": "true",
			"invocationId": "https://github.com/acme/app/actions/runs/7/attempts/1",
			"buildType":    provenance.BuildTypeGitHubActions, "builderId": instance + "/builders/github-actions/github-hosted",
		} {
			if got := d.Facts["provenance."+name]; got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
	})
	t.Run("a claimed digest", func(t *testing.T) {
		subjects[0].Annotations = map[string]string{provenance.AnnotationDigestOrigin: provenance.OriginClaimed}
		claimed, err := s.verifier.VerifyOwn(attested(false))
		must(t, err)
		if f := set.Decide(ask("dev", claimed)).Facts; f["provenance.subjectOrigin"] != "claimed" {
			t.Errorf("subjectOrigin %q", f["provenance.subjectOrigin"])
		}
	})
}

// TestEveryPlatform decides about the statements that package provenance keeps as
// golden files: what one package writes, the other reads.
func TestEveryPlatform(t *testing.T) {
	s := newSigner(t)
	set, err := policy.Compile([]byte(policy.DefaultPolicy()))
	must(t, err)
	writer, err := provenance.New(provenance.Config{Instance: "https://assay.example.com"})
	must(t, err)
	dir := filepath.Join("..", "provenance", "testdata")
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	must(t, err)
	tests := map[string]struct {
		platform    string
		level       int
		pullRequest string
		unmet       string // in prod
	}{
		"aws-role":                        {"aws-role", 0, "true", "prod-slsa-level prod-trigger prod-source-ref"},
		"buildkite":                       {"buildkite", 1, "true", "prod-slsa-level prod-trigger"},
		"codebuild-batch":                 {"codebuild", 3, "false", ""},
		"codebuild-every-override":        {"codebuild", 1, "true", "prod-slsa-level prod-trigger prod-no-overrides"},
		"codebuild-in-job":                {"codebuild", 2, "false", ""},
		"codebuild-post-build":            {"codebuild", 3, "false", ""},
		"codebuild-sandbox":               {"codebuild", 0, "false", "prod-slsa-level prod-no-sandbox"},
		"github-direct":                   {"github-actions", 2, "false", ""},
		"github-pull-request-self-hosted": {"github-actions", 1, "true", "prod-slsa-level prod-trigger prod-source-ref"},
		"github-reusable":                 {"github-actions", 2, "false", ""},
		"github-trusted-reusable":         {"github-actions", 3, "false", ""},
		"gitlab":                          {"gitlab", 2, "false", ""},
		"sandbox":                         {"github-actions", 0, "false", "prod-slsa-level prod-no-sandbox"},
		"workload":                        {"workload", 1, "false", "prod-slsa-level"},
		"workload-principal":              {"workload", 0, "true", "prod-slsa-level prod-trigger prod-source-ref"},
		"x509":                            {"x509", 0, "true", "prod-slsa-level prod-trigger prod-source-ref"},
	}
	seen := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		tt, known := tests[name]
		if !known {
			t.Errorf("no case for %s", file)
			continue
		}
		seen++
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			must(t, err)
			st, err := attest.ParseStatement(data)
			must(t, err)
			evidence, err := s.verifier.VerifyOwn(s.sign(t, st))
			must(t, err)
			q := ask("prod", evidence)
			q.BuilderLevels = writer.Levels()
			q.Subject.Digest = map[string]string{"sha256": strings.Repeat("a", 64)}
			d := set.Decide(q)
			var unmet []string
			for _, r := range d.Rules {
				if !r.Satisfied {
					unmet = append(unmet, r.ID)
				}
			}
			if d.Allowed != (tt.unmet == "") || strings.Join(unmet, " ") != tt.unmet {
				t.Errorf("%s, unmet %q, want %q", d.Code, unmet, tt.unmet)
			}
			if d.SLSABuildLevel != tt.level || d.Facts["provenance.platform"] != tt.platform || d.Facts["provenance.pullRequest"] != tt.pullRequest {
				t.Errorf("level %d, %v", d.SLSABuildLevel, d.Facts)
			}
			if q.Environment = "dev"; !set.Decide(q).Allowed {
				t.Error("not even dev takes it")
			}
		})
	}
	if seen != len(tests) {
		t.Errorf("%d of %d cases have a file", seen, len(tests))
	}
}

// TestForeignProvenance hands in provenance that GitHub signed for npm: verified,
// and not about the artifact as a decision wants it named.
func TestForeignProvenance(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "sigstore-go"), "examples")
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return data
	}
	root, err := verify.NewRoot(read("trusted-root-public-good.json"))
	must(t, err)
	evidence, err := verify.New(root).Verify(read("bundle-provenance.json"), verify.Expectation{
		AnyArtifact: true,
		Identity:    &verify.Identity{SANRegexp: `https://github\.com/sigstore/.+`, Issuer: "https://token.actions.githubusercontent.com"},
	})
	must(t, err)
	set, err := policy.Compile([]byte(policy.DefaultPolicy()))
	must(t, err)
	q := ask("dev", evidence)
	// npm names its packages by sha512 alone; a decision wants sha256.
	q.Subject.Digest = maps.Clone(evidence.Statement().Subjects[0].Digest)
	if d := set.Decide(q); d.Code != policy.CodeSubjectNoDigest || d.Allowed {
		t.Errorf("%s: %s", d.Code, d.Message)
	}
	q.Subject.Digest["sha256"] = digest
	if d := set.Decide(q); d.Code != policy.CodeSubjectMismatch || d.Allowed {
		t.Errorf("%s: %s", d.Code, d.Message)
	}
}
