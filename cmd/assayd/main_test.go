package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func TestMisuse(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data := filepath.Join(dir, "data")
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":             {nil, exitUsage, "assayd serve"},
		"unknown command":     {[]string{"server"}, exitUsage, "unknown command"},
		"unknown flag":        {[]string{"serve", "--dta", "x"}, exitUsage, "--dta"},
		"no data":             {[]string{"serve"}, exitUsage, "--data DIR"},
		"argument":            {[]string{"serve", "now"}, exitUsage, "takes no arguments"},
		"log format":          {[]string{"serve", "--data", data, "--log-format", "xml"}, exitUsage, "text or json"},
		"log level":           {[]string{"serve", "--data", data, "--log-level", "loud"}, exitUsage, "debug, info"},
		"no such file":        {[]string{"serve", "--config", filepath.Join(dir, "none.yaml")}, exitUsage, "no such file"},
		"unknown key":         {[]string{"serve", "--config", file("k.yaml", "data: x\nlissten: y\n")}, exitUsage, "line 2: field lissten"},
		"open issuer":         {[]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--config", file("o.yaml", "identity:\n  issuers:\n    - url: https://token.actions.githubusercontent.com\n      type: github-actions\n")}, exitUsage, "allowed"},
		"plaintext to all":    {[]string{"serve", "--data", data, "--listen", "0.0.0.0:0", "--instance", "https://assay.test"}, exitUsage, "PLAINTEXT_REFUSED"},
		"vacuous policy":      {[]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--config", file("v.yaml", "policy:\n  file: "+file("v.cedar", `@id("a") @message("m") permit (principal, action == Assay::Action::"deploy", resource) when { context.environment == "prod" };`)+"\n")}, exitUsage, "POLICY_VACUOUS"},
		"certificate missing": {[]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--config", file("c.yaml", "tls:\n  cert_file: /nope.crt\n  key_file: /nope.key\n")}, exitUsage, "nope"},
		"data is a file":      {[]string{"serve", "--listen", "127.0.0.1:0", "--data", file("plain", "")}, exitError, "plain"},
		"version, surplus":    {[]string{"version", "x"}, exitUsage, "takes no arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(t.Context(), tt.args, &out, &errs, func(*slog.Logger) {}); code != tt.code || !strings.Contains(errs.String(), tt.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, tt.code, tt.want, &errs)
			}
		})
	}
}

// lines is standard error that can be waited for.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	select {
	case l.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) find(re *regexp.Regexp) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return re.FindStringSubmatch(l.text.String())
}

// TestServe starts the program with nothing but a directory, asks it how it is,
// stops it, and starts it again on what it left.
func TestServe(t *testing.T) {
	data := t.TempDir()
	address := regexp.MustCompile(`msg=serving address=(\S+)`)
	for life := range 2 {
		ctx, stop := context.WithCancel(t.Context())
		errs := &lines{news: make(chan struct{}, 1)}
		code := make(chan int, 1)
		go func() {
			code <- run(ctx, []string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--instance", "https://assay.test"}, io.Discard, errs, func(*slog.Logger) {})
		}()
		var found []string
		for found == nil {
			select {
			case <-errs.news:
				found = errs.find(address)
			case c := <-code:
				t.Fatalf("life %d: exit %d before serving:\n%s", life, c, errs.text.String())
			}
		}
		resp, err := http.Get("http://" + found[1] + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("readyz: %s", resp.Status)
		}
		stop()
		if c := <-code; c != exitOK {
			t.Errorf("life %d: exit %d after a clean stop:\n%s", life, c, errs.text.String())
		}
	}
	info, err := os.Stat(filepath.Join(data, "keys"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("keys: %v, %v; want mode 0700", info.Mode(), err)
	}
}
