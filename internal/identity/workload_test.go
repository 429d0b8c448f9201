package identity

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
)

func gitLabConfig() IssuerConfig {
	return IssuerConfig{Type: TypeGitLab, Allow: map[string][]string{"namespace_id": {"72"}}}
}

func buildkiteConfig() IssuerConfig {
	return IssuerConfig{Type: TypeBuildkite, Allow: map[string][]string{"organization_id": {"0184990a-477b-4fa8-9968-496074483a77"}}}
}

// TestGitLabSources: of all sources that GitLab documents, five rule out that the
// pipeline is a merge request's; those of its children do not.
func TestGitLabSources(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.GitLabJob())
	v := e.verifierOf(t, gitLabConfig())
	for source, want := range map[string]bool{
		"push": false, "web": false, "schedule": false, "api": false, "trigger": false,
		"merge_request_event": true, "external_pull_request_event": true, "parent_pipeline": true, "pipeline": true,
		"chat": true, "external": true, "ondemand_dast_scan": true, "ondemand_dast_validation": true, "security_orchestration_policy": true,
		"webide": true, "Push": true, "push ": true, "pushed": true,
	} {
		got, err := e.verify(t, v, oidctest.Claims{"pipeline_source": source})
		if err != nil || got.Caller.Workload.Proposed != want || got.Caller.Workload.Event != source {
			t.Errorf("%q: %+v %v; want proposed %t", source, got, err, want)
		}
	}
	_, err := e.verify(t, v, oidctest.Claims{"pipeline_source": nil})
	wantCode(t, err, CodeTokenClaimMissing)
}

func TestGitLab(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.GitLabJob())
	ic := gitLabConfig()
	ic.Properties = []string{"deployment_tier", "groups_direct", "runner_id", "not_there"}
	v := e.verifierOf(t, ic)
	const sha = "714a629c0b401fdce83e847fc9589983fc6f46bc"
	push := func() *Workload {
		return &Workload{
			Platform: "gitlab", Subject: "project/20", Account: "octo-group", AccountID: "72",
			Repository: e.issuer.URL() + "/octo-group/octo-app", RepositoryID: "20",
			Ref: "refs/heads/main", RefProtected: "true", Commit: sha, Event: "push", Runner: "hosted", Environment: "production",
			BuildConfigURI: "https://gitlab.example.com/octo-group/octo-app//.gitlab-ci.yml@refs/heads/main", BuildConfigDigest: sha,
			InvocationID: e.issuer.URL() + "/octo-group/octo-app/-/jobs/302",
			Properties:   []string{"deployment_tier=production", "groups_direct=octo-group", "runner_id=12270840"},
		}
	}
	for name, c := range map[string]struct {
		over oidctest.Claims
		want func(*Workload)
	}{
		"push": {nil, func(*Workload) {}},
		"ids as numbers": {oidctest.Claims{"project_id": 20, "namespace_id": 72, "job_id": json.RawMessage("12345678901234567"), "pipeline_id": 574},
			func(w *Workload) { w.InvocationID = e.issuer.URL() + "/octo-group/octo-app/-/jobs/12345678901234567" }},
		"ids of one digit more than a float holds": {oidctest.Claims{"job_id": "12345678901234567"},
			func(w *Workload) { w.InvocationID = e.issuer.URL() + "/octo-group/octo-app/-/jobs/12345678901234567" }},
		"tag": {oidctest.Claims{"ref": "v1.2", "ref_type": "tag"}, func(w *Workload) { w.Ref = "refs/tags/v1.2" }},
		"merge request": {oidctest.Claims{"pipeline_source": "merge_request_event", "ref": "fix/ünïcode", "ref_protected": "false"}, func(w *Workload) {
			w.Event, w.Ref, w.RefProtected, w.Proposed = "merge_request_event", "refs/heads/fix/ünïcode", "false", true
		}},
		"external pull request": {oidctest.Claims{"pipeline_source": "external_pull_request_event"},
			func(w *Workload) { w.Event, w.Proposed = "external_pull_request_event", true }},
		"unknown source":            {oidctest.Claims{"pipeline_source": "quantum"}, func(w *Workload) { w.Event, w.Proposed = "quantum", true }},
		"own runner":                {oidctest.Claims{"runner_environment": "self-hosted"}, func(w *Workload) { w.Runner = "self-hosted" }},
		"runner of an unknown kind": {oidctest.Claims{"runner_environment": "confidential"}, func(w *Workload) { w.Runner = "self-hosted" }},
		"no environment, no config": {oidctest.Claims{"environment": nil, "ci_config_ref_uri": json.RawMessage("null"), "ci_config_sha": json.RawMessage("null")},
			func(w *Workload) { w.Environment, w.BuildConfigURI, w.BuildConfigDigest = "", "", "" }},
		"protected as a boolean": {oidctest.Claims{"ref_protected": true}, func(*Workload) {}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := e.verify(t, v, c.over)
			if err != nil {
				t.Fatal(err)
			}
			want := push()
			c.want(want)
			if diff := cmp.Diff(want, got.Caller.Workload); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got.Caller.Kind != KindWorkload || got.Caller.Issuer != e.issuer.URL() || !got.Caller.IsBuild() {
				t.Errorf("caller %+v", got.Caller)
			}
			if data := must(got.Caller.Marshal()); !cmp.Equal(must(UnmarshalCaller(data)), got.Caller) {
				t.Errorf("%s is not read back", data)
			}
		})
	}
}

