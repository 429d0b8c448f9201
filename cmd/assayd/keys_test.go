package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// keysDirectory is a data directory with a keyset and nothing else.
func keysDirectory(t *testing.T) string {
	t.Helper()
	data := t.TempDir()
	cfg := signing.Config{Host: "assay.test", Now: func() time.Time { return time.Now().Add(-time.Hour) }, Create: true}
	if _, err := signing.OpenKeyset(t.Context(), filepath.Join(data, "keys"), cfg); err != nil {
		t.Fatal(err)
	}
	return data
}

// assayd runs the program and demands an exit code.
func assayd(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), args, &out, &errs, func(*slog.Logger) {}); got != code {
		t.Fatalf("assayd %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// listed is what `assayd keys list --format json` says.
func listed(t *testing.T, data string) []listedKey {
	t.Helper()
	out, _ := assayd(t, exitOK, "keys", "list", "--data", data, "--format", "json")
	var list struct {
		Host string
		Keys []listedKey
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || list.Host != "assay.test" {
		t.Fatalf("%v\n%s", err, out)
	}
	return list.Keys
}

func TestKeysMisuse(t *testing.T) {
	t.Parallel()
	data := keysDirectory(t)
	id := listed(t, data)[0].KeyID
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":         {nil, exitUsage, "keys list, add, rotate"},
		"unknown command": {[]string{"show"}, exitUsage, `unknown command keys "show"`},
		"no data":         {[]string{"list"}, exitUsage, "--data DIR"},
		"no keyset":       {[]string{"list", "--data", t.TempDir()}, exitError, "KEY_MISSING"},
		"format":          {[]string{"list", "--data", data, "--format", "xml"}, exitUsage, "table or json"},
		"no role":         {[]string{"add", "--data", data}, exitUsage, "takes one role"},
		"role":            {[]string{"rotate", "everything", "--data", data}, exitUsage, "role \"everything\""},
		"tier":            {[]string{"rotate", "attestation", "--tier", "x", "--data", data}, exitError, "KEY_CHANGE_INVALID"},
		"no id":           {[]string{"retire", "--data", data}, exitUsage, "takes the id of one key"},
		"unknown id":      {[]string{"retire", strings.Repeat("0", 64), "--data", data}, exitError, "KEY_NOT_FOUND"},
		"time":            {[]string{"retire", id, "--at", "tomorrow", "--data", data}, exitUsage, "--at \"tomorrow\""},
		"no reason":       {[]string{"revoke", id, "--data", data}, exitUsage, "keyCompromise superseded"},
		"in use":          {[]string{"revoke", id, "--reason", "superseded", "--data", data}, exitError, "KEY_IN_USE"},
		"ref":             {[]string{"add", "attestation", "--ref", "gcpkms://x", "--data", data}, exitError, "KEY_REF_INVALID"},
		"flag":            {[]string{"list", "--dta", data}, exitUsage, "--dta"},
		"configuration":   {[]string{"list", "--config", filepath.Join(data, "none.yaml")}, exitUsage, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := assayd(t, tt.code, append([]string{"keys"}, tt.args...)...)
			if !strings.Contains(errs, tt.want) {
				t.Errorf("want %q in\n%s", tt.want, errs)
			}
		})
	}
}

func TestKeysChange(t *testing.T) {
	t.Parallel()
	data := keysDirectory(t)
	path := filepath.Join(data, "keys", "keyset.json")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := listed(t, data)[0]
	out, _ := assayd(t, exitOK, "keys", "rotate", "attestation", "--data", data, "--dry-run")
	if !strings.Contains(out, "signs in place of "+first.KeyID[:12]) || !strings.Contains(out, "Nothing was written") {
		t.Errorf("%s", out)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a dry run wrote: %v", err)
	}
	config := filepath.Join(data, "assay.yaml")
	if err := os.WriteFile(config, []byte("data: "+data+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = assayd(t, exitOK, "keys", "rotate", "attestation", "--config", config)
	now := listed(t, data)
	if !strings.Contains(out, "Done: attestation key "+now[0].KeyID+" is active, at file:attestation-2.pem") || now[1].KeyID != first.KeyID || now[1].State != signing.StateVerifyOnly {
		t.Errorf("%s\n%+v", out, now)
	}
	assayd(t, exitOK, "keys", "add", "attestation", "--tier", "build", "--data", data)
	assayd(t, exitOK, "keys", "add", "co-signature", "--data", data)
	assayd(t, exitOK, "keys", "add", "ca", "--data", data)
}

func TestKeysTable(t *testing.T) {
	t.Parallel()
	data := keysDirectory(t)
	first := listed(t, data)[0]
	assayd(t, exitOK, "keys", "revoke", first.KeyID[:8], "--data", data, "--reason", "keyCompromise", "--rotate", "--since", first.NotBefore.Add(time.Minute).Format(time.RFC3339))
	out, _ := assayd(t, exitOK, "keys", "list", "--data", data)
	rows := strings.Split(strings.TrimSpace(out), "\n")
	if len(rows) != 5 || !strings.HasPrefix(rows[0], "ROLE") || !strings.Contains(rows[1], "active") ||
		!strings.Contains(rows[2], "revoked (keyCompromise "+first.NotBefore.Add(time.Minute).Format(time.RFC3339)+")") || !strings.Contains(rows[2], first.KeyID[:12]) {
		t.Errorf("%s", out)
	}
}

// The log's key changes while nobody has the log open, and not before the old key has
// signed for everything in it.
func TestKeysRotateLog(t *testing.T) {
	t.Parallel()
	data := keysDirectory(t)
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		set, err := signing.OpenKeyset(t.Context(), filepath.Join(data, "keys"), signing.Config{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		shards := set.LogShards()
		folder := shards[len(shards)-1].Name
		log, err := posix.Open(t.Context(), posix.Config{Dir: filepath.Join(data, folder), Host: "assay.test", Signer: set.LogSigner(), Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Add(t.Context(), []byte(`{"apiVersion":"0.0.1"}`)); err != nil {
			t.Fatal(err)
		}
		_, errs := assayd(t, exitError, "keys", "rotate", "log", "--data", data)
		if !strings.Contains(errs, "SERVICE_RUNNING") {
			t.Errorf("%s", errs)
		}
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		out, _ := assayd(t, exitOK, "keys", "rotate", "log", "--data", data)
		if !strings.Contains(out, "must be stopped") {
			t.Errorf("%s", out)
		}
		key, err := tlog.NewKey("assay.test", set.LogSigner().Public())
		if err != nil {
			t.Fatal(err)
		}
		frozen, err := posix.OpenFrozen(t.Context(), filepath.Join(data, folder), key, slog.New(slog.DiscardHandler))
		if err != nil || frozen.Published() != 1 {
			t.Errorf("the old log: %v", err)
		}
	}
	if out, _ := assayd(t, exitOK, "keys", "rotate", "log", "--data", data); !strings.Contains(out, "folder log-4") {
		t.Errorf("a log that was never begun: %s", out)
	}
}

// A log that a crash left without a checkpoint over all of it gets one before its key
// is retired.
func TestKeysRotateLogAfterCrash(t *testing.T) {
	t.Parallel()
	data := keysDirectory(t)
	set, err := signing.OpenKeyset(t.Context(), filepath.Join(data, "keys"), signing.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	running := filepath.Join(t.TempDir(), "log")
	log, err := posix.Open(t.Context(), posix.Config{Dir: running, Host: "assay.test", Signer: set.LogSigner(), CheckpointInterval: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Add(t.Context(), []byte(`{"apiVersion":"0.0.1"}`)); err != nil {
		t.Fatal(err)
	}
	// What a power loss would leave of it.
	if err := os.CopyFS(filepath.Join(data, "log"), os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	key, err := tlog.NewKey("assay.test", set.LogSigner().Public())
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	if frozen, err := posix.OpenFrozen(t.Context(), filepath.Join(data, "log"), key, quiet); err == nil && frozen.Published() == 1 {
		t.Fatal("the copy is settled: the test tests nothing")
	}
	assayd(t, exitOK, "keys", "rotate", "log", "--data", data)
	if frozen, err := posix.OpenFrozen(t.Context(), filepath.Join(data, "log"), key, quiet); err != nil || frozen.Published() != 1 {
		t.Errorf("the retired log is not complete: %v", err)
	}
	if err := log.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A service that runs takes notice of a change.
func TestKeysWhileServing(t *testing.T) {
	data := t.TempDir()
	address := regexp.MustCompile(`msg=serving address=(\S+)`)
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
			t.Fatalf("exit %d before serving:\n%s", c, errs.text.String())
		}
	}
	defer func() {
		stop()
		if c := <-code; c != exitOK {
			t.Errorf("exit %d:\n%s", c, errs.text.String())
		}
	}()
	trusted := func() string {
		resp, err := http.Get("http://" + found[1] + "/trusted_root.json")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %v", resp.Status, err)
		}
		return string(text)
	}
	before := trusted()
	assayd(t, exitOK, "keys", "rotate", "timestamp", "--data", data)
	if trusted() == before {
		t.Error("the service publishes the old trusted root")
	}
	_, refused := assayd(t, exitError, "keys", "rotate", "log", "--data", data)
	if !strings.Contains(refused, "SERVICE_RUNNING") {
		t.Errorf("%s", refused)
	}
}
