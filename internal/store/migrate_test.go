package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func steps(tb testing.TB, files map[string]string) []migration {
	tb.Helper()
	fsys := fstest.MapFS{}
	initial, err := migrations()
	must(tb, err)
	for _, m := range initial {
		fsys["migrations/"+m.name] = &fstest.MapFile{Data: []byte(m.sql)}
	}
	for name, text := range files {
		fsys["migrations/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	list, err := readMigrations(fsys)
	must(tb, err)
	return list
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assay.db")
	ctx := context.Background()
	cfg := Config{Path: path}
	s, err := Open(ctx, cfg)
	must(t, err)
	want := put(t, s, testPending(1), 1)
	must(t, s.Close())

	// A step that fails leaves nothing of itself.
	_, err = open(ctx, cfg, steps(t, map[string]string{"0007_more.sql": "CREATE TABLE more (a); INSERT INTO nowhere VALUES (1);"}))
	if err == nil || !strings.Contains(err.Error(), "0007_more.sql") {
		t.Fatalf("got %v", err)
	}
	two := steps(t, map[string]string{"0007_more.sql": "CREATE TABLE more (a);", "0008_rest.sql": "CREATE TABLE rest (a); -- done"})
	s, err = open(ctx, cfg, two)
	must(t, err)
	got, err := s.Attestation(ctx, want.ID)
	must(t, err)
	diff(t, got, want)
	must(t, s.Close())
	s, err = open(ctx, cfg, two) // a second time there is nothing to do
	must(t, err)
	must(t, s.Close())

	_, err = Open(ctx, cfg)
	wantCode(t, err, CodeSchemaNewer)
	_, err = open(ctx, cfg, steps(t, map[string]string{"0007_more.sql": "CREATE TABLE more (b);", "0008_rest.sql": "CREATE TABLE rest (a); -- done"}))
	wantCode(t, err, CodeSchemaChanged)
}

// A file of the first schema is brought up to date, with what is in it.
func TestMigrateDecisions(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "assay.db")}
	ctx := context.Background()
	all, err := migrations()
	must(t, err)
	s, err := open(ctx, cfg, all[:1])
	if err == nil { // this program's statements name columns that are not there yet
		must(t, s.Close())
	}
	db, err := sql.Open("sqlite", cfg.Path)
	must(t, err)
	_, err = db.ExecContext(ctx, `INSERT INTO decisions (id, key, ask_key, created_at, expires_at, subject_name, environment, passed, reason, policy_version, answer)
		VALUES ('old', x'00', 'k', 1, 2, 'app', 'prod', 0, 'R', 'v', x'01')`)
	must(t, err)
	must(t, db.Close())

	s, err = Open(ctx, cfg)
	must(t, err)
	defer s.Close()
	old, err := s.Decision(ctx, "old")
	must(t, err)
	if old.Caller != nil || old.SubjectName != "app" {
		t.Errorf("%+v", old)
	}
	must(t, s.SaveDecision(ctx, &Decision{ID: "new", Key: "k", Caller: []byte(`{"kind":"human"}`)}))
	list, _, err := s.ListDecisions(ctx, Query{})
	must(t, err)
	if len(list) != 2 || string(list[1].Caller) != `{"kind":"human"}` && string(list[0].Caller) != `{"kind":"human"}` {
		t.Errorf("%d decisions: %+v", len(list), list)
	}
}

// recordOfSchema2 is the packed record of a pending attestation as versions with
// schema 2 wrote it: testPending(1), without its sha512 and without a principal.
const recordOfSchema2 = "0a1e68747470733a2f2f736c73612e6465762f70726f76656e616e63652f7631122268747470733a2f2f61737361792e6578616d706c652f6275696c646572732f646576" +
	"1a1868747470733a2f2f6578616d706c652e636f6d2f74797065220c72756e2f31386265373364622801322f6769742b68747470733a2f2f6769746875622e636f6d2f61636d652f6170704072" +
	"6566732f68656164732f6d61696e3a2831386265373364626330613433363664633035346332306531643263346137616361316336646235420a7b226b696e64223a317d" +
	"4a320a08646973742f6170701220e96c88a1ae6a2548eb1d93e26397c2b1388392f73afb5eb20851132e91556f062001280130014a340a0c646973742f6170702e73756d" +
	"12204e3c9d4af2bdac12de34bc2175923e411ec3bf806bd4723f0b474b8b4c9da15520032802"