func TestBuildkite(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.BuildkiteJob())
	v := e.verifierOf(t, buildkiteConfig())
	main := func() *Workload {
		return &Workload{
			Platform: "buildkite", Subject: "pipeline/0184990a-4782-42b5-afc1-16715b10b1a0",
			Account: "acme-inc", AccountID: "0184990a-477b-4fa8-9968-496074483a77",
			Ref: "refs/heads/main", Commit: "9f3182061f1e2cca4702c368cbc039b7dc9d4485", Event: "webhook", Runner: "hosted",
			InvocationID: "https://buildkite.com/acme-inc/super-duper-app/builds/1209#0184990a-477b-4fa8-9968-496074483cee",
		}
	}
	for name, c := range map[string]struct {
		over oidctest.Claims
		want func(*Workload)
	}{
		"main":         {nil, func(*Workload) {}},
		"tag":          {oidctest.Claims{"build_tag": "v1"}, func(w *Workload) { w.Ref = "refs/tags/v1" }},
		"tag is null":  {oidctest.Claims{"build_tag": json.RawMessage("null")}, func(*Workload) {}},
		"HEAD":         {oidctest.Claims{"build_commit": "HEAD"}, func(w *Workload) { w.Commit = "" }},
		"own agent":    {oidctest.Claims{"runner_environment": "self-hosted"}, func(w *Workload) { w.Runner = "self-hosted" }},
		"older server": {oidctest.Claims{"runner_environment": nil, "build_source": nil}, func(w *Workload) { w.Runner, w.Event = "", "" }},
		"fork":         {oidctest.Claims{"build_branch": "mallory:main"}, func(w *Workload) { w.Ref, w.Proposed = "", true }},
		"big number": {oidctest.Claims{"build_number": json.RawMessage("12345678901234567")}, func(w *Workload) {
			w.InvocationID = "https://buildkite.com/acme-inc/super-duper-app/builds/12345678901234567#0184990a-477b-4fa8-9968-496074483cee"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := e.verify(t, v, oidctest.Claims{"jti": nil}, c.over)
			if err != nil {
				t.Fatal(err)
			}
			want := main()
			c.want(want)
			if diff := cmp.Diff(want, got.Caller.Workload); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A token without jti is named by what is signed: the same token twice is one,
// and two tokens that differ in anything are two.
func TestReplayKeyWithoutJTI(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.BuildkiteJob())
	v := e.verifierOf(t, buildkiteConfig())
	token := e.issuer.Mint(testAudience, oidctest.Claims{"jti": nil})
	other := e.issuer.Mint(testAudience, oidctest.Claims{"jti": nil, "build_number": 1210})
	keys := make(map[string]bool)
	for _, token := range []string{token, token, other} {
		got, err := v.VerifyOIDC(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got.ReplayKey, e.issuer.URL()+"\x00\x00") || strings.Contains(got.ReplayKey, token) {
			t.Errorf("replay key %q", got.ReplayKey)
		}
		keys[got.ReplayKey] = true
	}
	if len(keys) != 2 {
		t.Errorf("%d replay keys of two tokens", len(keys))
	}
	_, err := e.verify(t, v, oidctest.Claims{"jti": ""})
	wantCode(t, err, CodeTokenClaimInvalid)
	gitLab := newEnv(t, oidctest.GitLabJob())
	_, err = gitLab.verify(t, gitLab.verifierOf(t, gitLabConfig()), oidctest.Claims{"jti": nil})
	wantCode(t, err, CodeTokenClaimMissing)
}

func TestWorkloadRefuses(t *testing.T) {
	t.Parallel()
	gitLab, buildkite := newEnv(t, oidctest.GitLabJob()), newEnv(t, oidctest.BuildkiteJob())
	vg, vb := gitLab.verifierOf(t, gitLabConfig()), buildkite.verifierOf(t, buildkiteConfig())
	type row struct {
		over oidctest.Claims
		want refusal.Code
	}
	for name, c := range map[string]row{
		"another namespace":           {oidctest.Claims{"namespace_id": "73"}, CodeCallerNotAllowed},
		"id with the allowed inside":  {oidctest.Claims{"namespace_id": "172"}, CodeCallerNotAllowed},
		"id with the allowed at head": {oidctest.Claims{"namespace_id": "720"}, CodeCallerNotAllowed},
		"id with a space":             {oidctest.Claims{"namespace_id": "72 "}, CodeCallerNotAllowed},
		"id with a zero":              {oidctest.Claims{"namespace_id": "072"}, CodeCallerNotAllowed},
		"same name, new id":           {oidctest.Claims{"namespace_id": "9", "namespace_path": "octo-group"}, CodeCallerNotAllowed},
		"id a float":                  {oidctest.Claims{"namespace_id": json.RawMessage("72.0")}, CodeTokenClaimInvalid},
		"id with an exponent":         {oidctest.Claims{"namespace_id": json.RawMessage("72e0")}, CodeTokenClaimInvalid},
		"id minus zero":               {oidctest.Claims{"job_id": json.RawMessage("-0")}, CodeTokenClaimInvalid},
		"id of 33 digits":             {oidctest.Claims{"job_id": json.RawMessage(strings.Repeat("9", 33))}, CodeTokenClaimInvalid},
		"id an object":                {oidctest.Claims{"project_id": map[string]int{"id": 20}}, CodeTokenClaimInvalid},
		"id a list":                   {oidctest.Claims{"project_id": []int{20, 21}}, CodeTokenClaimInvalid},
		"id null":                     {oidctest.Claims{"project_id": json.RawMessage("null")}, CodeTokenClaimMissing},
		"id empty":                    {oidctest.Claims{"project_id": ""}, CodeTokenClaimMissing},
		"ID token of a person": {oidctest.Claims{"project_id": nil, "namespace_id": nil, "job_id": nil, "pipeline_id": nil, "sub": "17",
			"groups_direct": []string{"octo-group"}}, CodeTokenClaimMissing},
		"path that walks":          {oidctest.Claims{"project_path": "octo-group/../other"}, CodeTokenClaimInvalid},
		"path with a query":        {oidctest.Claims{"project_path": "octo-group/octo-app?x"}, CodeTokenClaimInvalid},
		"path with a fragment":     {oidctest.Claims{"project_path": "octo-group/octo-app#x"}, CodeTokenClaimInvalid},
		"path with a percent":      {oidctest.Claims{"project_path": "octo-group/%2e%2e"}, CodeTokenClaimInvalid},
		"path with a line break":   {oidctest.Claims{"project_path": "octo-group/octo-app\n"}, CodeTokenClaimInvalid},
		"path with a host":         {oidctest.Claims{"project_path": "/evil.example/x"}, CodeTokenClaimInvalid},
		"commit short":             {oidctest.Claims{"sha": "714a629"}, CodeTokenClaimInvalid},
		"commit in upper case":     {oidctest.Claims{"sha": strings.Repeat("A", 40)}, CodeTokenClaimInvalid},
		"ref that walks":           {oidctest.Claims{"ref": "a/../b"}, CodeTokenClaimInvalid},
		"ref type of another kind": {oidctest.Claims{"ref_type": "commit"}, CodeTokenClaimInvalid},
		"protected, perhaps":       {oidctest.Claims{"ref_protected": "maybe"}, CodeTokenClaimInvalid},
		"environment hidden":       {oidctest.Claims{"environment": "prod\u202e"}, CodeTokenClaimInvalid},
		"environment of 2 KiB":     {oidctest.Claims{"environment": strings.Repeat("e", 2<<10)}, CodeTokenClaimInvalid},
		"config that walks":        {oidctest.Claims{"ci_config_ref_uri": "gitlab.example.com/a/../b@refs/heads/main"}, CodeTokenClaimInvalid},
		"config with a user":       {oidctest.Claims{"ci_config_ref_uri": "me:secret@gitlab.example.com/a//b@refs/heads/main"}, CodeTokenClaimInvalid},
	} {
		t.Run("gitlab "+name, func(t *testing.T) {
			got, err := gitLab.verify(t, vg, c.over)
			wantCode(t, err, c.want)
			if got != nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	for name, c := range map[string]row{
		"another organisation":       {oidctest.Claims{"organization_id": "0184990a-477b-4fa8-9968-496074483a78"}, CodeCallerNotAllowed},
		"the allowed slug, other id": {oidctest.Claims{"organization_id": "x", "organization_slug": "acme-inc"}, CodeCallerNotAllowed},
		"without ids":                {oidctest.Claims{"organization_id": nil}, CodeTokenClaimMissing},
		"without the pipeline's id":  {oidctest.Claims{"pipeline_id": nil}, CodeTokenClaimMissing},
		"slug that walks":            {oidctest.Claims{"pipeline_slug": ".."}, CodeTokenClaimInvalid},
		"job with a slash":           {oidctest.Claims{"job_id": "a/b"}, CodeTokenClaimInvalid},
		"commit a branch":            {oidctest.Claims{"build_commit": "main"}, CodeTokenClaimInvalid},
		"branch that walks":          {oidctest.Claims{"build_branch": "a/../b"}, CodeTokenClaimInvalid},
	} {
		t.Run("buildkite "+name, func(t *testing.T) {
			_, err := buildkite.verify(t, vb, oidctest.Claims{"jti": nil}, c.over)
			wantCode(t, err, c.want)
		})
	}
}

// Any issuer can be told by a mapping: here Kubernetes' service accounts, which
// are workloads and no builds, and a CI that sends everything its own way.
func TestGenericWorkload(t *testing.T) {
	t.Parallel()
	e := newEnv(t, oidctest.Claims{
		"sub": "org/7/pipeline/9", "org": 7, "project": "web", "url": "https://ci.example.com/7/web/14", "kind": "pr", "protected": true, "team": []string{"b", "a", "a"},
	})
	ic := IssuerConfig{
		Type: TypeWorkload, ServerURL: "https://ci.example.com", Allow: map[string][]string{"org": {"6", "7"}, "team": {"z", "a"}}, Properties: []string{"team"},
		Claims: &ClaimMapping{
			Platform: "example-ci", Subject: "{sub}", AccountID: "{org}", Repository: "{server_url}/{org}/{project}", RefProtected: "{protected}",
			Event: "{missing} ?? {kind}", Proposed: "{kind|pr=true|push=false}", InvocationID: "{url}", Environment: "static",
		},
	}
	v := e.verifierOf(t, ic)
	got, err := e.verify(t, v)
	if err != nil {
		t.Fatal(err)
	}
	want := &Workload{
		Platform: "example-ci", Subject: "org/7/pipeline/9", AccountID: "7", Repository: "https://ci.example.com/7/web", RefProtected: "true", Event: "pr",
		Proposed: true, InvocationID: "https://ci.example.com/7/web/14", Environment: "static", Properties: []string{"team=a", "team=b"},
	}
	if diff := cmp.Diff(want, got.Caller.Workload); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for name, c := range map[string]struct {
		over oidctest.Claims
		want refusal.Code
	}{
		"a value the mapping does not know": {oidctest.Claims{"kind": "merge-train"}, CodeTokenClaimInvalid},
		"one claim of two":                  {oidctest.Claims{"team": []string{"b"}}, CodeCallerNotAllowed},
		"a claim that is not there":         {oidctest.Claims{"team": nil}, CodeCallerNotAllowed},
		"257 values":                        {oidctest.Claims{"team": strings.Split(strings.Repeat("a,", 257), ",")}, CodeTokenClaimInvalid},
		"a list in a list":                  {oidctest.Claims{"team": [][]string{{"a"}}}, CodeTokenClaimInvalid},
		"another's address":                 {oidctest.Claims{"url": "http://ci.example.com/1"}, CodeTokenClaimInvalid},
		"an address with a user":            {oidctest.Claims{"url": "https://u:p@ci.example.com/1"}, CodeTokenClaimInvalid},
		"no address":                        {oidctest.Claims{"url": "javascript:alert(1)"}, CodeTokenClaimInvalid},
		"no subject":                        {oidctest.Claims{"sub": ""}, CodeTokenClaimMissing},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.verify(t, v, c.over)
			wantCode(t, err, c.want)
		})
	}
	_, err = e.verify(t, v, oidctest.Claims{"exp": e.clock.Now().Add(2 * time.Hour).Unix()})
	wantCode(t, err, CodeTokenLifetimeTooLong)
	ic.MaxTokenLifetime = 3 * time.Hour
	_, err = e.verify(t, e.verifierOf(t, ic), oidctest.Claims{"exp": e.clock.Now().Add(2 * time.Hour).Unix()})
	wantCode(t, err, "")
}

func TestIssuerConfigRefuses(t *testing.T) {
	t.Parallel()
	base := map[string]IssuerConfig{
		TypeGitHubActions: {AllowedOwnerIDs: []int64{1}, ServerURL: "https://issuer.example.com"},
		TypeGitLab:        gitLabConfig(),
		TypeBuildkite:     buildkiteConfig(),
		TypeWorkload: {Allow: map[string][]string{"sub": {"x"}}, Claims: &ClaimMapping{
			Platform: "ci", Subject: "{sub}",
		}},
		TypeAWSWebIdentity: {Account: "111122223333", AllowedRoles: []string{"deploy"}},
		TypeHuman:          {Audience: []string{"client"}, Allow: map[string][]string{"hd": {"example.com"}}},
	}
	check := func(ic IssuerConfig) error {
		_, err := NewVerifier(Config{Audience: []string{testAudience}, Issuers: []IssuerConfig{ic}})
		return err
	}
	foreign := map[string]func(*IssuerConfig){
		"allowed_owner_ids": func(c *IssuerConfig) { c.AllowedOwnerIDs = []int64{1} },
		"allowed_repos":     func(c *IssuerConfig) { c.AllowedRepositoryIDs = []int64{1} },
		"recheck":           func(c *IssuerConfig) { c.Recheck = &RecheckConfig{} },
		"server_url":        func(c *IssuerConfig) { c.ServerURL = "https://x.example" },
		"allow":             func(c *IssuerConfig) { c.Allow = map[string][]string{"x": {"y"}} },
		"claims":            func(c *IssuerConfig) { c.Claims = &ClaimMapping{Platform: "x", Subject: "{sub}"} },
		"properties":        func(c *IssuerConfig) { c.Properties = []string{"x"} },
		"account":           func(c *IssuerConfig) { c.Account = "111122223333" },
		"allowed_roles":     func(c *IssuerConfig) { c.AllowedRoles = []string{"x"} },
		"build_tag":         func(c *IssuerConfig) { c.BuildTag = "x" },
		"audience":          func(c *IssuerConfig) { c.Audience = []string{"x"} },
		"groups_claim":      func(c *IssuerConfig) { c.GroupsClaim = "x" },
	}
	own := map[string]string{
		TypeGitHubActions: "allowed_owner_ids allowed_repos recheck server_url", TypeGitLab: "server_url allow properties", TypeBuildkite: "server_url allow properties",
		TypeWorkload: "server_url allow claims properties", TypeAWSWebIdentity: "account allowed_roles build_tag", TypeHuman: "allow audience groups_claim",
	}
	for typ, ic := range base {
		ic.Type, ic.URL = typ, "https://issuer.example.com"
		if err := check(ic); err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		for name, edit := range foreign {
			if strings.Contains(own[typ], name) {
				continue
			}
			t.Run(typ+" with "+name, func(t *testing.T) {
				c := ic.clone()
				edit(&c)
				wantCode(t, check(c), CodeIdentityConfigInvalid)
			})
		}
	}
	for name, c := range map[string]struct {
		typ  string
		edit func(*IssuerConfig)
	}{
		"unknown type":            {TypeGitLab, func(c *IssuerConfig) { c.Type = "jenkins" }},
		"gitlab without allow":    {TypeGitLab, func(c *IssuerConfig) { c.Allow = nil }},
		"gitlab by path":          {TypeGitLab, func(c *IssuerConfig) { c.Allow = map[string][]string{"project_path": {"a/b"}} }},
		"gitlab by no value":      {TypeGitLab, func(c *IssuerConfig) { c.Allow = map[string][]string{"namespace_id": {}} }},
		"gitlab by the empty":     {TypeGitLab, func(c *IssuerConfig) { c.Allow = map[string][]string{"namespace_id": {"72", ""}} }},
		"buildkite by slug":       {TypeBuildkite, func(c *IssuerConfig) { c.Allow = map[string][]string{"organization_slug": {"acme-inc"}} }},
		"workload by issuer":      {TypeWorkload, func(c *IssuerConfig) { c.Allow = map[string][]string{"iss": {"x"}} }},
		"workload without allow":  {TypeWorkload, func(c *IssuerConfig) { c.Allow = nil }},
		"workload without claims": {TypeWorkload, func(c *IssuerConfig) { c.Claims = nil }},
		"workload called gitlab":  {TypeWorkload, func(c *IssuerConfig) { c.Claims.Platform = "gitlab" }},
		"workload without name":   {TypeWorkload, func(c *IssuerConfig) { c.Claims.Platform = "" }},
		"subject missing":         {TypeWorkload, func(c *IssuerConfig) { c.Claims.Subject = "" }},
		"subject constant":        {TypeWorkload, func(c *IssuerConfig) { c.Claims.Subject = "everybody" }},
		"subject the server":      {TypeWorkload, func(c *IssuerConfig) { c.Claims.Subject = "{server_url}" }},
		"subject with cases":      {TypeWorkload, func(c *IssuerConfig) { c.Claims.Subject = "{sub|a=b|c=b}" }},
		"subject alternatives":    {TypeWorkload, func(c *IssuerConfig) { c.Claims.Subject = "{a} ?? {b}" }},
		"subject without text":    {TypeWorkload, func(c *IssuerConfig) { c.Claims.Subject = "{a}{b}" }},
		"template open":           {TypeWorkload, func(c *IssuerConfig) { c.Claims.Ref = "refs/{ref" }},
		"template closed":         {TypeWorkload, func(c *IssuerConfig) { c.Claims.Ref = "refs/ref}" }},
		"template nested":         {TypeWorkload, func(c *IssuerConfig) { c.Claims.Ref = "{a{b}}" }},
		"template empty claim":    {TypeWorkload, func(c *IssuerConfig) { c.Claims.Ref = "{}" }},
		"template bad case":       {TypeWorkload, func(c *IssuerConfig) { c.Claims.Ref = "{a|b}" }},
		"template empty case":     {TypeWorkload, func(c *IssuerConfig) { c.Claims.Ref = "{a|=b}" }},
		"template nothing":        {TypeWorkload, func(c *IssuerConfig) { c.Claims.Proposed = "{a} ??" }},
		"required no name":        {TypeWorkload, func(c *IssuerConfig) { c.Claims.Required = []string{"a b"} }},
		"property no name":        {TypeWorkload, func(c *IssuerConfig) { c.Properties = []string{"a=b"} }},
		"lifetime":                {TypeWorkload, func(c *IssuerConfig) { c.MaxTokenLifetime = 25 * time.Hour }},
		"server slash":            {TypeWorkload, func(c *IssuerConfig) { c.ServerURL = "https://a.example/" }},
		"account short":           {TypeAWSWebIdentity, func(c *IssuerConfig) { c.Account = "11112222333" }},
		"account a pattern":       {TypeAWSWebIdentity, func(c *IssuerConfig) { c.Account = "1111*" }},
		"nobody allowed":          {TypeAWSWebIdentity, func(c *IssuerConfig) { c.AllowedRoles = nil }},
		"role a pattern":          {TypeAWSWebIdentity, func(c *IssuerConfig) { c.AllowedRoles = []string{"*"} }},
		"role with a path":        {TypeAWSWebIdentity, func(c *IssuerConfig) { c.AllowedRoles = []string{"a/b"} }},
		"tag without reader":      {TypeAWSWebIdentity, func(c *IssuerConfig) { c.BuildTag = "build" }},
		"tag no key":              {TypeAWSWebIdentity, func(c *IssuerConfig) { c.BuildTag = "a b" }},
		"human without allow":     {TypeHuman, func(c *IssuerConfig) { c.Allow = nil }},
		"human without client":    {TypeHuman, func(c *IssuerConfig) { c.Audience = nil }},
		"human with empty client": {TypeHuman, func(c *IssuerConfig) { c.Audience = []string{" "} }},
		"human groups no name":    {TypeHuman, func(c *IssuerConfig) { c.GroupsClaim = "a b" }},
		"human by the expiry":     {TypeHuman, func(c *IssuerConfig) { c.Allow = map[string][]string{"exp": {"1"}} }},
		"api over http":           {TypeGitHubActions, func(c *IssuerConfig) { c.Recheck = &RecheckConfig{APIURL: "http://api.example.com"} }},
		"api with a slash":        {TypeGitHubActions, func(c *IssuerConfig) { c.Recheck = &RecheckConfig{APIURL: "https://api.example.com/"} }},
	} {
		t.Run(name, func(t *testing.T) {
			ic := base[c.typ].clone()
			ic.Type, ic.URL = c.typ, "https://issuer.example.com"
			if ic.Claims != nil {
				m := *ic.Claims
				ic.Claims = &m
			}
			c.edit(&ic)
			wantCode(t, check(ic), CodeIdentityConfigInvalid)
		})
	}
}

// Two workloads never get one subject, whatever their claims hold.
func TestSubjectIsInjective(t *testing.T) {
	t.Parallel()
	m := must((&ClaimMapping{Platform: "ci", Subject: "org/{a}/{b}:{c}"}).compile())
	claim := rapid.StringMatching(`[a/:]{1,4}`)
	rapid.Check(t, func(t *rapid.T) {
		read := func(label string) ([3]string, string, error) {
			v := [3]string{claim.Draw(t, label+" a"), claim.Draw(t, label+" b"), claim.Draw(t, label+" c")}
			s, err := m.readSubject(claims{"a": must(json.Marshal(v[0])), "b": must(json.Marshal(v[1])), "c": must(json.Marshal(v[2]))})
			return v, s, err
		}
		one, first, err1 := read("one")
		two, second, err2 := read("two")
		if err1 != nil || err2 != nil {
			return
		}
		if (first == second) != (one == two) {
			t.Fatalf("%q and %q: %q and %q", one, two, first, second)
		}
	})
}

// What is allowed is compared whole: no value that merely contains an allowed one
// comes in, and nobody comes in by a claim that is not listed.
func TestAllowIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.StringMatching(`[0-9]{1,3}`), 1, 3).Draw(t, "allowed")
		has := rapid.StringMatching(`[0-9]{1,4}`).Draw(t, "has")
		c := claims{"id": must(json.Marshal(has)), "other": must(json.Marshal(values[0]))}
		want := false
		for _, v := range values {
			want = want || v == has
		}
		if err := c.allowed(map[string][]string{"id": values}); (err == nil) != want {
			t.Fatalf("%q allowed, %q: %v", values, has, err)
		}
	})
}

