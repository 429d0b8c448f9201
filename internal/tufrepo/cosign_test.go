package tufrepo

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	sigstoreroot "github.com/sigstore/sigstore-go/pkg/root"
)

// TestCosign lets the program that ASSAY_COSIGN names begin with our root, follow a
// rotation of all keys, and keep a trusted root that the Sigstore library loads.
func TestCosign(t *testing.T) {
	cosign := os.Getenv("ASSAY_COSIGN")
	if cosign == "" {
		t.Skip("ASSAY_COSIGN names no cosign")
	}
	w := newWorld(t, t.TempDir())
	w.clock.now = time.Now()
	files := filesOf("one")
	files["trusted_root.json"] = trustedRoot(t)
	if _, err := w.repo.Publish(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/tuf/", w.repo.Handler())
	srv := httptest.NewServer(mux)
	defer srv.Close()
	first := filepath.Join(t.TempDir(), "root.json")
	write(t, first, w.first)

	initialize := func() {
		t.Helper()
		home := t.TempDir()
		cmd := exec.CommandContext(t.Context(), cosign, "initialize", "--mirror", srv.URL+"/tuf", "--root", first)
		cmd.Env = []string{"HOME=" + home, "TUF_ROOT=" + home + "/root", "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1"}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "trusted_root.json") {
			t.Fatalf("cosign initialize: %v\n%s", err, out)
		}
		kept, err := filepath.Glob(home + "/root/*/targets/trusted_root.json")
		if err != nil || len(kept) != 1 {
			t.Fatalf("cosign keeps %v, %v\n%s", kept, err, out)
		}
		if data, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(data, files["trusted_root.json"]) {
			t.Errorf("cosign keeps %q, %v", data, err)
		}
		root, err := sigstoreroot.NewTrustedRootFromPath(kept[0])
		if err != nil || len(root.RekorLogs()) != 1 {
			t.Errorf("sigstore-go: %v", err)
		}
	}
	initialize()
	if err := RotateRoot(t.Context(), w.config(), RootChange{}, w.root...); err != nil {
		t.Fatal(err)
	}
	if err := w.repo.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	initialize()
}

func trustedRoot(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(der)
	return fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[{"baseUrl":"https://assay.test",`+
		`"hashAlgorithm":"SHA2_256","publicKey":{"rawBytes":%s,"keyDetails":"PKIX_ECDSA_P256_SHA_256","validFor":{"start":"2026-01-01T00:00:00Z"}},`+
		`"logId":{"keyId":%s}}]}`, strconv.Quote(base64.StdEncoding.EncodeToString(der)), strconv.Quote(base64.StdEncoding.EncodeToString(id[:])))
}
