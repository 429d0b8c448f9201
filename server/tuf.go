package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tufrepo"
)

// TrustFiles are what verifiers are to hear of the keys of a configuration, as files of
// the TUF repository. The service publishes the same where it has the key for that.
func TrustFiles(ctx context.Context, cfg *Config) (map[string][]byte, error) {
	set, err := signing.OpenKeyset(ctx, cfg.path("keys"), cfg.keysetConfig(false, KeyOpeners(cfg)))
	if err != nil {
		return nil, err
	}
	external, err := cfg.externalTSA()
	if err != nil {
		return nil, err
	}
	root, err := set.TrustedRoot(external...)
	if err != nil {
		return nil, err
	}
	document, err := set.KeysDocument()
	if err != nil {
		return nil, err
	}
	return trustFiles(root, document, set.AttestationKeysPEM()), nil
}

// keysTarget is the file that says which keys are revoked.
const keysTarget = "keys.json"

func trustFiles(root, document []byte, pem string) map[string][]byte {
	return map[string][]byte{"trusted_root.json": root, keysTarget: document, "attestation_keys.pem": []byte(pem)}
}

// distributor keeps what the TUF repository offers in step with the keys. There is one
// as soon as `assayd tuf init` has made a repository, also while the service runs.
type distributor struct {
	cfg     *Config
	ring    *keyring
	openers signing.Openers
	metrics *metrics
	repo    atomic.Pointer[tufrepo.Repository]
	kick    chan struct{} // capacity 1: the keys have changed
	told    uint64        // the epoch that was said to be unpublished
	// doubted is since when there is a reason not to vouch for what is published, zero where
	// there is none.
	doubted time.Time
}

// vouchGrace is how long the service goes on vouching for what it has a reason not to
// vouch for: time to publish, and not for a day's delay.
const vouchGrace = time.Hour

func newDistributor(cfg *Config, ring *keyring, openers signing.Openers, m *metrics) *distributor {
	return &distributor{cfg: cfg, ring: ring, openers: openers, metrics: m, kick: make(chan struct{}, 1)}
}

// changed has the repository brought in step soon.
func (d *distributor) changed() {
	select {
	case d.kick <- struct{}{}:
	default: // it will be
	}
}

// tend opens the repository if there is one by now, signs what is about to expire, and
// publishes what has changed. It is not called twice at a time.
//
// A failure leaves what was published: verifiers do not hear of the newest key for a
// while, and refuse what it signed, which is the safe side. Where they do not hear of a
// revocation it is not, so the timestamp is not signed anew then: within a day they
// believe nothing, where they would believe the revoked key for as long as the targets
// are good.
func (d *distributor) tend(ctx context.Context) error {
	repo, err := d.open(ctx)
	if repo == nil || err != nil {
		return err
	}
	k, err := d.ring.now(ctx)
	var files map[string][]byte
	if err == nil {
		files = trustFiles(k.trustedRoot, k.document, k.set.AttestationKeysPEM())
		if d.cfg.TUF.TargetsKey != "" {
			_, err = repo.Publish(ctx, files)
		}
	}
	vouched := d.vouches(ctx, repo, files)
	if !vouched {
		// Another process may have published what this one could not.
		err = errors.Join(err, repo.Reload(ctx))
		vouched = d.vouches(ctx, repo, files)
	}
	if vouched {
		err = errors.Join(err, repo.Refresh(ctx))
	} else {
		err = errors.Join(err, errors.New("the TUF timestamp is not signed anew: since "+d.doubted.UTC().Format(time.RFC3339)+
			" verifiers could not be told of a revocation; run assayd tuf publish with the targets key"))
	}
	behind := files == nil || !repo.Same(files)
	d.metrics.trustBehind(behind)
	if behind && files != nil && d.cfg.TUF.TargetsKey == "" && d.told <= k.epoch {
		d.told = k.epoch + 1
		d.cfg.Logger.WarnContext(ctx, "the TUF repository does not offer the keys of now: run assayd tuf publish with the targets key")
	}
	return err
}

// vouches reports whether the service may go on saying that what is published is the
// newest: not where verifiers believe a key by it that is revoked, nor where nobody can
// tell because the keyset cannot be read, for longer than vouchGrace. files are those of
// the keyset, nil where it cannot be read.
func (d *distributor) vouches(ctx context.Context, repo *tufrepo.Repository, files map[string][]byte) bool {
	reason := "the keyset cannot be read"
	if files != nil {
		reason = unheard(repo.File(keysTarget), files[keysTarget])
	}
	if reason == "" {
		d.doubted = time.Time{}
		return true
	}
	now := d.cfg.Now()
	if d.doubted.IsZero() || now.Before(d.doubted) { // the clock may have gone back
		d.doubted = now
		d.cfg.Logger.ErrorContext(ctx, "what the TUF repository offers may not be believed, and in an hour the service stops vouching for it", "reason", reason)
	}
	return now.Sub(d.doubted) < vouchGrace
}

// unheard says which revocation of the keys document of now verifiers do not hear of by
// the published one, empty if there is none. A revocation can be made graver or earlier:
// that counts as one. A key that is not published is not believed.
func unheard(published, now []byte) string {
	current, err := documentKeys(now)
	if err != nil {
		return "the keys document of now: " + err.Error()
	}
	known, err := documentKeys(published)
	for id, key := range current {
		if key.Revoked == nil {
			continue
		}
		if err != nil {
			return "key " + id + " is revoked, and the published keys document cannot be read: " + err.Error()
		}
		old, ok := known[id]
		if ok && (old.Revoked == nil || old.Revoked.Reason != key.Revoked.Reason || !old.Revoked.Since.Equal(key.Revoked.Since)) {
			return "key " + id + " is revoked, and verifiers do not hear of it"
		}
	}
	return ""
}

// documentKeys are the keys of a keys document by their ids.
func documentKeys(document []byte) (map[string]signing.DocumentKey, error) {
	var doc struct {
		Keys []signing.DocumentKey `json:"keys"`
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	keys := make(map[string]signing.DocumentKey, len(doc.Keys))
	for _, key := range doc.Keys {
		keys[key.KeyID] = key
	}
	return keys, nil
}

// open returns the repository, nil where there is none.
func (d *distributor) open(ctx context.Context) (*tufrepo.Repository, error) {
	if repo := d.repo.Load(); repo != nil {
		return repo, nil
	}
	dir := d.cfg.path("tuf")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var signer tufrepo.Signer
	if ref := d.cfg.TUF.TargetsKey; ref != "" {
		var err error
		if signer, err = openReference(ctx, d.openers, ref); err != nil {
			return nil, err
		}
	}
	repo, err := tufrepo.Open(tufrepo.Config{Dir: dir, Now: d.cfg.Now, Logger: d.cfg.Logger, TargetsSigner: signer})
	if err != nil {
		return nil, err
	}
	d.repo.Store(repo)
	return repo, nil
}

// openReference opens a key that is not of the keyset.
func openReference(ctx context.Context, openers signing.Openers, ref string) (signing.Signer, error) {
	if !strings.HasPrefix(ref, "awskms:") {
		return signing.Open(ctx, ref, false)
	}
	r, err := openers.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(r.SPKI)
	if err != nil {
		return nil, err
	}
	return openers.KMS(r.ARN, public)
}

// ServeHTTP serves the repository, not found where there is none.
func (d *distributor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if repo := d.repo.Load(); repo != nil {
		repo.Handler().ServeHTTP(w, r)
		return
	}
	http.NotFound(w, r)
}
