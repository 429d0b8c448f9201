package store

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

func testClock() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC) }

func openAt(tb testing.TB, path string) *Store {
	tb.Helper()
	s, err := Open(context.Background(), Config{Path: path, Now: testClock, PageTokenKey: make([]byte, 32), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func openNew(tb testing.TB) *Store {
	tb.Helper()
	return openAt(tb, filepath.Join(tb.TempDir(), "data", "assay.db"))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantCode(tb testing.TB, err error, code refusal.Code) {
	tb.Helper()
	if got := refusal.CodeOf(err); got != code || err == nil {
		tb.Fatalf("got code %q (%v), want %q", got, err, code)
	}
}

// testPending is the i-th of a series of attestations, created a second apart.
func testPending(i int) *Pending {
	id := number("statement", i)
	created := testClock().Add(time.Duration(i) * time.Second)
	return &Pending{
		ID: id, Envelope: []byte("envelope " + id), LogBody: []byte("body " + id), LeafHash: []byte(id[:32]),
		Timestamp: []byte{0, 1, 2}, LogSizeBefore: uint64(i), CreatedAt: created,
		Record: &Attestation{
			ID: id, CreatedAt: created, PredicateType: "https://slsa.dev/provenance/v1", BuilderID: "https://assay.example/builders/dev",
			BuildType: "https://example.com/type", InvocationID: "run/" + id[:8], SLSABuildLevel: i % 4,
			SourceURI: "git+https://github.com/acme/app@refs/heads/main", SourceCommit: id[:40], Principal: "github/1/2", Caller: []byte(`{"kind":1}`),
			Subjects: []Subject{
				{Name: "dist/app", SHA256: number("subject", i), SHA512: id + id, Kind: 1, Origin: 1, Size: int64(i)},
				{Name: "dist/app.sum", SHA256: number("shared", 0), Kind: 3, Origin: 2},
			},
		},
	}
}

// put stores a complete attestation and returns it as it should be read.
func put(tb testing.TB, s *Store, p *Pending, logIndex int64) *Attestation {
	tb.Helper()
	must(tb, s.BeginAttestation(context.Background(), p))
	bundle := []byte("bundle " + p.ID)
	must(tb, s.CompleteAttestation(context.Background(), p.ID, logIndex, bundle, LogHead{}))
	a := *p.Record
	a.ID, a.CreatedAt, a.LogIndex, a.Bundle = p.ID, p.CreatedAt, logIndex, bundle
	return &a
}

func diff(tb testing.TB, got, want any) {
	tb.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		tb.Fatalf("(-want +got)\n%s", d)
	}
}

func TestAttestationLife(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "a", "b?c%41#d e", "assay.db")
	s := openAt(t, path)
	first, second := testPending(1), testPending(2)

	_, err := s.Attestation(ctx, first.ID)
	wantCode(t, err, CodeNotFound)
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("%v is not ErrNotFound", err)
	}
	wantCode(t, s.CompleteAttestation(ctx, first.ID, 7, []byte("b"), LogHead{}), CodeNotFound)
	must(t, s.BeginAttestation(ctx, first))
	must(t, s.BeginAttestation(ctx, second))
	wantCode(t, s.BeginAttestation(ctx, first), CodeAttestationExists)

	// Pending ones are invisible, survive a restart, and come in order.
	_, err = s.Attestation(ctx, first.ID)
	wantCode(t, err, CodeNotFound)
	before := s.Generation()
	must(t, s.Close())
	s = openAt(t, path)
	pending, err := s.PendingAttestations(ctx)
	must(t, err)
	diff(t, pending, []*Pending{first, second})
	wantCode(t, s.BeginAttestation(ctx, first), CodeAttestationExists)

	own, shared := s.GenerationOf(number("subject", 1)), s.GenerationOf(number("shared", 0))
	must(t, s.CompleteAttestation(ctx, first.ID, 7, []byte("bundle"), LogHead{}))
	if s.Generation() == before || s.GenerationOf(number("subject", 1)) == own || s.GenerationOf(number("shared", 0)) == shared {
		t.Fatal("a generation did not move")
	}
	must(t, s.CompleteAttestation(ctx, first.ID, 7, []byte("bundle"), LogHead{}))
	wantCode(t, s.CompleteAttestation(ctx, first.ID, 8, []byte("bundle"), LogHead{}), CodeAttestationExists)
	wantCode(t, s.BeginAttestation(ctx, first), CodeAttestationExists)

	want := *first.Record
	want.LogIndex, want.Bundle = 7, []byte("bundle")
	got, err := s.Attestation(ctx, first.ID)
	must(t, err)
	diff(t, got, &want)

	must(t, s.CompleteAttestation(ctx, second.ID, 9, []byte("bundle 2"), LogHead{}))
	pending, err = s.PendingAttestations(ctx)
	must(t, err)
	diff(t, pending, []*Pending(nil))
	list, more, err := s.AttestationsBySHA256(ctx, number("shared", 0), "", 0)
	must(t, err)
	if more || len(list) != 2 || list[0].ID != second.ID || list[1].ID != first.ID || string(list[0].Bundle) != "bundle 2" {
		t.Fatalf("got %v", list)
	}
	list, more, err = s.AttestationsBySHA256(ctx, number("shared", 0), "", 1)
	must(t, err)
	if !more || len(list) != 1 || list[0].ID != second.ID {
		t.Fatalf("got %v", list)
	}
	must(t, s.Check(ctx))
}

func TestFileModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := openAt(t, filepath.Join(dir, "assay.db"))
	put(t, s, testPending(1), 1)
	for name, want := range map[string]os.FileMode{"": 0o700, "assay.db": 0o600, "assay.db-wal": 0o600, "assay.db-shm": 0o600, "assay.db.lock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	_, err := Open(context.Background(), Config{Path: path})
	wantCode(t, err, CodeStoreLocked)
	must(t, s.Close())
	openAt(t, path)
}

func TestShortPageTokenKeyIsRefused(t *testing.T) {
	if _, err := Open(context.Background(), Config{Path: filepath.Join(t.TempDir(), "x"), PageTokenKey: []byte("short")}); err == nil {
		t.Fatal("opened")
	}
}

// TestPragmas looks at several connections of each pool: the pragmas must be on
// every one, not only on the first.
func TestPragmas(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	for range 2 {
		conn, err := s.scans.Conn(ctx)
		must(t, err)
		defer conn.Close()
		for name, want := range map[string]string{"journal_mode": "wal", "foreign_keys": "1", "query_only": "1", "busy_timeout": "5000", "trusted_schema": "0"} {
			var got string
			must(t, conn.QueryRowContext(ctx, "PRAGMA "+name).Scan(&got))
			if got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		if _, err := conn.ExecContext(ctx, "DELETE FROM attestations"); err == nil {
			t.Error("a reader wrote")
		}
	}
	must(t, s.conn.checkPragmas())
	must(t, s.copier.conn.checkPragmas())
}

func TestRecordsAreChecked(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	long := string(make([]byte, maxTextBytes+1))
	for name, change := range map[string]func(*Pending){
		"long principal":      func(p *Pending) { p.Record.Principal = long[:maxPrincipalBytes+1] },
		"principal not UTF-8": func(p *Pending) { p.Record.Principal = "\xff" },
		"no id":               func(p *Pending) { p.ID = "" },
		"upper-case id":       func(p *Pending) { p.ID = "ABCDEF" + p.ID[6:] },
		"short id":            func(p *Pending) { p.ID = p.ID[1:] },
		"no record":           func(p *Pending) { p.Record = nil },
		"another record":      func(p *Pending) { p.Record.ID = number("other", 1) },
		"another time":        func(p *Pending) { p.Record.CreatedAt = testClock() },
		"no envelope":         func(p *Pending) { p.Envelope = nil },
		"no log body":         func(p *Pending) { p.LogBody = nil },
		"no leaf hash":        func(p *Pending) { p.LeafHash = nil },
		"log size":            func(p *Pending) { p.LogSizeBefore = 1 << 63 },
		"long text":           func(p *Pending) { p.Record.SourceURI = long },
		"text not UTF-8":      func(p *Pending) { p.Record.BuilderID = "\xff" },
		"name not UTF-8":      func(p *Pending) { p.Record.Subjects[0].Name = "\xc3\x28" },
		"digest not hex":      func(p *Pending) { p.Record.Subjects[0].SHA256 = "zz" },
		"sha512 not hex":      func(p *Pending) { p.Record.Subjects[0].SHA512 = number("x", 1) },
		"too many subjects":   func(p *Pending) { p.Record.Subjects = make([]Subject, maxSubjects+1) },
		"timestamp too late":  func(p *Pending) { p.Timestamp = make([]byte, maxBlobBytes+1) },
	} {
		t.Run(name, func(t *testing.T) {
			p := testPending(5)
			change(p)
			wantCode(t, s.BeginAttestation(ctx, p), CodeRecordInvalid)
		})
	}
	wantCode(t, s.CompleteAttestation(ctx, number("x", 1), 1, nil, LogHead{}), CodeRecordInvalid)
	wantCode(t, s.CompleteAttestation(ctx, "x", 1, []byte("b"), LogHead{}), CodeRecordInvalid)
	_, err := s.Attestation(ctx, "sha256:x")
	wantCode(t, err, CodeRecordInvalid)
	_, _, err = s.AttestationsBySHA256(ctx, "", "", 1)
	wantCode(t, err, CodeRecordInvalid)
	wantCode(t, s.SaveDecision(ctx, &Decision{}), CodeRecordInvalid)
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "d", Environment: "\xff"}), CodeRecordInvalid)
	wantCode(t, s.SaveDecision(ctx, &Decision{ID: "d", SHA256: "xyz"}), CodeRecordInvalid)
	wantCode(t, s.RecordAsk(ctx, Ask{Caller: string(make([]byte, maxCallerBytes+1))}), CodeRecordInvalid)
	wantCode(t, s.CreateSession(ctx, [16]byte{1}, nil, testClock(), "", testClock()), CodeRecordInvalid)
}

