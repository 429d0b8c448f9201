package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
)

const (
	instance = "https://assay.example"
	hosted   = instance + "/builders/github-actions/github-hosted"
	selfHost = instance + "/builders/github-actions/self-hosted"
	dev      = instance + "/builders/dev"
	stranger = "https://evil.example/builders/github-actions/github-hosted"
)

var (
	digestA = strings.Repeat("a1", 32)
	digestB = strings.Repeat("b2", 32)
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// build is a provenance attestation in the making. The zero value of each field
// but Builder means a good release build of acme/app.
type build struct {
	Builder, BuildType, Event, Ref, Repository string
	RepositoryID, RunnerEnvironment            string
	Names                                      []string
	SHA256, SHA512                             string
	Annotations                                map[string]string
	Sandbox, Foreign                           bool
	LogIndex                                   int64
	SignedAt                                   time.Time
	Predicate                                  string // in place of the one made from the rest
	PredicateType                              string
}

// or returns the first text that is not empty; "-" stands for an empty one.
func or(text, fallback string) string {
	switch text {
	case "":
		return fallback
	case "-":
		return ""
	}
	return text
}

func (b build) predicate(tb testing.TB) string {
	if b.Predicate != "" {
		return b.Predicate
	}
	repository, ref := or(b.Repository, "https://github.com/acme/app"), or(b.Ref, "refs/heads/main")
	internal := map[string]any{"github": map[string]any{
		"event_name": or(b.Event, "push"), "repository_id": or(b.RepositoryID, "1001"),
		"repository_owner_id": "77", "runner_environment": or(b.RunnerEnvironment, "github-hosted"),
	}}
	if b.Sandbox {
		internal["assay"] = map[string]any{"sandbox": true}
	}
	data, err := json.Marshal(map[string]any{
		"buildDefinition": map[string]any{
			"buildType": or(b.BuildType, buildTypeGitHubActions),
			"externalParameters": map[string]any{"workflow": map[string]any{
				"ref": ref, "repository": repository, "path": ".github/workflows/release.yml",
			}},
			"internalParameters": internal,
			"resolvedDependencies": []any{map[string]any{
				"uri": "git+" + repository + "@" + ref, "digest": map[string]string{"gitCommit": strings.Repeat("c", 40)},
			}},
		},
		"runDetails": map[string]any{
			"builder":  map[string]any{"id": or(b.Builder, hosted)},
			"metadata": map[string]any{"invocationId": "https://github.com/acme/app/actions/runs/9007199254740993/attempts/1"},
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

func (b build) item(tb testing.TB) item {
	digest := map[string]string{"sha256": or(b.SHA256, digestA)}
	if b.SHA512 != "" {
		digest["sha512"] = b.SHA512
	}
	st := &attest.Statement{
		Type:          attest.StatementTypeV1,
		PredicateType: or(b.PredicateType, attest.PredicateSLSAProvenanceV1),
		Predicate:     json.RawMessage(b.predicate(tb)),
	}
	names := b.Names
	if names == nil {
		names = []string{"app"}
	}
	for _, name := range names {
		st.Subjects = append(st.Subjects, attest.Subject{Name: name, Digest: digest, Annotations: b.Annotations})
	}
	signed := b.SignedAt
	if signed.IsZero() {
		signed = noon.Add(-time.Hour)
	}
	return item{statement: st, own: !b.Foreign, logIndex: b.LogIndex, signedAt: signed}
}

func ask(environment string) Question {
	return Question{
		Principal:     Principal{ID: "github-actions:1001", Kind: "github-actions", Issuer: "https://token.actions.githubusercontent.com"},
		Environment:   environment,
		Subject:       attest.Subject{Name: "app", Digest: map[string]string{"sha256": digestA}},
		Now:           noon,
		BuilderLevels: map[string]int{hosted: 2, selfHost: 1, dev: 0},
	}
}

// judge decides as Decide does, over builds in place of verified evidence.
func judge(tb testing.TB, s *Set, q Question, builds ...build) Decision {
	tb.Helper()
	items := make([]item, len(builds))
	for i, b := range builds {
		items[i] = b.item(tb)
		items[i].index = i
	}
	d := s.decide(&q, items)
	if d.Allowed != (d.Code == CodeAllowed) {
		tb.Fatalf("allowed = %t with code %s", d.Allowed, d.Code)
	}
	return d
}

func mustCompile(tb testing.TB, text string) *Set {
	tb.Helper()
	s, err := Compile([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func defaultSet(tb testing.TB) *Set { return mustCompile(tb, DefaultPolicy()) }

// rule finds the result of one rule.
func (d Decision) rule(tb testing.TB, id string) RuleResult {
	tb.Helper()
	for _, r := range d.Rules {
		if r.ID == id {
			return r
		}
	}
	tb.Fatalf("rule %s is not in the answer: %+v", id, d.Rules)
	return RuleResult{}
}

// unmet lists the ids of the rules that stand in the way.
func (d Decision) unmet() string {
	var ids []string
	for _, r := range d.Rules {
		if !r.Satisfied {
			ids = append(ids, r.ID)
		}
	}
	return strings.Join(ids, " ")
}

// rules wraps conditions into a policy set for tests: "permit: when {…}".
func rules(lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		effect, conditions, _ := strings.Cut(line, ":")
		fmt.Fprintf(&b, "@id(\"r%d\") @message(\"rule %d\")\n%s (principal, action == Assay::Action::\"deploy\", resource) %s;\n", i, i, effect, conditions)
	}
	return b.String()
}
