package clienttest

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/tlog"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// logHost is what the log of a Signer calls itself.
const logHost = "assay.example.test"

// Signer is the keys of an instance: what it signs is signed, and logged as the only
// entry of a log in the format rekor-v2.
type Signer struct{ key, log *ecdsa.PrivateKey }

// NewSigner makes new keys.
func NewSigner() *Signer { return &Signer{newKey(), newKey()} }

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func spkiOf(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return der
}

// TrustedRoot is what verifies what the Signer signs.
func (s *Signer) TrustedRoot() *assayv1.GetTrustedRootResponse {
	spki := spkiOf(s.log)
	id := sha256.Sum256(spki)
	root, err := json.Marshal(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
		"tlogs": []any{map[string]any{
			"baseUrl": "https://" + logHost, "publicKey": map[string]any{"rawBytes": spki}, "logId": map[string]any{"keyId": id[:]},
		}},
	})
	if err != nil {
		panic(err)
	}
	return &assayv1.GetTrustedRootResponse{
		TrustedRoot:        root,
		AttestationKeysPem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spkiOf(s.key)})),
	}
}

// SBOM is an attestation of what the instance found in an artifact that it received.
func (s *Signer) SBOM(document string, about *assayv1.Subject) *assayv1.Attestation {
	about.Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED
	return s.Attest(attest.PredicateCycloneDX, document, about, map[string]string{
		"assay.build/predicateOrigin": "generated",
		"assay.build/provenance":      hex.EncodeToString(make([]byte, sha256.Size)),
	})
}

// Evidence is an attestation of what a job attached.
func (s *Signer) Evidence(predicateType, document string, about *assayv1.Subject) *assayv1.Attestation {
	about.Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED
	return s.Attest(predicateType, document, about, map[string]string{
		"assay.build/predicateOrigin": "claimed",
		"assay.build/attachedBy":      "https://github.com/acme/app/actions/runs/7/attempts/1",
	})
}

// Attest makes an attestation of one predicate about one subject. An impossible one
// panics: the test is wrong.
func (s *Signer) Attest(predicateType, predicate string, about *assayv1.Subject, annotations map[string]string) *assayv1.Attestation {
	name := cmp.Or(about.GetName(), "app")
	st := &attest.Statement{
		Type: attest.StatementTypeV1, PredicateType: predicateType, Predicate: json.RawMessage(predicate),
		Subjects: []attest.Subject{{Name: name, Digest: about.GetDigest(), Annotations: annotations}},
	}
	payload, err := st.Marshal()
	if err != nil {
		panic(err)
	}
	id := sha256.Sum256(payload)
	at := Attestation(about)
	at.AttestationId, at.PredicateType, at.LogIndex = hex.EncodeToString(id[:]), predicateType, 0
	at.Subjects = []*assayv1.Subject{{Name: name, Digest: about.GetDigest(), Origin: about.GetOrigin()}}
	at.CreateTime = timestamppb.New(time.Unix(integratedTime, 0))
	at.Bundle = s.bundle(payload)
	return at
}

func (s *Signer) bundle(payload []byte) []byte {
	pae := sha256.Sum256(attest.PAE(attest.PayloadTypeInToto, payload))
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, pae[:])
	if err != nil {
		panic(err)
	}
	body := tlog.EntryBodyHashedRekord002(pae, sig, spkiOf(s.key))
	leaf := tlog.LeafHash(body)
	log, err := tlog.NewKey(logHost, s.log.Public())
	if err != nil {
		panic(err)
	}
	checkpoint, err := log.SignCheckpoint(context.Background(), tlog.RekorV2, 1, leaf[:], logSigner{s.log})
	if err != nil {
		panic(err)
	}
	kind, version := tlog.RekorV2.KindVersion()
	bundle, err := attest.MarshalBundle(&attest.BundleParts{
		PublicKeyHint: "key",
		Envelope: &attest.Envelope{
			PayloadType: attest.PayloadTypeInToto, Payload: payload, Signatures: []attest.Signature{{KeyID: "key", Sig: sig}},
		},
		LogEntry: attest.LogEntry{
			LogID: log.LogID, Kind: kind, Version: version, RootHash: leaf[:], TreeSize: 1, Checkpoint: checkpoint, CanonicalizedBody: body,
		},
	})
	if err != nil {
		panic(err)
	}
	return bundle
}

type logSigner struct{ key *ecdsa.PrivateKey }

func (l logSigner) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, l.key, digest)
}

func (l logSigner) Public() crypto.PublicKey { return l.key.Public() }

// ReceiveEvidence takes a whole upload of evidence.
func ReceiveEvidence(stream assayv1.AttestationService_UploadEvidenceServer) (*assayv1.EvidenceHeader, string, error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, "", err
	}
	if first.GetHeader() == nil {
		return nil, "", errors.New("no header")
	}
	var document []byte
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return first.GetHeader(), string(document), nil
		}
		if err != nil {
			return nil, "", err
		}
		if len(req.GetChunk()) > 1<<20 {
			return nil, "", fmt.Errorf("a chunk of %d bytes", len(req.GetChunk()))
		}
		document = append(document, req.GetChunk()...)
	}
}

// SBOMs makes a server list and return attestations, the newest first, as its store would:
// by the digest and the predicate type that the filter of a list names.
func (s *Server) SBOMs(all ...*assayv1.Attestation) {
	s.OnListAttestations = func(_ context.Context, req *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
		resp := &assayv1.ListAttestationsResponse{}
		for _, at := range all {
			want := fmt.Sprintf("subject.digest = %q AND predicate_type = %q", "sha256:"+at.GetSubjects()[0].GetDigest()["sha256"], at.GetPredicateType())
			if req.GetFilter() == want {
				resp.Attestations = append(resp.Attestations, &assayv1.Attestation{
					AttestationId: at.GetAttestationId(), PredicateType: at.GetPredicateType(), Subjects: at.GetSubjects(), CreateTime: at.GetCreateTime(),
				})
			}
		}
		return resp, nil
	}
	s.OnGetAttestation = func(_ context.Context, req *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
		for _, at := range all {
			if at.GetAttestationId() == req.GetAttestationId() {
				return &assayv1.GetAttestationResponse{Attestation: at}, nil
			}
		}
		return nil, Refuse(codes.NotFound, "NOT_FOUND", "no such attestation")
	}
}
