package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// victim is a store that has followed the mirror until now.
func victim(t testing.TB, m *mirror) *TrustStore {
	t.Helper()
	s := newStore(t, m)
	if _, err := s.Init(t.Context(), m.get("1.root.json")); err != nil {
		t.Fatal(err)
	}
	return s
}

func newStore(t testing.TB, m *mirror) *TrustStore {
	t.Helper()
	s, err := OpenTrustStore(TrustConfig{Server: m.URL, Dir: t.TempDir(), Now: func() time.Time { return m.now }})
	if err != nil {
		t.Fatal(err)
	}
	s.retry.sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return s
}

// tree is every file that a store keeps, and what is in it.
func tree(t testing.TB, s *TrustStore) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(string(s.dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s\n%s\n", path, data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b.String()
}

func wantContent(t testing.TB, state *TrustState, err error, content string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	want := targetsOf(content)
	if !bytes.Equal(state.JSON, want[targetTrustedRoot]) || !bytes.Equal(state.Keys, want[targetKeys]) || !bytes.Equal(state.AttestationKeysPEM, want[targetPEM]) {
		t.Fatalf("trusted root %s, want %s", state.JSON, content)
	}
}

func TestTrustStore(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	s := newStore(t, m)
	if s.Initialized() {
		t.Error("initialized before Init")
	}
	for _, f := range []func() (*TrustState, error){s.Load, func() (*TrustState, error) { return s.Update(t.Context()) }} {
		_, err := f()
		wantCode(t, err, CodeTUFNotInitialized)
	}
	state, err := s.Init(t.Context(), m.get("1.root.json"))
	wantContent(t, state, err, "one")
	m.publish("two")
	state, err = s.Load()
	wantContent(t, state, err, "one")
	state, err = s.Update(t.Context())
	wantContent(t, state, err, "two")
	state, err = s.Load()
	wantContent(t, state, err, "two")
	before := tree(t, s)
	state, err = s.Update(t.Context())
	wantContent(t, state, err, "two")
	if !s.Initialized() || len(state.Roles) != 4 || !state.Expires().Equal(m.now.Add(24*time.Hour)) {
		t.Errorf("%+v", state.Roles)
	}
	if tree(t, s) != before || strings.Count(before, "/root.json\n") != 2 {
		t.Error("an update that brings nothing writes something, or old generations pile up")
	}
	err = filepath.WalkDir(s.cfg.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == s.cfg.Dir {
			return err
		}
		info, err := e.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	m.now = m.now.Add(25 * time.Hour)
	_, err = s.Load()
	wantCode(t, err, CodeTUFExpired)
	m.publishTimestamp()
	state, err = s.Update(t.Context())
	wantContent(t, state, err, "two")
}

// TestTrustAttacks lets a mirror do what The Update Framework is there against. Each
// time the code tells what it was, and what is kept stays as it is to the byte.
func TestTrustAttacks(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		attack func(t *testing.T, m *mirror)
		code   string
	}{
		"freeze: nothing new": {func(_ *testing.T, m *mirror) { m.now = m.now.Add(25 * time.Hour) }, CodeTUFExpired},
		"freeze: old timestamp for good": {func(_ *testing.T, m *mirror) {
			old := m.get("timestamp.json")
			m.now = m.now.Add(25 * time.Hour)
			m.publish("two")
			m.put("timestamp.json", old)
		}, CodeTUFExpired},
		"freeze: snapshot": {func(_ *testing.T, m *mirror) { m.now = m.now.Add(8 * day); m.publishTimestamp() }, CodeTUFExpired},
		"freeze: targets": {func(_ *testing.T, m *mirror) {
			m.now = m.now.Add(91 * day)
			m.publishSnapshot()
			m.publishTimestamp()
		}, CodeTUFExpired},
		"freeze: root":        {func(_ *testing.T, m *mirror) { m.now = m.now.Add(366 * day); m.publish("two") }, CodeTUFExpired},
		"rollback: timestamp": {func(_ *testing.T, m *mirror) { m.timestamp = 0; m.publishTimestamp() }, CodeTUFRollback},
		"rollback: snapshot, by the timestamp key": {func(_ *testing.T, m *mirror) {
			m.publishTimestampOf(m.metaOf("snapshot.json", 1))
		}, CodeTUFRollback},
		"rollback: targets, by the snapshot key": {func(_ *testing.T, m *mirror) {
			m.publishSnapshotOf(m.metaOf("targets.json", 1))
			m.publishTimestamp()
		}, CodeTUFRollback},
		"mix: another snapshot than was promised": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.put(fmt.Sprintf("%d.snapshot.json", m.snapshot), m.get(fmt.Sprintf("%d.snapshot.json", m.snapshot-1)))
		}, CodeTUFMixAndMatch},
		"mix: another snapshot of that version": {func(_ *testing.T, m *mirror) {
			m.publishTargets("four")
			m.publishSnapshot()
			m.publishTimestamp()
			m.snapshot--
			m.publishTargets("five")
			m.publishSnapshot()
		}, CodeTUFMixAndMatch},
		"mix: a snapshot by version only": {func(_ *testing.T, m *mirror) {
			m.publishTargets("four")
			m.publishSnapshot()
			m.publishTimestampOf(&metadata.MetaFiles{Version: m.snapshot + 1})
			m.put(fmt.Sprintf("%d.snapshot.json", m.snapshot+1), m.get(fmt.Sprintf("%d.snapshot.json", m.snapshot)))
		}, CodeTUFMixAndMatch},
		"mix: targets of another version": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.put(fmt.Sprintf("%d.targets.json", m.targets), m.get(fmt.Sprintf("%d.targets.json", m.targets-1)))
		}, CodeTUFMixAndMatch},
		"mix: another snapshot of the version that is kept": {func(_ *testing.T, m *mirror) {
			m.publishTargets("four")
			m.snapshot--
			m.publishSnapshot()
			m.publishTimestamp()
		}, CodeTUFMixAndMatch},
		"timestamp unsigned": {func(t *testing.T, m *mirror) { unsign[metadata.TimestampType](t, m, "timestamp.json") }, CodeTUFSignatureInvalid},
		"snapshot unsigned": {func(t *testing.T, m *mirror) {
			m.publishTargets("four")
			m.publishSnapshot()
			unsign[metadata.SnapshotType](t, m, fmt.Sprintf("%d.snapshot.json", m.snapshot))
			m.publishTimestamp()
		}, CodeTUFSignatureInvalid},
		"targets of another key": {func(t *testing.T, m *mirror) {
			m.keys[metadata.TARGETS] = []signature.Signer{tufKey(t)}
			m.publish("four")
		}, CodeTUFSignatureInvalid},
		"timestamp by the snapshot key": {func(_ *testing.T, m *mirror) {
			m.keys[metadata.TIMESTAMP] = m.keys[metadata.SNAPSHOT]
			m.publishTimestamp()
		}, CodeTUFSignatureInvalid},
		"a signature twice": {func(t *testing.T, m *mirror) {
			meta, err := metadata.Timestamp().FromBytes(m.get("timestamp.json"))
			if err != nil {
				t.Fatal(err)
			}
			meta.Signed.Version++
			m.put("timestamp.json", signed(t, meta, m.keys[metadata.TIMESTAMP][0], m.keys[metadata.TIMESTAMP][0]))
		}, CodeTUFSignatureInvalid},
		"root not by the old keys": {func(t *testing.T, m *mirror) {
			m.keys[metadata.ROOT] = []signature.Signer{tufKey(t)}
			m.publishRoot(nil)
		}, CodeTUFSignatureInvalid},
		"root not by the new keys": {func(t *testing.T, m *mirror) {
			old := m.keys[metadata.ROOT][0]
			m.keys[metadata.ROOT] = []signature.Signer{tufKey(t)}
			m.root++
			m.put("2.root.json", m.makeRoot(2, nil, old))
		}, CodeTUFSignatureInvalid},
		"one of two new root keys": {func(t *testing.T, m *mirror) {
			old := m.keys[metadata.ROOT][0]
			m.keys[metadata.ROOT] = []signature.Signer{tufKey(t), tufKey(t)}
			m.put("2.root.json", m.makeRoot(2, nil, old, m.keys[metadata.ROOT][0]))
		}, CodeTUFThreshold},
		"one root key under two ids": {func(t *testing.T, m *mirror) {
			twice := func(r *metadata.RootType) {
				key, _ := publicOf(t, m.keys[metadata.ROOT][0])
				key.Type = metadata.KeyTypeECDSA_SHA2_P256_COMPAT
				if err := r.AddKey(key, metadata.ROOT); err != nil {
					t.Fatal(err)
				}
				r.Roles[metadata.ROOT].Threshold = 2
			}
			m.publishRoot(twice)
		}, CodeTUFThreshold},
		"threshold 0": {func(_ *testing.T, m *mirror) {
			m.publishRoot(func(r *metadata.RootType) { r.Roles["timestamp"].Threshold = 0 })
		}, CodeTUFThreshold},
		"root chain gap": {func(_ *testing.T, m *mirror) { m.put("2.root.json", m.makeRoot(3, nil, m.keys[metadata.ROOT]...)) }, CodeTUFRootInvalid},
		"the root again": {func(_ *testing.T, m *mirror) { m.put("2.root.json", m.get("1.root.json")) }, CodeTUFRootInvalid},
		"root inconsistent": {func(_ *testing.T, m *mirror) {
			m.publishRoot(func(r *metadata.RootType) { r.ConsistentSnapshot = false })
		}, CodeTUFRootInvalid},
		"root of no role": {func(_ *testing.T, m *mirror) {
			m.publishRoot(func(r *metadata.RootType) { delete(r.Roles, "targets") })
		}, CodeTUFRootInvalid},
		"root key of ed25519": {func(_ *testing.T, m *mirror) {
			m.publishRoot(func(r *metadata.RootType) {
				r.Keys["short"] = &metadata.Key{Type: metadata.KeyTypeEd25519, Scheme: metadata.KeySchemeEd25519, Value: metadata.KeyVal{PublicKey: "00"}}
			})
		}, CodeTUFRootInvalid},
		"root is junk":    {func(_ *testing.T, m *mirror) { m.put("2.root.json", []byte("<html>")) }, CodeTUFRootInvalid},
		"root is endless": {func(_ *testing.T, m *mirror) { m.serve = endless("2.root.json") }, CodeTUFRootInvalid},
		"root with a name twice": {func(_ *testing.T, m *mirror) {
			m.put("2.root.json", bytes.Replace(m.makeRoot(2, nil, m.keys[metadata.ROOT]...), []byte(`"version":2`), []byte(`"version":2,"version":2`), 1))
		}, CodeTUFRootInvalid},
		"timestamp is endless": {func(_ *testing.T, m *mirror) { m.serve = endless("timestamp.json") }, CodeTUFMetadataInvalid},
		"timestamp is null":    {func(_ *testing.T, m *mirror) { m.put("timestamp.json", []byte("null")) }, CodeTUFMetadataInvalid},
		"timestamp of nothing": {func(_ *testing.T, m *mirror) { m.publishTimestampOf(nil) }, CodeTUFMetadataInvalid},
		"snapshot of nothing": {func(_ *testing.T, m *mirror) {
			m.publishSnapshotOf(nil)
			m.publishTimestamp()
		}, CodeTUFMetadataInvalid},
		"snapshot is endless": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.serve = endless(".snapshot.json")
		}, CodeTUFMixAndMatch},
		"targets are endless": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.serve = endless(".targets.json")
		}, CodeTUFMixAndMatch},
		"a target without a hash": {func(_ *testing.T, m *mirror) {
			m.publishFiles(targetsOf("four"), func(r *metadata.TargetsType) { r.Targets[targetPEM].Hashes = nil })
			m.publishSnapshot()
			m.publishTimestamp()
		}, CodeTUFMetadataInvalid},
		"a delegation": {func(_ *testing.T, m *mirror) {
			m.publishFiles(targetsOf("four"), func(r *metadata.TargetsType) { r.Delegations = &metadata.Delegations{} })
			m.publishSnapshot()
			m.publishTimestamp()
		}, CodeTUFMetadataInvalid},
		"no trusted root": {func(_ *testing.T, m *mirror) {
			files := targetsOf("four")
			delete(files, targetTrustedRoot)
			m.publishFiles(files, nil)
			m.publishSnapshot()
			m.publishTimestamp()
		}, CodeTUFTargetMismatch},
		"a trusted root that is none": {func(_ *testing.T, m *mirror) {
			files := targetsOf("four")
			files[targetTrustedRoot] = []byte(`{}`)
			m.publishFiles(files, nil)
			m.publishSnapshot()
			m.publishTimestamp()
		}, CodeTUFTargetMismatch},
		"a target of the wrong hash": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.spoil(func(b []byte) []byte { b[0] ^= 1; return b })
		}, CodeTUFTargetMismatch},
		"a target of the wrong length": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.spoil(func(b []byte) []byte { return b[:len(b)-1] })
		}, CodeTUFTargetMismatch},
		"a target that is too long": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.spoil(func(b []byte) []byte { return append(b, 'x') })
		}, CodeTUFTargetMismatch},
		"a target that is endless": {func(_ *testing.T, m *mirror) { m.publish("four"); m.serve = endless("/targets/") }, CodeTUFTargetMismatch},
		"a target that is gone": {func(_ *testing.T, m *mirror) {
			m.publish("four")
			m.serve = answers("/targets/", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) })
		}, CodeTUFUnavailable},
		"503": {func(_ *testing.T, m *mirror) {
			m.serve = answers("timestamp", func(w http.ResponseWriter) { w.WriteHeader(503) })
		}, CodeTUFUnavailable},
		"403": {func(_ *testing.T, m *mirror) {
			m.serve = answers("root", func(w http.ResponseWriter) { w.WriteHeader(403) })
		}, CodeTUFUnavailable},
		"cut short": {func(_ *testing.T, m *mirror) {
			m.serve = answers("timestamp", func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); _, _ = w.Write([]byte("{")) })
		}, CodeTUFUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMirror(t)
			m.publish("two")
			m.publish("three")
			s := victim(t, m)
			before := tree(t, s)
			c.attack(t, m)
			_, err := s.Update(t.Context())
			wantCode(t, err, c.code)
			if want := map[bool]error{true: ErrUnavailable, false: ErrTrust}[c.code == CodeTUFUnavailable]; !errors.Is(err, want) {
				t.Errorf("%v does not match %v", err, want)
			}
			if after := tree(t, s); after != before {
				t.Errorf("what is kept changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func unsign[T metadata.Roles](t *testing.T, m *mirror, name string) {
	t.Helper()
	meta, err := new(metadata.Metadata[T]).FromBytes(m.get(name))
	if err != nil {
		t.Fatal(err)
	}
	meta.Signatures = nil
	m.put(name, signed(t, meta))
}

// spoil changes the newest trusted root after it was signed.
func (m *mirror) spoil(edit func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, data := range m.files {
		if strings.HasSuffix(name, targetTrustedRoot) && bytes.Contains(data, []byte("four")) {
			m.files[name] = edit(bytes.Clone(data))
		}
	}
}

func answers(path string, with func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		with(w)
		return true
	}
}

