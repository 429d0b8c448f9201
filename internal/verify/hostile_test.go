package verify

import (
	"bytes"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const accepted refusal.Code = ""

// TestHostileBundles takes a good bundle and exchanges one part of it for another that
// is genuine elsewhere, in both formats and at both entrances.
func TestHostileBundles(t *testing.T) {
	type codes struct{ own, foreign refusal.Code }
	both := func(c refusal.Code) codes { return codes{c, c} }
	tests := []struct {
		name   string
		only   tlog.EntryFormat // "" is both
		change func(l *lab, f tlog.EntryFormat, p *attest.BundleParts)
		want   codes
	}{
		{"nothing", "", func(*lab, tlog.EntryFormat, *attest.BundleParts) {}, both(accepted)},
		{"log entry of another statement by the same key (CVE-2022-23649)", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry = l.seal(f, attest.PayloadTypeInToto, statement(l.t, "other")).LogEntry
		}, both(CodeLogEntryMismatch)},
		{"log entry of another signature over the same statement", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry = l.seal(f, attest.PayloadTypeInToto, p.Envelope.Payload).LogEntry
		}, both(CodeLogEntryMismatch)},
		{"log entry of the same signature under another key (CVE-2026-22703)", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry = l.entry(f, l.body(f, p.Envelope, newTestKey(l.t)))
		}, both(CodeLogEntryMismatch)},
		{"signature of another statement", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.Envelope.Signatures[0].Sig = l.seal(f, attest.PayloadTypeInToto, statement(l.t, "other")).Envelope.Signatures[0].Sig
		}, both(CodeSignatureInvalid)},
		{"statement re-serialised (CVE-2026-44309)", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Envelope.Payload = append(bytes.Clone(p.Envelope.Payload), '\n')
		}, both(CodeSignatureInvalid)},
		{"payload type exchanged", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Envelope.PayloadType = "application/json"
		}, both(CodeSignatureInvalid)},
		{"signed under another payload type", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			*p = *l.seal(f, "application/json", p.Envelope.Payload)
		}, both(CodePayloadTypeUnknown)},
		{"another keyid and hint", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.PublicKeyHint, p.Envelope.Signatures[0].KeyID = "SHA256:x", "SHA256:x"
		}, both(CodeKeyUnknown)},
		{"hex keyid, which sigstore-go skips", "", func(l *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.PublicKeyHint, p.Envelope.Signatures[0].KeyID = l.att.KeyID(), l.att.KeyID()
		}, both(CodeKeyMismatch)},
		{"timestamp of another signature", "", func(l *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps[0] = l.stamp([]byte("another signature"))
		}, both(CodeTimestampMismatch)},
		{"the same timestamp twice", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps = append(p.Timestamps, p.Timestamps[0])
		}, both(CodeTimestampDuplicate)},
		{"two timestamps of one authority", "", func(l *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps = append(p.Timestamps, l.stamp(p.Envelope.Signatures[0].Sig))
		}, both(CodeTimestampDuplicate)},
		{"timestamp of an authority nobody knows", "", func(l *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps[0] = newLab(l.t).stamp(p.Envelope.Signatures[0].Sig)
		}, codes{CodeTimestampSignature, CodeTimestampSignature}}, // the same name and serial, another key
		{"bytes that are no timestamp", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps[0] = []byte{0x30, 0x03, 0x02, 0x01, 0x00}
		}, both(CodeTimestampMalformed)},
		{"no timestamp in rekor-v2", tlog.RekorV2, func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps = nil
		}, both(CodeNoTrustedTime)},
		{"no timestamp in rekor-v1: the promise dates foreign bundles only", tlog.RekorV1, func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps = nil
		}, codes{CodeNoTrustedTime, accepted}},
		{"integrated time without promise is no time", tlog.RekorV1, func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.Timestamps, p.LogEntry.SET = nil, nil
		}, codes{CodeSETMissing, CodeNoTrustedTime}},
		{"promise for another time", tlog.RekorV1, func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.IntegratedTime++
		}, both(CodeSETInvalid)},
		{"time outside the log key's validity", tlog.RekorV1, func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.IntegratedTime = labEnd.Unix() + 1
		}, both(CodeLogKeyOutsideValidity)},
		{"promise in rekor-v2", tlog.RekorV2, func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.SET = []byte{1}
		}, both(CodeSETInvalid)},
		{"integrated time in rekor-v2", tlog.RekorV2, func(l *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.IntegratedTime = l.at.Unix()
		}, codes{CodeSETInvalid, CodeLogEntryMalformed}},
		{"no log entry", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry = attest.LogEntry{}
		}, both(CodeLogEntryMissing)},
		{"entry of an unknown log", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.LogID = bytes.Repeat([]byte{7}, 32)
		}, both(CodeLogUnknown)},
		{"checkpoint of a larger tree", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.Checkpoint = l.checkpoint(originOf(f, p.LogEntry.LogID), testHost, 2, p.LogEntry.RootHash, l.log)
		}, both(CodeCheckpointRootMismatch)},
		{"checkpoint of another tree", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.Checkpoint = l.checkpoint(originOf(f, p.LogEntry.LogID), testHost, 1, bytes.Repeat([]byte{1}, 32), l.log)
		}, both(CodeCheckpointRootMismatch)},
		{"checkpoint signed by another key", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.Checkpoint = l.checkpoint(originOf(f, p.LogEntry.LogID), testHost, 1, p.LogEntry.RootHash, l.att)
		}, codes{tlog.CodeCheckpointSignatureInvalid, CodeCheckpointSignerUnknown}},
		{"checkpoint of a log whose name begins like ours", tlog.RekorV2, func(l *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.Checkpoint = l.checkpoint(testHost+".evil", testHost, 1, p.LogEntry.RootHash, l.log)
		}, both(CodeCheckpointOriginMismatch)},
		{"checkpoint in the other dialect (sigstore-go #562)", "", func(l *lab, f tlog.EntryFormat, p *attest.BundleParts) {
			other := map[tlog.EntryFormat]tlog.EntryFormat{tlog.RekorV1: tlog.RekorV2, tlog.RekorV2: tlog.RekorV1}[f]
			p.LogEntry.Checkpoint = l.checkpoint(originOf(other, p.LogEntry.LogID), testHost, 1, p.LogEntry.RootHash, l.log)
		}, both(CodeCheckpointOriginMismatch)},
		{"proof with a hash too many", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.Hashes = [][]byte{bytes.Repeat([]byte{1}, 32)}
		}, both(tlog.CodeInclusionProofInvalid)},
		{"entry kind that nobody supports any more", "", func(_ *lab, _ tlog.EntryFormat, p *attest.BundleParts) {
			p.LogEntry.Kind, p.LogEntry.Version = "dsse", "0.0.2"
		}, both(CodeLogEntryKindUnknown)},
	}
	for _, tt := range tests {
		for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
			if tt.only != "" && tt.only != format {
				continue
			}
			l := newLab(t)
			p := l.seal(format, attest.PayloadTypeInToto, statement(t, "artifact"))
			tt.change(l, format, p)
			bundle, v := l.marshal(p), l.verifier()
			ev, err := v.VerifyOwn(bundle)
			check(t, tt.name+" (own, "+string(format)+")", ev, err, tt.want.own)
			ev, err = v.Verify(bundle, Expectation{AnyArtifact: true, RootKey: true})
			check(t, tt.name+" (foreign, "+string(format)+")", ev, err, tt.want.foreign)
		}
	}
}

