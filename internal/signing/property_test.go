package signing_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/verify"
)

// signature is something that a key did, of which the future has to think as the
// states of the key demand.
type signature struct {
	key string
	at  time.Time
}

// model is a keyset under random changes, and what was signed on the way.
type model struct {
	*lab
	promised map[signature]bool // what verifiers must go on believing
}

// TestRandomChanges makes sequences of changes, sensible and not, under a clock that
// goes on. After each, whatever it was, the keyset opens; verifiers can read what it
// publishes; nobody signs who may not; and what was signed is believed exactly as long
// as no revocation says otherwise.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		l := newLab(t, false)
		l.t = t
		m := &model{lab: l, promised: map[signature]bool{}}
		for range rapid.IntRange(4, 25).Draw(r, "steps") {
			l.at = l.at.Add(time.Duration(rapid.IntRange(0, 7200).Draw(r, "seconds")) * time.Second)
			m.step(r)
			m.check(r)
		}
	})
}

func (m *model) step(r *rapid.T) {
	role := rapid.SampledFrom(signing.Roles()).Draw(r, "role")
	tier := signing.TierDefault
	if role == signing.RoleAttestation || role == signing.RoleCA {
		tier = rapid.SampledFrom(signing.Tiers()).Draw(r, "tier")
	}
	entries := m.entries()
	id := rapid.SampledFrom(entries).Draw(r, "key").KeyID
	when := m.second().Add(time.Duration(rapid.IntRange(-4000, 4000).Draw(r, "when")) * time.Second)
	var c signing.Change
	switch rapid.IntRange(0, 3).Draw(r, "change") {
	case 0:
		c = signing.AddKey{Role: role, Tier: tier, Next: rapid.IntRange(0, 1).Draw(r, "next") == 1}
	case 1:
		c = signing.RotateKey{Role: role, Tier: tier, Overlap: time.Duration(rapid.IntRange(0, 3600).Draw(r, "overlap")) * time.Second}
	case 2:
		c = signing.RetireKey{KeyID: id, At: when}
	case 3:
		c = signing.RevokeKey{KeyID: id, Since: when, Reason: rapid.SampledFrom(signing.Reasons()).Draw(r, "reason"), Rotate: rapid.IntRange(0, 1).Draw(r, "rotate") == 1}
	}
	before := m.text()
	err := m.try(c)
	switch refusal.CodeOf(err) {
	case "":
		if err != nil {
			r.Fatalf("%+v: %v", c, err)
		}
	case signing.CodeKeyChangeInvalid, signing.CodeKeyInUse, signing.CodeKeyNotFound:
		if m.text() != before {
			r.Fatalf("%+v was refused and changed something", c)
		}
		return
	default:
		r.Fatalf("%+v: %v", c, err)
	}
	if revoke, ok := c.(signing.RevokeKey); ok {
		for s := range m.promised {
			if s.key == revoke.KeyID && (revoke.Reason == signing.ReasonUnspecified || s.at.After(revoke.Since) ||
				revoke.Reason == signing.ReasonKeyCompromise && !s.at.Before(revoke.Since)) {
				m.promised[s] = false
			}
		}
	}
}

func (m *model) check(r *rapid.T) {
	cfg := m.config()
	ks, err := signing.OpenKeyset(context.Background(), m.dir, cfg)
	if err != nil {
		r.Fatalf("%v\n%s", err, m.text())
	}
	root, err := ks.TrustedRoot()
	if err != nil {
		r.Fatal(err)
	}
	var keys []verify.PublicKey
	for _, k := range ks.VerifierKeys() {
		keys = append(keys, verify.PublicKey{PEM: k.PEM, PSS: k.PSS, NotBefore: k.NotBefore, NotAfter: k.NotAfter, RevokedSince: k.RevokedSince})
	}
	if _, err := verify.NewRoot(root, keys...); err != nil {
		r.Fatalf("%v\n%s", err, root)
	}
	if _, err := ks.KeysDocument(); err != nil {
		r.Fatal(err)
	}
	m.checkCounts(r, ks)
	m.checkPast(r, ks)
	m.sign(r, ks)
}

// checkCounts holds the keyset against what is true of all of them.
func (m *model) checkCounts(r *rapid.T, ks *signing.Keyset) {
	count := map[string]int{}
	for _, e := range m.entries() {
		count[fmt.Sprintf("%s/%s %s", e.Role, e.Tier, e.State)]++
		if (e.State == signing.StateActive || e.State == signing.StateNext) != e.NotAfter.IsZero() || (e.State == signing.StateRevoked) != (e.Revoked != nil) {
			r.Fatalf("%+v", e)
		}
		if e.NotBefore.After(m.at) {
			r.Fatalf("key of the future: %+v", e)
		}
	}
	for what, n := range count {
		if n > 1 && (strings.HasSuffix(what, " active") || strings.HasSuffix(what, " next")) {
			r.Fatalf("%d keys are %s", n, what)
		}
	}
	for _, must := range []string{"attestation/ active", "log/ active", "timestamp/ active"} {
		if count[must] != 1 {
			r.Fatalf("%d keys are %s", count[must], must)
		}
	}
	shards := ks.LogShards()
	for i, s := range shards {
		if s.Active != (i == len(shards)-1) {
			r.Fatalf("shards: %+v", shards)
		}
	}
}

// checkPast holds the windows against everything that was signed.
func (m *model) checkPast(r *rapid.T, ks *signing.Keyset) {
	for s, good := range m.promised {
		k := verifierKey(ks, s.key)
		inside := k.KeyID != "" && !s.at.Before(k.NotBefore) && (k.NotAfter.IsZero() || !s.at.After(k.NotAfter)) && (k.RevokedSince.IsZero() || s.at.Before(k.RevokedSince))
		if inside != good {
			r.Fatalf("signed at %s by %s: believed %t, want %t: %+v", s.at, s.key, inside, good, k)
		}
	}
}

// sign has everybody sign who may, and one intermediate be made.
func (m *model) sign(r *rapid.T, ks *signing.Keyset) {
	for _, tier := range signing.Tiers() {
		s := ks.Signer(signing.RoleAttestation, tier)
		if _, err := s.Sign(context.Background(), make([]byte, 32)); err != nil {
			r.Fatal(err)
		}
		m.promised[signature{s.KeyID(), m.second()}] = true
	}
	if s := ks.CoSigner(); s != nil {
		m.promised[signature{s.KeyID(), m.second()}] = true
	}
	if root, signer, ok := ks.CA(""); ok {
		a, err := ca.New(ca.Config{Root: root, Signer: signer, Organization: "Example", Host: host, Now: m.now, Publish: ks.AddIntermediate, Log: ks.LogSigner()})
		if err != nil {
			r.Fatal(err)
		}
		if _, err := a.Issue(context.Background(), ca.Identity{URI: "https://example.com/w", Issuer: "https://issuer.example.com"}); err != nil {
			r.Fatal(err)
		}
	}
	if _, err := ks.TSA().Timestamp(context.Background(), []byte("signature")); err != nil {
		r.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(m.dir, "*.pem"))
	if err != nil {
		r.Fatal(err)
	}
	var named int
	for _, e := range m.entries() {
		if strings.HasPrefix(e.Ref, "file:") && slices.Contains(files, filepath.Join(m.dir, strings.TrimPrefix(e.Ref, "file:"))) {
			named++
		}
	}
	if named != len(files) {
		r.Fatalf("%d key files, %d are of the keyset's keys", len(files), named)
	}
}
