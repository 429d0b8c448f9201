package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
)

func TestLoadConfig(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want string }{
		"unknown key":     {"data: /x\nlissten: 1\n", "line 2: field lissten not found"},
		"unknown nested":  {"data: /x\nidentity:\n  issuers:\n    - url: https://a\n      tpye: x\n", "line 5: field tpye not found"},
		"duplicate key":   {"data: /x\ndata: /y\n", "already defined at line 1"},
		"wrong type":      {"limits:\n  max_artifact_bytes: many\n", "line 2"},
		"bad duration":    {"verify:\n  summary_ttl: soon\n", "line 2"},
		"two documents":   {"data: /x\n---\ndata: /y\n", "more than one YAML document"},
		"runtime field":   {"data: /x\nlogger: {}\n", "field logger not found"},
		"sandbox by file": {"identity:\n  issuers:\n    - sandbox: true\n", "line 3: field sandbox not found"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "assay.yaml")
			if err := os.WriteFile(path, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path)
			if refusal.CodeOf(err) != CodeConfigInvalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want CONFIG_INVALID with %q", err, tt.want)
			}
		})
	}
}

func TestConfigComplete(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg   Config
		field string
	}{
		"no data":           {Config{}, "data"},
		"instance path":     {Config{Data: "x", Instance: "https://a.example/assay"}, "instance"},
		"instance slash":    {Config{Data: "x", Instance: "https://a.example/"}, "instance"},
		"instance case":     {Config{Data: "x", Instance: "https://A.example"}, "instance"},
		"instance user":     {Config{Data: "x", Instance: "https://u@a.example"}, "instance"},
		"instance scheme":   {Config{Data: "x", Instance: "ftp://a.example"}, "instance"},
		"instance plain":    {Config{Data: "x", Instance: "http://a.example"}, "instance"},
		"half a pair":       {Config{Data: "x", TLS: TLSConfig{CertFile: "c"}}, "tls"},
		"entry format":      {Config{Data: "x", Log: LogConfig{EntryFormat: "dsse"}}, "log.entry_format"},
		"session too long":  {Config{Data: "x", Identity: IdentityConf{SessionTTL: maxSessionTTL + 1}}, "identity.session_ttl"},
		"summary too long":  {Config{Data: "x", Verify: VerifyConfig{SummaryTTL: maxSummaryTTL + 1}}, "verify.summary_ttl"},
		"negative artifact": {Config{Data: "x", Limits: LimitsConfig{MaxArtifactBytes: -1}}, "limits"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.cfg.complete()
			var r *refusal.Error
			if !errors.As(err, &r) || r.Code != CodeConfigInvalid || r.Field != tt.field {
				t.Errorf("got %v, want CONFIG_INVALID in %s", err, tt.field)
			}
		})
	}
	ok := Config{Data: "x"}
	if err := ok.complete(); err != nil {
		t.Fatal(err)
	}
	if ok.Instance != "http://127.0.0.1:8780" || ok.Audience[0] != ok.Instance || ok.host() != "127.0.0.1" {
		t.Errorf("defaults: instance %q, audience %q, host %q", ok.Instance, ok.Audience, ok.host())
	}
}
