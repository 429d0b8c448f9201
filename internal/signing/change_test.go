package signing_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
)

// signs makes sure that what the keyset hands out signs as the key it says it is.
func signs(t *testing.T, ks *signing.Keyset, role signing.Role, tier signing.Tier, want string) {
	t.Helper()
	s, e := ks.Signer(role, tier), ks.KeyOf(role, tier)
	if s == nil || e == nil || s.KeyID() != want || e.KeyID != want {
		t.Fatalf("%s/%s: signer %v, entry %v, want key %s", role, tier, s, e, want)
	}
	hash, err := attest.SignatureHash(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, hash.Size())
	sig, err := s.Sign(t.Context(), digest)
	if err != nil || !attest.VerifySignature(e.Public, digest, sig) {
		t.Fatalf("%s/%s: %v", role, tier, err)
	}
}

// A key's way from being published to being revoked, and what is published at each step.
func TestAttestationKeyLife(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	first := l.active(signing.RoleAttestation, "")
	running := l.open(signing.Config{})
	l.at = l.at.Add(time.Hour)
	plan, err := l.plan(signing.AddKey{Role: signing.RoleAttestation})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, plan.Effects(), "new key in a file joins the verifier keys", "not signing yet")
	mentions(t, plan.Effects(), "Verifiers need the new verifier keys")
	mentions(t, plan.Effects(), "no restart")
	if stale, err := running.Stale(); stale || err != nil {
		t.Errorf("a plan made the keyset stale: %v", err)
	}
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := plan.NewKey()
	if next == nil || next.State != signing.StateNext || next.Ref != "file:attestation-2.pem" || !next.NotBefore.Equal(l.second()) {
		t.Fatalf("added: %+v", next)
	}
	if stale, err := running.Stale(); !stale || err != nil {
		t.Errorf("the keyset is not stale after a change: %v", err)
	}
	ks := l.open(signing.Config{})
	signs(t, ks, signing.RoleAttestation, "", first.KeyID)
	if n := strings.Count(ks.AttestationKeysPEM(), "BEGIN"); n != 2 || len(ks.VerifierKeys()) != 2 {
		t.Errorf("%d keys in the PEM list, %d verifier keys", n, len(ks.VerifierKeys()))
	}
	l.refused(signing.AddKey{Role: signing.RoleAttestation}, signing.CodeKeyChangeInvalid) // one next key is enough

	l.at = l.at.Add(time.Hour)
	plan, err = l.plan(signing.RotateKey{Role: signing.RoleAttestation})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, plan.Effects(), "attestation: key "+next.KeyID[:12]+" signs in place of "+first.KeyID[:12], "by itself")
	mentions(t, plan.Effects(), "Key "+first.KeyID[:12], "up to "+l.second().Add(10*time.Minute).Format(time.RFC3339)+" verify")
	mentions(t, plan.Effects(), "the file attestation.pem any more", "destroy it")
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	ks = l.open(signing.Config{})
	signs(t, ks, signing.RoleAttestation, "", next.KeyID)
	if promoted := l.entry(next.KeyID); !promoted.NotBefore.Equal(next.NotBefore) {
		t.Error("what verifiers know of a key changed with its promotion")
	}
	retired := verifierKey(ks, first.KeyID)
	if end := l.second().Add(10 * time.Minute); !retired.NotAfter.Equal(end) || !retired.RevokedSince.IsZero() {
		t.Errorf("retired: %+v, want end %s", retired, end)
	}

	// Its end comes forward, and not back.
	l.at = l.at.Add(time.Minute)
	l.refused(signing.RetireKey{KeyID: first.KeyID, At: l.at.Add(time.Hour)}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RetireKey{KeyID: first.KeyID, At: l.at.Add(-time.Second)}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RetireKey{KeyID: first.KeyID}, signing.CodeKeyChangeInvalid)
	l.change(signing.RetireKey{KeyID: first.KeyID[:8], At: l.at.Add(2 * time.Minute)})

	since := l.second().Add(-90 * time.Minute)
	plan, err = l.plan(signing.RevokeKey{KeyID: first.KeyID, Since: since, Reason: signing.ReasonKeyCompromise})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, plan.Effects(), "witnessed before "+since.Format(time.RFC3339)+" verify", "later are refused")
	mentions(t, plan.Effects(), "leaves the PEM list")
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	ks = l.open(signing.Config{})
	if k := verifierKey(ks, first.KeyID); !k.RevokedSince.Equal(since) || !k.NotAfter.Equal(since) {
		t.Errorf("revoked: %+v", k)
	}
	if strings.Contains(ks.AttestationKeysPEM(), string(first.PEM())) {
		t.Error("a revoked key is in the PEM list")
	}
	l.refused(signing.RevokeKey{KeyID: first.KeyID, Reason: signing.ReasonSuperseded}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RevokeKey{KeyID: first.KeyID, Reason: signing.ReasonKeyCompromise, Since: since.Add(time.Second)}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RetireKey{KeyID: first.KeyID, At: l.at.Add(time.Hour)}, signing.CodeKeyChangeInvalid)
	l.change(signing.RevokeKey{KeyID: first.KeyID, Reason: signing.ReasonUnspecified, Since: since})
	if k := verifierKey(l.open(signing.Config{}), first.KeyID); !k.RevokedSince.Equal(k.NotBefore) {
		t.Errorf("nothing of the key is to be believed: %+v", k)
	}
}

func TestChangesRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	attestation, log, tsa := l.active(signing.RoleAttestation, ""), l.active(signing.RoleLog, ""), l.active(signing.RoleTimestamp, "")
	unknown := strings.Repeat("0", 64)
	for _, e := range []*signing.KeyEntry{attestation, log, tsa} {
		l.refused(signing.RetireKey{KeyID: e.KeyID}, signing.CodeKeyInUse)
		l.refused(signing.RevokeKey{KeyID: e.KeyID, Reason: signing.ReasonKeyCompromise}, signing.CodeKeyInUse)
	}
	l.refused(signing.RetireKey{KeyID: unknown}, signing.CodeKeyNotFound)
	l.refused(signing.RevokeKey{KeyID: unknown, Reason: signing.ReasonSuperseded}, signing.CodeKeyNotFound)
	l.refused(signing.RetireKey{KeyID: ""}, signing.CodeKeyNotFound)
	l.refused(signing.RetireKey{KeyID: attestation.KeyID[:7]}, signing.CodeKeyNotFound)
	l.refused(signing.RotateKey{Role: signing.RoleCA}, signing.CodeKeyNotFound)
	l.refused(signing.RotateKey{Role: signing.RoleCoSignature, Ref: "file"}, signing.CodeKeyNotFound)
	l.refused(signing.RotateKey{Role: signing.RoleAttestation, Tier: signing.TierBuild}, signing.CodeKeyNotFound)
	l.refused(signing.RotateKey{Role: "everything"}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RotateKey{Role: signing.RoleLog, Tier: signing.TierBuild}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RotateKey{Role: signing.RoleAttestation, Overlap: -1}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RotateKey{Role: signing.RoleAttestation, Overlap: 9000 * time.Hour}, signing.CodeKeyChangeInvalid)
	l.refused(signing.AddKey{Role: signing.RoleTimestamp, Tier: signing.TierRole}, signing.CodeKeyChangeInvalid)
	l.refused(signing.AddKey{Role: signing.RoleAttestation, Tier: "other"}, signing.CodeKeyChangeInvalid)
	l.refused(signing.AddKey{Role: signing.RoleAttestation, Ref: "/etc/key.pem"}, signing.CodeKeyRefInvalid)
	l.refused(signing.AddKey{Role: signing.RoleAttestation, Ref: "awskms:///alias/x"}, signing.CodeKeySchemeUnsupported)
	l.refused(signing.RevokeKey{KeyID: attestation.KeyID, Reason: "affiliationChanged"}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RevokeKey{KeyID: attestation.KeyID}, signing.CodeKeyChangeInvalid)
	l.refused(signing.RevokeKey{KeyID: attestation.KeyID, Reason: signing.ReasonSuperseded, Rotate: true, Since: l.at.Add(time.Hour)}, signing.CodeKeyChangeInvalid)

	// A clock before the keys were made rotates nothing.
	l.at = l.at.Add(-time.Hour)
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeyChangeInvalid)
	l.at = l.at.Add(time.Hour)

	// Without the means, nothing is planned.
	openers := l.openers
	l.openers = signing.Openers{}
	l.refused(signing.AddKey{Role: signing.RoleCoSignature}, signing.CodeKeySchemeUnsupported)
	l.refused(signing.AddKey{Role: signing.RoleCA}, signing.CodeKeySchemeUnsupported)
	l.openers = openers
	cfg := l.config()
	if _, err := signing.Plan(t.Context(), l.dir, cfg, signing.AddKey{Role: signing.RoleCA}); codeOf(err) != signing.CodeKeyChangeInvalid {
		t.Errorf("a ca key without organization: %v", err)
	}
	cfg.Host = "other.example.com"
	if _, err := signing.Plan(t.Context(), l.dir, cfg, signing.AddKey{Role: signing.RoleCoSignature}); codeOf(err) != signing.CodeKeysetHostMismatch {
		t.Errorf("a keyset of another host: %v", err)
	}
	if names := fileNames(t, l.dir); names != "attestation.pem keyset.json log.pem tsa.pem" {
		// Refused in the planning, so that not even the lock was made.
		t.Errorf("the directory holds %s", names)
	}
}

