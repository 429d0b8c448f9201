package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/pem"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// VerifyOwn checks a bundle that this instance made, exactly as attest.MarshalBundle
// wrote it: signed by one of the Root's keys or by a certificate that one of its
// authorities issued, logged in one of its logs, in either entry format, and timestamped.
// It makes every check of Verify in the same order, under the same codes. It does not ask
// whose artifact it is, or who signed: the caller looks at the evidence.
//
// The co-signatures that are kept beside the bundle are verified with it, and one that is
// not good refuses the whole.
//
// A bundle that was reformatted on its way is not of our own shape; use Verify with
// Expectation.RootKey or Expectation.Identity for it.
func (v *Verifier) VerifyOwn(bundle []byte, detached ...Detached) (*Evidence, error) {
	p, err := attest.ParseOwnBundle(bundle)
	if err != nil {
		return nil, err
	}
	s, err := v.ownSigner(p)
	if err != nil {
		return nil, err
	}
	env, sig := p.Envelope, p.Envelope.Signatures[0].Sig
	pae := attest.PAE(env.PayloadType, env.Payload)
	digest, err := attest.SignatureDigest(s.publicKey(), pae)
	if err != nil {
		return nil, refusal.New(CodeKeyUnsupported, "%w", err)
	}
	if !attest.VerifySignature(s.publicKey(), digest, sig) {
		return nil, refusal.New(CodeSignatureInvalid, "not by key %s", s.keyID()).InField("dsseEnvelope.signatures[0].sig")
	}
	ev := &Evidence{own: true, keyID: s.keyID(), payload: env.Payload, logIndex: -1}
	if p.LogEntry.Present() {
		if err := v.checkOwnEntry(&p.LogEntry, env, s, digest, ev); err != nil {
			return nil, err
		}
	}
	if err := v.checkOwnTimestamps(p.Timestamps, sig, ev); err != nil {
		return nil, err
	}
	if err := v.checkOwnSigner(s, ev); err != nil {
		return nil, err
	}
	if err := v.root.checkCoSignatures(detached, pae, ev); err != nil {
		return nil, err
	}
	if !p.LogEntry.Present() {
		return nil, refusal.New(CodeLogEntryMissing, "no log entry").InField("verificationMaterial.tlogEntries")
	}
	if env.PayloadType != attest.PayloadTypeInToto {
		return nil, refusal.New(CodePayloadTypeUnknown, "payload type %.80q", env.PayloadType).InField("dsseEnvelope.payloadType")
	}
	if ev.statement, err = attest.ParseStatement(env.Payload); err != nil {
		return nil, err
	}
	ev.valid = true
	return ev, nil
}

// ownSigner finds the key, or the certificate that nobody has vouched for yet, and
// refuses a bundle that names its key in two ways.
func (v *Verifier) ownSigner(p *attest.BundleParts) (*signer, error) {
	if len(p.Certificate) > 0 {
		leaf, err := parseOwnLeaf(p.Certificate)
		return &signer{cert: leaf}, err
	}
	key := v.root.keys[p.PublicKeyHint]
	if key == nil || !key.own {
		return nil, refusal.New(CodeKeyUnknown, "no trusted key %.80q", p.PublicKeyHint).InField("verificationMaterial.publicKey.hint")
	}
	if len(p.Envelope.Signatures) != 1 {
		return nil, refusal.New(CodeSignatureCount, "%d signatures, want exactly 1", len(p.Envelope.Signatures)).InField("dsseEnvelope.signatures")
	}
	if id := p.Envelope.Signatures[0].KeyID; id != "" && id != key.keyid {
		return nil, refusal.New(CodeKeyMismatch, "keyid %.80q, want %q or none", id, key.keyid).InField("dsseEnvelope.signatures[0].keyid")
	}
	return &signer{key: key, hint: p.PublicKeyHint}, nil
}

// checkOwnSigner holds the signer against every trusted time.
func (v *Verifier) checkOwnSigner(s *signer, ev *Evidence) error {
	if s.cert != nil {
		return v.root.checkOwnCertificate(s.cert, ev)
	}
	for _, t := range ev.times {
		if err := s.key.checkTime(t.at); err != nil {
			return err
		}
	}
	return nil
}

// checkOwnEntry binds the entry to the envelope and follows it into the log. The body
// is never read: it is built anew, and must be what the bundle has. digest is that of the
// envelope's PAE, by the hash of the signer's key.
func (v *Verifier) checkOwnEntry(e *attest.LogEntry, env *attest.Envelope, s *signer, digest []byte, ev *Evidence) error {
	const field = "verificationMaterial.tlogEntries[0]"
	format, body, err := ownEntryBody(e, env, s, digest)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, e.CanonicalizedBody) {
		return refusal.New(CodeLogEntryMismatch, "the log entry is not about this envelope").InField(field + ".canonicalizedBody")
	}
	log := v.root.logs[string(e.LogID)]
	if log == nil || log.ecdsa == nil {
		return refusal.New(CodeLogUnknown, "log %x is not in the trusted root", e.LogID).InField(field + ".logId")
	}
	err = tlog.VerifyInclusion(uint64(e.LogIndex), uint64(e.TreeSize), tlog.LeafHash(body), e.Hashes, e.RootHash)
	if err != nil {
		return err
	}
	if err := v.checkOwnCheckpoint(e, log, format); err != nil {
		return err
	}
	ev.logID, ev.logIndex = log.id, e.LogIndex
	return checkOwnPromise(e, log, format, body, ev)
}

// ownEntryBody is the body that the entry must have.
func ownEntryBody(e *attest.LogEntry, env *attest.Envelope, s *signer, digest []byte) (tlog.EntryFormat, []byte, error) {
	sig := env.Signatures[0]
	switch {
	case kindIs(tlog.RekorV1, e.Kind, e.Version):
		return tlog.RekorV1, tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: env.Payload,
			KeyID: sig.KeyID, Sig: sig.Sig}, s.verifierPEM()), nil
	case kindIs(tlog.RekorV2, e.Kind, e.Version):
		rekord := tlog.HashedRekord{Digest: digest, Sig: sig.Sig, Public: s.publicKey()}
		if s.cert != nil {
			rekord.Certificate = s.cert.Raw
		}
		body, err := tlog.EntryBodyHashedRekord(rekord)
		return tlog.RekorV2, body, err
	}
	return "", nil, refusal.New(CodeLogEntryKindUnknown, "%.40q %.40q", e.Kind, e.Version).InField("verificationMaterial.tlogEntries[0].kindVersion")
}

// verifierPEM is how rekor-v1 entries name the signer.
func (s *signer) verifierPEM() []byte {
	if s.cert != nil {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})
	}
	return s.key.pem
}

func kindIs(f tlog.EntryFormat, kind, version string) bool {
	k, v := f.KindVersion()
	return k == kind && v == version
}

// checkOwnCheckpoint checks that the log signed the tree of the proof, from the cache
// if the same text was verified before.
func (v *Verifier) checkOwnCheckpoint(e *attest.LogEntry, log *logKey, format tlog.EntryFormat) error {
	k := checkpointKey{log: log, format: format, text: e.Checkpoint}
	tree, ok := v.checkpoints.get(k)
	if !ok {
		cp, err := tlog.ParseCheckpoint(e.Checkpoint)
		if err != nil {
			return err
		}
		if err := tlog.VerifyCheckpoint(cp, log.host, log.key, tlog.KeyHint(log.id)); err != nil {
			return err
		}
		origin := log.host
		if format == tlog.RekorV1 {
			origin = tlog.RekorV1Origin(log.host, log.id)
		}
		if cp.Origin != origin || len(cp.RootHash) != len(tree.root) {
			return refusal.New(CodeCheckpointOriginMismatch, "origin %.80q, want %q", cp.Origin, origin)
		}
		tree = verifiedTree{size: cp.Size, root: [32]byte(cp.RootHash)}
		v.checkpoints.put(k, tree)
	}
	if tree.size != uint64(e.TreeSize) || !bytes.Equal(tree.root[:], e.RootHash) {
		return refusal.New(CodeCheckpointRootMismatch, "signed for %d entries, proof to %d", tree.size, e.TreeSize)
	}
	return nil
}

// checkOwnPromise verifies the promise, which rekor-v1 has and rekor-v2 must not have.
func checkOwnPromise(e *attest.LogEntry, log *logKey, format tlog.EntryFormat, body []byte, ev *Evidence) error {
	const field = "verificationMaterial.tlogEntries[0].inclusionPromise"
	if format == tlog.RekorV2 {
		if len(e.SET) != 0 || e.IntegratedTime != 0 {
			return refusal.New(CodeSETInvalid, "a Rekor 2 entry has neither promise nor time").InField(field)
		}
		return nil
	}
	if len(e.SET) == 0 {
		return refusal.New(CodeSETMissing, "a Rekor 1 entry of ours has one").InField(field)
	}
	at := time.Unix(e.IntegratedTime, 0)
	if !log.validAt(at) {
		return refusal.New(CodeLogKeyOutsideValidity, "log %s, integrated %s", log.idHex, stamp(at)).InField(field)
	}
	sum := sha256.Sum256(tlog.SETPayload(body, e.IntegratedTime, e.LogIndex, log.idHex))
	if !ecdsa.VerifyASN1(log.ecdsa, sum[:], e.SET) {
		return refusal.New(CodeSETInvalid, "not signed by log %s", log.idHex).InField(field)
	}
	ev.integratedTime = at
	ev.times = append(ev.times, trustedTime{at: at, source: log.host})
	return nil
}

// checkOwnTimestamps wants at least one timestamp, each of another authority. The
// log's promise is no substitute: bundles of ours are always timestamped.
func (v *Verifier) checkOwnTimestamps(stamps [][]byte, sig []byte, ev *Evidence) error {
	if len(stamps) > maxTimestamps {
		return refusal.New(CodeBundleTooMany, "%d timestamps, limit %d", len(stamps), maxTimestamps)
	}
	if len(stamps) == 0 {
		return refusal.New(CodeNoTrustedTime, "no timestamp")
	}
	seen := make(map[int]bool, len(stamps))
	for _, der := range stamps {
		at, authority, err := v.root.checkOwnTimestamp(der, sig)
		if err != nil {
			return err
		}
		if seen[authority] {
			return refusal.New(CodeTimestampDuplicate, "a second timestamp of %s", at.source)
		}
		seen[authority] = true
		ev.times = append(ev.times, at)
	}
	return nil
}
