package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/url"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/tlog"
)

// trust is what the attestations of one instance are verified with: the keys it signs
// with and the logs it registers in.
//
// It is internal/verify in a few lines and without the Sigstore libraries, which would
// make up a fifth of a program that has to start at once. It leaves out the timestamps of
// authorities, and from when until when a key counts: who has to know those verifies the
// bundle with the Sigstore tools.
type trust struct {
	keys []trustedKey
	logs map[string]trustedLog // by raw log id
}

type trustedKey struct {
	public *ecdsa.PublicKey
	spki   []byte
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

func newTrust(root *TrustedRoot) (*trust, error) {
	// GetTrustedRoot has refused duplicate and case-variant names.
	var doc struct {
		TLogs []struct {
			BaseURL   string `json:"baseUrl"`
			PublicKey struct {
				RawBytes []byte `json:"rawBytes"`
			} `json:"publicKey"`
			LogID struct {
				KeyID []byte `json:"keyId"`
			} `json:"logId"`
		} `json:"tlogs"`
	}
	if err := json.Unmarshal(root.JSON, &doc); err != nil {
		return nil, dishonest("the trusted root: %w", err)
	}
	t := &trust{logs: make(map[string]trustedLog, len(doc.TLogs))}
	for rest := root.AttestationKeysPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if public, err := p256(block.Bytes); err == nil {
			t.keys = append(t.keys, trustedKey{public, block.Bytes})
		}
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
	pae := sha256.Sum256(attest.PAE(env.PayloadType, env.Payload))
	key := t.signer(pae[:], env.Signatures[0].Sig)
	if key == nil {
		return dishonest("no key of the instance has signed the attestation")
	}
	e := &parts.LogEntry
	log, ok := t.logs[string(e.LogID)]
	if !ok {
		return dishonest("the attestation is logged in %x, which is no log of the instance", e.LogID)
	}
	format, body := entryBody(e, env, key, pae)
	if body == nil || !bytes.Equal(body, e.CanonicalizedBody) {
		return dishonest("the log entry is not about this attestation")
	}
	if err := tlog.VerifyInclusion(uint64(e.LogIndex), uint64(e.TreeSize), tlog.LeafHash(body), e.Hashes, e.RootHash); err != nil {
		return dishonest("the log does not hold the attestation: %w", err)
	}
	if err := log.verifyCheckpoint(e, format); err != nil {
		return err
	}
	return log.verifyPromise(e, format, body)
}

func (t *trust) signer(pae, sig []byte) *trustedKey {
	for i := range t.keys {
		if ecdsa.VerifyASN1(t.keys[i].public, pae, sig) {
			return &t.keys[i]
		}
	}
	return nil
}

// entryBody is the body that the entry must have, nil for a kind that is not known.
func entryBody(e *attest.LogEntry, env *attest.Envelope, key *trustedKey, pae [32]byte) (tlog.EntryFormat, []byte) {
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		if kind, version := format.KindVersion(); kind != e.Kind || version != e.Version {
			continue
		}
		sig := env.Signatures[0]
		if format == tlog.RekorV2 {
			return format, tlog.EntryBodyHashedRekord002(pae, sig.Sig, key.spki)
		}
		return format, tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: env.Payload, KeyID: sig.KeyID, Sig: sig.Sig},
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key.spki}))
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