// A tier has a key of its own until it is retired.
func TestTiers(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	def := l.active(signing.RoleAttestation, "").KeyID
	l.change(signing.AddKey{Role: signing.RoleAttestation, Tier: signing.TierBuild})
	build := l.active(signing.RoleAttestation, signing.TierBuild).KeyID
	l.change(signing.AddKey{Role: signing.RoleAttestation, Tier: signing.TierClaimed, Next: true})
	ks := l.open(signing.Config{})
	signs(t, ks, signing.RoleAttestation, signing.TierBuild, build)
	signs(t, ks, signing.RoleAttestation, signing.TierClaimed, def)
	signs(t, ks, signing.RoleAttestation, signing.TierRole, def)
	if len(ks.VerifierKeys()) != 3 || ks.Attestation[0].KeyID != def {
		t.Errorf("%d verifier keys, the first entry is of tier %q", len(ks.VerifierKeys()), ks.Attestation[0].Tier)
	}
	l.change(signing.RotateKey{Role: signing.RoleAttestation, Tier: signing.TierClaimed})
	claimed := l.active(signing.RoleAttestation, signing.TierClaimed).KeyID
	signs(t, l.open(signing.Config{}), signing.RoleAttestation, signing.TierClaimed, claimed)

	l.refused(signing.RevokeKey{KeyID: build, Reason: signing.ReasonKeyCompromise}, signing.CodeKeyInUse)
	plan, err := l.plan(signing.RetireKey{KeyID: build})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, plan.Effects(), "attestation/build", "no longer signs; the key of the default tier does")
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	signs(t, l.open(signing.Config{}), signing.RoleAttestation, signing.TierBuild, def)
	l.change(signing.RevokeKey{KeyID: build, Reason: signing.ReasonKeyCompromise})
	l.root(l.open(signing.Config{}))
}

// A compromised key in use is replaced in the same write.
func TestRevokeWithRotation(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	for _, c := range []struct {
		role   signing.Role
		reason signing.Reason
		effect []string
		// what verifiers still see of the revoked key
		published bool
	}{
		{signing.RoleAttestation, signing.ReasonKeyCompromise, []string{"witnessed before", "later are refused"}, true},
		{signing.RoleAttestation, signing.ReasonUnspecified, []string{"Nothing that it signed verifies"}, true},
		{signing.RoleAttestation, signing.ReasonSuperseded, []string{"later ones are refused"}, true},
		{signing.RoleTimestamp, signing.ReasonKeyCompromise, []string{"leaves the trusted root", "only this authority vouches for"}, false},
		{signing.RoleTimestamp, signing.ReasonCessationOfOperation, []string{"later ones are refused"}, true},
		{signing.RoleLog, signing.ReasonKeyCompromise, []string{"Everything that this log has recorded stops verifying"}, false},
		{signing.RoleLog, signing.ReasonSuperseded, []string{"later ones are refused"}, true},
		{signing.RoleLog, signing.ReasonUnspecified, []string{"Everything that this log has recorded stops verifying"}, false},
	} {
		l.at = l.at.Add(time.Hour)
		old := l.active(c.role, "")
		plan, err := l.plan(signing.RevokeKey{KeyID: old.KeyID, Reason: c.reason, Rotate: true})
		if err != nil {
			t.Fatal(err)
		}
		mentions(t, plan.Effects(), c.effect...)
		if err := plan.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		ks := l.open(signing.Config{})
		l.root(ks)
		signs(t, ks, c.role, "", plan.NewKey().KeyID)
		text, err := ks.TrustedRoot()
		if err != nil {
			t.Fatal(err)
		}
		spki, err := json.Marshal(old.SPKI())
		if err != nil {
			t.Fatal(err)
		}
		shown := strings.Contains(string(text), strings.Trim(string(spki), `"`))
		switch c.role {
		case signing.RoleAttestation:
			shown = verifierKey(ks, old.KeyID).KeyID != ""
		case signing.RoleTimestamp:
			cert, err := json.Marshal(old.Chain[0].Raw)
			if err != nil {
				t.Fatal(err)
			}
			shown = strings.Contains(string(text), strings.Trim(string(cert), `"`))
		}
		if shown != c.published {
			t.Errorf("%s revoked for %s: published %t, want %t", c.role, c.reason, shown, c.published)
		}
	}
	if got := len(l.open(signing.Config{}).LogShards()); got != 4 {
		t.Errorf("%d shards", got)
	}
}