func check(t *testing.T, name string, ev *Evidence, err error, want refusal.Code) {
	t.Helper()
	switch {
	case want == accepted && (err != nil || !ev.Valid()):
		t.Errorf("%s: %v, want accepted", name, err)
	case want != accepted && (err == nil || ev.Valid()):
		t.Errorf("%s: accepted, want %s", name, want)
	case refusal.CodeOf(err) != want:
		t.Errorf("%s: %v, want %s", name, err, want)
	}
}

// TestHostileStatements: a good signature over a payload that two readers could take in
// two ways, or that is about nothing.
func TestHostileStatements(t *testing.T) {
	const subject = `{"name":"a","digest":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}`
	tests := []struct {
		name, payload string
		want          refusal.Code
	}{
		{"good", `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subject + `],"predicateType":"https://p","predicate":{}}`, accepted},
		{"key twice", `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subject + `],"predicateType":"https://p","predicateType":"https://q","predicate":{}}`, attest.CodeJSONDuplicate},
		{"key in two cases", `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subject + `],"predicateType":"https://p","PredicateType":"https://q","predicate":{}}`, attest.CodeJSONCaseVariant},
		{"key under Unicode folding", `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subject + `],"ſubject":[],"predicateType":"https://p","predicate":{}}`, attest.CodeJSONCaseVariant},
		{"unknown key", `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subject + `],"predicateType":"https://p","predicate":{},"extra":1}`, attest.CodeJSONUnknownKey},
		{"no subjects", `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://p","predicate":{}}`, attest.CodeNoSubjects},
		{"subject without digest", `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{}}],"predicateType":"https://p","predicate":{}}`, attest.CodeSubjectNoDigest},
		{"unknown statement type", `{"_type":"https://in-toto.io/Statement/v9","subject":[` + subject + `],"predicateType":"https://p","predicate":{}}`, attest.CodeStatementTypeUnknown},
		{"truncated (CVE-2026-39395)", `{"_type":"https://in-toto.io/Statement/v1","subject":[`, attest.CodeJSONInvalid},
		{"too many subjects", `{"_type":"https://in-toto.io/Statement/v1","subject":[` + strings.Repeat(subject+",", attest.MaxSubjects) + subject + `],"predicateType":"https://p","predicate":{}}`, attest.CodeTooManySubjects},
	}
	l := newLab(t)
	v := l.verifier()
	for _, tt := range tests {
		bundle := l.marshal(l.seal(tlog.RekorV2, attest.PayloadTypeInToto, []byte(tt.payload)))
		ev, err := v.VerifyOwn(bundle)
		check(t, tt.name+" (own)", ev, err, tt.want)
		ev, err = v.Verify(bundle, Expectation{AnyArtifact: true, RootKey: true})
		check(t, tt.name+" (foreign)", ev, err, tt.want)
	}
}

