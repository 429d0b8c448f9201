package ca

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/assay-build/assay/internal/attest"
)

// trustedRoot is what verifiers download, after a journey through JSON.
func (w *world) trustedRoot(logKey crypto.PublicKey, intermediates ...*x509.Certificate) *root.TrustedRoot {
	w.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(logKey)
	if err != nil {
		w.t.Fatal(err)
	}
	id := sha256.Sum256(spki)
	ca := &root.FulcioCertificateAuthority{Root: w.root, Intermediates: intermediates, URI: "https://" + testHost, ValidityPeriodStart: w.root.NotBefore}
	logs := map[string]*root.TransparencyLog{hex.EncodeToString(id[:]): {
		BaseURL: "https://" + testHost, ID: id[:], HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
		PublicKey: logKey, ValidityPeriodStart: w.root.NotBefore,
	}}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{ca}, logs, nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	text, err := made.MarshalJSON()
	if err != nil {
		w.t.Fatal(err)
	}
	read, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return read
}

// attestWith signs a statement about artifact with a leaf.
func (w *world) attestWith(leaf *Leaf, artifact string) *bundle.Bundle {
	w.t.Helper()
	payload := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"%x"}}],"predicateType":"https://example.com/p","predicate":{}}`,
		sha256.Sum256([]byte(artifact)))
	const payloadType = "application/vnd.in-toto+json"
	sig, err := leaf.Sign(w.t.Context(), digestOf(attest.PAE(payloadType, payload)))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{
			Certificate: &protocommon.X509Certificate{RawBytes: leaf.Raw}}},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: payloadType, Signatures: []*protodsse.Signature{{Sig: sig}}}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// TestSigstoreGo verifies a bundle in full, certificate timestamp required, under
// every kind of CA key and every one of several intermediates. The library has its
// own clock here, so the authority has that one too.
func TestSigstoreGo(t *testing.T) {
	t.Parallel()
	for name, key := range rootKeys(t) {
		w := worldOf(t, key)
		w.clock.at = time.Now()
		w.root = makeRoot(t, key, w.clock.at.Add(-time.Hour))
		w.authority.cfg.Root = w.root
		// As if this process had crashed and started anew in between.
		var leaves []*Leaf
		for range 3 {
			w.authority.current.Store(nil)
			leaves = append(leaves, w.issue(workflow()), w.issue(person()))
		}
		all := w.intermediates()
		trusted := w.trustedRoot(w.log.Public(), all...)
		verifier := func(tr root.TrustedMaterial) *sgverify.Verifier {
			v, err := sgverify.NewVerifier(tr, sgverify.WithSignedCertificateTimestamps(1), sgverify.WithCurrentTime())
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for i, leaf := range leaves {
			id := workflow()
			if i%2 == 1 {
				id = person()
			}
			verify := func(v *sgverify.Verifier, issuer, san string) error {
				want, err := sgverify.NewShortCertificateIdentity(issuer, "", san, "")
				if err != nil {
					t.Fatal(err)
				}
				_, err = v.Verify(w.attestWith(leaf, "artifact"), sgverify.NewPolicy(
					sgverify.WithArtifact(strings.NewReader("artifact")), sgverify.WithCertificateIdentity(want)))
				return err
			}
			san := id.URI + id.Email
			if err := verify(verifier(trusted), id.Issuer, san); err != nil {
				t.Errorf("%s, leaf %d: %v", name, i, err)
			}
			refused := map[string]error{
				"another issuer":           verify(verifier(trusted), id.Issuer+"/", san),
				"another name":             verify(verifier(trusted), id.Issuer, san+"x"),
				"another log":              verify(verifier(w.trustedRoot(p256(t).Public(), all...)), id.Issuer, san),
				"intermediate not in root": verify(verifier(w.trustedRoot(w.log.Public(), all[(i/2+1)%3])), id.Issuer, san),
				"another root":             verify(verifier(newWorld(t).trustedRoot(w.log.Public(), all...)), id.Issuer, san),
			}
			for what, err := range refused {
				if err == nil {
					t.Errorf("%s, leaf %d: accepted with %s", name, i, what)
				}
			}
			chains, err := sgverify.VerifyLeafCertificate(w.clock.at, parsed(t, leaf), trusted)
			if err != nil || len(chains) != 1 || len(chains[0]) != 3 {
				t.Errorf("%s, leaf %d: %d chains (%v), want one of three certificates", name, i, len(chains), err)
				continue
			}
			if err := sgverify.VerifySignedCertificateTimestamp(chains, 1, trusted); err != nil {
				t.Errorf("%s, leaf %d: %v", name, i, err)
			}
			for _, at := range []time.Time{parsed(t, leaf).NotBefore.Add(-time.Second), parsed(t, leaf).NotAfter.Add(time.Second)} {
				if _, err := sgverify.VerifyLeafCertificate(at, parsed(t, leaf), trusted); err == nil {
					t.Errorf("%s, leaf %d: valid at %s", name, i, at)
				}
			}
		}
	}
}