// A file of schema 2 keeps its attestations, and those of them that are pending are
// completed. None has a principal; they take turns as they did.
func TestMigratePrincipal(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "assay.db")}
	ctx := context.Background()
	all, err := migrations()
	must(t, err)
	if s, err := open(ctx, cfg, all[:2]); err == nil {
		must(t, s.Close())
		t.Fatal("this program's statements name columns that are not there yet")
	}
	db, err := sql.Open("sqlite", cfg.Path)
	must(t, err)
	record, err := hex.DecodeString(recordOfSchema2)
	must(t, err)
	begun := testPending(1)
	raw := func(s string) []byte { d, err := parseDigest("id", s); must(t, err); return d[:] }
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := db.ExecContext(ctx, query, args...)
		must(t, err)
	}
	exec(`INSERT INTO pending (id, created_at, log_size_before, leaf_hash, record, log_body, timestamp, envelope) VALUES (?,?,1,x'01',?,x'02',x'',x'03')`,
		raw(begun.ID), micros(begun.CreatedAt), record)
	shared := Subject{Name: "dist/app.sum", SHA256: number("shared", 0), Kind: 3, Origin: 1}
	for seq := 1; seq <= 3; seq++ {
		// The third of one source is the later and the lower: it comes last.
		exec(`INSERT INTO attestations VALUES (?,?,?,'t','b','bt','i',?,'s','c',?,?)`, seq, raw(number("old", seq)), seq, 3-seq/3, seq, appendSubjects(nil, []Subject{shared}))
		exec(`INSERT INTO bundles VALUES (?,x'04',x'05')`, seq)
		exec(`INSERT INTO subjects VALUES (?,?)`, raw(shared.SHA256), seq)
	}
	must(t, db.Close())

	s, err := Open(ctx, cfg)
	must(t, err)
	defer s.Close()
	pending, err := s.PendingAttestation(ctx, begun.ID)
	must(t, err)
	want := *begun.Record
	want.Principal, want.Subjects[0].SHA512 = "", ""
	diff(t, pending.Record, &want)
	must(t, s.CompleteAttestation(ctx, begun.ID, 9, []byte("bundle"), LogHead{}))
	want.LogIndex, want.Bundle = 9, []byte("bundle")
	got, err := s.Attestation(ctx, begun.ID)
	must(t, err)
	diff(t, got, &want)

	list, more, err := s.AttestationsBySHA256(ctx, shared.SHA256, "", 3)
	must(t, err)
	var ids []string
	for _, a := range list {
		ids = append(ids, a.ID)
		if a.Principal != "" {
			t.Errorf("%s has a principal", a.ID)
		}
	}
	diff(t, ids, []string{begun.ID, number("old", 2), number("old", 1)})
	if !more {
		t.Error("there is one more")
	}
	must(t, s.Check(ctx))
}

// A record without a principal is, byte for byte, what schema 2 had.
func TestRecordOfSchema2(t *testing.T) {
	r := testPending(1).Record
	r.Principal, r.Subjects[0].SHA512 = "", ""
	if got := hex.EncodeToString(packRecord(r, appendSubjects(nil, r.Subjects))); got != recordOfSchema2 {
		t.Errorf("packed as %s", got)
	}
}

func TestForeignFiles(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = db.Exec("CREATE TABLE theirs (a)")
	must(t, err)
	must(t, db.Close())
	_, err = Open(ctx, Config{Path: path})
	wantCode(t, err, CodeSchemaForeign)

	path = filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(path, []byte(strings.Repeat("not a database\n", 100)), 0o600))
	_, err = Open(ctx, Config{Path: path})
	wantCode(t, err, CodeStorageFailed)
}

func TestMigrationNames(t *testing.T) {
	for _, name := range []string{"2_x.sql", "0002.sql", "0003_gap.sql", "0001_twice.sql", "0002_Upper.sql"} {
		fsys := fstest.MapFS{"migrations/0001_initial.sql": {}, "migrations/" + name: {}}
		if _, err := readMigrations(fsys); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
