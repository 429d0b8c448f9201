package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"slices"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/tlog"
)

// trust is what the attestations of one instance are verified with: the keys it signs
// with, the authorities that issue its certificates, and the logs it registers in.
//
// It is internal/verify in a few lines and without the Sigstore libraries, which would
// make up a fifth of a program that has to start at once. It leaves out the timestamps of
// authorities, the promises of certificate logs (SCTs), co-signatures, who it is that a
// certificate names, and from when until when a key counts: who has to know those verifies
// the bundle with the Sigstore tools.
type trust struct {
	keys        []trustedKey
	authorities []trustedAuthority
	logs        map[string]trustedLog // by raw log id
}

type trustedKey struct {
	public crypto.PublicKey
	spki   []byte
}

// trustedAuthority is one entry of the trusted root: intermediates, and the root above all
// of them. There may be thousands, so a certificate is parsed when it is needed.
type trustedAuthority struct {
	chain      [][]byte // DER, the root last
	start, end time.Time
}

type trustedLog struct {
	host   string
	public *ecdsa.PublicKey
}

// trusted fetches the instance's trusted root.
func (c *Client) trusted(ctx context.Context) (*trust, error) {
	root, err := c.GetTrustedRoot(ctx)
	if err != nil {
		return nil, err
	}
	return newTrust(root)
}