// TestHostileShapes changes what our own parser would never write.
func TestHostileShapes(t *testing.T) {
	l := newLab(t)
	v := l.verifier()
	good := l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, statement(t, "artifact")))
	text := func(old, replacement string) []byte {
		out := bytes.Replace(good, []byte(old), []byte(replacement), 1)
		if bytes.Equal(out, good) {
			t.Fatalf("%q is not in the bundle", old)
		}
		return out
	}
	tests := []struct {
		name   string
		bundle []byte
		want   refusal.Code
	}{
		{"good", good, accepted},
		{"white space", append([]byte(" \n"), good...), accepted},
		{"wrapper with a predicate type of its own", text(`{"mediaType"`, `{"predicateType":"https://p","mediaType"`), attest.CodeJSONUnknownKey},
		{"two media types", text(`{"mediaType"`, `{"mediaType":"x","mediaType"`), attest.CodeJSONDuplicate},
		{"media type in another case", text(`{"mediaType"`, `{"MediaType":"x","mediaType"`), attest.CodeJSONCaseVariant},
		{"future version", text(`bundle.v0.3`, `bundle.v0.4`), CodeBundleVersionUnknown},
		{"version that semver would take for 0.3", text(`bundle.v0.3`, `bundle.v0.3.0`), CodeBundleVersionUnknown},
		{"data after the bundle", append(bytes.Clone(good), good...), attest.CodeJSONInvalid},
		{"empty", nil, attest.CodeJSONInvalid},
		{"null", []byte("null"), CodeBundleVersionUnknown},
		{"too large", bytes.Repeat([]byte(" "), attest.MaxBundleBytes+1), attest.CodeJSONTooLarge},
		{"two signatures", l.edit(good, func(b *protobundle.Bundle) {
			e := b.GetDsseEnvelope()
			e.Signatures = append(e.Signatures, e.Signatures[0])
		}), CodeSignatureCount},
		{"no signature", l.edit(good, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures = nil }), CodeSignatureCount},
		{"empty signature", l.edit(good, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Sig = nil }), CodeSignatureCount},
		{"no content", l.edit(good, func(b *protobundle.Bundle) { b.Content = nil }), CodeBundleContent},
		{"no material but a timestamp (chainloop #3217)", l.edit(good, func(b *protobundle.Bundle) {
			b.VerificationMaterial = &protobundle.VerificationMaterial{TimestampVerificationData: b.VerificationMaterial.TimestampVerificationData}
		}), CodeNoVerificationMaterial},
		{"no material at all", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial = nil }), CodeNoVerificationMaterial},
		{"key alone", l.edit(good, func(b *protobundle.Bundle) {
			b.VerificationMaterial = &protobundle.VerificationMaterial{Content: b.VerificationMaterial.Content}
		}), CodeNoTrustedTime},
		{"the same log entry twice", l.edit(good, func(b *protobundle.Bundle) {
			m := b.VerificationMaterial
			m.TlogEntries = append(m.TlogEntries, m.TlogEntries[0])
		}), CodeLogEntryDuplicate},
		{"33 log entries", l.edit(good, func(b *protobundle.Bundle) {
			m := b.VerificationMaterial
			for range 32 {
				m.TlogEntries = append(m.TlogEntries, m.TlogEntries[0])
			}
		}), CodeBundleTooMany},
		{"33 timestamps", l.edit(good, func(b *protobundle.Bundle) {
			ts := b.VerificationMaterial.TimestampVerificationData
			for range 32 {
				ts.Rfc3161Timestamps = append(ts.Rfc3161Timestamps, ts.Rfc3161Timestamps[0])
			}
		}), CodeBundleTooMany},
		{"9 certificates", l.edit(good, func(b *protobundle.Bundle) {
			c := &protocommon.X509CertificateChain{}
			for range 9 {
				c.Certificates = append(c.Certificates, &protocommon.X509Certificate{RawBytes: l.caCert.Raw})
			}
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: c}
		}), CodeBundleTooMany},
		{"no log id", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].LogId = nil }), CodeLogEntryMalformed},
		{"no kind", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].KindVersion = nil }), CodeLogEntryMalformed},
		{"no body", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].CanonicalizedBody = nil }), CodeLogEntryMalformed},
		{"negative index", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].LogIndex = -1 }), CodeLogIndexNegative},
		{"negative tree", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].InclusionProof.TreeSize = -1 }), CodeLogIndexNegative},
		{"no proof", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].InclusionProof = nil }), CodeInclusionProofMissing},
		{"no checkpoint", l.edit(good, func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].InclusionProof.Checkpoint = nil }), CodeCheckpointMissing},
		{"bundle 0.1 without promise", l.edit(good, func(b *protobundle.Bundle) {
			b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
			b.VerificationMaterial.TlogEntries[0].InclusionPromise = nil
		}), CodeSETMissing},
		{"body of another kind than the bundle says", l.edit(good, func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].KindVersion.Kind = "intoto"
			b.VerificationMaterial.TlogEntries[0].KindVersion.Version = "0.0.2"
		}), CodeLogEntryMalformed},
		{"keyid of somebody else", l.edit(good, func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Keyid = "x" }), CodeKeyMismatch},
		{"no keyid", l.edit(good, func(b *protobundle.Bundle) {
			b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: b.GetDsseEnvelope().Payload,
				PayloadType: b.GetDsseEnvelope().PayloadType, Signatures: []*protodsse.Signature{{Sig: b.GetDsseEnvelope().Signatures[0].Sig}}}}
		}), accepted},
	}
	for _, tt := range tests {
		ev, err := v.Verify(tt.bundle, Expectation{AnyArtifact: true, RootKey: true})
		check(t, tt.name, ev, err, tt.want)
		if ev, err := v.VerifyOwn(tt.bundle); (err == nil) != (tt.name == "good") {
			t.Errorf("%s: own entrance says %v %v", tt.name, ev, err)
		}
	}
}

