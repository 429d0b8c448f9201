package server_test

import (
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	sgroot "github.com/sigstore/sigstore-go/pkg/root"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/server"
)

// intermediates are those of the keyset, as they stand on disk.
func (k *keyed) intermediates(t testing.TB) []*x509.Certificate {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(k.dir(), "intermediates", "*.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var out []*x509.Certificate
	for _, f := range files {
		der, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// signatures is how many AWS KMS has made. A request that the SDK dated by a clock that
// has jumped since is not one; it is repeated by the clock of the answer.
func (k *keyed) signatures() (n int) {
	for _, r := range k.cloud.World.Requests("kms", "Sign") {
		if r.Status == http.StatusOK {
			n++
		}
	}
	return n
}

// authorities is how many intermediates a verifier knows.
func (s *snapshot) authorities() (n int) {
	for _, a := range s.sigstore.FulcioCertificateAuthorities() {
		if ca, ok := a.(*sgroot.FulcioCertificateAuthority); ok {
			n += len(ca.Intermediates)
		}
	}
	return n
}

// TestIntermediates: over an hour, with intermediates of five minutes, the trusted root
// grows by those that were used and by no other, AWS KMS is asked once for each, whatever
// was made verifies with the newest root, and a restart loses a key and nothing more.
func TestIntermediates(t *testing.T) {
	t.Parallel()
	k := newKeyed(t, inCertificateMode, func(c *server.Config) { c.Keys.IntermediateLifetime = 5 * time.Minute })
	k.begin(t).stop()
	key := k.kms(p256)
	k.rotate(t, signing.RoleCA, refOf(key))
	files := len(k.intermediates(t)) // of the key in a file
	signed := k.signatures()
	l := k.begin(t) // makes none: nothing is attested yet
	var made []issued
	for minute := range 60 {
		k.advance(time.Minute)
		switch {
		case minute >= 20 && minute < 40:
			continue // nobody attests, and nothing is made ahead
		case minute == 45:
			l.stop()
			l = k.begin(t)
		}
		l.login(t)
		made = append(made, l.attested(t, k.now().Format(time.TimeOnly)))
	}
	now := l.snapshot(t, "now")
	used := make(map[string]bool)
	for _, i := range made {
		used[string(i.leaf.AuthorityKeyId)] = true
		now.agreed(t, i, "")
		l.decide(t, "dev", i.subject, "ALLOWED")
	}
	calls, onDisk := k.signatures()-signed, len(k.intermediates(t))-files
	if calls != onDisk || now.authorities() != onDisk+files {
		t.Errorf("%d signatures of KMS, %d intermediates on disk and %d in the trusted root, of which %d are of the key before", calls, onDisk, now.authorities(), files)
	}
	// Each issues for twice its lifetime where nothing renews it ahead, as here.
	if len(used) < 4 || len(used) > 9 || onDisk-len(used) > 1 {
		t.Errorf("%d intermediates for %d used ones", onDisk, len(used))
	}
	t.Logf("%d attestations under %d intermediates, %d on disk, %d calls of KMS, trusted root of %d bytes", len(made), len(used), onDisk, calls, now.size)
}
