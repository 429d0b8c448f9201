package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
)

// memStore is a SessionStore in memory.
type memStore struct {
	mu       sync.Mutex
	sessions map[[16]byte]memSession
	consumed map[string]time.Time
	reads    int
	fail     error
}

type memSession struct {
	caller  []byte
	expires time.Time
}

func newMemStore() *memStore {
	return &memStore{sessions: map[[16]byte]memSession{}, consumed: map[string]time.Time{}}
}

func (m *memStore) CreateSession(_ context.Context, id [16]byte, caller []byte, expires time.Time, replayKey string, replayExpires time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if _, ok := m.consumed[replayKey]; ok {
		return refusal.New(CodeTokenReplayed, "seen")
	}
	m.consumed[replayKey] = replayExpires
	m.sessions[id] = memSession{bytes.Clone(caller), expires}
	return nil
}

func (m *memStore) Session(_ context.Context, id [16]byte) ([]byte, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.fail != nil {
		return nil, time.Time{}, m.fail
	}
	s, ok := m.sessions[id]
	if !ok {
		return nil, time.Time{}, refusal.New("NOT_FOUND", "no session")
	}
	return bytes.Clone(s.caller), s.expires, nil
}

func testCaller() *Caller {
	return &Caller{
		Kind: KindGitHubActions, Issuer: "https://token.actions.githubusercontent.com", DisplayName: "octo-org/octo-app",
		GitHub: &GitHubActions{
			Repository: "octo-org/octo-app", RepositoryID: 1, RepositoryOwner: "octo-org", RepositoryOwnerID: 2,
			Ref: "refs/heads/main", SHA: strings.Repeat("a", 40), RunID: 12345678901234567, RunAttempt: 1,
		},
	}
}

func testVerified(c *clock) *Verified {
	return &Verified{Caller: testCaller(), ReplayKey: "iss\x00jti", ExpiresAt: c.Now().Add(6 * time.Minute)}
}

var testSessionKey = bytes.Repeat([]byte{7}, SessionKeyBytes)

func TestSessions(t *testing.T) {
	clk, store := newClock(), newMemStore()
	s := NewSessions(testSessionKey, store, 0, clk.Now)
	token, expires, err := s.Open(t.Context(), testVerified(clk))
	if err != nil {
		t.Fatal(err)
	}
	if len(token) != sessionTokenLen || !strings.HasPrefix(token, "asy_") {
		t.Errorf("token %q", token)
	}
	if want := clk.Now().Add(MaxSessionTTL); !expires.Equal(want) {
		t.Errorf("expires %v; want %v", expires, want)
	}
	if got := store.consumed["iss\x00jti"]; got.Before(clk.Now().Add(6 * time.Minute)) {
		t.Errorf("replay key forgotten at %v, before the credential ends", got)
	}
	restarted := NewSessions(testSessionKey, store, 0, clk.Now)
	for name, s := range map[string]*Sessions{"same process": s, "after a restart": restarted} {
		for range 2 {
			caller, until, err := s.Check(t.Context(), token)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(testCaller(), caller); diff != "" || !until.Equal(expires) {
				t.Errorf("%s: until %v, -want +got\n%s", name, until, diff)
			}
		}
	}
	if store.reads != 1 {
		t.Errorf("%d reads of the store; want 1, after the restart", store.reads)
	}

	clk.Advance(MaxSessionTTL - time.Nanosecond)
	if _, _, err := s.Check(t.Context(), token); err != nil {
		t.Errorf("in the last nanosecond: %v", err)
	}
	clk.Advance(time.Nanosecond)
	for name, s := range map[string]*Sessions{"cached": s, "stored": NewSessions(testSessionKey, store, 0, clk.Now)} {
		_, _, err := s.Check(t.Context(), token)
		wantCode(t, err, CodeSessionExpired)
		_ = name
	}
	clear(store.sessions) // swept
	_, _, err = NewSessions(testSessionKey, store, 0, clk.Now).Check(t.Context(), token)
	wantCode(t, err, CodeSessionExpired)
}