// TestSubjects: the statement must be about the artifact, in every digest that both name.
func TestSubjects(t *testing.T) {
	l := newLab(t)
	v := l.verifier()
	bundle := l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, statement(t, "artifact")))
	right, wrong := sha256Of([]byte("artifact"))[0], sha256Of([]byte("other"))[0]
	sha512 := Digest{"sha512", strings.Repeat("ab", 64)}
	tests := []struct {
		name string
		want Expectation
		code refusal.Code
	}{
		{"right", Expectation{Artifact: []Digest{right}}, accepted},
		{"right, and a digest that the statement does not have", Expectation{Artifact: []Digest{sha512, right}}, accepted},
		{"wrong", Expectation{Artifact: []Digest{wrong}}, CodeSubjectMismatch},
		{"right and wrong", Expectation{Artifact: []Digest{right, wrong}}, CodeSubjectMismatch},
		{"no digest in common", Expectation{Artifact: []Digest{sha512}}, CodeSubjectMismatch},
		{"predicate type", Expectation{Artifact: []Digest{right}, PredicateType: attest.PredicateSLSAProvenanceV1}, accepted},
		{"other predicate type (CVE-2022-35929)", Expectation{Artifact: []Digest{right}, PredicateType: attest.PredicateCycloneDX}, CodePredicateTypeMismatch},
		{"empty digest (sigstore-go #609)", Expectation{Artifact: []Digest{{"sha256", ""}}}, CodeExpectationInvalid},
		{"no artifact (sigstore-go #609)", Expectation{}, CodeExpectationInvalid},
	}
	for _, tt := range tests {
		tt.want.RootKey = true
		ev, err := v.Verify(bundle, tt.want)
		check(t, tt.name, ev, err, tt.code)
	}
}

