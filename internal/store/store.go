package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeStoreLocked: another process, or another Store of this one, has the file open.
const CodeStoreLocked refusal.Code = "STORE_LOCKED"

// Config says which file to open, and how.
type Config struct {
	// Path of the database file. It and its directory are created if absent, with
	// modes 0600 and 0700. Two files are kept beside it while the store is open,
	// PATH-wal and PATH-shm, and one always, PATH.lock. Required.
	Path string
	// PageTokenKey seals page tokens; at least 32 bytes. Where it is empty a random
	// key is used, and page tokens end with the process.
	PageTokenKey []byte
	// Readers is how many point reads run at a time; 0 means twice the processors
	// and at least 4. Lists have two connections of their own, so that no list can
	// keep a deploy waiting.
	Readers int
	// Now is the clock of DeleteExpired; time.Now if nil.
	Now func() time.Time
	// Logger is slog.Default if nil.
	Logger *slog.Logger
}

// scanReaders is how many lists run at a time.
const scanReaders = 2

// Store is an open database. Its methods may be called concurrently.
type Store struct {
	now        func() time.Time
	log        *slog.Logger
	tokenKey   []byte
	lock       *os.File
	conn       *conn
	copier     *checkpointer
	w          *writer
	points     *sql.DB // reads of one key
	scans      *sql.DB // lists
	get        statements
	gen        generation
	askOps     sync.Pool
	packer     packer
	dictionary *dictionary
	index      *index

	// These belong to the writer's goroutine.
	pending map[digest]*pendingRow
	head    *headMark
}

// statements are the prepared reads, each by one key. Here and elsewhere a limit is
// bound as "LIMIT +?": SQLite plans by the value of a bare parameter there, and compiles
// the statement anew for each value that is bound, which cost more than half of a read.
type statements struct {
	session, consumed, attestation, bySHA256, decision, decisionByKey, byPURL *sql.Stmt
	newestPassed, olderPassed, builds                                         *sql.Stmt
	chunk, byName, byVersion                                                  *sql.Stmt // of the lists' connections
}

// Open opens the database, creates it or brings its schema up to date. What was
// committed before a crash is there; see writer for why. It refuses a file that is
// in use (CodeStoreLocked), one with a schema that this program does not know
// (CodeSchemaNewer), one whose migrations differ from this program's
// (CodeSchemaChanged), and one that is somebody else's (CodeSchemaForeign).
func Open(ctx context.Context, cfg Config) (*Store, error) {
	steps, err := migrations()
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, steps)
}

func open(ctx context.Context, cfg Config, steps []migration) (_ *Store, err error) {
	s := &Store{now: cfg.Now, log: cfg.Logger, tokenKey: cfg.PageTokenKey, askOps: newAskOps(), packer: newPacker(), dictionary: newDictionary(), pending: make(map[digest]*pendingRow)}
	if err := s.defaults(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	path, err := createFile(cfg.Path)
	if err != nil {
		return nil, err
	}
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, err
	}
	if s.conn, err = openConn(ctx, path); err != nil {
		return nil, refused(err)
	}
	if err := s.conn.checkPragmas(); err != nil {
		return nil, refused(err)
	}
	if err := migrate(s.conn, steps, s.now); err != nil {
		return nil, refused(err)
	}
	if err := s.loadPending(s.conn); err != nil {
		return nil, refused(err)
	}
	if s.head, err = loadHeadMark(s.conn); err != nil {
		return nil, refused(err)
	}
	if s.index, err = openIndex(s.conn, s.log); err != nil {
		return nil, refused(err)
	}
	readers := cfg.Readers
	if readers <= 0 {
		readers = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if err := s.openReaders(ctx, path, readers); err != nil {
		return nil, refused(err)
	}
	if s.copier, err = startCheckpointer(ctx, path, s.log); err != nil {
		return nil, refused(err)
	}
	s.w = startWriter(s.conn, s.copier, s.head, s.index, s.log)
	return s, nil
}

func (s *Store) defaults() error {
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	switch n := len(s.tokenKey); {
	case n == 0:
		s.tokenKey = make([]byte, 32)
		_, err := rand.Read(s.tokenKey)
		return err
	case n < 32:
		return fmt.Errorf("store: the page token key has %d bytes, at least 32 are needed", n)
	}
	return nil
}

// createFile makes the file, if it is absent, before SQLite would: with the
// umask's mode. The files SQLite adds take the mode of this one.
func createFile(path string) (string, error) {
	if path == "" {
		return "", errors.New("store: no path of a database file")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	// The name must survive a crash as well as what is written under it.
	return path, errors.Join(f.Close(), syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockFile holds off a second writer: the writer remembers what is pending and how
// asks are numbered, which another process would make untrue. The lock ends with
// the process, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, refusal.New(CodeStoreLocked, "%s is locked, so another process has the database open: %w", path, err)
	}
	return f, nil
}

// lockPatience is how long a lock that somebody holds is asked for.
const lockPatience = time.Second

// flock takes the lock. A process that ended while it was starting a child leaves the
// lock with the child until that executes its program, which is milliseconds; a holder
// that means it is still there after lockPatience.
func flock(f *os.File) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	enough := time.After(lockPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-again.C:
		case <-enough:
			return err
		}
	}
}