// Fifty exchanges of one verified token at once yield one session.
func TestOpenOnce(t *testing.T) {
	e, store := newEnv(t), newMemStore()
	v := e.verifier(t)
	s := NewSessions(testSessionKey, store, 0, e.clock.Now)
	other := NewSessions(testSessionKey, store, 0, e.clock.Now) // another machine
	token := e.issuer.Mint(testAudience)
	var mu sync.Mutex
	var opened []string
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			verified, err := v.VerifyOIDC(t.Context(), token)
			if err != nil {
				t.Error(err)
				return
			}
			session, _, err := []*Sessions{s, other}[i%2].Open(t.Context(), verified)
			if err != nil {
				wantCode(t, err, CodeTokenReplayed)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			opened = append(opened, session)
		})
	}
	wg.Wait()
	if len(opened) != 1 || len(store.sessions) != 1 {
		t.Fatalf("%d opened, %d stored; want 1", len(opened), len(store.sessions))
	}
	if _, _, err := s.Check(t.Context(), opened[0]); err != nil {
		t.Error(err)
	}
}

func TestSessionTTL(t *testing.T) {
	clk := newClock()
	for ttl, want := range map[time.Duration]time.Duration{
		0: MaxSessionTTL, -1: MaxSessionTTL, time.Hour: MaxSessionTTL, time.Minute: time.Minute,
	} {
		_, expires, err := NewSessions(testSessionKey, newMemStore(), ttl, clk.Now).Open(t.Context(), testVerified(clk))
		if err != nil || !expires.Equal(clk.Now().Add(want)) {
			t.Errorf("ttl %v: expires %v, %v", ttl, expires, err)
		}
	}
}

// Every token but the one that was made is refused, before the store is asked.
// A session does not outlive the credential that says when it ends.
func TestSessionEndsWithItsCredential(t *testing.T) {
	clk := newClock()
	s := NewSessions(bytes.Repeat([]byte{7}, SessionKeyBytes), newMemStore(), 0, clk.Now)
	for name, c := range map[string]struct {
		notAfter time.Time
		want     time.Time
		code     refusal.Code
	}{
		"none":           {time.Time{}, clk.Now().Add(MaxSessionTTL), ""},
		"after":          {clk.Now().Add(time.Hour), clk.Now().Add(MaxSessionTTL), ""},
		"before":         {clk.Now().Add(time.Minute), clk.Now().Add(time.Minute), ""},
		"between two":    {clk.Now().Add(time.Minute + 900*time.Millisecond), clk.Now().Add(time.Minute), ""},
		"now":            {clk.Now(), time.Time{}, CodeSessionExpired},
		"less than that": {clk.Now().Add(-time.Hour), time.Time{}, CodeSessionExpired},
	} {
		t.Run(name, func(t *testing.T) {
			token, expires, err := s.Open(t.Context(), &Verified{Caller: testCaller(), ReplayKey: name, ExpiresAt: clk.Now(), NotAfter: c.notAfter})
			wantCode(t, err, c.code)
			if !expires.Equal(c.want) || (token == "") != (c.code != "") {
				t.Errorf("ends %s; want %s", expires, c.want)
			}
		})
	}
}

func TestAlteredSessionTokens(t *testing.T) {
	clk, store := newClock(), newMemStore()
	s := NewSessions(testSessionKey, store, 0, clk.Now)
	token, _, err := s.Open(t.Context(), testVerified(clk))
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := NewSessions(bytes.Repeat([]byte{8}, SessionKeyBytes), newMemStore(), 0, clk.Now).Open(t.Context(), testVerified(clk))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token[4:])
	if err != nil {
		t.Fatal(err)
	}
	altered := []string{
		foreign, " " + token, token + " ", token + "\n", token + "=", token + token, "Bearer " + token,
		"asy_" + base64.URLEncoding.EncodeToString(raw[:47]), "asy-" + token[4:], "ASY_" + token[4:],
		token[:10] + "\n" + token[11:], token[:10] + "+" + token[11:],
		"asy_" + strings.Repeat("A", 64), "asy_" + base64.RawURLEncoding.EncodeToString(append(make([]byte, 16), raw[16:]...)),
	}
	for i := range len(token) {
		altered = append(altered, token[:i], token[i+1:], token[:i]+token[i+1:]+"A")
		for _, b := range []byte{token[i] ^ 1, token[i] ^ 0x20, 'A', '_', 0, 0xff} {
			altered = append(altered, token[:i]+string(b)+token[i+1:])
		}
	}
	for i := range raw {
		for bit := range 8 {
			flipped := bytes.Clone(raw)
			flipped[i] ^= 1 << bit
			altered = append(altered, "asy_"+base64.RawURLEncoding.EncodeToString(flipped))
		}
	}
	for _, a := range altered {
		if a == token {
			continue
		}
		if caller, _, err := s.Check(t.Context(), a); refusal.CodeOf(err) != CodeSessionInvalid || caller != nil {
			t.Fatalf("%q (of %q): %v, %v", a, token, caller, err)
		}
	}
	if store.reads != 0 {
		t.Errorf("the store was asked %d times", store.reads)
	}
}

