package signing_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/assay-build/assay/internal/signing"
)

// Wherever a change is cut off, one keyset or the other is there, whole, and the change
// can be made again.
func TestApplyCrash(t *testing.T) {
	t.Parallel()
	l := newLab(t, true)
	l.change(signing.AddKey{Role: signing.RoleCA})
	_, ref := l.kmsKey("ECC_NIST_P256")
	for _, c := range []signing.Change{
		signing.AddKey{Role: signing.RoleCoSignature},
		signing.RotateKey{Role: signing.RoleAttestation},
		signing.RotateKey{Role: signing.RoleTimestamp},
		signing.RotateKey{Role: signing.RoleCA},
		signing.RotateKey{Role: signing.RoleLog, Ref: ref},
	} {
		cfg := l.config()
		plan, err := signing.Plan(t.Context(), l.dir, cfg, c)
		if err != nil {
			t.Fatal(err)
		}
		before := l.text()
		for n := range plan.Steps() + 1 {
			if plan, err = signing.Plan(t.Context(), l.dir, cfg, c); err != nil {
				t.Fatal(err)
			}
			if err := plan.ApplySteps(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			l.open(signing.Config{})
			if l.text() != before {
				// The rename is step 4 of 5, and what follows only makes it last.
				if n != plan.Steps()-1 {
					t.Errorf("%+v: committed after step %d", c, n)
				}
				break
			}
		}
		if l.text() == before {
			t.Errorf("%+v: never committed", c)
		}
	}
	// What was half written is gone with the next change; keys stay.
	l.change(signing.RotateKey{Role: signing.RoleTimestamp})
	if names := fileNames(t, l.dir); strings.Contains(names, ".new-") || strings.Count(names, "tsa") < 4 {
		t.Errorf("the directory holds %s", names)
	}
}

// Of two plans on one keyset the second to be applied is refused.
func TestApplyOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	var plans []*signing.Planned
	for range 8 {
		plan, err := l.plan(signing.RotateKey{Role: signing.RoleAttestation})
		if err != nil {
			t.Fatal(err)
		}
		plans = append(plans, plan)
	}
	var won, changed atomic.Int32
	var all sync.WaitGroup
	for _, plan := range plans {
		all.Go(func() {
			switch err := plan.Apply(t.Context()); codeOf(err) {
			case signing.CodeKeysetChanged:
				changed.Add(1)
			case "":
				if err == nil {
					won.Add(1)
				}
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || changed.Load() != 7 {
		t.Errorf("%d plans were applied, %d refused", won.Load(), changed.Load())
	}
	if n := len(l.entries()); n != 4 {
		t.Errorf("%d keys", n)
	}
	if err := plans[0].Apply(t.Context()); codeOf(err) != signing.CodeKeysetChanged {
		t.Errorf("applied again: %v", err)
	}
}

func TestApplyWaitsForOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("waits ten seconds")
	}
	t.Parallel()
	l := newLab(t, false)
	f, err := os.OpenFile(filepath.Join(l.dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeysetLocked)
	done := make(chan error, 1)
	go func() { done <- l.try(signing.RotateKey{Role: signing.RoleAttestation}) }()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	f.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The service could not read files of another user.
func TestApplyAsAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	l := newLab(t, false)
	if err := os.Chown(filepath.Join(l.dir, "keyset.json"), 1, -1); err != nil {
		t.Fatal(err)
	}
	l.refused(signing.RotateKey{Role: signing.RoleAttestation}, signing.CodeKeysetOwner)
	if names := fileNames(t, l.dir); strings.Contains(names, ".lock") {
		t.Errorf("a lock that the service cannot open: %s", names)
	}
}

// A full disk, a directory that cannot be written: the old keyset stays.
func TestApplyFails(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	plan, err := l.plan(signing.RotateKey{Role: signing.RoleAttestation})
	if err != nil {
		t.Fatal(err)
	}
	// Root is not kept from writing by a mode, so the directory goes.
	moved := l.dir + ".moved"
	if err := os.Rename(l.dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := plan.Apply(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.Rename(moved, l.dir); err != nil {
		t.Fatal(err)
	}
	l.open(signing.Config{})
}

// Readers see one keyset or the other while it is changed, and notice.
func TestStaleUnderChange(t *testing.T) {
	t.Parallel()
	l := newLab(t, false)
	ks := l.open(signing.Config{})
	stop := make(chan struct{})
	var all sync.WaitGroup
	cfg := l.config()
	all.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := signing.OpenKeyset(t.Context(), l.dir, cfg); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 10 {
		l.change(signing.RotateKey{Role: signing.RoleAttestation})
		stale, err := ks.Stale()
		if err != nil || !stale {
			t.Errorf("not stale after a change: %v", err)
		}
		ks = l.open(signing.Config{})
		if stale, err = ks.Stale(); err != nil || stale {
			t.Errorf("stale when just opened: %v", err)
		}
	}
	close(stop)
	all.Wait()
	if err := os.Remove(filepath.Join(l.dir, "keyset.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := ks.Stale(); err == nil {
		t.Error("a lost keyset is not stale")
	}
}
