package verify

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"reflect"
	"testing"
	"time"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// sealKey is a bundle of our own shape, signed by a named key of whatever kind.
func (l *lab) sealKey(format tlog.EntryFormat, payload, sig []byte, public crypto.PublicKey) *attest.BundleParts {
	l.t.Helper()
	keyid, err := Fingerprint(public)
	if err != nil {
		l.t.Fatal(err)
	}
	env := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{KeyID: keyid, Sig: sig}}}
	return &attest.BundleParts{PublicKeyHint: keyid, Envelope: env, Timestamps: [][]byte{l.stamp(sig)},
		LogEntry: l.entry(format, entryBodyOf(l.t, format, env, public, nil, pemOf(l.t, public)))}
}

// TestOwnKeyKinds: our keys are P-256, P-384 and RSA with PSS. What the lean path accepts
// the other accepts.
func TestOwnKeyKinds(t *testing.T) {
	payload := statement(t, "artifact")
	pae := attest.PAE(attest.PayloadTypeInToto, payload)
	p384, rsa2048, rsa3072 := newCurveKey(t, elliptic.P384()), newRSAKey(t, 2048), newRSAKey(t, 3072)
	p521 := newCurveKey(t, elliptic.P521())
	sum := sha256.Sum256(pae)
	v15, err := rsa.SignPKCS1v15(rand.Reader, rsa2048.PrivateKey, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t)
	for _, tt := range []struct {
		name   string
		format tlog.EntryFormat
		key    PublicKey
		public crypto.PublicKey
		sig    []byte
		want   refusal.Code
	}{
		{"P-384", tlog.RekorV1, PublicKey{}, p384.Public(), p384.sign(t, pae), accepted},
		{"P-384", tlog.RekorV2, PublicKey{}, p384.Public(), p384.sign(t, pae), accepted},
		{"P-384 over SHA-256", tlog.RekorV2, PublicKey{}, p384.Public(), mustSign(t, p384, sum[:]), CodeSignatureInvalid},
		{"RSA 2048, PSS", tlog.RekorV1, PublicKey{PSS: true}, rsa2048.Public(), rsa2048.sign(t, pae), accepted},
		{"RSA 3072, PSS", tlog.RekorV1, PublicKey{PSS: true}, rsa3072.Public(), rsa3072.sign(t, pae), accepted},
		{"RSA with the padding of others", tlog.RekorV1, PublicKey{PSS: true}, rsa2048.Public(), v15, CodeSignatureInvalid},
		{"RSA that is said to use the padding of others", tlog.RekorV1, PublicKey{}, rsa2048.Public(), rsa2048.sign(t, pae), CodeKeyUnknown},
		{"RSA of others", tlog.RekorV1, PublicKey{}, rsa2048.Public(), v15, CodeKeyUnknown},
		{"P-521", tlog.RekorV1, PublicKey{}, p521.Public(), mustSign(t, p521, sum[:]), CodeKeyUnknown},
	} {
		tt.key.PEM = pemOf(t, tt.public)
		v := l.verifierWith(tt.key)
		bundle := l.marshal(l.sealKey(tt.format, payload, tt.sig, tt.public))
		name := tt.name + " " + string(tt.format)
		ev, err := v.VerifyOwn(bundle)
		check(t, name, ev, err, tt.want)
		foreign, foreignErr := v.Verify(bundle, Expectation{AnyArtifact: true, RootKey: true})
		if err == nil && (foreignErr != nil || !sameContent(ev, foreign)) {
			t.Errorf("%s: the other entrance says %v", name, foreignErr)
		}
		if err != nil {
			continue
		}
		for i := range tt.sig {
			p := l.sealKey(tt.format, payload, tt.sig, tt.public)
			p.Envelope.Signatures[0].Sig = flipped(tt.sig, i, 1)
			if _, err := v.VerifyOwn(l.marshal(p)); refusal.CodeOf(err) != CodeSignatureInvalid {
				t.Errorf("%s: byte %d of the signature: %v", name, i, err)
			}
		}
	}
	// Nobody could rebuild this entry: they would take the key for one of PKCS #1 v1.5.
	p := l.sealKey(tlog.RekorV1, payload, rsa2048.sign(t, pae), rsa2048.Public())
	p.LogEntry = l.entry(tlog.RekorV2, p.LogEntry.CanonicalizedBody)
	ev, err := l.verifierWith(PublicKey{PEM: pemOf(t, rsa2048.Public()), PSS: true}).VerifyOwn(l.marshal(p))
	check(t, "RSA in rekor-v2", ev, err, tlog.CodeEntryKeyUnsupported)
}