// TestExpectations: a question that anything could satisfy is refused.
func TestExpectations(t *testing.T) {
	v := newLab(t).verifier()
	id := &Identity{SAN: "https://a", Issuer: "https://b"}
	for name, x := range map[string]Expectation{
		"no signer":                 {AnyArtifact: true},
		"identity and key":          {AnyArtifact: true, Identity: id, RootKey: true},
		"two keys":                  {AnyArtifact: true, Key: &PublicKey{}, RootKey: true},
		"artifact and any artifact": {AnyArtifact: true, Artifact: sha256Of(nil), Identity: id},
		"identity without issuer":   {AnyArtifact: true, Identity: &Identity{SAN: "https://a"}},
		"identity without name":     {AnyArtifact: true, Identity: &Identity{Issuer: "https://b"}},
		"name and pattern":          {AnyArtifact: true, Identity: &Identity{SAN: "a", SANRegexp: "a", Issuer: "b"}},
		"pattern that closes group": {AnyArtifact: true, Identity: &Identity{SANRegexp: "a)|(?:.*", Issuer: "b"}},
		"digest in capitals":        {Artifact: []Digest{{"sha256", strings.ToUpper(sha256Of(nil)[0].Hex)}}, Identity: id},
		"short digest":              {Artifact: []Digest{{"sha256", "ab"}}, Identity: id},
	} {
		ev, err := v.Verify([]byte("{}"), x)
		check(t, name, ev, err, CodeExpectationInvalid)
	}
}

