package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// VerifyOwn checks a bundle that this instance made, exactly as attest.MarshalBundle
// wrote it: signed by one of the Root's keys, logged in one of its logs, in either
// entry format, and timestamped. It makes every check of Verify in the same order,
// under the same codes. It does not ask whose artifact it is: the caller looks at the
// evidence's subjects.
//
// A bundle that was reformatted on its way is not of our own shape; use Verify with
// Expectation.RootKey for it.
func (v *Verifier) VerifyOwn(bundle []byte) (*Evidence, error) {
	p, err := attest.ParseOwnBundle(bundle)
	if err != nil {
		return nil, err
	}
	key, err := v.ownKey(p)
	if err != nil {
		return nil, err
	}
	env, sig := p.Envelope, p.Envelope.Signatures[0].Sig
	pae := sha256.Sum256(attest.PAE(env.PayloadType, env.Payload))
	if !ecdsa.VerifyASN1(key.ecdsa, pae[:], sig) {
		return nil, refusal.New(CodeSignatureInvalid, "not by key %s", key.id).InField("dsseEnvelope.signatures[0].sig")
	}
	ev := &Evidence{own: true, keyID: key.id, payload: env.Payload, logIndex: -1}
	if p.LogEntry.Present() {
		if err := v.checkOwnEntry(&p.LogEntry, env, key, pae, ev); err != nil {
			return nil, err
		}
	}
	if err := v.checkOwnTimestamps(p.Timestamps, sig, ev); err != nil {
		return nil, err
	}
	for _, t := range ev.times {
		if err := key.checkTime(t.at); err != nil {
			return nil, err
		}
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

// ownKey finds the key and refuses a bundle that names it in two ways.
func (v *Verifier) ownKey(p *attest.BundleParts) (*trustedKey, error) {
	key := v.root.keys[p.PublicKeyHint]
	if key == nil || key.ecdsa == nil {
		return nil, refusal.New(CodeKeyUnknown, "no trusted key %.80q", p.PublicKeyHint).InField("verificationMaterial.publicKey.hint")
	}
	if len(p.Envelope.Signatures) != 1 {
		return nil, refusal.New(CodeSignatureCount, "%d signatures, want exactly 1", len(p.Envelope.Signatures)).InField("dsseEnvelope.signatures")
	}
	if id := p.Envelope.Signatures[0].KeyID; id != "" && id != key.keyid {
		return nil, refusal.New(CodeKeyMismatch, "keyid %.80q, want %q or none", id, key.keyid).InField("dsseEnvelope.signatures[0].keyid")
	}
	return key, nil
}

// checkOwnEntry binds the entry to the envelope and follows it into the log. The body
// is never read: it is built anew, and must be what the bundle has.
func (v *Verifier) checkOwnEntry(e *attest.LogEntry, env *attest.Envelope, key *trustedKey, pae [32]byte, ev *Evidence) error {
	const field = "verificationMaterial.tlogEntries[0]"
	format, body := tlog.RekorV2, []byte(nil)
	switch kind, version := e.Kind, e.Version; {
	case kindIs(tlog.RekorV1, kind, version):
		format = tlog.RekorV1
		body = tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: env.Payload,
			KeyID: env.Signatures[0].KeyID, Sig: env.Signatures[0].Sig}, key.pem)
	case kindIs(tlog.RekorV2, kind, version):
		body = tlog.EntryBodyHashedRekord002(pae, env.Signatures[0].Sig, key.spki)
	default:
		return refusal.New(CodeLogEntryKindUnknown, "%.40q %.40q", kind, version).InField(field + ".kindVersion")
	}
	if !bytes.Equal(body, e.CanonicalizedBody) {
		return refusal.New(CodeLogEntryMismatch, "the log entry is not about this envelope").InField(field + ".canonicalizedBody")
	}
	log := v.root.logs[string(e.LogID)]
	if log == nil || log.ecdsa == nil {
		return refusal.New(CodeLogUnknown, "log %x is not in the trusted root", e.LogID).InField(field + ".logId")
	}
	err := tlog.VerifyInclusion(uint64(e.LogIndex), uint64(e.TreeSize), tlog.LeafHash(body), e.Hashes, e.RootHash)
	if err != nil {
		return err
	}
	if err := v.checkOwnCheckpoint(e, log, format); err != nil {
		return err
	}
	ev.logID, ev.logIndex = log.id, e.LogIndex
	return checkOwnPromise(e, log, format, body, ev)
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
	var seen []*ownTSA
	for _, der := range stamps {
		at, tsa, err := v.root.checkOwnTimestamp(der, sig)
		if err != nil {
			return err
		}
		for _, s := range seen {
			if s == tsa {
				return refusal.New(CodeTimestampDuplicate, "a second timestamp of %s", tsa.uri)
			}
		}
		seen = append(seen, tsa)
		ev.times = append(ev.times, at)
	}
	return nil
}
