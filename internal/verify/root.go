package verify

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/hex"
	"net/url"
	"time"

	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	sgroot "github.com/sigstore/sigstore-go/pkg/root"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeTrustedRootInvalid refuses a trusted root that cannot be read whole.
	CodeTrustedRootInvalid refusal.Code = "TRUSTED_ROOT_INVALID"
	// CodeTrustedRootValidityMissing refuses a trusted root with a log key whose
	// validity has no start: a missing bound is not an open one.
	CodeTrustedRootValidityMissing refusal.Code = "TRUSTED_ROOT_VALIDITY_MISSING"

	// A root that lists an intermediate for each hour of several years fits.
	maxTrustedRootBytes = 64 << 20
)

// Root is all that a Verifier believes before it sees a bundle: logs, certificate
// and timestamp authorities, and named keys. It does not change after NewRoot.
type Root struct {
	sigstore    *sgroot.TrustedRoot
	keys        map[string]*trustedKey // by id and by Fingerprint
	coKeys      map[string]*coKey      // by id; of co-signatures, which are no signers of bundles
	logs        map[string]*logKey     // by raw log id
	ctlogs      map[string]*logKey     // by raw log id
	authorities map[string][]*authority
	tsas        []*ownTSA
}

// logKey is what the lean path keeps of one transparency log, or of one shard of it: a
// log whose key was replaced is listed once for each key, under one base URL.
//
// Its window is judged as sigstore-go judges it: against every time that the key itself
// signed, which are the integrated time of a promise (rekor-v1) and the time of an SCT.
// A checkpoint says no time, so of a rekor-v2 entry the window says nothing, and an
// entry in a shard that has ended stands as long as the shard is listed. The end is
// therefore the last moment for which the key's word on time is taken; to disbelieve a
// stolen key altogether it must be taken off the list.
type logKey struct {
	id    []byte
	idHex string
	host  string
	key   crypto.PublicKey
	ecdsa *ecdsa.PublicKey // set if P-256
	start time.Time
	end   time.Time
}

// NewRoot reads a Sigstore TrustedRoot document and the keys trusted beside it.
func NewRoot(trustedRootJSON []byte, keys ...PublicKey) (*Root, error) {
	if err := attest.CheckJSON(trustedRootJSON, maxTrustedRootBytes); err != nil {
		return nil, refusal.New(CodeTrustedRootInvalid, "%v", err)
	}
	pb, err := sgroot.NewTrustedRootProtobuf(trustedRootJSON)
	if err != nil {
		return nil, refusal.New(CodeTrustedRootInvalid, "%w", err)
	}
	for _, logs := range [][]*prototrustroot.TransparencyLogInstance{pb.GetTlogs(), pb.GetCtlogs()} {
		if err := checkLogInstances(logs); err != nil {
			return nil, err
		}
	}
	tr, err := sgroot.NewTrustedRootFromProtobuf(pb)
	if err != nil {
		return nil, refusal.New(CodeTrustedRootInvalid, "%w", err)
	}
	r := &Root{sigstore: tr, keys: make(map[string]*trustedKey, len(keys)), coKeys: make(map[string]*coKey),
		authorities: newAuthorities(tr.FulcioCertificateAuthorities())}
	if r.logs, err = newLogKeys(tr.RekorLogs()); err != nil {
		return nil, err
	}
	if r.ctlogs, err = newLogKeys(tr.CTLogs()); err != nil {
		return nil, err
	}
	for i, ta := range tr.TimestampingAuthorities() {
		if own := newOwnTSA(ta, i); own != nil {
			r.tsas = append(r.tsas, own)
		}
	}
	for _, pk := range keys {
		if err := r.addKey(pk); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// addKey takes a key that is trusted by name into the table of its kind.
func (r *Root) addKey(pk PublicKey) error {
	if co, err := pk.parseCoKey(); err != nil {
		return err
	} else if co != nil {
		if r.coKeys[co.id] != nil {
			return refusal.New(CodeKeyInvalid, "key %s is listed twice", co.id)
		}
		r.coKeys[co.id] = co
		return nil
	}
	k, err := pk.parse()
	if err != nil {
		return err
	}
	if r.keys[k.id] != nil {
		return refusal.New(CodeKeyInvalid, "key %s is listed twice", k.id)
	}
	r.keys[k.id], r.keys[k.keyid] = k, k
	return nil
}

// checkLogInstances refuses what a lenient reader would take as "always valid" or
// silently overwrite: no start of validity, or two logs with one id.
func checkLogInstances(logs []*prototrustroot.TransparencyLogInstance) error {
	seen := make(map[string]bool, len(logs))
	for _, l := range logs {
		if l.GetPublicKey().GetValidFor().GetStart() == nil {
			return refusal.New(CodeTrustedRootValidityMissing, "log %s has no start of validity", l.GetBaseUrl())
		}
		id := string(l.GetLogId().GetKeyId())
		if seen[id] {
			return refusal.New(CodeTrustedRootInvalid, "log id %x is listed twice", id)
		}
		seen[id] = true
	}
	return nil
}

func newLogKeys(logs map[string]*sgroot.TransparencyLog) (map[string]*logKey, error) {
	keys := make(map[string]*logKey, len(logs))
	for _, l := range logs {
		k, err := newLogKey(l)
		if err != nil {
			return nil, err
		}
		keys[string(k.id)] = k
	}
	return keys, nil
}

func newLogKey(l *sgroot.TransparencyLog) (*logKey, error) {
	k := &logKey{
		id: l.ID, idHex: hex.EncodeToString(l.ID),
		key:   l.PublicKey,
		start: l.ValidityPeriodStart, end: l.ValidityPeriodEnd,
	}
	k.ecdsa, _ = ecdsaP256(l.PublicKey)
	if l.BaseURL != "" {
		u, err := url.Parse(l.BaseURL)
		if err != nil {
			return nil, refusal.New(CodeTrustedRootInvalid, "log base URL: %w", err)
		}
		k.host = u.Hostname()
	}
	return k, nil
}

// validAt says whether the log's key may sign at t. Both ends are inclusive.
func (k *logKey) validAt(t time.Time) bool {
	return !t.Before(k.start) && (k.end.IsZero() || !t.After(k.end))
}
