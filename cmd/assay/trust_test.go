package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/tufrepo"
)

type ownerKey struct{ private *ecdsa.PrivateKey }

func (k ownerKey) Public() crypto.PublicKey { return &k.private.PublicKey }

func (k ownerKey) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, k.private, digest)
}

func newOwnerKey(t *testing.T) ownerKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ownerKey{private}
}

// TestTrust follows a real repository from its root.json, and refuses what is no root
// of it. Nothing else of the server is there: what is printed comes from the repository.
func TestTrust(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, targets := newOwnerKey(t), newOwnerKey(t)
	files := func(content string) map[string][]byte {
		return map[string][]byte{
			"trusted_root.json":    []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","is":"` + content + `"}`),
			"attestation_keys.pem": clienttest.KeyPEM(),
		}
	}
	at := filepath.Join(dir, "tuf")
	if err := tufrepo.Init(t.Context(), at, tufrepo.InitOptions{RootSigners: []tufrepo.Signer{root}, Targets: targets, Files: files("one")}); err != nil {
		t.Fatal(err)
	}
	repo, err := tufrepo.Open(tufrepo.Config{Dir: at, TargetsSigner: targets})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/tuf/", repo.Handler())
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	assay := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		lookup := func(name string) (string, bool) {
			v, ok := map[string]string{"ASSAY_SERVER": srv.URL, "XDG_STATE_HOME": dir}[name]
			return v, ok
		}
		code := run(t.Context(), args, lookup, strings.NewReader(""), &out, &errs)
		return code, out.String(), errs.String()
	}
	rootFile, junk := filepath.Join(dir, "root.json"), filepath.Join(dir, "junk.json")
	for name, data := range map[string][]byte{rootFile: repo.Root(), junk: []byte("{}")} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(content string) {
		if _, err := repo.Publish(t.Context(), files(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		args string
		code int
		want string // in what is printed
	}{
		{"trust", exitUsage, "init, update or show"},
		{"trust follow", exitUsage, "unknown command"},
		{"trust init", exitUsage, "--root is missing"},
		{"trust init --root " + dir + "/none", exitUsage, "no such file"},
		{"trust init --root " + junk, exitUsage, "TUF_ROOT_INVALID"},
		{"trust show", exitUsage, "TUF_NOT_INITIALIZED"},
		{"trust update", exitUsage, "TUF_NOT_INITIALIZED"},
		{"trust init --root " + rootFile, exitDone, "timestamp     1  until "},
		{"trust show --format json", exitDone, `"version": 1`},
		{"trust show --format xml", exitUsage, "--format"},
		{"trusted-root", exitDone, `"is":"one"`},
		{"publish two", 0, ""},
		{"trusted-root", exitDone, `"is":"one"`}, // for an hour
		{"trust update", exitDone, "targets       2"},
		{"trusted-root", exitDone, `"is":"two"`},
		{"trusted-root --format pem", exitDone, "BEGIN PUBLIC KEY"},
	} {
		if content, ok := strings.CutPrefix(step.args, "publish "); ok {
			publish(content)
			continue
		}
		code, out, errs := assay(strings.Fields(step.args)...)
		if code != step.code || !strings.Contains(out+errs, step.want) {
			t.Errorf("assay %s: exit %d, want %d with %q:\n%s%s", step.args, code, step.code, step.want, out, errs)
		}
	}
}