// TestKeyWindow: a signature counts if it was made while its key could make it.
func TestKeyWindow(t *testing.T) {
	l := newLab(t)
	bundle := l.marshal(l.seal(tlog.RekorV1, attest.PayloadTypeInToto, statement(t, "artifact")))
	tests := []struct {
		name string
		key  PublicKey
		want refusal.Code
	}{
		{"open", PublicKey{}, accepted},
		{"both ends inclusive", PublicKey{NotBefore: l.at, NotAfter: l.at}, accepted},
		{"not yet", PublicKey{NotBefore: l.at.Add(time.Second)}, CodeKeyOutsideValidity},
		{"no more", PublicKey{NotAfter: l.at.Add(-time.Second)}, CodeKeyOutsideValidity},
		{"revoked since then", PublicKey{RevokedSince: l.at}, CodeKeyRevoked},
		{"revoked before", PublicKey{RevokedSince: l.at.Add(-time.Hour)}, CodeKeyRevoked},
		{"revoked later", PublicKey{RevokedSince: l.at.Add(time.Second)}, accepted},
	}
	for _, tt := range tests {
		tt.key.PEM = l.att.pem()
		v := l.verifierWith(tt.key)
		ev, err := v.VerifyOwn(bundle)
		check(t, tt.name+" (own)", ev, err, tt.want)
		ev, err = v.Verify(bundle, Expectation{AnyArtifact: true, RootKey: true})
		check(t, tt.name+" (foreign)", ev, err, tt.want)
	}
}

// TestAuthorityWindow: a timestamp counts if its authority was trusted and its chain
// valid when it was made. What time it is now does not matter.
func TestAuthorityWindow(t *testing.T) {
	l := newLab(t)
	bundle := l.marshal(l.seal(tlog.RekorV2, attest.PayloadTypeInToto, statement(t, "artifact")))
	window := func(start, end time.Time) func(*prototrustroot.TrustedRoot) {
		return func(r *prototrustroot.TrustedRoot) {
			r.TimestampAuthorities[0].ValidFor = &protocommon.TimeRange{Start: timestamppb.New(start), End: timestamppb.New(end)}
		}
	}
	tests := []struct {
		name  string
		tweak func(*prototrustroot.TrustedRoot)
		want  refusal.Code
	}{
		{"both ends inclusive", window(l.at, l.at), accepted},
		{"not yet trusted", window(l.at.Add(time.Second), labEnd), CodeTimestampOutsideAuthority},
		{"no longer trusted", window(labStart, l.at.Add(-time.Second)), CodeTimestampOutsideAuthority},
		{"no authority", func(r *prototrustroot.TrustedRoot) { r.TimestampAuthorities = nil }, CodeTimestampUntrusted},
	}
	for _, tt := range tests {
		v := l.verifier(tt.tweak)
		ev, err := v.VerifyOwn(bundle)
		check(t, tt.name+" (own)", ev, err, tt.want)
		ev, err = v.Verify(bundle, Expectation{AnyArtifact: true, RootKey: true})
		check(t, tt.name+" (foreign)", ev, err, tt.want)
	}
}

// TestSigstoreGoSkipsBinding shows why the dialect of entry and checkpoint are held
// together here: sigstore-go 1.3.0 picks the rules of binding from the body and the
// rules of inclusion from the checkpoint's first line. A Rekor 2 body under a Rekor 1
// checkpoint is bound by neither, and a genuine entry of another signature passes.
func TestSigstoreGoSkipsBinding(t *testing.T) {
	l := newLab(t)
	p := l.seal(tlog.RekorV2, attest.PayloadTypeInToto, statement(t, "artifact"))
	p.LogEntry = l.seal(tlog.RekorV2, attest.PayloadTypeInToto, statement(t, "other")).LogEntry
	p.LogEntry.Checkpoint = l.checkpoint(originOf(tlog.RekorV1, p.LogEntry.LogID), testHost, 1, p.LogEntry.RootHash, l.log)
	bundle, v := l.marshal(p), l.verifier()
	x, err := Expectation{AnyArtifact: true, RootKey: true}.compile()
	if err != nil {
		t.Fatal(err)
	}
	key := v.root.keys[l.att.keyid()]
	t.Logf("sigstore-go alone says: %v", v.judge(bundle, &signer{key: key}, x, nil))
	ev, err := v.VerifyOwn(bundle)
	check(t, "own", ev, err, CodeLogEntryMismatch)
	ev, err = v.Verify(bundle, Expectation{AnyArtifact: true, RootKey: true})
	check(t, "foreign", ev, err, CodeLogEntryMismatch)
}
