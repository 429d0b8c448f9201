package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tufrepo"
	"github.com/prometheus/client_golang/prometheus"
)

// trustWorld is a service with a TUF repository whose targets key is elsewhere, and a
// verifier that follows it. The loop of Serve does not run: its turns are the tests' to tell.
type trustWorld struct {
	t        *testing.T
	at       atomic.Int64
	cfg      Config
	s        *Server
	targets  tufrepo.Signer
	logs     bytes.Buffer
	verifier *client.TrustStore
}

func newTrustWorld(t *testing.T) *trustWorld {
	t.Helper()
	w := &trustWorld{t: t}
	w.at.Store(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano())
	w.cfg = Config{Data: t.TempDir(), Now: w.now, Logger: slog.New(slog.NewTextHandler(&w.logs, nil))}
	w.start()
	files, err := TrustFiles(t.Context(), &w.s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	root, err := signing.OpenFile(filepath.Join(t.TempDir(), "root.pem"), true)
	if err != nil {
		t.Fatal(err)
	}
	if w.targets, err = signing.OpenFile(filepath.Join(t.TempDir(), "targets.pem"), true); err != nil {
		t.Fatal(err)
	}
	if err := tufrepo.Init(t.Context(), w.s.cfg.path("tuf"), tufrepo.InitOptions{
		RootSigners: []tufrepo.Signer{root}, Targets: w.targets, Files: files, Now: w.now,
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.turns(); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w.s.trust)
	t.Cleanup(srv.Close)
	if w.verifier, err = client.OpenTrustStore(client.TrustConfig{Server: srv.URL, Dir: t.TempDir(), Now: w.now}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.verifier.Init(t.Context(), w.s.trust.repo.Load().Root()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *trustWorld) now() time.Time { return time.Unix(0, w.at.Load()) }

func (w *trustWorld) start() {
	w.t.Helper()
	cfg := w.cfg
	var err error
	if cfg.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		w.t.Fatal(err)
	}
	s, err := New(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	w.t.Cleanup(func() {
		if err := s.close(); err != nil {
			w.t.Error(err)
		}
	})
}

// turn is how often the loop turns here.
const turn = 5 * time.Minute

// turns has the loop turn once.
func (w *trustWorld) turns() error {
	w.at.Add(int64(turn))
	return w.s.trust.tend(w.t.Context())
}

// pass lets time pass, and returns how many turns complained and what the last one said.
func (w *trustWorld) pass(d time.Duration) (complaints int, last error) {
	for range int(d / turn) {
		if last = w.turns(); last != nil {
			complaints++
		}
	}
	return complaints, last
}

// change works on the keyset as `assayd keys` does.
func (w *trustWorld) change(c signing.Change) {
	w.t.Helper()
	plan, err := signing.Plan(w.t.Context(), w.s.cfg.path("keys"), signing.Config{Now: w.now, Openers: KeyOpeners(&w.s.cfg)}, c)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := plan.Apply(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *trustWorld) signingKey() string {
	return w.s.ring.current.Load().set.KeyOf(signing.RoleAttestation, "").KeyID
}

// publish works on the repository as `assayd tuf publish` does.
func (w *trustWorld) publish() {
	w.t.Helper()
	repo, err := tufrepo.Open(tufrepo.Config{Dir: w.s.cfg.path("tuf"), Now: w.now, TargetsSigner: w.targets})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := repo.PublishFrom(w.t.Context(), func(ctx context.Context) (map[string][]byte, error) { return TrustFiles(ctx, &w.s.cfg) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *trustWorld) timestamp() int64 { return w.s.trust.repo.Load().Status().Roles[3].Version }

// follows wants the verifier to get something that has not expired, and the gauge to say
// whether that is what there is.
func (w *trustWorld) follows(behind bool) *client.TrustState {
	w.t.Helper()
	state, err := w.verifier.Update(w.t.Context())
	if err != nil {
		w.t.Fatalf("the verifier: %v", err)
	}
	w.gauge(behind)
	return state
}

// stops wants the verifier to believe nothing any more.
func (w *trustWorld) stops() {
	w.t.Helper()
	_, err := w.verifier.Update(w.t.Context())
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != client.CodeTUFExpired {
		w.t.Fatalf("the verifier goes on: %v", err)
	}
	w.gauge(true)
}

func (w *trustWorld) gauge(behind bool) {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.s.metrics.behind)
	all, err := reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	if got := all[0].GetMetric()[0].GetGauge().GetValue() == 1; got != behind {
		w.t.Errorf("the gauge says %t", got)
	}
}

// TestUnheardRevocation: verifiers that cannot be told of a revocation believe nothing
// after a day, and go on as soon as they can be told.
func TestUnheardRevocation(t *testing.T) {
	t.Parallel()
	w := newTrustWorld(t)
	old := w.signingKey()
	w.pass(11 * time.Hour) // the timestamp is due in an hour
	w.change(signing.RevokeKey{KeyID: old, Reason: signing.ReasonSuperseded, Rotate: true})
	if n, err := w.pass(59 * time.Minute); n != 0 {
		t.Errorf("within the grace: %v", err)
	}
	if got := strings.Count(w.logs.String(), "level=ERROR"); got != 1 || !strings.Contains(w.logs.String(), old) {
		t.Errorf("%d errors in the log, want one that names the key:\n%s", got, w.logs.String())
	}
	w.follows(true)
	before := w.timestamp()
	n, err := w.pass(24 * time.Hour)
	if n < int(23*time.Hour/turn) || err == nil || !strings.Contains(err.Error(), "not signed anew") {
		t.Errorf("%d complaints, the last %v", n, err)
	}
	if w.timestamp() > before+1 {
		t.Errorf("timestamp %d after %d", w.timestamp(), before)
	}
	w.pass(2 * time.Hour)
	w.stops()

	w.publish()
	if err := w.turns(); err != nil {
		t.Error(err)
	}
	if state := w.follows(false); !bytes.Contains(state.Keys, []byte(`"reason":"superseded"`)) {
		t.Errorf("verifiers do not hear of it: %s", state.Keys)
	}
	if n, err := w.pass(72 * time.Hour); n != 0 {
		t.Errorf("%d complaints: %v", n, err)
	}
	w.follows(false)

	// A revocation made graver is another.
	w.change(signing.RevokeKey{KeyID: old, Reason: signing.ReasonUnspecified, Since: w.now().Add(-30 * time.Hour * 24)})
	w.pass(27 * time.Hour)
	w.stops()
	w.publish()
	if err := w.turns(); err != nil {
		t.Error(err)
	}
	w.follows(false)
}

// TestUnreadableKeyset: nobody can tell what is revoked.
func TestUnreadableKeyset(t *testing.T) {
	t.Parallel()
	w := newTrustWorld(t)
	sheet := filepath.Join(w.s.cfg.path("keys"), "keyset.json")
	good, err := os.ReadFile(sheet)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sheet, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.pass(30 * time.Minute)
	w.follows(true)
	w.at.Add(-int64(10 * time.Hour)) // a clock that goes back gains an hour and no more
	w.pass(11*time.Hour + 25*time.Hour)
	w.stops()
	if err := os.WriteFile(sheet, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.turns(); err != nil {
		t.Error(err)
	}
	w.follows(false)
}

// TestBehindOtherwise: a key that verifiers do not know yet, or that has been retired, is
// no reason to let them stand still.
func TestBehindOtherwise(t *testing.T) {
	t.Parallel()
	w := newTrustWorld(t)
	w.change(signing.RotateKey{Role: signing.RoleAttestation})
	w.change(signing.AddKey{Role: signing.RoleAttestation, Next: true})
	// One that verifiers have never heard of is not believed; that it is revoked may wait.
	if err := w.turns(); err != nil {
		t.Error(err)
	}
	w.change(signing.RevokeKey{KeyID: w.signingKey(), Reason: signing.ReasonUnspecified})
	if n, err := w.pass(80 * time.Hour); n != 0 {
		t.Errorf("%d complaints: %v", n, err)
	}
	w.follows(true)
}

// TestOwnTargetsKey: where the service publishes itself, and cannot for a time, the same
// holds.
func TestOwnTargetsKey(t *testing.T) {
	t.Parallel()
	w := newTrustWorld(t)
	old := w.signingKey()
	// A key that the root does not name: as good as one that is out of reach.
	stray := filepath.Join(t.TempDir(), "stray.pem")
	if _, err := signing.OpenFile(stray, true); err != nil {
		t.Fatal(err)
	}
	w.cfg.TUF.TargetsKey = "file://" + stray
	if err := w.s.close(); err != nil {
		t.Fatal(err)
	}
	served := w.s.trust
	w.start()
	w.change(signing.RevokeKey{KeyID: old, Reason: signing.ReasonKeyCompromise, Rotate: true})
	n, err := w.pass(26 * time.Hour)
	if n != int(26*time.Hour/turn) || !strings.Contains(err.Error(), "not signed anew") {
		t.Errorf("%d complaints, the last %v", n, err)
	}
	served.repo.Store(w.s.trust.repo.Load()) // what the verifier asks
	w.stops()
}

func TestUnheard(t *testing.T) {
	t.Parallel()
	const (
		good    = `{"keys":[{"role":"log","keyId":"a","state":"active","notBefore":"2026-01-01T00:00:00Z"}]}`
		revoked = `{"keys":[{"role":"log","keyId":"a","state":"revoked","notBefore":"2026-01-01T00:00:00Z","revoked":{"since":"2026-02-01T00:00:00Z","reason":"superseded"}}]}`
		graver  = `{"keys":[{"role":"log","keyId":"a","state":"revoked","notBefore":"2026-01-01T00:00:00Z","revoked":{"since":"2026-02-01T00:00:00Z","reason":"unspecified"}}]}`
		other   = `{"keys":[{"role":"log","keyId":"b","state":"active","notBefore":"2026-01-01T00:00:00Z"}]}`
	)
	for _, c := range []struct {
		published, now string
		unheard        bool
	}{
		{good, good, false}, {good, other, false}, {other, good, false}, {revoked, good, false},
		{good, revoked, true}, {revoked, revoked, false}, {revoked, graver, true},
		{other, revoked, false},
		{"", good, false}, {"", revoked, true}, {"{", revoked, true}, {`{"keys":{}}`, revoked, true},
		{good, "{", true},
	} {
		if got := unheard([]byte(c.published), []byte(c.now)); (got != "") != c.unheard {
			t.Errorf("published %s, now %s: %q", c.published, c.now, got)
		}
	}
}