// Who can write to the database still cannot say who a session is, nor make it
// last, nor give it to another.
func TestAlteredStoredSession(t *testing.T) {
	clk := newClock()
	for name, alter := range map[string]func(*memSession, []byte){
		"another caller": func(m *memSession, _ []byte) {
			m.caller = append(m.caller[:32:32], bytes.Replace(m.caller[32:], []byte("octo-org"), []byte("evil-org"), 1)...)
		},
		"no MAC":                func(m *memSession, _ []byte) { m.caller = m.caller[32:] },
		"MAC only":              func(m *memSession, _ []byte) { m.caller = m.caller[:32] },
		"empty":                 func(m *memSession, _ []byte) { m.caller = nil },
		"a later end":           func(m *memSession, _ []byte) { m.expires = m.expires.Add(time.Hour) },
		"the record of another": func(m *memSession, other []byte) { m.caller = other },
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemStore()
			s := NewSessions(testSessionKey, store, 0, clk.Now)
			v := testVerified(clk)
			token, _, err := s.Open(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			otherStore := newMemStore()
			if _, _, err := NewSessions(testSessionKey, otherStore, 0, clk.Now).Open(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			var other []byte
			for _, m := range otherStore.sessions {
				other = m.caller
			}
			for id, m := range store.sessions {
				alter(&m, other)
				store.sessions[id] = m
			}
			_, _, err = NewSessions(testSessionKey, store, 0, clk.Now).Check(t.Context(), token)
			wantCode(t, err, CodeSessionInvalid)
		})
	}
}

// A store that fails is no answer: neither a session nor a refusal.
func TestSessionStoreFails(t *testing.T) {
	clk, store := newClock(), newMemStore()
	s := NewSessions(testSessionKey, store, 0, clk.Now)
	token, _, err := s.Open(t.Context(), testVerified(clk))
	if err != nil {
		t.Fatal(err)
	}
	store.fail = errors.New("disk on fire")
	if _, _, err := s.Open(t.Context(), testVerified(clk)); !errors.Is(err, store.fail) {
		t.Errorf("open: %v", err)
	}
	if _, _, err := NewSessions(testSessionKey, store, 0, clk.Now).Check(t.Context(), token); !errors.Is(err, store.fail) || refusal.CodeOf(err) != "" {
		t.Errorf("check: %v", err)
	}
	if _, _, err := s.Check(t.Context(), token); err != nil {
		t.Errorf("check of a cached session: %v", err)
	}
}

func TestOpenNothing(t *testing.T) {
	s := NewSessions(testSessionKey, newMemStore(), 0, nil)
	_, _, err := s.Open(t.Context(), nil)
	wantCode(t, err, CodeSessionInvalid)
	_, _, err = s.Open(t.Context(), &Verified{Caller: testCaller()})
	wantCode(t, err, CodeSessionInvalid)
	_, _, err = s.Open(t.Context(), &Verified{ReplayKey: "k"})
	wantCode(t, err, CodeCallerInvalid)
}

func TestSessionCacheIsBounded(t *testing.T) {
	clk := newClock()
	s := NewSessions(testSessionKey, newMemStore(), 0, clk.Now)
	id := func(i int) (id [16]byte) { id[0], id[1], id[2] = byte(i), byte(i>>8), byte(i>>16); return }
	live := newSession(testCaller(), clk.Now().Add(time.Minute), 500)
	for i := range maxCachedSessions * 2 {
		s.remember(id(i), live)
	}
	if n := len(s.cache); n > maxCachedSessions || n < maxCachedSessions/2 {
		t.Errorf("%d cached; at most %d wanted", n, maxCachedSessions)
	}
	for i := 0; len(s.cache) < maxCachedSessions; i++ {
		s.remember(id(1<<22+i), live)
	}
	clk.Advance(2 * time.Minute)
	s.remember(id(1<<23), newSession(testCaller(), clk.Now().Add(time.Minute), 500))
	if n := len(s.cache); n != 1 {
		t.Errorf("%d cached after all others expired; want 1", n)
	}
}

