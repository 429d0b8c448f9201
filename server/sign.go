package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/verify"
)

// signed is an envelope with all that belongs to it but its place in the log.
type signed struct {
	env *attest.Envelope
	// certificate is of the key that signed, and precertificate its entry in the log;
	// nil where the envelope names a key of the keyset.
	certificate, precertificate []byte
	// public is the key that signed, nil where it has not been looked for yet.
	public    crypto.PublicKey
	promised  *certified
	timestamp []byte
	detached  []store.Detached
}

// sign makes everything that does not depend on the log.
func (s *sealer) sign(ctx context.Context, k *keys, caller *identity.Caller, id string, payload []byte, record *store.Attestation) (*store.Pending, *signed, error) {
	what, err := s.envelope(ctx, k, payload, whose(k, caller, record))
	if err != nil {
		return nil, nil, err
	}
	if err := s.signBeside(ctx, k, what, record.PredicateType); err != nil {
		return nil, nil, err
	}
	body, err := s.entryBody(k, what)
	if err != nil {
		return nil, nil, err
	}
	leaf := tlog.LeafHash(body)
	record.ID = id
	record.CreatedAt = s.now()
	record.Detached = what.detached
	return &store.Pending{
		ID:            id,
		Envelope:      what.env.Marshal(),
		LogBody:       body,
		LeafHash:      leaf[:],
		Timestamp:     what.timestamp,
		Certificate:   what.certificate,
		Log:           s.log.LogID(),
		LogSizeBefore: s.log.Size(),
		Record:        record,
		CreatedAt:     record.CreatedAt,
	}, what, nil
}

// whose says for whom an attestation is signed: who made it, by their own credential.
func whose(k *keys, caller *identity.Caller, record *store.Attestation) subjectOf {
	switch {
	case k.certificates:
		return subjectOf{tier: tierOf(caller, record), identity: workloadIdentity(caller)}
	case k.tiers:
		return subjectOf{tier: tierOf(caller, record)}
	}
	return subjectOf{} // one key signs for everybody
}

// envelope signs a payload and has the signature timestamped.
func (s *sealer) envelope(ctx context.Context, k *keys, payload []byte, who subjectOf) (*signed, error) {
	if k.certificates {
		a, err := k.authority(who.tier)
		if err != nil {
			return nil, err
		}
		leaf, err := a.Issue(ctx, who.identity)
		if err != nil {
			return nil, err
		}
		what, err := s.signUnder(ctx, k, payload, leaf)
		if err == nil {
			what.precertificate = leaf.LogEntry()
		}
		return what, err
	}
	signer := k.set.Signer(signing.RoleAttestation, who.tier)
	// The key's name in a bundle: the publicKey hint and the keyid of the signature,
	// which must be the same. The form is go-securesystemslib's: cosign and sigstore-go
	// skip a signature whose keyid has any other.
	hint, err := verify.Fingerprint(signer.Public())
	if err != nil {
		return nil, err
	}
	return s.signWith(ctx, k, payload, signer, hint)
}

// signUnder signs with a key that a certificate is for. The signature names no key: the
// bundle has the certificate.
func (s *sealer) signUnder(ctx context.Context, k *keys, payload []byte, leaf *ca.Leaf) (*signed, error) {
	what, err := s.signWith(ctx, k, payload, leaf, "")
	if err == nil {
		what.certificate = leaf.Raw
	}
	return what, err
}

// digestSigner is a key of the keyset, or one that a certificate is for.
type digestSigner interface {
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	Public() crypto.PublicKey
}

func (s *sealer) signWith(ctx context.Context, k *keys, payload []byte, signer digestSigner, keyID string) (*signed, error) {
	digest, err := paeDigest(signer.Public(), attest.PayloadTypeInToto, payload)
	if err != nil {
		return nil, err
	}
	sig, err := signer.Sign(ctx, digest)
	if err != nil {
		return nil, err
	}
	ts, err := k.timestamps.Timestamp(ctx, sig)
	if err != nil {
		return nil, err
	}
	env := &attest.Envelope{
		PayloadType: attest.PayloadTypeInToto,
		Payload:     payload,
		Signatures:  []attest.Signature{{KeyID: keyID, Sig: sig}},
	}
	return &signed{env: env, public: signer.Public(), timestamp: ts}, nil
}

// signBeside makes the signatures that stand beside the bundle. They are there before
// anything is durable: an attestation has all of them or there is none.
func (s *sealer) signBeside(ctx context.Context, k *keys, what *signed, predicateType string) error {
	if co := k.set.CoSigner(); co != nil {
		sig, err := co.SignMessage(ctx, attest.PAE(what.env.PayloadType, what.env.Payload))
		if err != nil {
			return err
		}
		what.detached = append(what.detached, store.Detached{Kind: verify.AlgorithmMLDSA65, KeyID: co.KeyID(), Signature: sig})
	}
	if s.notary != nil {
		jws, err := s.notary.Sign(ctx, what.env.Marshal(), predicateType)
		if err != nil {
			return err
		}
		what.detached = append(what.detached, store.Detached{Kind: notary.MediaTypeSignature, Signature: jws})
	}
	return nil
}

// entryBody is the log entry of an envelope, in the log's format of now and with the
// key or certificate that signed it.
func (s *sealer) entryBody(k *keys, what *signed) ([]byte, error) {
	sig := what.env.Signatures[0]
	var key publicKey
	if what.certificate != nil {
		if what.public == nil {
			leaf, err := x509.ParseCertificate(what.certificate)
			if err != nil {
				return nil, err
			}
			what.public = leaf.PublicKey
		}
		key = publicKey{pem: certificatePEM(what.certificate), public: what.public}
	} else if known, ok := k.byHint[sig.KeyID]; ok {
		key = known
	} else {
		return nil, fmt.Errorf("the keyset has no attestation key %.80q", sig.KeyID)
	}
	if s.format == tlog.RekorV2 {
		digest, err := paeDigest(key.public, what.env.PayloadType, what.env.Payload)
		if err != nil {
			return nil, err
		}
		return tlog.EntryBodyHashedRekord(tlog.HashedRekord{Digest: digest, Sig: sig.Sig, Public: key.public, Certificate: what.certificate})
	}
	return tlog.EntryBodyDSSE001(tlog.DSSE{
		PayloadType: what.env.PayloadType, Payload: what.env.Payload, KeyID: sig.KeyID, Sig: sig.Sig,
	}, key.pem), nil
}

// beside is what the log is handed together with an envelope's entry.
func beside(precertificate []byte) [][]byte {
	if precertificate == nil {
		return nil
	}
	return [][]byte{precertificate}
}

// formatOf tells the format of a body that entryBody made, now or in another life.
func formatOf(body []byte) (tlog.EntryFormat, error) {
	for _, f := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		kind, version := f.KindVersion()
		if bytes.HasPrefix(body, []byte(`{"apiVersion":"`+version+`","kind":"`+kind+`",`)) {
			return f, nil
		}
	}
	return "", fmt.Errorf("log entry of no known format: %.60q", body)
}

// check verifies a bundle of ours as evidence, with what stands beside it.
func (k *keys) check(bundle []byte, detached []store.Detached) error {
	_, err := k.verifier.VerifyOwn(bundle, coSignatures(detached)...)
	return err
}

// coSignatures are those of the detached signatures that verify looks at.
func coSignatures(detached []store.Detached) []verify.Detached {
	var out []verify.Detached
	for _, d := range detached {
		if d.Kind != notary.MediaTypeSignature {
			out = append(out, verify.Detached{Algorithm: d.Kind, KeyID: d.KeyID, Signature: d.Signature})
		}
	}
	return out
}
