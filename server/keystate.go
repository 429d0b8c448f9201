package server

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/verify"
)

// CodeAuthorityMissing refuses to sign in certificate mode while the keyset has no
// certificate authority. What was signed before is verified all the same.
const CodeAuthorityMissing refusal.Code = "CA_MISSING"

// authority is what issues for a tier.
func (k *keys) authority(tier signing.Tier) (*ca.Authority, error) {
	if a := k.authorities[tier]; a != nil {
		return a, nil
	}
	if a := k.authorities[""]; a != nil {
		return a, nil
	}
	return nil, refusal.New(CodeAuthorityMissing, "keys.mode is certificate, and the keyset has no active ca key: run assayd keys add ca")
}

// certified finds what a certificate of ours was issued by: the intermediate, and the
// authority's entry in the keyset. That it was is for verify to say.
func (k *keys) certified(der []byte) (leaf, issuer *x509.Certificate, authority *signing.KeyEntry, err error) {
	if leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, nil, nil, err
	}
	for _, c := range k.set.Intermediates() {
		if !bytes.Equal(c.RawSubject, leaf.RawIssuer) || !bytes.Equal(c.SubjectKeyId, leaf.AuthorityKeyId) {
			continue
		}
		for _, e := range k.set.Entries(signing.RoleCA) {
			if root := e.Chain[len(e.Chain)-1]; bytes.Equal(root.RawSubject, c.RawIssuer) && bytes.Equal(root.SubjectKeyId, c.AuthorityKeyId) {
				return leaf, c, &e, nil
			}
		}
	}
	return nil, nil, nil, fmt.Errorf("certificate %x is of no intermediate of the keyset", leaf.SerialNumber)
}

// sameSigner makes sure that signing a statement again, for the caller that a row names,
// vouches for nothing that the signature it has does not: its certificate names that
// caller, and its key or authority is of the tier that would sign now.
func (k *keys) sameSigner(what *signed, caller *identity.Caller, record *store.Attestation) error {
	who := subjectOf{tier: tierOf(caller, record), identity: workloadIdentity(caller)}
	if what.certificate == nil {
		e := k.entryOf(what.env.Signatures[0].KeyID)
		if now := k.set.KeyOf(signing.RoleAttestation, who.tier); e == nil || k.certificates || e.Tier != now.Tier {
			return errors.New("another kind of key would sign it now")
		}
		return nil
	}
	leaf, _, authority, err := k.certified(what.certificate)
	if err != nil {
		return err
	}
	named, err := ca.IdentityOf(leaf)
	if err != nil {
		return err
	}
	who.identity.Extensions.Issuer = who.identity.Issuer
	now := k.set.KeyOf(signing.RoleCA, who.tier)
	switch {
	case !k.certificates || now == nil || now.Tier != authority.Tier:
		return errors.New("another kind of key would sign it now")
	case named != who.identity:
		return fmt.Errorf("its certificate names %q of %q and not the caller of the row", named.URI+named.Email, named.Issuer)
	}
	return nil
}

// entryOf is the attestation key of a name in a bundle, nil for none of the keyset's.
func (k *keys) entryOf(hint string) *signing.KeyEntry {
	for _, e := range k.set.Entries(signing.RoleAttestation) {
		if h, err := verify.Fingerprint(e.Public); err == nil && h == hint {
			return &e
		}
	}
	return nil
}

// trustedKeys is what the service believes of its own attestation keys.
func trustedKeys(k *signing.Keyset) []verify.PublicKey {
	var out []verify.PublicKey
	for _, e := range k.VerifierKeys() {
		out = append(out, verify.PublicKey{PEM: e.PEM, PSS: e.PSS, NotBefore: e.NotBefore, NotAfter: e.NotAfter, RevokedSince: e.RevokedSince})
	}
	return out
}

// certificatePEM is a certificate as log entries carry it.
func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// paeDigest is what a key signs of an envelope.
func paeDigest(public crypto.PublicKey, payloadType string, payload []byte) ([]byte, error) {
	hash, err := attest.SignatureHash(public)
	if err != nil {
		return nil, err
	}
	pae := attest.PAE(payloadType, payload)
	if hash == crypto.SHA256 {
		sum := sha256.Sum256(pae)
		return sum[:], nil
	}
	h := hash.New()
	h.Write(pae)
	return h.Sum(nil), nil
}

// signerID names the keys that summaries are signed, dated and registered by: where one of
// them is another, so is the answer. One that was made before might not verify any more.
func (k *keys) signerID() string {
	role := signing.RoleAttestation
	if k.certificates {
		role = signing.RoleCA
	}
	id := ""
	for _, role := range []signing.Role{role, signing.RoleTimestamp, signing.RoleLog} {
		if e := k.set.KeyOf(role, ""); e != nil { // a ca key may be missing
			id += e.KeyID
		}
	}
	return id
}

// lapsed says whether a signature of the key, or under the certificate, that was dated
// before now would be refused for what the log says of it from now on.
func (k *keys) lapsed(hint string, certificate []byte, now time.Time) (bool, error) {
	if certificate != nil {
		leaf, err := x509.ParseCertificate(certificate)
		if err != nil {
			return false, fmt.Errorf("certificate of a pending attestation: %w", err)
		}
		return now.After(leaf.NotAfter), nil
	}
	e := k.entryOf(hint)
	return e != nil && !e.NotAfter.IsZero() && now.After(e.NotAfter), nil
}