func TestManySubjects(t *testing.T) {
	s := openNew(t)
	p := testPending(1)
	p.Record.Subjects = nil
	for i := range maxSubjects {
		// The same name and digest may come twice.
		p.Record.Subjects = append(p.Record.Subjects, Subject{Name: "f", SHA256: number("many", i/2)})
	}
	want := put(t, s, p, 1)
	got, _, err := s.AttestationsBySHA256(context.Background(), number("many", maxSubjects/2-1), "", 10)
	must(t, err)
	diff(t, got, []*Attestation{want})
}

func TestDecisions(t *testing.T) {
	s := openNew(t)
	ctx := context.Background()
	now := testClock()
	d := &Decision{ID: "d1", Key: "k", SubjectName: "app", SHA256: number("subject", 1), Environment: "prod", Passed: true,
		Reason: "ALLOWED", Answer: []byte{1, 2}, PolicyVersion: "v1", CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	must(t, s.SaveDecision(ctx, d))
	wantCode(t, s.SaveDecision(ctx, d), CodeDecisionExists)
	later := *d
	later.ID, later.ExpiresAt, later.Passed, later.SHA256 = "d2", now.Add(2*time.Hour), false, ""
	must(t, s.SaveDecision(ctx, &later))

	got, err := s.Decision(ctx, "d1")
	must(t, err)
	diff(t, got, d)
	got, err = s.DecisionByKey(ctx, "k", now)
	must(t, err)
	diff(t, got, &later)
	_, err = s.DecisionByKey(ctx, "k", now.Add(2*time.Hour))
	wantCode(t, err, CodeNotFound)
	_, err = s.DecisionByKey(ctx, "K", now)
	wantCode(t, err, CodeNotFound)
	_, err = s.Decision(ctx, "d3")
	wantCode(t, err, CodeNotFound)
}

func TestAsks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	s := openAt(t, path)
	ctx := context.Background()
	now := testClock()
	wantCode(t, s.RecordAsk(ctx, Ask{DecisionID: "none", Caller: "c", At: now}), CodeNotFound)
	for _, id := range []string{"a", "b"} {
		must(t, s.SaveDecision(ctx, &Decision{ID: id, Key: id, CreatedAt: now, ExpiresAt: now}))
	}
	var want []Ask
	for i := range 100 {
		if i == 50 {
			must(t, s.Close())
			s = openAt(t, path)
		}
		a := Ask{DecisionID: "a", Caller: number("caller", i%3), At: now.Add(time.Duration(i) * time.Millisecond)}
		must(t, s.RecordAsk(ctx, a))
		want = append([]Ask{a}, want...)
	}
	must(t, s.RecordAsk(ctx, Ask{DecisionID: "b", Caller: "b", At: now}))
	got, err := s.Asks(ctx, "a", 0)
	must(t, err)
	diff(t, got, want)
	got, err = s.Asks(ctx, "a", 3)
	must(t, err)
	diff(t, got, want[:3])
	_, err = s.Asks(ctx, "none", 3)
	wantCode(t, err, CodeNotFound)
	d, err := s.Decision(ctx, "a")
	must(t, err)
	if d.AskCount != 100 || !d.LastAskedAt.Equal(want[0].At) {
		t.Fatalf("%d asks, the last at %s", d.AskCount, d.LastAskedAt)
	}
	must(t, s.Check(ctx))
}