func mustSign(t testing.TB, k testKey, digest []byte) []byte {
	t.Helper()
	sig, err := k.Sign(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func (k rsaKey) Public() crypto.PublicKey { return &k.PublicKey }

// TestKeyRefusals: a key that cannot be what it is said to be is refused when the root is
// read, not when a bundle comes.
func TestKeyRefusals(t *testing.T) {
	l := newLab(t)
	ml := newMLDSAKey(t, mldsa.MLDSA65())
	small, err := rsa.GenerateKey(rand.Reader, 1536)
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]PublicKey{
		"PSS of an ECDSA key":   {{PEM: l.att.pem(), PSS: true}},
		"PSS of a small key":    {{PEM: pemOf(t, &small.PublicKey), PSS: true}},
		"PSS of an ML-DSA key":  {{PEM: ml.pem, PSS: true}},
		"ML-DSA of another set": {{PEM: newMLDSAKey(t, mldsa.MLDSA44()).pem}},
		"one key twice":         {{PEM: l.att.pem()}, {PEM: l.att.pem()}},
		"one ML-DSA key twice":  {{PEM: ml.pem}, {PEM: ml.pem}},
	} {
		if _, err := NewRoot(l.root(), keys...); refusal.CodeOf(err) != CodeKeyInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type mldsaKey struct {
	*mldsa.PrivateKey
	id  string
	pem []byte
}

func newMLDSAKey(t testing.TB, parameters mldsa.Parameters) mldsaKey {
	t.Helper()
	k, err := mldsa.GenerateKey(parameters)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := mldsax509.MarshalPKIXPublicKey(k.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	return mldsaKey{k, hex.EncodeToString(sum[:]), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})}
}

func (k mldsaKey) detached(t testing.TB, msg []byte, opts *mldsa.Options) Detached {
	t.Helper()
	sig, err := k.Sign(rand.Reader, msg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return Detached{Algorithm: AlgorithmMLDSA65, KeyID: k.id, Signature: sig}
}

func TestCoSignatures(t *testing.T) {
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		l := newLab(t)
		one, two, stranger := newMLDSAKey(t, mldsa.MLDSA65()), newMLDSAKey(t, mldsa.MLDSA65()), newMLDSAKey(t, mldsa.MLDSA65())
		payload := statement(t, "artifact")
		pae := attest.PAE(attest.PayloadTypeInToto, payload)
		bundle := l.marshal(l.seal(format, attest.PayloadTypeInToto, payload))
		verifier := func(window PublicKey) *Verifier {
			window.PEM = one.pem
			r, err := NewRoot(l.root(), PublicKey{PEM: l.att.pem()}, window, PublicKey{PEM: two.pem})
			if err != nil {
				t.Fatal(err)
			}
			return New(r)
		}
		open := verifier(PublicKey{})
		first, second := one.detached(t, pae, nil), two.detached(t, pae, nil)
		with := func(change func(*Detached)) []Detached {
			d := first
			change(&d)
			return []Detached{second, d}
		}
		for _, tt := range []struct {
			name     string
			v        *Verifier
			detached []Detached
			want     refusal.Code
		}{
			{"none", open, nil, accepted},
			{"one", open, []Detached{first}, accepted},
			{"two", open, []Detached{second, first}, accepted},
			{"the same twice", open, []Detached{first, first}, CodeCoSignatureDuplicate},
			{"two of one key", open, []Detached{first, one.detached(t, pae, nil)}, CodeCoSignatureDuplicate},
			{"of a stranger", open, []Detached{first, stranger.detached(t, pae, nil)}, CodeCoSignatureKeyUnknown},
			{"by the bundle's own key", open, with(func(d *Detached) { d.KeyID = l.att.KeyID() }), CodeCoSignatureKeyUnknown},
			{"of no key", open, with(func(d *Detached) { d.KeyID = "" }), CodeCoSignatureKeyUnknown},
			{"under another's name", open, []Detached{{AlgorithmMLDSA65, one.id, second.Signature}}, CodeCoSignatureInvalid},
			{"of another algorithm", open, with(func(d *Detached) { d.Algorithm = "ML_DSA_44" }), CodeCoSignatureAlgorithmUnknown},
			{"of no algorithm", open, with(func(d *Detached) { d.Algorithm = "" }), CodeCoSignatureAlgorithmUnknown},
			{"one bit changed", open, with(func(d *Detached) { d.Signature = flipped(d.Signature, 100, 1) }), CodeCoSignatureInvalid},
			{"a byte more", open, with(func(d *Detached) { d.Signature = append(d.Signature[:len(d.Signature):len(d.Signature)], 0) }), CodeCoSignatureInvalid},
			{"empty", open, with(func(d *Detached) { d.Signature = nil }), CodeCoSignatureInvalid},
			{"over the payload", open, []Detached{one.detached(t, payload, nil)}, CodeCoSignatureInvalid},
			{"over another envelope", open, []Detached{one.detached(t, attest.PAE(attest.PayloadTypeInToto, statement(t, "other")), nil)}, CodeCoSignatureInvalid},
			{"in a context", open, []Detached{one.detached(t, pae, &mldsa.Options{Context: "x"})}, CodeCoSignatureInvalid},
			{"nine", open, make([]Detached, 9), CodeCoSignatureInvalid},
			{"from this second", verifier(PublicKey{NotBefore: l.at}), []Detached{first}, accepted},
			{"from the next second", verifier(PublicKey{NotBefore: l.at.Add(time.Second)}), []Detached{first}, CodeKeyOutsideValidity},
			{"to this second", verifier(PublicKey{NotAfter: l.at}), []Detached{first}, accepted},
			{"to the last second", verifier(PublicKey{NotAfter: l.at.Add(-time.Second)}), []Detached{first}, CodeKeyOutsideValidity},
			{"revoked in this second", verifier(PublicKey{RevokedSince: l.at}), []Detached{first}, CodeKeyRevoked},
			{"revoked later", verifier(PublicKey{RevokedSince: l.at.Add(time.Second)}), []Detached{first}, accepted},
		} {
			ev, err := tt.v.VerifyOwn(bundle, tt.detached...)
			check(t, tt.name, ev, err, tt.want)
			if want := []string{AlgorithmMLDSA65}; err == nil && len(tt.detached) > 0 && !reflect.DeepEqual(ev.CoSignatures(), want) {
				t.Errorf("%s: %v", tt.name, ev.CoSignatures())
			}
			if (len(tt.detached) == 0 || err != nil) && len(ev.CoSignatures()) != 0 {
				t.Errorf("%s: %v", tt.name, ev.CoSignatures())
			}
		}
		// A co-signing key signs no bundle, whatever the bundle calls it.
		for _, hint := range []string{one.id, two.id} {
			p := l.seal(format, attest.PayloadTypeInToto, payload)
			p.PublicKeyHint, p.Envelope.Signatures[0] = hint, attest.Signature{KeyID: hint, Sig: first.Signature}
			ev, err := open.VerifyOwn(l.marshal(p))
			check(t, "as the main signer", ev, err, CodeKeyUnknown)
			ev, err = open.Verify(l.marshal(p), Expectation{AnyArtifact: true, RootKey: true})
			check(t, "as the main signer, to the other entrance", ev, err, CodeKeyUnknown)
		}
		ev, err := open.VerifyOwn([]byte("{}"), first)
		check(t, "beside nothing", ev, err, attest.CodeBundleInvalid)
	})
}

// TestRetiredLogShard: two keys of one log. What the older one promised within its window
// stands after its end, what it promises later does not; a rekor-v2 entry has no time of
// the log's, so there the window says nothing.
func TestRetiredLogShard(t *testing.T) {
	payload := statement(t, "artifact")
	eachFormat(t, func(t *testing.T, format tlog.EntryFormat) {
		l := newLab(t)
		newer := newTestKey(t)
		shards := func(end time.Time) *Verifier {
			return l.verifier(func(r *prototrustroot.TrustedRoot) {
				id := sha256.Sum256(newer.spki())
				r.Tlogs[0].PublicKey.ValidFor = &protocommon.TimeRange{Start: timestamppb.New(labStart), End: timestamppb.New(end)}
				r.Tlogs = append(r.Tlogs, &prototrustroot.TransparencyLogInstance{
					BaseUrl: r.Tlogs[0].BaseUrl, HashAlgorithm: protocommon.HashAlgorithm_SHA2_256, LogId: &protocommon.LogId{KeyId: id[:]},
					PublicKey: &protocommon.PublicKey{RawBytes: newer.spki(), KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
						ValidFor: &protocommon.TimeRange{Start: timestamppb.New(end)}},
				})
			})
		}
		late := CodeLogKeyOutsideValidity
		if format == tlog.RekorV2 {
			late = accepted
		}
		retired := l.marshal(l.seal(format, attest.PayloadTypeInToto, payload))
		for name, tt := range map[string]struct {
			end  time.Time
			want refusal.Code
		}{
			"in the shard's time": {l.at.Add(time.Hour), accepted}, "in its last second": {l.at, accepted},
			"a second after its end": {l.at.Add(-time.Second), late},
		} {
			v := shards(tt.end)
			ev, err := v.VerifyOwn(retired)
			check(t, name, ev, err, tt.want)
			ev, err = v.Verify(retired, Expectation{AnyArtifact: true, RootKey: true})
			check(t, name+", to the other entrance", ev, err, tt.want)
		}
		v := shards(l.at)
		older := l.log
		l.log = newer
		bundle := l.marshal(l.seal(format, attest.PayloadTypeInToto, payload))
		ev, err := v.VerifyOwn(bundle)
		check(t, "in the newer shard", ev, err, accepted)
		// The shards share a host and an origin, but no key: a checkpoint of one says nothing
		// about the other.
		p := l.seal(format, attest.PayloadTypeInToto, payload)
		id := sha256.Sum256(newer.spki())
		p.LogEntry.Checkpoint = l.checkpoint(originOf(format, id[:]), testHost, 1, p.LogEntry.RootHash, older)
		if ev, err = v.VerifyOwn(l.marshal(p)); err == nil || ev.Valid() {
			t.Error("a checkpoint of the older shard is taken for the newer")
		}
	})
}

// TestCheckTimestamp: what an authority of others answers is judged as it would be inside
// a bundle, and a bundle of ours may hold it.
func TestCheckTimestamp(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second) // the library stamps the wall clock
	l := newLab(t)
	l.at = now
	rootKey := newTestKey(t)
	l.tsaRoot = l.certificate(aroundTime(now, caTemplate("tsa root")), nil, rootKey, rootKey)
	l.tsaLeaf = l.certificate(aroundTime(now, tsaTemplate(7)), l.tsaRoot, l.tsa, rootKey)
	stranger := newLab(t)
	stranger.at = now
	v := l.verifier(openEnded)
	p := l.unstamped(statement(t, "artifact"))
	sig := p.Envelope.Signatures[0].Sig
	for name, tt := range map[string]struct {
		der  []byte
		want refusal.Code
	}{
		"of our own shape":                    {l.stamp(sig), accepted},
		"of the library's, with certificates": {l.libraryStamp(sig, l.tsaLeaf, l.tsa, true), accepted},
		"of the library's, without":           {l.libraryStamp(sig, l.tsaLeaf, l.tsa, false), accepted},
		"over something else":                 {l.libraryStamp([]byte("else"), l.tsaLeaf, l.tsa, true), CodeTimestampMismatch},
		"of a stranger":                       {stranger.libraryStamp(sig, stranger.certificate(aroundTime(now, tsaTemplate(8)), stranger.caCert, stranger.tsa, stranger.ca), stranger.tsa, true), CodeTimestampUntrusted},
		"nothing":                             {nil, CodeTimestampMalformed},
		"too large":                           {make([]byte, maxTimestampBytes+1), CodeTimestampMalformed},
	} {
		at, err := v.root.CheckTimestamp(tt.der, sig)
		if refusal.CodeOf(err) != tt.want || (tt.want == accepted) != at.Equal(now) && at.Sub(now).Abs() > time.Minute {
			t.Errorf("%s: %v, %v", name, at, err)
		}
		if len(tt.der) == 0 {
			continue
		}
		p.Timestamps = [][]byte{tt.der}
		ev, err := v.VerifyOwn(l.marshal(p))
		check(t, "in a bundle, "+name, ev, err, tt.want)
	}
	// One authority is one witness, in whatever shape its timestamps come.
	p.Timestamps = [][]byte{l.stamp(sig), l.libraryStamp(sig, l.tsaLeaf, l.tsa, true)}
	ev, err := v.VerifyOwn(l.marshal(p))
	check(t, "two of one authority", ev, err, CodeTimestampDuplicate)
}
