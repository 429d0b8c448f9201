package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog/posix"
	"github.com/assay-build/assay/server"
)

// TestRetiredLogDamaged: a retired log that is gone, empty, shorter, or of somebody else is
// noticed at every start, however often the log was rotated since and however much the
// new one has taken. Put back, it is served again.
func TestRetiredLogDamaged(t *testing.T) {
	t.Parallel()
	k := newKeyed(t)
	l := k.begin(t)
	made := []issued{l.attested(t, "one")}
	l.stop()
	short := filepath.Join(t.TempDir(), "short")
	copyLog(t, filepath.Join(k.data, "log"), short)
	l = k.begin(t)
	made = append(made, l.attested(t, "two"))
	l.stop()
	old, second := k.rotateLog(t)
	l = k.begin(t)
	made = append(made, l.attested(t, "three"))
	l.stop()
	_, third := k.rotateLog(t)
	l = k.begin(t)
	for range 3 { // more than any retired log has
		made = append(made, l.attested(t, rand8(t)))
	}
	l.stop()

	started := func() error {
		cfg, _ := k.config(t, k.edits...)
		_, err := server.New(t.Context(), cfg)
		return err
	}
	stateDir := func(dir string) string { return filepath.Join(dir, ".state") }
	for _, shard := range []string{old.Shard, second.Shard, third.Shard} {
		dir, kept := filepath.Join(k.data, shard), filepath.Join(t.TempDir(), "kept")
		copyLog(t, dir, kept)
		for name, damage := range map[string]func() error{
			"gone":  func() error { return os.RemoveAll(dir) },
			"empty": func() error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
			"without state and checkpoint": func() error {
				return errors.Join(os.RemoveAll(stateDir(dir)), os.Remove(filepath.Join(dir, "checkpoint")))
			},
			"shorter": func() error {
				if shard != old.Shard {
					return errSkip
				}
				return errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(short)))
			},
		} {
			if err := damage(); errors.Is(err, errSkip) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if err := started(); refusal.CodeOf(err) != server.CodeLogBehind {
				t.Errorf("%s, %s: got %v, want %s", shard, name, err, server.CodeLogBehind)
			}
			copyLog(t, kept, dir)
		}
	}
	dir, kept := filepath.Join(k.data, old.Shard), filepath.Join(t.TempDir(), "kept")
	copyLog(t, dir, kept)
	copyLog(t, filepath.Join(k.data, third.Shard), dir)
	if err := started(); refusal.CodeOf(err) != posix.CodeIdentityChanged {
		t.Errorf("another's: %v", err)
	}
	copyLog(t, kept, dir)

	l = k.begin(t)
	now := l.snapshot(t, "now")
	for _, i := range made {
		now.agreed(t, i, "")
		l.decide(t, "dev", i.subject, "ALLOWED")
	}
	k.served(t, l, old, made[:2])
	k.served(t, l, second, made[2:3])
}

// errSkip is no damage.
var errSkip = errors.New("does not apply")
