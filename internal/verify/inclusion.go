package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"strings"
	"time"

	"github.com/sigstore/rekor-tiles/v2/pkg/note"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const (
	// CodeLogUnknown refuses an entry of a log that the root does not list.
	CodeLogUnknown refusal.Code = "LOG_UNKNOWN"
	// CodeLogKeyOutsideValidity refuses a promise made outside the log key's validity.
	CodeLogKeyOutsideValidity refusal.Code = "LOG_KEY_OUTSIDE_VALIDITY"
	// CodeInclusionProofMissing refuses an entry without the proof its bundle version needs.
	CodeInclusionProofMissing refusal.Code = "INCLUSION_PROOF_MISSING"
	// CodeCheckpointMissing refuses a proof to a root that nobody signed.
	CodeCheckpointMissing refusal.Code = "CHECKPOINT_MISSING"
	// CodeCheckpointUnsigned refuses a checkpoint with no signature line.
	CodeCheckpointUnsigned refusal.Code = "CHECKPOINT_UNSIGNED"
	// CodeCheckpointSignerUnknown refuses a checkpoint that others signed, but not this log.
	CodeCheckpointSignerUnknown refusal.Code = "CHECKPOINT_SIGNER_UNKNOWN"
	// CodeCheckpointOriginMismatch refuses a checkpoint about another log.
	CodeCheckpointOriginMismatch refusal.Code = "CHECKPOINT_ORIGIN_MISMATCH"
	// CodeCheckpointRootMismatch refuses a checkpoint about another tree than the proof's.
	CodeCheckpointRootMismatch refusal.Code = "CHECKPOINT_ROOT_MISMATCH"
	// CodeSETMissing refuses an entry without the promise its bundle version needs.
	CodeSETMissing refusal.Code = "SET_MISSING"
	// CodeSETInvalid refuses a signed entry timestamp that the log did not make.
	CodeSETInvalid refusal.Code = "SET_INVALID"
)

// checkInclusion follows one entry from its leaf hash to the log's signature.
// bindEntry has tied the body to the bundle before.
func (v *Verifier) checkInclusion(e *entry, version int) error {
	// SPEC (bundle): 0.1 MUST have the promise; from 0.2 on the proof is REQUIRED.
	// A Rekor 2 entry has no promise at all.
	if e.proof == nil && (version >= 2 || e.isV2()) {
		return refusal.New(CodeInclusionProofMissing, "bundle 0.%d needs one", version).InField(e.field + ".inclusionProof")
	}
	if len(e.set) == 0 && version == 1 {
		return refusal.New(CodeSETMissing, "bundle 0.1 needs one").InField(e.field + ".inclusionPromise")
	}
	if e.proof != nil {
		err := tlog.VerifyInclusion(uint64(e.proof.logIndex), uint64(e.proof.treeSize), e.leafHash(), e.proof.hashes, e.proof.rootHash)
		if err != nil {
			return err
		}
	}
	log := v.root.logs[string(e.logID)]
	if log == nil {
		return refusal.New(CodeLogUnknown, "log %x is not in the trusted root", e.logID).InField(e.field + ".logId")
	}
	if e.proof != nil {
		if err := checkCheckpoint(e, log); err != nil {
			return err
		}
	}
	if len(e.set) > 0 {
		return checkSET(e, log)
	}
	return nil
}

// rekorV1Origin is how sigstore-go tells the two dialects apart.
var rekorV1Origin = regexp.MustCompile(`^.* - [0-9]+$`)

// checkCheckpoint checks that the log signed the root that the proof led to.
func checkCheckpoint(e *entry, log *logKey) error {
	field := e.field + ".inclusionProof.checkpoint"
	text := e.proof.checkpoint
	switch {
	case text == "":
		return refusal.New(CodeCheckpointMissing, "the proof's root is not signed").InField(field)
	case !strings.Contains(text, "\n\u2014 "):
		return refusal.New(CodeCheckpointUnsigned, "no signature line").InField(field)
	}
	cp, err := tlog.ParseCheckpoint(text)
	if err != nil {
		return err
	}
	// The dialect must be the entry's: sigstore-go binds an entry to its bundle by
	// rules it picks from the body, and the tree by rules it picks from this line.
	v1 := rekorV1Origin.MatchString(cp.Origin)
	if v1 == e.isV2() {
		return refusal.New(CodeCheckpointOriginMismatch, "a %s %s entry under origin %.80q", e.kind, e.version, cp.Origin).InField(field)
	}
	name, hint, err := checkpointSigner(cp, log, v1)
	if err != nil {
		return err
	}
	if err := tlog.VerifyCheckpoint(cp, name, log.key, hint); err != nil {
		return err
	}
	switch {
	case !v1 && cp.Origin != log.host:
		return refusal.New(CodeCheckpointOriginMismatch, "origin %.80q, log %q", cp.Origin, log.host).InField(field)
	case !v1 && e.logIndex != e.proof.logIndex:
		return refusal.New(CodeLogEntryMismatch, "the proof is for entry %d, not %d", e.proof.logIndex, e.logIndex).InField(e.field + ".logIndex")
	case !bytes.Equal(cp.RootHash, e.proof.rootHash) || cp.Size != uint64(e.proof.treeSize):
		return refusal.New(CodeCheckpointRootMismatch, "signed for %d entries, proof to %d", cp.Size, e.proof.treeSize).InField(field)
	}
	return nil
}

// checkpointSigner finds under which name the log must have signed. Rekor 2 signs as
// the log's host. Rekor 1 signs as the host in its own origin line, which in some
// instances is a pod's name, so there the key decides which log it is.
func checkpointSigner(cp *tlog.Checkpoint, log *logKey, v1 bool) (string, uint32, error) {
	var hint uint32
	name := log.host
	if v1 {
		name = cp.Origin[:strings.LastIndex(cp.Origin, " - ")]
		fp, err := spkiFingerprint(log.key)
		if err != nil {
			return "", 0, refusal.New(CodeKeyUnsupported, "%w", err)
		}
		hint = binary.BigEndian.Uint32(fp[:])
	} else {
		h, _, err := note.KeyHash(log.host, log.key)
		if err != nil {
			return "", 0, refusal.New(CodeKeyUnsupported, "%w", err)
		}
		hint = h
	}
	for _, s := range cp.Signatures {
		if s.KeyHint == hint && s.Name == name {
			return name, hint, nil
		}
	}
	return "", 0, refusal.New(CodeCheckpointSignerUnknown, "checkpoint of %.80q is not signed by log %s", cp.Origin, log.idHex)
}

// checkSET verifies the log's promise that it held the entry at integratedTime.
func checkSET(e *entry, log *logKey) error {
	field := e.field + ".inclusionPromise"
	if e.isV2() {
		return refusal.New(CodeSETInvalid, "a Rekor 2 entry has no promise").InField(field)
	}
	at := time.Unix(e.integratedTime, 0)
	if !log.validAt(at) {
		return refusal.New(CodeLogKeyOutsideValidity, "log %s, integrated %s", log.idHex, stamp(at)).InField(field)
	}
	pub, ok := log.key.(*ecdsa.PublicKey)
	if !ok {
		return refusal.New(CodeKeyUnsupported, "a promise is signed with ECDSA, the log key is %T", log.key)
	}
	sum := sha256.Sum256(tlog.SETPayload(e.body, e.integratedTime, e.logIndex, log.idHex))
	if !ecdsa.VerifyASN1(pub, sum[:], e.set) {
		return refusal.New(CodeSETInvalid, "not signed by log %s", log.idHex).InField(field)
	}
	return nil
}