// TestSessionCacheBytes: sessions of large builds are as few as their size lets be.
func TestSessionCacheBytes(t *testing.T) {
	t.Parallel()
	clk, store := newClock(), newMemStore()
	s := NewSessions(testSessionKey, store, 0, clk.Now)
	bounded := func(when string) {
		t.Helper()
		sum := 0
		for _, sess := range s.cache {
			sum += sess.bytes
		}
		if sum != s.cached || sum > maxCachedBytes || len(s.cache) > maxCachedSessions {
			t.Fatalf("%s: %d bytes in %d sessions, %d counted", when, sum, len(s.cache), s.cached)
		}
	}
	large := testVerified(clk)
	large.Caller = largeBuild(1000)
	var token string
	for i := range 2000 {
		large.ReplayKey = fmt.Sprint(i)
		var err error
		if token, _, err = s.Open(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			bounded("opened")
			if _, _, err := s.Check(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
	}
	bounded("opened")
	if n := len(s.cache); n < 100 || n > 1500 {
		t.Errorf("%d sessions of large builds are cached", n)
	}
	// What was dropped is read from the store, and counts no more than what was not.
	clear(s.cache)
	s.cached = 0
	for range 3 {
		if _, _, err := s.Check(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	bounded("read")
	if len(s.cache) != 1 || store.reads != 1 {
		t.Errorf("%d cached, %d reads", len(s.cache), store.reads)
	}
	var id [16]byte
	for range 3 {
		s.remember(id, newSession(large.Caller, clk.Now().Add(time.Minute), 1000)) // two requests at a time both had to read it
	}
	bounded("remembered twice")
}

// largeBuild is a build with n environment variables.
func largeBuild(n int) *Caller {
	b := &codebuild.Build{
		ARN: webBuildARN, ProjectARN: "arn:aws:codebuild:eu-west-1:111122223333:project/app", Partition: "aws", Account: webAccount,
		ServiceRole: "arn:aws:iam::111122223333:role/codebuild-app", StartedAt: time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC),
	}
	for i := range n {
		b.Environment.Variables = append(b.Environment.Variables, codebuild.Variable{Name: fmt.Sprintf("VARIABLE_%d", i), Type: "PLAINTEXT", Redacted: true})
	}
	return NewCodeBuildCaller(ModeInJob, b, false, false)
}

func TestNewSessionsWantsAKey(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a key of %d bytes was taken", n)
				}
			}()
			NewSessions(make([]byte, n), newMemStore(), 0, nil)
		}()
	}
}

func TestLoadSessionKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.key")
	keys := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadSessionKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if len(k) != SessionKeyBytes || !bytes.Equal(k, keys[0]) || bytes.Equal(k, make([]byte, SessionKeyBytes)) {
			t.Fatalf("concurrent starts got %d bytes, and not the same", len(k))
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLoadSessionKeyRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		mode os.FileMode
		size int
	}{
		"group can read": {0o640, 32}, "all can read": {0o604, 32}, "short": {0o600, 31}, "long": {0o600, 33}, "empty": {0o600, 0},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, c.size), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSessionKey(path)
		wantCode(t, err, CodeSessionKeyInvalid)
	}
	_, err := LoadSessionKey(dir)
	wantCode(t, err, CodeSessionKeyInvalid)
	if _, err := LoadSessionKey(filepath.Join(dir, "absent", "key")); err == nil {
		t.Error("a key in a directory that is not there")
	}
}

func FuzzSessionToken(f *testing.F) {
	clk, store := newClock(), newMemStore()
	s := NewSessions(testSessionKey, store, 0, clk.Now)
	good, _, err := s.Open(f.Context(), testVerified(clk))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("asy_")
	f.Add("asy_" + strings.Repeat("A", 64))
	f.Fuzz(func(t *testing.T, token string) {
		if _, _, err := s.Check(t.Context(), token); (err == nil) != (token == good) {
			t.Fatalf("%q: %v", token, err)
		}
	})
}

func BenchmarkSessionsCheck(b *testing.B) {
	s := NewSessions(testSessionKey, newMemStore(), 0, nil)
	v := testVerified(newClock())
	token, _, err := s.Open(b.Context(), v)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := s.Check(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
