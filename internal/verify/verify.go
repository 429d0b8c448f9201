package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeLogEntryMissing refuses a bundle that was not logged.
const CodeLogEntryMissing refusal.Code = "LOG_ENTRY_MISSING"

// Verifier verifies bundles under one Root. It is safe for concurrent use. What it
// keeps between calls are signatures that were found good; it never keeps a verdict.
type Verifier struct {
	root        *Root
	checkpoints checkpointCache
}

// New returns a Verifier under root.
func New(root *Root) *Verifier { return &Verifier{root: root} }

// Verify checks a bundle of any Sigstore instance against what the caller expects.
// The package comment lists the checks in their order. First everything that the
// bundle holds must be right; then it must hold enough.
func (v *Verifier) Verify(bundle []byte, want Expectation) (*Evidence, error) {
	x, err := want.compile()
	if err != nil {
		return nil, err
	}
	f, err := parseBundle(bundle)
	if err != nil {
		return nil, err
	}
	ev, s, matched, err := v.verifyForeign(f, x)
	if err != nil {
		return nil, err
	}
	if f.defect != nil {
		return nil, f.defect
	}
	if err := v.judge(bundle, s, x, matched); err != nil {
		return nil, err
	}
	ev.valid = true
	return ev, nil
}

func (v *Verifier) verifyForeign(f *foreign, x *expected) (*Evidence, *signer, []Digest, error) {
	fail := func(err error) (*Evidence, *signer, []Digest, error) { return nil, nil, nil, err }
	s, err := v.findSigner(f, x)
	if err != nil {
		return fail(err)
	}
	if err := checkCount(f); err != nil {
		return fail(err)
	}
	if err := checkEntryShapes(f.entries); err != nil {
		return fail(err)
	}
	if err := v.checkSignature(f, s, x); err != nil {
		return fail(err)
	}
	times, err := v.checkEntries(f, s)
	if err != nil {
		return fail(err)
	}
	stamps, err := v.checkTimestamps(f.stamps, f.signature())
	if err != nil {
		return fail(err)
	}
	integrated := times
	if times = append(times, stamps...); len(times) == 0 {
		return fail(refusal.New(CodeNoTrustedTime, "neither a log's promise nor a timestamp"))
	}
	san, issuer, err := v.checkSigner(s, x, times)
	if err != nil {
		return fail(err)
	}
	if len(f.entries) == 0 {
		return fail(refusal.New(CodeLogEntryMissing, "no log entry").InField("verificationMaterial.tlogEntries"))
	}
	ev := &Evidence{identity: san, issuer: issuer, times: times, keyID: s.keyID(),
		logID: f.entries[0].logID, logIndex: f.entries[0].logIndex}
	if len(integrated) > 0 {
		ev.integratedTime = integrated[0].at
	}
	matched, err := bindContent(ev, f, x)
	return ev, s, matched, err
}

// checkEntries verifies every log entry and returns the times that logs promised.
func (v *Verifier) checkEntries(f *foreign, s *signer) ([]trustedTime, error) {
	var times []trustedTime
	for i := range f.entries {
		e := &f.entries[i]
		if err := bindEntry(e, f, s); err != nil {
			return nil, err
		}
		if err := v.checkInclusion(e, f.version); err != nil {
			return nil, err
		}
		if len(e.set) > 0 {
			times = append(times, trustedTime{at: time.Unix(e.integratedTime, 0), source: v.root.logs[string(e.logID)].host})
		}
	}
	return times, nil
}

// bindContent puts into the evidence what was signed.
func bindContent(ev *Evidence, f *foreign, x *expected) ([]Digest, error) {
	if f.envelope == nil {
		if x.PredicateType != "" {
			return nil, refusal.New(CodePredicateTypeMismatch, "a signature over an artifact has no predicate, want %q", x.PredicateType)
		}
		ev.artifact = Digest{Algorithm: f.message.algorithm, Hex: hex.EncodeToString(f.message.digest)}
		return []Digest{ev.artifact}, nil
	}
	st, matched, err := checkStatement(f.envelope, x)
	if err != nil {
		return nil, err
	}
	ev.statement, ev.payload = st, f.envelope.payload
	return matched, nil
}

// keyID is the hex SHA-256 of the signer's SubjectPublicKeyInfo.
func (s *signer) keyID() string {
	if s.key != nil {
		return s.key.id
	}
	sum := sha256.Sum256(s.cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