// FuzzTemplate: no template and no claims make the mapping panic, and what it
// makes of them is within bounds.
func FuzzTemplate(f *testing.F) {
	for _, m := range []ClaimMapping{gitLabMapping(), buildkiteMapping()} {
		for _, s := range []string{m.Subject, m.Ref, m.Proposed, m.InvocationID, m.Commit} {
			f.Add(s, "main", "tag")
		}
	}
	f.Add("{a|*x*=*-*|b=}", "axb", "b")
	f.Fuzz(func(t *testing.T, s, one, two string) {
		tpl, err := parseTemplate(s)
		if err != nil {
			return
		}
		c := claims{}
		for name, value := range map[string]string{"ref": one, "ref_type": two, "a": one, "b": two} {
			raw, err := json.Marshal(value)
			if err != nil {
				return
			}
			c[name] = raw
		}
		got, err := tpl.value(c, "https://x.example")
		if err != nil && refusal.CodeOf(err) == "" || len(got) > maxFactBytes {
			t.Fatalf("%q %v", got, err)
		}
	})
}

// FuzzWorkloadClaims puts claims behind a right signature: what becomes a caller
// is stored and read back the same, and has the form that its facts promise.
func FuzzWorkloadClaims(f *testing.F) {
	f.Add(must(json.Marshal(oidctest.GitLabJob())))
	f.Add([]byte(`{"project_id":20,"namespace_id":"72","ref_protected":true,"groups_direct":[1,null]}`))
	e := newEnv(f, oidctest.GitLabJob())
	is := e.verifierOf(f, gitLabConfig()).issuers[e.issuer.URL()]
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseClaims(payload)
		if err != nil {
			return
		}
		caller, err := is.read(t.Context(), c, nil)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		w := caller.Workload
		if w.AccountID != "72" || !isRef(w.Ref) || !strings.HasPrefix(w.InvocationID, e.issuer.URL()+"/") {
			t.Fatalf("%+v", w)
		}
		if !cmp.Equal(must(UnmarshalCaller(must(caller.Marshal()))), caller) {
			t.Fatalf("%+v is not read back", caller)
		}
	})
}
