package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// signs are what environments show, by the kind that is to be found in them.
func signs(t testing.TB) map[string]map[string]string {
	state := t.TempDir()
	if err := os.MkdirAll(filepath.Join(state, "assay"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(state, "assay"), "login.json", "{}")
	return map[string]map[string]string{
		"github":      {"GITHUB_ACTIONS": "true"},
		"codebuild":   {"CODEBUILD_BUILD_ARN": "arn:aws:codebuild:eu-west-1:111122223333:build/app:x", "AWS_REGION": "eu-west-1"},
		"gitlab":      {"GITLAB_CI": "true", "ASSAY_ID_TOKEN": "a.b.c"},
		"buildkite":   {"BUILDKITE": "true"},
		"token":       {"ASSAY_ID_TOKEN_FILE": "/run/token"},
		"certificate": {"ASSAY_CLIENT_CERT": "c.pem", "ASSAY_CLIENT_KEY": "k.pem"},
		"login":       {"XDG_STATE_HOME": state},
	}
}

// order is the documented one, written out so that a change of it is meant.
var order = []string{"github", "codebuild", "gitlab", "buildkite", "token", "certificate", "login"}

func TestDetect(t *testing.T) {
	all := signs(t)
	for kind, env := range all {
		if got, err := Detect(lookupIn(env)); err != nil || got.Kind != kind || got.Source == nil {
			t.Errorf("%v: %+v, %v; want %s", env, got, err, kind)
		}
	}
	for _, tt := range []struct {
		env  map[string]string
		kind string
	}{
		{map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x/"}, "github"},
		{map[string]string{"ASSAY_ID_TOKEN": "a.b.c"}, "token"},
		// A GitLab job without an id_token may have another credential.
		{map[string]string{"GITLAB_CI": "true", "ASSAY_ID_TOKEN_FILE": "/run/token"}, "token"},
		{map[string]string{"ASSAY_CLIENT_KEY": "k.pem"}, "certificate"},
	} {
		if got, err := Detect(lookupIn(tt.env)); err != nil || got.Kind != tt.kind {
			t.Errorf("%v: %+v, %v; want %s", tt.env, got, err, tt.kind)
		}
	}
}

// TestDetectOrder: of any mix of signs the first in the documented order counts,
// and ASSAY_CREDENTIAL beats them all.
func TestDetectOrder(t *testing.T) {
	all := signs(t)
	kinds := append([]string{"aws", "aws-web-identity"}, order...)
	rapid.Check(t, func(t *rapid.T) {
		env := map[string]string{"ASSAY_CREDENTIAL": ""}
		want := ""
		for _, kind := range order {
			if rapid.Bool().Draw(t, kind) {
				maps.Copy(env, all[kind])
				if want == "" {
					want = kind
				}
			}
		}
		// What a GitLab job's token is when GITLAB_CI is in the mix already.
		got, err := Detect(lookupIn(env))
		switch {
		case want == "" && err == nil:
			t.Fatalf("%v: found %s in nothing", env, got.Kind)
		case want != "" && (err != nil || got.Kind != want):
			t.Fatalf("%v: %+v, %v; want %s", env, got, err, want)
		}
		chosen := rapid.SampledFrom(kinds).Draw(t, "chosen")
		env["ASSAY_CREDENTIAL"] = chosen
		maps.Copy(env, map[string]string{"HOME": "/nowhere"})
		if got, err := Detect(lookupIn(env)); err != nil || got.Kind != chosen {
			t.Fatalf("%v: %+v, %v; want %s", env, got, err, chosen)
		}
	})
}

func TestDetectNothing(t *testing.T) {
	// AWS credentials alone are never guessed to be what is meant.
	env := map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIASECRET", "AWS_SECRET_ACCESS_KEY": "SECRET", "AWS_REGION": "eu-west-1",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/", "HOME": t.TempDir(), "GITLAB_CI": "true", "ASSAY_ID_TOKEN": "",
	}
	_, err := Detect(lookupIn(env))
	wantCode(t, err, CodeCredentialMissing)
	for _, sign := range []string{
		"GITHUB_ACTIONS", envRequestURL, envBuildARN, "GITLAB_CI", "BUILDKITE", envIDToken, envIDTokenFile, envClientCert, envClientKey, "assay login",
	} {
		if !strings.Contains(err.Error(), sign) {
			t.Errorf("%q does not say that %s was looked for", err, sign)
		}
	}
	_, err = Detect(lookupIn(map[string]string{"ASSAY_CREDENTIAL": "GitHub"}))
	wantCode(t, err, CodeCredentialUnknown)
	if !strings.Contains(err.Error(), "aws-web-identity") {
		t.Errorf("%q does not say what there is", err)
	}
	_, err = Detect(lookupIn(map[string]string{"ASSAY_CREDENTIAL": "login"}))
	wantCode(t, err, CodeLoginFileInvalid)
}

// unsigned is a JWT whose signature nobody made.
func unsigned(payload string) string {
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestIDToken(t *testing.T) {
	const audience = "https://assay.example.com"
	dir := t.TempDir()
	good := unsigned(`{"aud":"` + audience + `","sub":"SECRET"}`)
	tests := []struct {
		name string
		env  map[string]string
		code string
	}{
		{"variable", map[string]string{envIDToken: good}, ""},
		{"a list of one", map[string]string{envIDToken: unsigned(`{"aud":["` + audience + `"]}`)}, ""},
		{"file", map[string]string{envIDTokenFile: write(t, dir, "good", good+"\n")}, ""},
		{"the variable comes first", map[string]string{envIDToken: good, envIDTokenFile: filepath.Join(dir, "absent")}, ""},
		{"neither", nil, CodeCredentialMissing},
		{"no such file", map[string]string{envIDTokenFile: filepath.Join(dir, "absent")}, CodeCredentialMissing},
		{"a directory", map[string]string{envIDTokenFile: dir}, CodeCredentialMissing},
		{"an empty file", map[string]string{envIDTokenFile: write(t, dir, "empty", "\n")}, CodeCredentialInvalid},
		{"a large file", map[string]string{envIDTokenFile: write(t, dir, "large", strings.Repeat("a", maxTokenAnswer+1))}, CodeCredentialInvalid},
		{"opaque", map[string]string{envIDToken: "glpat-SECRET"}, CodeCredentialInvalid},
		{"two lines", map[string]string{envIDToken: good[:20] + "\n" + good[20:]}, CodeCredentialInvalid},
		{"no base64url", map[string]string{envIDToken: "a.SECRET=.c"}, CodeCredentialInvalid},
		{"no JSON", map[string]string{envIDToken: unsigned("SECRET")}, CodeCredentialInvalid},
		{"no object", map[string]string{envIDToken: unsigned(`["SECRET"]`)}, CodeCredentialInvalid},
		{"aud twice", map[string]string{envIDToken: unsigned(`{"aud":"x","aud":"` + audience + `"}`)}, CodeCredentialInvalid},
		{"aud in another case", map[string]string{envIDToken: unsigned(`{"aud":"x","AUD":"` + audience + `"}`)}, CodeCredentialInvalid},
		{"no aud", map[string]string{envIDToken: unsigned(`{"sub":"SECRET"}`)}, CodeCredentialInvalid},
		{"aud null", map[string]string{envIDToken: unsigned(`{"aud":null}`)}, CodeCredentialAudience},
		{"aud a number", map[string]string{envIDToken: unsigned(`{"aud":7}`)}, CodeCredentialInvalid},
		{"aud empty", map[string]string{envIDToken: unsigned(`{"aud":[]}`)}, CodeCredentialAudience},
		{"aud of another", map[string]string{envIDToken: unsigned(`{"aud":"https://vault.example.com"}`)}, CodeCredentialAudience},
		{"aud of two", map[string]string{envIDToken: unsigned(`{"aud":["` + audience + `","https://vault.example.com"]}`)}, CodeCredentialAudience},
		{"aud longer", map[string]string{envIDToken: unsigned(`{"aud":"` + audience + `/"}`)}, CodeCredentialAudience},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := IDToken(lookupIn(tt.env)).Credential(t.Context(), audience)
			wantCode(t, err, tt.code)
			if err == nil && claim(t, req.GetOidcToken(), "aud") == nil {
				t.Error("another token came out")
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error holds what is in the token: %v", err)
			}
		})
	}
}

// FuzzTokenAudience: only a payload whose one aud is ours passes, however it is read.
func FuzzTokenAudience(f *testing.F) {
	for _, payload := range []string{`{"aud":"us"}`, `{"aud":["us"]}`, `{"aud":["us","them"]}`, `{"aud":"us","Aud":"them"}`, `{}`, `null`, `{"aud":{"us":1}}`} {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		if checkTokenAudience(unsigned(payload), "us") != nil {
			return
		}
		var claims map[string]any
		if err := json.Unmarshal([]byte(payload), &claims); err != nil {
			t.Fatalf("%q passed and is no JSON", payload)
		}
		found := ""
		for name, v := range claims {
			if strings.EqualFold(name, "aud") {
				found += fmt.Sprint(v)
			}
		}
		if found != "us" && found != "[us]" {
			t.Fatalf("%q passed", payload)
		}
	})
}
