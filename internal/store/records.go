package store

import (
	"encoding/hex"
	"fmt"
	"math"
	"unicode/utf8"
)

// Limits of one attestation.
const (
	maxSubjects       = 1024
	maxTextBytes      = 8 << 10
	maxPrincipalBytes = 2 << 10
	maxDetached       = 8
	maxDetachedBytes  = 64 << 10
	// An SBOM of 50 MB, in base64 and with what is around it.
	maxBlobBytes = 128 << 20
)

func checkPending(p *Pending) (digest, error) {
	id, err := parseDigest("attestation_id", p.ID)
	if err != nil {
		return id, err
	}
	if p.Record == nil {
		return id, invalid("record", "is missing")
	}
	if (p.Record.ID != "" && p.Record.ID != p.ID) || (!p.Record.CreatedAt.IsZero() && !p.Record.CreatedAt.Equal(p.CreatedAt)) {
		return id, invalid("record", "is not of the same attestation")
	}
	if p.LogSizeBefore > math.MaxInt64 {
		return id, invalid("log_size_before", "is %d, at most %d", p.LogSizeBefore, int64(math.MaxInt64))
	}
	for _, b := range []struct {
		name  string
		v     []byte
		least int
	}{{"envelope", p.Envelope, 1}, {"log_body", p.LogBody, 1}, {"leaf_hash", p.LeafHash, 1}, {"timestamp", p.Timestamp, 0}, {"certificate", p.Certificate, 0}, {"log", p.Log, 0}} {
		if len(b.v) < b.least || len(b.v) > maxBlobBytes {
			return id, invalid(b.name, "is %d bytes, want %d to %d", len(b.v), b.least, maxBlobBytes)
		}
	}
	if err := checkSBOM(p.Record.SBOM); err != nil {
		return id, err
	}
	return id, checkRecord(p.Record)
}

func checkRecord(a *Attestation) error {
	for _, f := range []struct{ name, v string }{
		{"predicate_type", a.PredicateType}, {"builder_id", a.BuilderID}, {"build_type", a.BuildType},
		{"invocation_id", a.InvocationID}, {"source_uri", a.SourceURI}, {"source_commit", a.SourceCommit},
	} {
		if err := checkText(f.name, f.v, maxTextBytes); err != nil {
			return err
		}
	}
	if len(a.Detached) > maxDetached {
		return invalid("detached", "has %d signatures, limit %d", len(a.Detached), maxDetached)
	}
	for i, d := range a.Detached {
		if d.Kind == "" || len(d.Kind)+len(d.KeyID) > maxTextBytes || len(d.Signature) == 0 || len(d.Signature) > maxDetachedBytes {
			return invalid("detached", "number %d is of kind %.40q and %d bytes, want a kind and 1 to %d bytes", i, d.Kind, len(d.Signature), maxDetachedBytes)
		}
	}
	if err := checkText("principal", a.Principal, maxPrincipalBytes); err != nil {
		return err
	}
	if err := checkCaller(a.Caller); err != nil {
		return err
	}
	if len(a.Subjects) > maxSubjects {
		return invalid("subjects", "are %d, at most %d", len(a.Subjects), maxSubjects)
	}
	for i := range a.Subjects {
		s := &a.Subjects[i]
		if err := checkText(fmt.Sprintf("subjects[%d].name", i), s.Name, maxTextBytes); err != nil {
			return err
		}
		if !isHex(s.SHA256, 64) || !isHex(s.SHA512, 128) {
			return invalid(fmt.Sprintf("subjects[%d].digest", i), "is not lower-case hex of 64 (sha256) or 128 (sha512) digits")
		}
	}
	return nil
}

func checkText(field, v string, limit int) error {
	if len(v) > limit {
		return invalid(field, "is %d bytes, at most %d are kept", len(v), limit)
	}
	if !utf8.ValidString(v) {
		return invalid(field, "is not valid UTF-8")
	}
	return nil
}

// isHex reports whether s is empty or n lower-case hex digits.
func isHex(s string, n int) bool {
	if s == "" {
		return true
	}
	if len(s) != n {
		return false
	}
	for i := 0; i < n; i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func parseDigest(field, s string) (d digest, err error) {
	if s == "" || !isHex(s, 64) {
		return d, invalid(field, "%q is not a sha256: want 64 lower-case hex digits", clip(s))
	}
	_, err = hex.Decode(d[:], []byte(s))
	return d, err
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// blob makes an absent value an empty one, where the column wants a value.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