func naughtyStrings(tb testing.TB) []string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(vectors.Dir(tb, "blns"), "blns.json"))
	must(tb, err)
	var list []string
	must(tb, json.Unmarshal(data, &list))
	if len(list) < 400 {
		tb.Fatalf("only %d strings", len(list))
	}
	return append(list, "a\x00b", "'; DROP TABLE attestations; --", "%s%d%!", "?1", ":a", "\u202e")
}

// TestTurnsBySHA256: where no principal is known, attestations of one repository
// displace none of another's.
func TestTurnsBySHA256(t *testing.T) {
	ctx := context.Background()
	s := openNew(t)
	n := 0
	add := func(invocation, source string, level int) string {
		n++
		p := testPending(n)
		p.Record.InvocationID, p.Record.SourceURI, p.Record.SLSABuildLevel, p.Record.Principal = invocation, source, level, ""
		put(t, s, p, int64(n))
		return p.ID
	}
	pick := func(limit int, wantMore bool, want ...string) {
		t.Helper()
		list, more, err := s.AttestationsBySHA256(ctx, number("shared", 0), "", limit)
		must(t, err)
		var got []string
		for _, a := range list {
			got = append(got, a.ID)
			if len(a.Bundle) == 0 {
				t.Fatal("without a bundle")
			}
		}
		diff(t, got, want)
		if more != wantMore {
			t.Fatalf("more = %t", more)
		}
	}
	good := add("https://github.com/acme/app/actions/runs/1/attempts/1", "", 2)
	low := add("https://github.com/acme/app/actions/runs/2/attempts/1", "", 1)
	pick(2, false, low, good)
	var foreign []string
	for range 70 {
		foreign = append([]string{add("https://github.com/acme/other/actions/runs/9/attempts/1", "", 2)}, foreign...)
	}
	pick(1, true, good)
	pick(2, true, foreign[0], good)
	pick(3, true, foreign[0], low, good)
	pick(64, true, append(append([]string{}, foreign[:62]...), low, good)...)
	pick(72, false, append(append([]string{}, foreign...), low, good)...)
	// Without a run it is the builder and the source that tell repositories apart.
	plain := add("", "git+https://example.com/a", 0)
	other := add("", "git+https://example.com/b", 0)
	_ = add("", "git+https://example.com/c", 3)
	pick(4, true, other, plain, foreign[0], good)
}
