package store

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Subjects, and the record of a pending attestation, are packed as protobuf
// messages written by hand: a field per line below, numbers never reused. Unknown
// fields are skipped, so a later version may add some.
//
//	message Subject { string name = 1; bytes sha256 = 2; bytes sha512 = 3; int64 kind = 4; int64 origin = 5; int64 size = 6; }
//	message Record  { string predicate_type = 1; string builder_id = 2; string build_type = 3; string invocation_id = 4;
//	                  int64 slsa_build_level = 5; string source_uri = 6; string source_commit = 7; bytes caller = 8;
//	                  repeated Subject subjects = 9; string principal = 10; SBOM sbom = 11;
//	                  repeated Detached detached = 12; bytes certificate = 13; bytes log = 14; }
//	message Detached { string kind = 1; string key_id = 2; bytes signature = 3; }
//
// The SBOM of a record is in sbom.go. A record without a field was written by a version
// that did not know it, and reads as if the field were empty: a pending row of such a
// version is completed like others.

func appendBytes[T string | []byte](b []byte, num protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendInt(b []byte, num protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}

// appendSubjects packs subjects as field 9 of a Record. The digests were checked
// by checkRecord.
func appendSubjects(b []byte, subjects []Subject) []byte {
	var one []byte
	for i := range subjects {
		s := &subjects[i]
		one = appendBytes(one[:0], 1, s.Name)
		one = appendHex(one, 2, s.SHA256)
		one = appendHex(one, 3, s.SHA512)
		one = appendInt(one, 4, int64(s.Kind))
		one = appendInt(one, 5, int64(s.Origin))
		one = appendInt(one, 6, s.Size)
		b = protowire.AppendTag(b, 9, protowire.BytesType)
		b = protowire.AppendBytes(b, one)
	}
	return b
}

// appendDetached packs detached signatures as field 12 of a Record. They stand with the
// subjects, in what is kept of a complete attestation.
func appendDetached(b []byte, detached []Detached) []byte {
	for _, d := range detached {
		one := appendBytes(nil, 1, d.Kind)
		one = appendBytes(one, 2, d.KeyID)
		one = appendBytes(one, 3, d.Signature)
		b = protowire.AppendTag(b, 12, protowire.BytesType)
		b = protowire.AppendBytes(b, one)
	}
	return b
}

func unpackDetached(b []byte) (d Detached, err error) {
	return d, fields(b, func(num protowire.Number, _ int64, v []byte) error {
		switch num {
		case 1:
			d.Kind = string(v)
		case 2:
			d.KeyID = string(v)
		case 3:
			d.Signature = append([]byte(nil), v...)
		}
		return nil
	})
}

// appendPending packs what a record has for as long as it is pending.
func appendPending(b []byte, p *Pending) []byte {
	b = appendBytes(b, 13, p.Certificate)
	return appendBytes(b, 14, p.Log)
}

// unpackPending fills p and its record from a packed record.
func unpackPending(b []byte, p *Pending) error {
	err := fields(b, func(num protowire.Number, _ int64, v []byte) error {
		switch num {
		case 13:
			p.Certificate = append([]byte(nil), v...)
		case 14:
			p.Log = append([]byte(nil), v...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return unpackRecord(b, p.Record)
}

func appendHex(b []byte, num protowire.Number, digest string) []byte {
	var raw [64]byte
	n, err := hex.Decode(raw[:], []byte(digest))
	if err != nil {
		return b
	}
	return appendBytes(b, num, raw[:n])
}

// packRecord packs what of a is neither bundle nor log index; subjects is the
// packed form of its subjects.
func packRecord(a *Attestation, subjects []byte) []byte {
	b := make([]byte, 0, 256+len(a.Caller)+len(subjects))
	b = appendBytes(b, 1, a.PredicateType)
	b = appendBytes(b, 2, a.BuilderID)
	b = appendBytes(b, 3, a.BuildType)
	b = appendBytes(b, 4, a.InvocationID)
	b = appendInt(b, 5, int64(a.SLSABuildLevel))
	b = appendBytes(b, 6, a.SourceURI)
	b = appendBytes(b, 7, a.SourceCommit)
	b = appendBytes(b, 8, a.Caller)
	b = appendBytes(b, 10, a.Principal)
	return append(b, subjects...)
}

// unpackRecord fills a from a packed record, or from packed subjects alone.
func unpackRecord(b []byte, a *Attestation) error {
	return fields(b, func(num protowire.Number, n int64, v []byte) error {
		switch num {
		case 1:
			a.PredicateType = string(v)
		case 2:
			a.BuilderID = string(v)
		case 3:
			a.BuildType = string(v)
		case 4:
			a.InvocationID = string(v)
		case 5:
			a.SLSABuildLevel = int(n)
		case 6:
			a.SourceURI = string(v)
		case 7:
			a.SourceCommit = string(v)
		case 8:
			a.Caller = append([]byte(nil), v...)
		case 9:
			var s Subject
			if err := unpackSubject(v, &s); err != nil {
				return err
			}
			a.Subjects = append(a.Subjects, s)
		case 10:
			a.Principal = string(v)
		case 12:
			d, err := unpackDetached(v)
			if err != nil {
				return err
			}
			a.Detached = append(a.Detached, d)
		}
		return nil
	})
}

func unpackSubject(b []byte, s *Subject) error {
	return fields(b, func(num protowire.Number, n int64, v []byte) error {
		switch num {
		case 1:
			s.Name = string(v)
		case 2:
			return unpackDigest(&s.SHA256, v, sha256.Size)
		case 3:
			return unpackDigest(&s.SHA512, v, sha512.Size)
		case 4:
			s.Kind = int(n)
		case 5:
			s.Origin = int(n)
		case 6:
			s.Size = n
		}
		return nil
	})
}

// unpackDigest refuses a digest of another size. checkRecord let none in, so the
// row was damaged.
func unpackDigest(to *string, v []byte, size int) error {
	if len(v) != size {
		return fmt.Errorf("store: packed subject: digest of %d bytes, want %d", len(v), size)
	}
	*to = hex.EncodeToString(v)
	return nil
}

// fields calls f with each varint or bytes field of a message.
func fields(b []byte, f func(num protowire.Number, n int64, v []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("store: packed record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		var i uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			i, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("store: packed record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(num, int64(i), v); err != nil {
			return err
		}
	}
	return nil
}

func micros(t time.Time) int64      { return t.UnixMicro() }
func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }
