package server

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/verify"
)

// CodeLogKeyChanged refuses to go on with a keyset whose log key is not that of the log
// that is open: a log is rotated while the service is stopped.
const CodeLogKeyChanged refusal.Code = "LOG_KEY_CHANGED"

// timestamper dates signatures: the instance's own authority, or another's.
type timestamper interface {
	// Timestamp returns a DER TimeStampResp over sig.
	Timestamp(ctx context.Context, sig []byte) ([]byte, error)
}

// keys is one state of the keyset: what is signed with, and what is believed. It does not
// change.
type keys struct {
	set *signing.Keyset
	// epoch tells states apart. What was verified in one is verified again in the next.
	epoch       uint64
	verifier    *verify.Verifier
	root        *verify.Root
	trustedRoot []byte
	document    []byte // keys.json
	// byHint are the public keys that sign envelopes, by their name in a bundle.
	byHint map[string]publicKey
	// certificates says that attestations are signed under certificates, which
	// authorities issue, by tier. A tier's may be missing, and even all.
	certificates bool
	authorities  map[signing.Tier]*ca.Authority
	timestamps   timestamper
	// tiers says that some tier has an attestation key of its own.
	tiers bool
}

// publicKey is an attestation key in the forms that log entries carry it in.
type publicKey struct {
	pem    []byte
	public crypto.PublicKey
}

// keyring follows the keyset on disk. Every question to it looks whether keyset.json is
// another file than the one that was read, which costs one stat: a revocation that
// `assayd keys revoke` acknowledged is not followed by an answer that has not seen it. A
// keyset that cannot be read is an error and not the one before.
type keyring struct {
	cfg    *Config
	open   func(ctx context.Context) (*signing.Keyset, error)
	logKey string      // id of the open log's key
	tsa    timestamper // nil for the embedded authority
	// external are the authorities of others whose timestamps are believed.
	external []signing.ExternalTSA
	logger   *slog.Logger

	current atomic.Pointer[keys]
	loading sync.Mutex
	// issuers are the certificate authorities by the id of their key, kept from state to
	// state: the keys of their intermediates are nowhere else. Guarded by loading.
	issuers map[string]*ca.Authority
	changed func() // told of each state after the first, while loading is held
}

// now returns the keys of this moment.
func (r *keyring) now(ctx context.Context) (*keys, error) {
	k := r.current.Load()
	if !k.stale() {
		return k, nil
	}
	r.loading.Lock()
	defer r.loading.Unlock()
	if k = r.current.Load(); !k.stale() {
		return k, nil // somebody else was faster
	}
	if err := r.load(ctx); err != nil {
		r.logger.ErrorContext(ctx, "the keyset has changed and cannot be used", "error", err.Error())
		return nil, err
	}
	k = r.current.Load()
	r.logger.InfoContext(ctx, "the keyset has changed", "attestation_key", k.set.KeyOf(signing.RoleAttestation, "").KeyID, "epoch", k.epoch)
	return k, nil
}

// isCurrent says whether the keys of an epoch are still those of now.
func (r *keyring) isCurrent(epoch uint64) bool {
	k := r.current.Load()
	return k.epoch == epoch && !k.stale()
}

// stale says whether keyset.json is another file by now, or none that can be looked at:
// reading it says why.
func (k *keys) stale() bool {
	stale, err := k.set.Stale()
	return stale || err != nil
}

// load reads the keyset and makes it the current one. The caller holds loading, or is
// alone.
func (r *keyring) load(ctx context.Context) error {
	set, err := r.open(ctx)
	if err != nil {
		return err
	}
	if id := set.KeyOf(signing.RoleLog, "").KeyID; r.logKey != "" && id != r.logKey {
		return refusal.New(CodeLogKeyChanged, "the keyset's log key is %s and the open log's is %s; start the service again", id, r.logKey)
	}
	return r.adopt(set)
}

func (r *keyring) adopt(set *signing.Keyset) error {
	k := &keys{set: set, byHint: make(map[string]publicKey), authorities: make(map[signing.Tier]*ca.Authority), timestamps: r.tsa}
	if old := r.current.Load(); old != nil {
		k.epoch = old.epoch + 1
	}
	if k.timestamps == nil {
		k.timestamps = set.TSA()
	}
	var err error
	if k.trustedRoot, err = set.TrustedRoot(r.external...); err != nil {
		return err
	}
	if k.document, err = set.KeysDocument(); err != nil {
		return err
	}
	if k.root, err = verify.NewRoot(k.trustedRoot, trustedKeys(set)...); err != nil {
		return err
	}
	k.verifier = verify.New(k.root)
	for _, e := range set.Entries(signing.RoleAttestation) {
		hint, err := verify.Fingerprint(e.Public)
		if err != nil {
			return err
		}
		k.byHint[hint] = publicKey{pem: e.PEM(), public: e.Public}
		k.tiers = k.tiers || e.State == signing.StateActive && e.Tier != signing.TierDefault
	}
	if r.cfg.Keys.Mode == KeysModeCertificate {
		k.certificates = true
		if err := r.issue(k); err != nil {
			return err
		}
	}
	r.current.Store(k)
	if r.changed != nil && k.epoch > 0 {
		r.changed()
	}
	return nil
}

// issue finds or makes the authority of each tier that has one.
func (r *keyring) issue(k *keys) error {
	for _, tier := range signing.Tiers() {
		entry := k.set.KeyOf(signing.RoleCA, tier)
		if entry == nil || entry.Tier != tier {
			continue
		}
		if a := r.issuers[entry.KeyID]; a != nil {
			k.authorities[tier] = a
			continue
		}
		root, signer, _ := k.set.CA(tier)
		a, err := ca.New(ca.Config{
			Root: root, Signer: signer, Organization: organizationOf(root), Host: r.cfg.host(),
			Lifetime: r.cfg.Keys.IntermediateLifetime, Backdate: r.backdate(), Now: r.cfg.Now, Logger: r.logger,
			Publish: r.publish, Log: k.set.LogSigner(),
		})
		if err != nil {
			return err
		}
		r.issuers[entry.KeyID], k.authorities[tier] = a, a
	}
	return nil
}

// backdate is how far validities begin before now: the clock of an authority of others
// may be as far behind.
func (r *keyring) backdate() time.Duration {
	if r.tsa == nil {
		return 0
	}
	return time.Minute
}

// organizationOf is the one that a root names, whatever the configuration says by now:
// gh compares it with that of the certificates below.
func organizationOf(root *x509.Certificate) string {
	if o := root.Subject.Organization; len(o) > 0 {
		return o[0]
	}
	return ""
}

// publish makes an intermediate part of what is believed before it issues anything. It is
// durable when it returns. A crash after that leaves a certificate whose key is nowhere.
func (r *keyring) publish(ctx context.Context, cert *x509.Certificate) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	set := r.current.Load().set
	err := set.AddIntermediate(ctx, cert)
	if refusal.CodeOf(err) == signing.CodeIntermediateInvalid { // the ca key was replaced while it signed
		return refusal.New(ca.CodeNoIntermediate, "it is not published: %w", err)
	}
	if err != nil {
		return err
	}
	return r.adopt(set)
}

// prepare makes intermediates ahead of their time, so that no attestation waits for one
// and verifiers have time to hear of it.
func (r *keyring) prepare(ctx context.Context) error {
	k, err := r.now(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range k.authorities {
		errs = append(errs, a.Prepare(ctx))
	}
	return errors.Join(errs...)
}