// rootDocument is the part of a Sigstore trusted root that is looked at.
type rootDocument struct {
	TLogs []struct {
		BaseURL   string `json:"baseUrl"`
		PublicKey struct {
			RawBytes []byte `json:"rawBytes"`
		} `json:"publicKey"`
		LogID struct {
			KeyID []byte `json:"keyId"`
		} `json:"logId"`
	} `json:"tlogs"`
	Authorities []struct {
		CertChain struct {
			Certificates []struct {
				RawBytes []byte `json:"rawBytes"`
			} `json:"certificates"`
		} `json:"certChain"`
		ValidFor struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"validFor"`
	} `json:"certificateAuthorities"`
}

func newTrust(root *TrustedRoot) (*trust, error) {
	// GetTrustedRoot has refused duplicate and case-variant names.
	var doc rootDocument
	if err := json.Unmarshal(root.JSON, &doc); err != nil {
		return nil, dishonest("the trusted root: %w", err)
	}
	t := &trust{logs: make(map[string]trustedLog, len(doc.TLogs))}
	for rest := root.AttestationKeysPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		// A key of another kind signs no attestation. It may be for co-signatures.
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			continue
		}
		if _, err := attest.SignatureHash(public); err == nil {
			t.keys = append(t.keys, trustedKey{public, block.Bytes})
		}
	}
	for _, a := range doc.Authorities {
		entry := trustedAuthority{start: a.ValidFor.Start, end: a.ValidFor.End}
		for _, c := range a.CertChain.Certificates {
			entry.chain = append(entry.chain, c.RawBytes)
		}
		t.authorities = append(t.authorities, entry)
	}
	for _, l := range doc.TLogs {
		public, err := p256(l.PublicKey.RawBytes)
		if err != nil {
			continue // of another kind than this instance's own; what it signed is refused
		}
		base, err := url.Parse(l.BaseURL)
		if id := sha256.Sum256(l.PublicKey.RawBytes); err != nil || !bytes.Equal(id[:], l.LogID.KeyID) {
			return nil, dishonest("the trusted root has a log %.200q whose id is not that of its key", l.BaseURL)
		}
		t.logs[string(l.LogID.KeyID)] = trustedLog{base.Hostname(), public}
	}
	return t, nil
}

func p256(spki []byte) (*ecdsa.PublicKey, error) {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, dishonest("a key that is no P-256 key")
	}
	return key, nil
}

// verify checks that the instance signed the envelope, and that one of its logs holds
// just this envelope.
func (t *trust) verify(parts *attest.BundleParts) error {
	env := parts.Envelope
	s, err := t.signer(parts)
	if err != nil {
		return err
	}
	e := &parts.LogEntry
	log, ok := t.logs[string(e.LogID)]
	if !ok {
		return dishonest("the attestation is logged in %x, which is no log of the instance", e.LogID)
	}
	format, body := entryBody(e, env, s)
	if body == nil || !bytes.Equal(body, e.CanonicalizedBody) {
		return dishonest("the log entry is not about this attestation")
	}
	if err := tlog.VerifyInclusion(uint64(e.LogIndex), uint64(e.TreeSize), tlog.LeafHash(body), e.Hashes, e.RootHash); err != nil {
		return dishonest("the log does not hold the attestation: %w", err)
	}
	if err := log.verifyCheckpoint(e, format); err != nil {
		return err
	}
	if err := log.verifyPromise(e, format, body); err != nil {
		return err
	}
	if s.leaf == nil {
		return nil
	}
	// Whether the certificate counted is asked of the time that the log signed. In rekor-v2
	// it signs none, and then of the certificate's own beginning: that it was used while it
	// lived, only a timestamp says.
	at := s.leaf.NotBefore
	if format == tlog.RekorV1 {
		at = time.Unix(e.IntegratedTime, 0)
	}
	return t.verifyLeaf(s.leaf, at)
}

// signer is what signed an envelope: a key of the instance, or the key of a certificate
// that nobody has vouched for yet.
type signer struct {
	public crypto.PublicKey
	digest []byte // that the signature is over
	pem    []byte // as log entries name it
	leaf   *x509.Certificate
}

func (t *trust) signer(parts *attest.BundleParts) (*signer, error) {
	env := parts.Envelope
	pae, sig := attest.PAE(env.PayloadType, env.Payload), env.Signatures[0].Sig
	signed := func(public crypto.PublicKey) ([]byte, bool) {
		digest, err := attest.SignatureDigest(public, pae)
		return digest, err == nil && attest.VerifySignature(public, digest, sig)
	}
	if len(parts.Certificate) == 0 {
		for _, k := range t.keys {
			if digest, ok := signed(k.public); ok {
				return &signer{public: k.public, digest: digest, pem: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.spki})}, nil
			}
		}
		return nil, dishonest("no key of the instance has signed the attestation")
	}
	leaf, err := x509.ParseCertificate(parts.Certificate)
	if err != nil {
		return nil, dishonest("the attestation's certificate: %w", err)
	}
	digest, ok := signed(leaf.PublicKey)
	if !ok || leaf.PublicKeyAlgorithm != x509.ECDSA {
		return nil, dishonest("the key of its certificate has not signed the attestation")
	}
	return &signer{public: leaf.PublicKey, digest: digest, leaf: leaf,
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})}, nil
}

// verifyLeaf checks that an authority of the instance issued the certificate, for signing
// code and that alone, and that all of the chain counted at that time.
func (t *trust) verifyLeaf(leaf *x509.Certificate, at time.Time) error {
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.UnknownExtKeyUsage) != 0 ||
		!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}) {
		return dishonest("the attestation's certificate is not for signing code, and that alone")
	}
	for i := range t.authorities {
		if t.authorities[i].issued(leaf, at) {
			return nil
		}
	}
	return dishonest("no authority of the instance issued the attestation's certificate for %s", at.UTC().Format(time.RFC3339))
}

// issued tries the intermediates that the leaf's issuer can be: those in which that name
// occurs at all.
func (a *trustedAuthority) issued(leaf *x509.Certificate, at time.Time) bool {
	if len(a.chain) < 2 || !a.start.IsZero() && at.Before(a.start) || !a.end.IsZero() && at.After(a.end) {
		return false
	}
	for _, der := range a.chain[:len(a.chain)-1] {
		if !bytes.Contains(der, leaf.RawIssuer) {
			continue
		}
		intermediate, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		root, err := x509.ParseCertificate(a.chain[len(a.chain)-1])
		if err != nil {
			return false
		}
		roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(root)
		intermediates.AddCert(intermediate)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})
		if err == nil {
			return true
		}
	}
	return false
}

// entryBody is the body that the entry must have, nil for a kind that is not known or
// that the signer's key cannot have.
func entryBody(e *attest.LogEntry, env *attest.Envelope, s *signer) (tlog.EntryFormat, []byte) {
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		if kind, version := format.KindVersion(); kind != e.Kind || version != e.Version {
			continue
		}
		sig := env.Signatures[0]
		if format == tlog.RekorV1 {
			return format, tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: env.Payload, KeyID: sig.KeyID, Sig: sig.Sig}, s.pem)
		}
		rekord := tlog.HashedRekord{Digest: s.digest, Sig: sig.Sig, Public: s.public}
		if s.leaf != nil {
			rekord.Certificate = s.leaf.Raw
		}
		body, err := tlog.EntryBodyHashedRekord(rekord)
		if err != nil {
			return "", nil
		}
		return format, body
	}
	return "", nil
}

// verifyPromise checks the time at which the log says that it took the entry: rekor-v1
// signs one, rekor-v2 has none.
func (l trustedLog) verifyPromise(e *attest.LogEntry, format tlog.EntryFormat, body []byte) error {
	if format == tlog.RekorV2 {
		if len(e.SET) > 0 || e.IntegratedTime != 0 {
			return dishonest("a log entry with a time that the log does not sign")
		}
		return nil
	}
	sum := sha256.Sum256(tlog.SETPayload(body, e.IntegratedTime, e.LogIndex, hex.EncodeToString(e.LogID)))
	if !ecdsa.VerifyASN1(l.public, sum[:], e.SET) {
		return dishonest("the log has not signed the time of the entry")
	}
	return nil
}

// verifyCheckpoint checks that the log has signed the tree of the proof.
func (l trustedLog) verifyCheckpoint(e *attest.LogEntry, format tlog.EntryFormat) error {
	cp, err := tlog.ParseCheckpoint(e.Checkpoint)
	if err == nil {
		err = tlog.VerifyCheckpoint(cp, l.host, l.public, tlog.KeyHint(e.LogID))
	}
	if err != nil {
		return dishonest("the log's checkpoint: %w", err)
	}
	origin := l.host
	if format == tlog.RekorV1 {
		origin = tlog.RekorV1Origin(l.host, e.LogID)
	}
	if cp.Origin != origin || cp.Size != uint64(e.TreeSize) || !bytes.Equal(cp.RootHash, e.RootHash) {
		return dishonest("the log has signed another tree than the one that is said to hold the attestation")
	}
	return nil
}
