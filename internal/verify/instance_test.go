package verify

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// instance is a real Assay instance below its RPCs: a keyset, a log on disk and a
// timestamp authority. Its bundles are what the service hands out.
type instance struct {
	keys   *signing.Keyset
	log    *posix.Log
	format tlog.EntryFormat
	root   []byte
}

const testHost = "assay.example.test"

func newInstance(t testing.TB, format tlog.EntryFormat) *instance {
	t.Helper()
	ctx := context.Background()
	keys, err := signing.OpenKeyset(ctx, filepath.Join(t.TempDir(), "keys"), signing.Config{Host: testHost, Now: time.Now, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	log, err := posix.Open(ctx, posix.Config{Dir: filepath.Join(t.TempDir(), "log"), Host: testHost, Signer: keys.LogSigner(), Format: format})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(context.Background()) })
	root, err := keys.TrustedRoot()
	if err != nil {
		t.Fatal(err)
	}
	return &instance{keys: keys, log: log, format: format, root: root}
}

func (in *instance) publicKey() PublicKey {
	k := in.keys.Attestation[0]
	return PublicKey{PEM: k.PEM(), NotBefore: k.NotBefore, NotAfter: k.NotAfter}
}

func (in *instance) verifier(t testing.TB) *Verifier {
	t.Helper()
	root, err := NewRoot(in.root, in.publicKey())
	if err != nil {
		t.Fatal(err)
	}
	return New(root)
}

// attest makes one bundle the way the service does.
func (in *instance) attest(t testing.TB, payload []byte) []byte {
	t.Helper()
	ctx := context.Background()
	s := in.keys.AttestationSigner()
	pae := sha256.Sum256(attest.PAE(attest.PayloadTypeInToto, payload))
	sig, err := s.Sign(ctx, pae[:])
	if err != nil {
		t.Fatal(err)
	}
	keyid, err := Fingerprint(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	env := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{KeyID: keyid, Sig: sig}}}
	k, err := in.publicKey().parse()
	if err != nil {
		t.Fatal(err)
	}
	body := tlog.EntryBodyHashedRekord002(pae, sig, k.spki)
	if in.format == tlog.RekorV1 {
		body = tlog.EntryBodyDSSE001(tlog.DSSE{PayloadType: env.PayloadType, Payload: payload, KeyID: keyid, Sig: sig}, k.pem)
	}
	e, err := in.log.Add(ctx, body)
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := in.keys.TSA().Timestamp(ctx, sig)
	if err != nil {
		t.Fatal(err)
	}
	kind, version := in.format.KindVersion()
	entry := attest.LogEntry{LogIndex: int64(e.Index), LogID: in.log.LogID(), Kind: kind, Version: version,
		RootHash: e.RootHash, TreeSize: int64(e.TreeSize), Hashes: e.Hashes, Checkpoint: e.Checkpoint, CanonicalizedBody: e.Body}
	if in.format == tlog.RekorV1 {
		entry.IntegratedTime, entry.SET = e.IntegratedTime, e.SET
	}
	bundle, err := attest.MarshalBundle(&attest.BundleParts{PublicKeyHint: keyid, Envelope: env, LogEntry: entry, Timestamps: [][]byte{stamp}})
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// statement is a small provenance statement about artifact.
func statement(t testing.TB, artifact string) []byte {
	t.Helper()
	st := &attest.Statement{
		Type:          attest.StatementTypeV1,
		Subjects:      []attest.Subject{{Name: "app.tar.gz", Digest: map[string]string{"sha256": sha256Of([]byte(artifact))[0].Hex}}},
		PredicateType: attest.PredicateSLSAProvenanceV1,
		Predicate:     []byte(`{"buildDefinition":{"buildType":"https://example.test/build","externalParameters":{"ref":"refs/heads/main"}},"runDetails":{"builder":{"id":"https://example.test/builder"}}}`),
	}
	payload, err := st.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func eachFormat(t *testing.T, run func(t *testing.T, format tlog.EntryFormat)) {
	for _, f := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			run(t, f)
		})
	}
}