// A rotated log begins a folder of its own, and only while nobody has the log open.
func TestRotateLog(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	old := l.active(signing.RoleLog, "")
	if old.Shard != "log" {
		t.Fatalf("first shard %q", old.Shard)
	}
	l.at = l.at.Add(time.Hour)
	l.change(signing.AddKey{Role: signing.RoleLog})
	plan, err := l.plan(signing.RotateKey{Role: signing.RoleLog})
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, plan.Effects(), "log: key", "when the service starts again", "folder log-2")
	mentions(t, plan.Effects(), "The service must be stopped")
	if plan.LogFolder() != "log" {
		t.Errorf("folder to lock: %q", plan.LogFolder())
	}
	folder := filepath.Join(filepath.Dir(l.dir), "log")
	release, err := signing.LockLog(t.Context(), folder) // there is none yet
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if release, err = signing.LockLog(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	if _, err := signing.LockLog(t.Context(), folder); codeOf(err) != signing.CodeServiceRunning {
		t.Errorf("locked twice: %v", err)
	}
	release()
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	shards := l.open(signing.Config{}).LogShards()
	if len(shards) != 2 || shards[0].Name != "log" || shards[0].Active || shards[0].KeyID != old.KeyID || shards[1].Name != "log-2" || !shards[1].Active {
		t.Errorf("shards: %+v", shards)
	}
	if !shards[0].NotAfter.Equal(l.second().Add(time.Second)) {
		t.Errorf("the old log ends %s: a log that stands still has no signatures under way, but SCTs of this second", shards[0].NotAfter)
	}
	for _, c := range []signing.Change{signing.AddKey{Role: signing.RoleLog}, signing.RotateKey{Role: signing.RoleTimestamp}} {
		if plan, err := l.plan(c); err != nil || plan.LogFolder() != "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Neither the keyset nor what is said about it holds a private key.
func TestChangesStaySecret(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	var said strings.Builder
	for _, c := range []signing.Change{
		signing.AddKey{Role: signing.RoleCoSignature}, signing.AddKey{Role: signing.RoleCA}, signing.AddKey{Role: signing.RoleAttestation},
		signing.RotateKey{Role: signing.RoleAttestation}, signing.RotateKey{Role: signing.RoleTimestamp}, signing.RotateKey{Role: signing.RoleCoSignature},
	} {
		cfg := l.config()
		cfg.CA.Organization = "Example"
		plan, err := signing.Plan(t.Context(), l.dir, cfg, c)
		if err != nil {
			t.Fatal(err)
		}
		said.WriteString(strings.Join(plan.Effects(), "\n"))
		if err := plan.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ks := l.open(signing.Config{})
	doc, err := ks.KeysDocument()
	if err != nil {
		t.Fatal(err)
	}
	said.Write(doc)
	said.WriteString(l.text())
	files, err := filepath.Glob(filepath.Join(l.dir, "*.pem"))
	if err != nil || len(files) != 8 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(f); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
		body := strings.Split(string(text), "\n")[1]
		if len(body) < 60 || strings.Contains(said.String(), body) || strings.Contains(said.String(), body[len(body)/2:]) {
			t.Errorf("%s is told", f)
		}
	}
	// A new key that others can read is not promoted.
	l.change(signing.AddKey{Role: signing.RoleAttestation})
	next := l.entries()[1]
	if next.State != signing.StateNext {
		t.Fatalf("%+v", next)
	}
	if err := os.Chmod(filepath.Join(l.dir, strings.TrimPrefix(next.Ref, "file:")), 0o640); err != nil {
		t.Fatal(err)
	}
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeyFileMode)
}

// The keys document tells what the trusted root cannot, and is the same each time.
func TestKeysDocument(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	old := l.active(signing.RoleAttestation, "")
	l.change(signing.RevokeKey{KeyID: old.KeyID, Reason: signing.ReasonKeyCompromise, Rotate: true})
	l.change(signing.AddKey{Role: signing.RoleCoSignature})
	ks := l.open(signing.Config{})
	first, err := ks.KeysDocument()
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.open(signing.Config{}).KeysDocument()
	if err != nil || string(first) != string(again) {
		t.Errorf("%s\n%s\n%v", first, again, err)
	}
	var doc struct {
		Version int
		Host    string
		Keys    []signing.DocumentKey
	}
	if err := json.Unmarshal(first, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Version != 1 || doc.Host != host || len(doc.Keys) != 5 {
		t.Fatalf("%s", first)
	}
	revoked := doc.Keys[1]
	if revoked.KeyID != old.KeyID || revoked.Revoked == nil || revoked.Revoked.Reason != signing.ReasonKeyCompromise || revoked.Algorithm != "ECDSA_P256_SHA256" {
		t.Errorf("%+v", revoked)
	}
	if doc.Keys[4].Algorithm != "ML_DSA_65" || strings.Contains(string(first), "file:") {
		t.Errorf("%s", first)
	}
	if strings.Count(string(first), "\n") != 1 {
		t.Error("not one line")
	}
}

func TestPlanCancelled(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	plan, err := l.plan(signing.RotateKey{Role: signing.RoleAttestation})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := l.text()
	if err := plan.Apply(ctx); err == nil || l.text() != before {
		t.Errorf("%v", err)
	}
}
