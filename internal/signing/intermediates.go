package signing

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/refusal"
)

// CodeIntermediateInvalid refuses a certificate as an intermediate of the instance's
// certificate authority.
const CodeIntermediateInvalid refusal.Code = "INTERMEDIATE_INVALID"

const (
	intermediatesDir = "intermediates"
	certSuffix       = ".crt"
	// maxCertificate is far above an intermediate signed with RSA 4096.
	maxCertificate = 16 << 10
)

// intermediate is a certificate that one of the ca keys has signed.
type intermediate struct {
	cert *x509.Certificate
	ca   string // id of the key
}

// intermediates are those of one keyset.
type intermediates struct {
	mu   sync.RWMutex
	list []intermediate // oldest first; guarded by mu
}

// all returns the intermediates of this moment. The list is not written to.
func (s *intermediates) all() []intermediate {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.list
}

// add puts one in its place, if it is not there.
func (s *intermediates) add(i intermediate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, found := slices.BinarySearchFunc(s.list, i, compareIntermediates); !found {
		s.list = slices.Insert(slices.Clone(s.list), at, i)
	}
}

// AddIntermediate makes a certificate that a ca key of the keyset has signed part of
// the trusted root. When it returns, the file is durable:
//
//	intermediates/<hex SHA-256>.crt      DER
//
// What is there already stays as it is. A crash before the end leaves a certificate
// that nothing was issued under.
func (k *Keyset) AddIntermediate(ctx context.Context, cert *x509.Certificate) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	added, err := issuedBy(k.entries[RoleCA], cert)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(k.entries[RoleCA], func(e KeyEntry) bool { return e.KeyID == added.ca })
	if e := &k.entries[RoleCA][i]; !e.covers(cert) {
		return refusal.New(CodeIntermediateInvalid, "ca key %s is %s and does not vouch for a certificate from %s on", e.KeyID, e.State, stamp(cert.NotBefore))
	}
	dir := filepath.Join(k.dir, intermediatesDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("add intermediate: %w", err)
	}
	if err := durable.SyncDir(k.dir); err != nil {
		return err
	}
	if err := durable.Create(filepath.Join(dir, certificateName(cert)), cert.Raw, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("add intermediate: %w", err)
	}
	k.intermediates.add(added)
	return nil
}

// Intermediates returns all certificates that the keyset's ca keys have signed, oldest
// first, believed or not.
func (k *Keyset) Intermediates() []*x509.Certificate {
	var out []*x509.Certificate
	for _, i := range k.intermediates.all() {
		out = append(out, i.cert)
	}
	return out
}

// covers says whether e, a ca key, vouches for a certificate that begins when cert does.
func (e *KeyEntry) covers(cert *x509.Certificate) bool {
	w, ok := e.believed()
	last := w.lastSecond()
	return ok && e.State != StateNext && !cert.NotBefore.Before(w.from) && (last.IsZero() || !cert.NotBefore.After(last))
}

func compareIntermediates(a, b intermediate) int {
	return cmp.Or(a.cert.NotBefore.Compare(b.cert.NotBefore), bytes.Compare(a.cert.Raw, b.cert.Raw))
}

func certificateName(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:]) + certSuffix
}

// readIntermediates reads the folder whole. Whatever is in it that is not one of ours is
// refused: certificates of it are believed by every verifier. Names with a dot before
// them are of files that a crash left half written.
func readIntermediates(dir string, cas []KeyEntry) (*intermediates, error) {
	dir = filepath.Join(dir, intermediatesDir)
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return new(intermediates), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read intermediates: %w", err)
	}
	var out []intermediate
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue
		}
		cert, err := readCertificate(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		if f.Name() != certificateName(cert) {
			return nil, refusal.New(CodeIntermediateInvalid, "%s in %s is another certificate than its name says", f.Name(), dir)
		}
		i, err := issuedBy(cas, cert)
		if err != nil {
			return nil, fmt.Errorf("%s in %s: %w", f.Name(), dir, err)
		}
		out = append(out, i)
	}
	slices.SortFunc(out, compareIntermediates)
	return &intermediates{list: out}, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read intermediate: %w", err)
	}
	defer f.Close()
	der, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err != nil {
		return nil, fmt.Errorf("read intermediate: %w", err)
	}
	if len(der) > maxCertificate {
		return nil, refusal.New(CodeIntermediateInvalid, "%s has more than %d bytes", path, maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refusal.New(CodeIntermediateInvalid, "%s: %w", path, err)
	}
	return cert, nil
}

// issuedBy makes sure that cert is an intermediate as package ca makes them, and finds
// the key that signed it.
func issuedBy(cas []KeyEntry, cert *x509.Certificate) (intermediate, error) {
	invalid := func(format string, args ...any) (intermediate, error) {
		return intermediate{}, refusal.New(CodeIntermediateInvalid, format, args...)
	}
	switch {
	case len(cert.Raw) > maxCertificate:
		return invalid("the certificate has %d bytes, the limit is %d", len(cert.Raw), maxCertificate)
	case !cert.BasicConstraintsValid || !cert.IsCA || !cert.MaxPathLenZero:
		return invalid("an intermediate is a certificate authority with path length 0")
	case cert.KeyUsage != x509.KeyUsageCertSign && cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign:
		return invalid("an intermediate's key signs certificates and nothing else")
	case len(cert.UnknownExtKeyUsage) != 0 || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}):
		return invalid("an intermediate is for code signing alone")
	case len(cert.UnhandledCriticalExtensions) != 0:
		return invalid("critical extension %s is unknown", cert.UnhandledCriticalExtensions[0])
	}
	for _, e := range cas {
		root := e.Chain[0]
		if !bytes.Equal(cert.RawIssuer, root.RawSubject) || !bytes.Equal(cert.AuthorityKeyId, root.SubjectKeyId) || cert.CheckSignatureFrom(root) != nil {
			continue
		}
		if cert.NotBefore.Before(root.NotBefore) || cert.NotAfter.After(root.NotAfter) || cert.NotAfter.Before(cert.NotBefore) {
			return invalid("validity from %s to %s is not inside that of the root, %s to %s",
				stamp(cert.NotBefore), stamp(cert.NotAfter), stamp(root.NotBefore), stamp(root.NotAfter))
		}
		return intermediate{cert: cert, ca: e.KeyID}, nil
	}
	return invalid("none of the keyset's %d certificate authorities has signed it", len(cas))
}

// checkCARoot makes sure that chain is the root certificate of a ca key.
func checkCARoot(chain []*x509.Certificate, pub crypto.PublicKey, start time.Time) error {
	if len(chain) != 1 {
		return fmt.Errorf("certificate_chain of a ca key is its root certificate alone, not %d", len(chain))
	}
	root := chain[0]
	key, ok := root.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !key.Equal(pub):
		return errors.New("the root certifies another key")
	case !root.BasicConstraintsValid || !root.IsCA || root.MaxPathLenZero || root.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the root is not a certificate authority with room for an intermediate")
	case !bytes.Equal(root.RawSubject, root.RawIssuer) || len(root.Subject.Organization) != 1:
		return errors.New("the root does not name one organization as its own issuer")
	case len(root.SubjectKeyId) == 0 || len(root.UnhandledCriticalExtensions) != 0:
		return errors.New("the root has no subject key id, or an unknown critical extension")
	case start.Before(root.NotBefore) || start.After(root.NotAfter):
		return fmt.Errorf("the root is valid from %s to %s, the key from %s", stamp(root.NotBefore), stamp(root.NotAfter), stamp(start))
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("the root is not signed by its own key: %w", err)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
