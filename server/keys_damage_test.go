package server_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/assay-build/assay/internal/signing"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// TestKeysetDamaged: a keyset that cannot be read while the service runs is no reason to
// go on by the one before. Nothing is answered until it is mended, and then everything is.
func TestKeysetDamaged(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	one := l.attested(t, "one")
	keyset := filepath.Join(k.dir(), "keyset.json")
	whole, err := os.ReadFile(keyset)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(k.dir(), "attestation.pem")
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	// replace is what every writer of the keyset does: another file takes the name.
	replace := func(text []byte) error {
		return errors.Join(os.WriteFile(keyset+".new", text, 0o600), os.Rename(keyset+".new", keyset))
	}
	mended := func() error {
		return errors.Join(os.WriteFile(key, secret, 0o600), os.Chmod(key, 0o600), replace(whole))
	}
	for _, tt := range []struct {
		name, reason string
		damage       func() error
	}{
		{"truncated", "KEYSET_INVALID", func() error { return os.Truncate(keyset, int64(len(whole)/2)) }},
		{"empty", "KEYSET_INVALID", func() error { return replace(nil) }},
		{"another host", "KEYSET_HOST_MISMATCH", func() error { return replace([]byte(renamed(string(whole)))) }},
		{"removed", "KEY_MISSING", func() error { return os.Remove(keyset) }},
		{"a directory", "INTERNAL", func() error { return errors.Join(os.Remove(keyset), os.Mkdir(keyset, 0o700)) }},
		{"key file readable by all", "KEY_FILE_MODE", func() error { return errors.Join(os.Chmod(key, 0o644), replace(whole)) }},
		{"key file missing", "KEY_MISSING", func() error { return errors.Join(os.Remove(key), replace(whole)) }},
		{"key file of another key", "KEY_MISMATCH", func() error {
			other, err := os.ReadFile(filepath.Join(k.dir(), "log.pem"))
			return errors.Join(err, os.WriteFile(key, other, 0o600), replace(whole))
		}},
	} {
		l.decide(t, "dev", one.subject, "ALLOWED")
		if err := tt.damage(); err != nil {
			t.Fatal(err)
		}
		t.Log(tt.name)
		l.unanswered(t, one, tt.reason)
		l.unanswered(t, one, tt.reason) // no more than the first time
		if info, err := os.Stat(keyset); err == nil && info.IsDir() {
			if err := os.Remove(keyset); err != nil {
				t.Fatal(err)
			}
		}
		if err := mended(); err != nil {
			t.Fatal(err)
		}
		l.decide(t, "dev", one.subject, "ALLOWED")
		l.snapshot(t, "mended").agreed(t, l.attested(t, tt.name), "")
	}
}

func renamed(text string) string {
	return strings.Replace(text, `"host": "assay.test"`, `"host": "other.test"`, 1)
}

// TestNoAnswerBeforeRevocation: while keys come and go, no permission is given on the
// evidence of a key whose revocation had been acknowledged when the question was asked.
func TestNoAnswerBeforeRevocation(t *testing.T) {
	t.Parallel()
	rounds, askers := 50, 4
	if testing.Short() {
		rounds = 12
	}
	k := newKeyed(t)
	l := k.begin(t)
	// What each round attests, and whether its key has been revoked by now: set after the
	// change was acknowledged, read before a question is asked.
	made := make([]atomic.Pointer[assayv1.Subject], rounds)
	revoked := make([]atomic.Bool, rounds)
	var allowed, denied, last atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range askers {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				i := n % (int(last.Load()) + 1)
				s := made[i].Load()
				if s == nil {
					continue
				}
				gone := revoked[i].Load()
				resp, err := assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{s}})
				if err != nil {
					t.Errorf("round %d: %v", i, err)
					return
				}
				switch passed := resp.GetVerificationResult() == assayv1.VerificationResult_VERIFICATION_RESULT_PASSED; {
				case passed && gone:
					t.Errorf("round %d: allowed after its key was revoked", i)
					return
				case passed:
					allowed.Add(1)
				default:
					denied.Add(1)
				}
			}
		})
	}
	for n := range rounds {
		s := subject("r"+strconv.Itoa(n), "r"+strconv.Itoa(n))
		l.digests(t, l.ctx, s)
		made[n].Store(s)
		last.Store(int64(n))
		l.decide(t, "dev", s, "ALLOWED")
		key := k.active(t, signing.RoleAttestation, "")
		k.change(t, signing.RevokeKey{KeyID: key.KeyID, Reason: signing.ReasonUnspecified, Rotate: true})
		revoked[n].Store(true)
		l.decide(t, "dev", s, "STORED_EVIDENCE_INVALID")
	}
	stop()
	group.Wait()
	if allowed.Load() == 0 || denied.Load() == 0 {
		t.Errorf("%d permissions and %d denials: the test tests nothing", allowed.Load(), denied.Load())
	}
	t.Logf("%d rounds, %d permissions, %d denials", rounds, allowed.Load(), denied.Load())
}

// TestAttestWhileRotating: attestations that are under way while the key is rotated are
// finished, by the old key or the new, and all of them verify.
func TestAttestWhileRotating(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	var mu sync.Mutex
	var made []issued
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	rotated := make(chan struct{})
	for w := range 4 {
		group.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-rotated:
					return nil
				default:
				}
				s := subject("w"+strconv.Itoa(w), "w"+strconv.Itoa(w)+"-"+strconv.Itoa(n))
				resp, err := assayv1.NewAttestationServiceClient(l.conn).AttestDigests(l.ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{s}})
				if err != nil {
					return err
				}
				i := issuedOf(t, s, resp.GetResult().GetAttestation().GetBundle())
				mu.Lock()
				made = append(made, i)
				mu.Unlock()
			}
		})
	}
	group.Go(func() error {
		defer close(rotated)
		for range 10 {
			if err := k.alter(ctx, signing.RotateKey{Role: signing.RoleAttestation}); err != nil {
				return err
			}
		}
		return k.alter(ctx, signing.RotateKey{Role: signing.RoleTimestamp})
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	now := l.snapshot(t, "now")
	keys := make(map[string]bool)
	for _, i := range made {
		keys[i.hint] = true
		if _, err := now.verifier.VerifyOwn(i.bundle); err != nil {
			t.Errorf("%s: %v", i.subject.GetName(), err)
		}
	}
	if len(keys) < 3 {
		t.Errorf("%d attestations by %d keys: the test tests nothing", len(made), len(keys))
	}
	t.Logf("%d attestations by %d keys", len(made), len(keys))
}