func (s *Store) openReaders(ctx context.Context, path string, readers int) error {
	connector, err := sqlite.NewConnector(dsn(path, true))
	if err != nil {
		return err
	}
	pool := func(n int) *sql.DB {
		db := sql.OpenDB(connector)
		db.SetMaxOpenConns(n)
		db.SetMaxIdleConns(n)
		return db
	}
	s.points, s.scans = pool(readers), pool(scanReaders)
	type prepared struct {
		stmt  **sql.Stmt
		query string
	}
	prepare := func(db *sql.DB, list ...prepared) (err error) {
		for _, p := range list {
			if *p.stmt, err = db.PrepareContext(ctx, p.query); err != nil { //nolint:sqlclosecheck // lives as long as db, which closes it
				return err
			}
		}
		return nil
	}
	err = prepare(s.points, []prepared{
		{&s.get.session, "SELECT caller, expires_at FROM sessions WHERE id = ?"},
		{&s.get.consumed, "SELECT EXISTS (SELECT 1 FROM consumed WHERE key = ?)"},
		{&s.get.attestation, "SELECT " + attestationColumns + "b.bundle FROM attestations a JOIN bundles b ON b.attestation = a.seq WHERE a.id = ?"},
		{&s.get.bySHA256, "SELECT " + attestationColumns + `b.bundle FROM subjects s
			CROSS JOIN attestations a ON a.seq = s.attestation CROSS JOIN bundles b ON b.attestation = s.attestation
			WHERE s.sha256 = ?1 AND (?2 = '' OR a.predicate_type = ?2) ORDER BY s.attestation DESC LIMIT +?3`},
		{&s.get.decision, "SELECT " + decisionColumns + " FROM decisions d WHERE d.id = ?"},
		{&s.get.decisionByKey, "SELECT " + decisionColumns + ` FROM decisions d
			WHERE d.key = ? AND d.expires_at > ? AND d.ask_key = ? ORDER BY d.expires_at DESC, d.seq DESC LIMIT 1`},
		{&s.get.byPURL, "SELECT " + versionColumns + " FROM components WHERE key = ?"},
		{&s.get.newestPassed, newestPassed},
		{&s.get.olderPassed, olderPassed},
		{&s.get.builds, buildsBySHA256},
	}...)
	if err != nil {
		return err
	}
	return prepare(s.scans, []prepared{
		{&s.get.chunk, "SELECT chunk FROM postings WHERE id = ?"},
		{&s.get.byName, versionsByName},
		{&s.get.byVersion, versionsByVersion},
	}...)
}

// Close finishes the writes that are queued, refuses new ones and closes the file.
func (s *Store) Close() error {
	if s.w != nil {
		s.w.close()
	}
	var errs []error
	for _, db := range []*sql.DB{s.points, s.scans} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.copier != nil {
		errs = append(errs, s.copier.close())
		s.copier = nil
	}
	// The last connection to close empties the write-ahead log into the file.
	if s.conn != nil {
		errs = append(errs, s.conn.close())
		s.conn = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Health returns nil while the store takes writes, and the refusal with
// CodeStorageFailed that ended that otherwise.
func (s *Store) Health() error {
	if f := s.w.failure.Load(); f != nil {
		return f
	}
	return nil
}

// generation counts commits, in all and by digest.
type generation struct {
	all     atomic.Uint64
	stripes [4096]atomic.Uint64
}

func stripe(sha256 string) uint16 {
	var b [2]byte
	if len(sha256) >= 4 {
		_, _ = hex.Decode(b[:], []byte(sha256[:4]))
	}
	return binary.BigEndian.Uint16(b[:]) % 4096
}

func (g *generation) bump(subjects []Subject) {
	for i := range subjects {
		g.stripes[stripe(subjects[i].SHA256)].Add(1)
	}
	g.all.Add(1)
}

// Generation grows with every attestation that is committed, before its write is
// acknowledged. What was read after Generation returned n is still true of every
// acknowledged write as long as it returns n.
func (s *Store) Generation() uint64 { return s.gen.all.Load() }

// GenerationOf is Generation for the attestations of one digest (lower-case hex):
// it grows with each of them, and seldom otherwise.
func (s *Store) GenerationOf(sha256 string) uint64 { return s.gen.stripes[stripe(sha256)].Load() }
