package client

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// agent puts a program called buildkite-agent on the PATH.
func agent(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "buildkite-agent"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func TestBuildkite(t *testing.T) {
	const audience = "https://assay.example.com"
	good := unsigned(`{"aud":"` + audience + `"}`)
	tests := []struct {
		name, script, code string
	}{
		{"good", `[ "$*" = "oidc request-token --audience ` + audience + ` --claim organization_id --claim pipeline_id" ] && echo ` + good, ""},
		{"refused", "echo SECRET >&2; echo SECRET; exit 1", CodeCredentialRefused},
		{"nothing printed", "exit 0", CodeCredentialUnavailable},
		{"no token", "echo usage: SECRET", CodeCredentialUnavailable},
		{"two tokens", "echo " + good + "; echo " + good, CodeCredentialUnavailable},
		{"prints for ever", "while :; do echo SECRETSECRETSECRETSECRETSECRETSECRETSECRETSECRET; done", CodeCredentialUnavailable},
		{"for another", "echo " + unsigned(`{"aud":"https://vault.example.com"}`), CodeCredentialAudience},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			agent(t, tt.script)
			req, err := Buildkite().Credential(t.Context(), audience)
			wantCode(t, err, tt.code)
			if err == nil && req.GetOidcToken() != good {
				t.Errorf("token %q", req.GetOidcToken())
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error repeats the agent: %v", err)
			}
		})
	}
	t.Run("no agent", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Buildkite().Credential(t.Context(), audience)
		wantCode(t, err, CodeCredentialMissing)
	})
	t.Run("hangs", func(t *testing.T) {
		agent(t, "exec sleep 60")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := Buildkite().Credential(ctx, audience)
		wantCode(t, err, CodeCredentialUnavailable)
	})
}
