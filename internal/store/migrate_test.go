package store

import (
	"context"
	"database/sql"
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
	_, err = open(ctx, cfg, steps(t, map[string]string{"0003_more.sql": "CREATE TABLE more (a); INSERT INTO nowhere VALUES (1);"}))
	if err == nil || !strings.Contains(err.Error(), "0003_more.sql") {
		t.Fatalf("got %v", err)
	}
	two := steps(t, map[string]string{"0003_more.sql": "CREATE TABLE more (a);", "0004_rest.sql": "CREATE TABLE rest (a); -- done"})
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
	_, err = open(ctx, cfg, steps(t, map[string]string{"0003_more.sql": "CREATE TABLE more (b);", "0004_rest.sql": "CREATE TABLE rest (a); -- done"}))
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
