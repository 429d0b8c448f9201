package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"time"

	"filippo.io/mldsa"
	"github.com/go-json-experiment/json"
)

// DocumentKey is one key in KeysDocument.
type DocumentKey struct {
	Role      Role        `json:"role"`
	Tier      Tier        `json:"tier,omitzero"`
	KeyID     string      `json:"keyId"`
	State     State       `json:"state"`
	NotBefore time.Time   `json:"notBefore"`
	NotAfter  time.Time   `json:"notAfter,omitzero"`
	Revoked   *Revocation `json:"revoked,omitzero"`
	// Algorithm is "ECDSA_P256_SHA256", "ECDSA_P384_SHA384", "RSA_PSS_SHA256" or "ML_DSA_65".
	Algorithm string `json:"algorithm"`
	PublicKey string `json:"publicKey"` // base64 of the DER SubjectPublicKeyInfo
}

// KeysDocument returns what verifiers may know of all keys, with the states and times
// for which a trusted root has no place: one line of JSON and a newline,
//
//	{"version":1,"host":"assay.example.com","keys":[{"role":"attestation","keyId":"…",…}]}
//
// It does not say where private keys are. The same keyset always gives the same bytes.
func (k *Keyset) KeysDocument() ([]byte, error) {
	doc := struct {
		Version int           `json:"version"`
		Host    string        `json:"host"`
		Keys    []DocumentKey `json:"keys"`
	}{Version: 1, Host: k.Host}
	for _, role := range Roles() {
		for _, e := range k.entries[role] {
			doc.Keys = append(doc.Keys, DocumentKey{
				Role: e.Role, Tier: e.Tier, KeyID: e.KeyID, State: e.State, NotBefore: e.NotBefore, NotAfter: e.NotAfter,
				Revoked: e.Revoked, Algorithm: algorithm(e.Public), PublicKey: base64.StdEncoding.EncodeToString(e.spki),
			})
		}
	}
	text, err := json.Marshal(doc, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode keys: %w", err)
	}
	return append(text, '\n'), nil
}

// algorithm names what a public key's signatures are.
func algorithm(pub crypto.PublicKey) string {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P384() {
			return "ECDSA_P384_SHA384"
		}
		return "ECDSA_P256_SHA256"
	case *rsa.PublicKey:
		return "RSA_PSS_SHA256"
	case *mldsa.PublicKey:
		return "ML_DSA_65"
	}
	return ""
}
