package store

import (
	"bytes"
	"crypto/sha256"
	"database/sql/driver"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// The refusals of Open for a file whose schema is not what this program makes.
const (
	// CodeSchemaNewer: a later version of the program has migrated the file.
	CodeSchemaNewer refusal.Code = "SCHEMA_NEWER"
	// CodeSchemaChanged: a migration that was applied is not the one this program has.
	CodeSchemaChanged refusal.Code = "SCHEMA_CHANGED"
	// CodeSchemaForeign: the file is a database, and not one of this program.
	CodeSchemaForeign refusal.Code = "SCHEMA_FOREIGN"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is one numbered step of the schema. Once released it is never edited.
type migration struct {
	version  int64
	name     string
	sql      string
	checksum [sha256.Size]byte
}

func migrations() ([]migration, error) { return readMigrations(migrationFiles) }

// readMigrations reads migrations/NNNN_name.sql, numbered from 1 without gaps.
func readMigrations(fsys fs.FS) ([]migration, error) {
	names, err := fs.Glob(fsys, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	pattern := regexp.MustCompile(`^(\d{4})_[a-z0-9_]+\.sql$`)
	var steps []migration
	for i, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		m := migration{name: path.Base(name), sql: string(text), checksum: sha256.Sum256(text)}
		match := pattern.FindStringSubmatch(m.name)
		if match == nil {
			return nil, fmt.Errorf("store: %s: want a name like 0001_what_it_does.sql", name)
		}
		if m.version, err = strconv.ParseInt(match[1], 10, 64); err != nil || m.version != int64(i+1) {
			return nil, fmt.Errorf("store: %s: want number %04d", name, i+1)
		}
		steps = append(steps, m)
	}
	return steps, nil
}

const schemaTable = `CREATE TABLE schema_migrations (
	version    INTEGER PRIMARY KEY,
	name       TEXT    NOT NULL,
	checksum   BLOB    NOT NULL,
	applied_at INTEGER NOT NULL
) STRICT`

// migrate brings the schema up to date. Each step is one transaction with its row
// in schema_migrations, so a crash leaves whole steps only, and the next Open
// applies the rest.
func migrate(c *conn, steps []migration, now func() time.Time) error {
	applied, err := appliedMigrations(c)
	if err != nil {
		return err
	}
	for i, a := range applied {
		if i >= len(steps) {
			return refusal.New(CodeSchemaNewer, "the database has schema version %d (%s), this program knows %d: use the program that wrote it, or a later one",
				applied[len(applied)-1].version, applied[len(applied)-1].name, len(steps))
		}
		if want := steps[i]; a.version != want.version || !bytes.Equal(a.checksum[:], want.checksum[:]) {
			return refusal.New(CodeSchemaChanged, "the database was migrated with another %s (sha256 %x) than this program's %s (sha256 %x)",
				a.name, a.checksum, want.name, want.checksum)
		}
	}
	for _, m := range steps[len(applied):] {
		err := c.transact(func() error {
			if err := c.script(m.sql); err != nil {
				return err
			}
			_, err := c.exec("INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?,?,?,?)",
				m.version, m.name, m.checksum[:], micros(now()))
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	return nil
}

// appliedMigrations reads what was applied, in order. It creates the table in an
// empty database, and refuses a database that has tables but not this one.
func appliedMigrations(c *conn) ([]migration, error) {
	var dest [3]driver.Value
	found, err := c.row("SELECT count(*), count(*) FILTER (WHERE name = 'schema_migrations') FROM sqlite_schema", dest[:2])
	if err != nil || !found {
		return nil, err
	}
	switch {
	case dest[0].(int64) == 0:
		return nil, c.script(schemaTable)
	case dest[1].(int64) == 0:
		return nil, refusal.New(CodeSchemaForeign, "the file is a database of another program")
	}
	var applied []migration
	err = c.rows("SELECT version, name, checksum FROM schema_migrations ORDER BY version", dest[:], func() error {
		m := migration{version: dest[0].(int64), name: dest[1].(string)}
		sum, _ := dest[2].([]byte)
		copy(m.checksum[:], sum)
		applied = append(applied, m)
		return nil
	})
	return applied, err
}

// checkPragmas makes sure that the promises of durability were accepted: SQLite
// answers a pragma it cannot honour with the value it kept, not with an error.
func (c *conn) checkPragmas() error {
	for _, p := range []struct {
		name string
		want driver.Value
	}{{"journal_mode", "wal"}, {"synchronous", int64(2)}, {"foreign_keys", int64(1)}} {
		var got [1]driver.Value
		if _, err := c.row("PRAGMA "+p.name, got[:]); err != nil {
			return err
		}
		if got[0] != p.want {
			return fmt.Errorf("store: PRAGMA %s is %v, want %v; does the file system support shared memory?", p.name, got[0], p.want)
		}
	}
	return nil
}