// endless sends until the client hangs up.
func endless(path string) func(http.ResponseWriter, *http.Request) bool {
	return answers(path, func(w http.ResponseWriter) {
		for block := bytes.Repeat([]byte("x"), 64<<10); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
}

// TestTrustLarge: a trusted root may be as large as those that are verified with, and what
// is larger is refused however well it is signed, with what was kept left as it is.
func TestTrustLarge(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	s := victim(t, m)
	for _, size := range []int{maxTUFTarget, maxTUFTarget + 1} {
		files := targetsOf("")
		head, tail, _ := bytes.Cut(files[targetTrustedRoot], []byte(`""}`))
		files[targetTrustedRoot] = slices.Concat(head, []byte(`"`), bytes.Repeat([]byte("x"), size-len(head)-3-len(tail)), []byte(`"}`))
		m.publishFiles(files, nil)
		m.publishSnapshot()
		m.publishTimestamp()
		state, err := s.Update(t.Context())
		if size > maxTUFTarget {
			wantCode(t, err, CodeTUFTargetMismatch)
			state, err = s.Load()
		}
		if err != nil || len(state.JSON) != maxTUFTarget {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}

// TestTrustSlow: a mirror that answers byte by byte costs the caller's time and no more.
func TestTrustSlow(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	s := victim(t, m)
	before := tree(t, s)
	m.serve = func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Update(ctx)
	wantCode(t, err, CodeTUFUnavailable)
	if tree(t, s) != before {
		t.Error("what is kept changed")
	}
}

func TestTrustRedirect(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	s := victim(t, m)
	other := newMirror(t)
	m.serve = answers("timestamp", func(w http.ResponseWriter) {
		w.Header().Set("Location", other.URL+"/tuf/timestamp.json")
		w.WriteHeader(http.StatusFound)
	})
	_, err := s.Update(t.Context())
	wantCode(t, err, CodeTUFUnavailable)
	if other.asked("timestamp") {
		t.Error("the other host was asked")
	}
}

// TestTrustRoots follows a chain of roots.
func TestTrustRoots(t *testing.T) {
	t.Parallel()
	rotate := func(t *testing.T, m *mirror) {
		old := m.keys[metadata.ROOT]
		m.keys[metadata.ROOT] = []signature.Signer{tufKey(t), tufKey(t)}
		m.keys[metadata.TIMESTAMP] = []signature.Signer{tufKey(t)}
		m.publishRoot(nil, old...)
		m.publish("new")
	}
	t.Run("an expired root on the way", func(t *testing.T) {
		t.Parallel()
		m := newMirror(t)
		s := victim(t, m)
		first := m.get("1.root.json")
		rotate(t, m)
		m.now = m.now.Add(300 * 24 * time.Hour)
		rotate(t, m)
		m.now = m.now.Add(100 * 24 * time.Hour) // Roots 1 and 2 are over, 3 is not.
		m.publish("new")
		state, err := s.Update(t.Context())
		wantContent(t, state, err, "new")
		if state.Roles[0].Version != 3 {
			t.Errorf("root %d", state.Roles[0].Version)
		}
		state, err = newStore(t, m).Init(t.Context(), first)
		wantContent(t, state, err, "new")
	})
	t.Run("the last one expired", func(t *testing.T) {
		t.Parallel()
		m := newMirror(t)
		s := victim(t, m)
		rotate(t, m)
		m.now = m.now.Add(366 * 24 * time.Hour)
		m.publish("new")
		_, err := s.Update(t.Context())
		wantCode(t, err, CodeTUFExpired)
		// The root is kept, and nothing that the old keys say is believed any more.
		m.now = m.now.Add(-366 * 24 * time.Hour)
		_, err = s.Load()
		wantCode(t, err, CodeTUFSignatureInvalid)
	})
	t.Run("a dropped key comes back", func(t *testing.T) {
		t.Parallel()
		m := newMirror(t)
		s := victim(t, m)
		thief := m.keys[metadata.TIMESTAMP]
		rotate(t, m)
		if _, err := s.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := tree(t, s)
		m.mu.Lock()
		delete(m.files, "2.root.json") // as if there had been no rotation
		m.mu.Unlock()
		m.keys[metadata.TIMESTAMP] = thief
		m.publishTimestamp()
		_, err := s.Update(t.Context())
		wantCode(t, err, CodeTUFSignatureInvalid)
		if tree(t, s) != before {
			t.Error("what is kept changed")
		}
	})
	t.Run("fast forward", func(t *testing.T) {
		t.Parallel()
		m := newMirror(t)
		m.timestamp, m.snapshot = math.MaxInt32, math.MaxInt32
		m.publish("stuck")
		s := victim(t, m)
		m.timestamp, m.snapshot = 5, 5
		m.publish("new")
		_, err := s.Update(t.Context())
		wantCode(t, err, CodeTUFRollback)
		m.keys[metadata.SNAPSHOT] = []signature.Signer{tufKey(t)}
		rotate(t, m)
		state, err := s.Update(t.Context())
		wantContent(t, state, err, "new")
	})
	t.Run("too many at once", func(t *testing.T) {
		t.Parallel()
		m := newMirror(t)
		s := victim(t, m)
		m.serve = func(w http.ResponseWriter, r *http.Request) bool {
			version, role := metadataName(filepath.Base(r.URL.Path))
			if role == metadata.ROOT {
				_, _ = w.Write(m.makeRoot(version, nil, m.keys[metadata.ROOT]...))
			}
			return role == metadata.ROOT
		}
		state, err := s.Update(t.Context())
		if err != nil || state.Roles[0].Version != 1+maxRoots {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

func TestTrustInitRefused(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	other := newMirror(t)
	two := newMirror(t)
	two.keys[metadata.ROOT] = append(two.keys[metadata.ROOT], tufKey(t))
	for name, c := range map[string]struct {
		root []byte
		code string
	}{
		"nothing":            {nil, CodeTUFRootInvalid},
		"no root":            {m.get("timestamp.json"), CodeTUFRootInvalid},
		"a list":             {[]byte("[]"), CodeTUFRootInvalid},
		"of another server":  {other.get("1.root.json"), CodeTUFSignatureInvalid},
		"unsigned":           {m.makeRoot(1, nil), CodeTUFSignatureInvalid},
		"signed by one of 2": {two.makeRoot(1, nil, two.keys[metadata.ROOT][0]), CodeTUFThreshold},
	} {
		s := newStore(t, m)
		_, err := s.Init(t.Context(), c.root)
		wantCode(t, err, c.code)
		if tree(t, s) != "" {
			t.Errorf("%s: something is kept", name)
		}
	}
	s := victim(t, m)
	before := tree(t, s)
	_, err := s.Init(t.Context(), other.get("1.root.json"))
	wantCode(t, err, CodeTUFSignatureInvalid)
	if tree(t, s) != before {
		t.Error("a failed Init changed what is kept")
	}
}

// TestTrustBegunAnew: a server whose repository was made anew is followed after Init only.
func TestTrustBegunAnew(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.publish("two")
	s := victim(t, m)
	again := newMirror(t)
	m.mu.Lock()
	m.files = again.files
	m.mu.Unlock()
	_, err := s.Update(t.Context())
	wantCode(t, err, CodeTUFSignatureInvalid)
	state, err := s.Init(t.Context(), m.get("1.root.json"))
	wantContent(t, state, err, "one")
	state, err = s.Load()
	wantContent(t, state, err, "one")
}

func TestTrustStoreInvalid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(t *testing.T, dir, current string)
		code string
	}{
		"current is junk":      {func(t *testing.T, dir, _ string) { write(t, dir, "current", "../../x") }, CodeTUFStoreInvalid},
		"current leads astray": {func(t *testing.T, dir, _ string) { write(t, dir, "current", "g-"+strings.Repeat("A", 26)) }, CodeTUFStoreInvalid},
		"root gone":            {func(t *testing.T, _, g string) { remove(t, g, "root.json") }, CodeTUFStoreInvalid},
		"targets gone":         {func(t *testing.T, _, g string) { remove(t, g, "targets.json") }, CodeTUFStoreInvalid},
		"trusted root gone":    {func(t *testing.T, _, g string) { remove(t, g, "files/trusted_root.json") }, CodeTUFTargetMismatch},
		"trusted root changed": {func(t *testing.T, _, g string) { write(t, g, "files/trusted_root.json", "{}") }, CodeTUFTargetMismatch},
		"snapshot changed":     {func(t *testing.T, _, g string) { write(t, g, "snapshot.json", "{}") }, CodeTUFMetadataInvalid},
		"too large":            {func(t *testing.T, _, g string) { write(t, g, "root.json", strings.Repeat(" ", maxTUFMetadata+1)) }, CodeTUFStoreInvalid},
		"others can write": {func(t *testing.T, _, g string) {
			if err := os.Chmod(filepath.Join(g, "root.json"), 0o622); err != nil {
				t.Fatal(err)
			}
		}, CodeTUFStoreInvalid},
		"a directory": {func(t *testing.T, _, g string) {
			remove(t, g, "root.json")
			if err := os.Mkdir(filepath.Join(g, "root.json"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, CodeTUFStoreInvalid},
	} {
		m := newMirror(t)
		s := victim(t, m)
		g, err := s.dir.pointer()
		if err != nil {
			t.Fatal(err)
		}
		c.edit(t, string(s.dir), s.dir.generation(g))
		_, err = s.Load()
		t.Log(name)
		wantCode(t, err, c.code)
		if state, err := s.Init(t.Context(), m.get("1.root.json")); err != nil {
			t.Errorf("%s: Init does not mend it: %v", name, err)
		} else if _, err := s.Load(); err != nil {
			t.Errorf("%s: %v after %v", name, err, state)
		}
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
		t.Fatal(err)
	}
}

// TestTrustOlderUpdate: of two updates at once the older does not undo the newer.
func TestTrustOlderUpdate(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	s := victim(t, m)
	slow, err := s.dir.current()
	if err != nil {
		t.Fatal(err)
	}
	m.publish("two")
	if _, err := s.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.dir.keep(slow, true); err != nil {
		t.Fatal(err)
	}
	state, err := s.Load()
	wantContent(t, state, err, "two")
}

// TestTrustCurrent asks the server once an hour, and does without it until something
// expires. What it answers must be right.
func TestTrustCurrent(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	s := newStore(t, m)
	_, err := s.Current(t.Context())
	wantCode(t, err, CodeTUFNotInitialized)
	s = victim(t, m)
	m.publish("two")
	for _, step := range []struct {
		advance time.Duration
		serve   func(http.ResponseWriter, *http.Request) bool
		want    string
		code    string
	}{
		{59 * time.Minute, nil, "one", ""},
		{time.Minute, answers("", func(w http.ResponseWriter) { w.WriteHeader(503) }), "one", ""},
		{0, answers("timestamp", func(w http.ResponseWriter) { _, _ = w.Write([]byte("{}")) }), "", CodeTUFMetadataInvalid},
		{0, nil, "two", ""},
		{-2 * time.Hour, answers("timestamp", func(w http.ResponseWriter) { _, _ = w.Write([]byte("{}")) }), "", CodeTUFMetadataInvalid},
		{26 * time.Hour, answers("", func(w http.ResponseWriter) { w.WriteHeader(503) }), "", CodeTUFUnavailable},
	} {
		m.now = m.now.Add(step.advance)
		m.mu.Lock()
		m.serve = step.serve
		m.mu.Unlock()
		state, err := s.Current(t.Context())
		if step.code != "" {
			wantCode(t, err, step.code)
			continue
		}
		wantContent(t, state, err, step.want)
	}
}

func TestTrustConfigRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  TrustConfig
		code string
	}{
		{TrustConfig{Dir: "/x"}, CodeServerInvalid},
		{TrustConfig{Server: "http://assay.example.com", Dir: "/x"}, CodePlaintextRefused},
		{TrustConfig{Server: "https://assay.example.com", Dir: "x"}, CodeTUFStoreInvalid},
		{TrustConfig{Server: "https://assay.example.com", Dir: "/x", CAFile: "/none"}, CodeCAFileInvalid},
		{TrustConfig{Server: "http://localhost", Dir: "/x", CAFile: "/none"}, CodeServerInvalid},
	} {
		_, err := OpenTrustStore(c.cfg)
		wantCode(t, err, c.code)
	}
	_, err := TrustDir(func(string) (string, bool) { return "", false })
	wantCode(t, err, CodeTUFStoreInvalid)
	dir, err := TrustDir(func(name string) (string, bool) { return map[string]string{"HOME": "/home/a"}[name], true })
	if err != nil || dir != "/home/a/.local/state/assay/trust" {
		t.Error(dir, err)
	}
	if storeName("https://a.b:1") == storeName("https://a.b_1") || strings.ContainsAny(storeName("https://[::1]:8"), "/:[]") {
		t.Error("two servers in one directory")
	}
}

func FuzzTrustMetadata(f *testing.F) {
	m := newMirror(f)
	for name := range m.files {
		for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
			if strings.Contains(name, role+".json") && !strings.HasPrefix(name, "targets/") {
				f.Add(role, m.files[name])
			}
		}
	}
	f.Add("timestamp", []byte(`{"signed":{"_type":"timestamp","spec_version":"1.0","version":1,"meta":{"snapshot.json":null}},"signatures":[null]}`))
	root := m.get("1.root.json")
	f.Fuzz(func(t *testing.T, role string, data []byte) {
		if err := checkMetadata(role, data); err != nil {
			wantSome(t, err)
			return
		}
		// What has passed must not trip go-tuf, whatever role it takes it for.
		g := &generation{root: root, timestamp: m.files["timestamp.json"], snapshot: m.files["1.snapshot.json"], targets: m.files["1.targets.json"]}
		switch role {
		case "root":
			g.root = data
		case "timestamp":
			g.timestamp = data
		case "snapshot":
			g.snapshot = data
		case "targets":
			g.targets = data
		}
		if _, err := g.verify(m.now); err != nil {
			wantSome(t, err)
		}
	})
}

func wantSome(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !strings.HasPrefix(e.Code, "TUF_") {
		t.Errorf("no code of ours: %v", err)
	}
}
