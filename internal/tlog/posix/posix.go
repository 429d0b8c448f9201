// Package posix is Assay's transparency log: Tessera's POSIX driver in one
// directory, with a checkpoint and a proof for every entry as soon as it is durable.
//
//	log, err := posix.Open(ctx, posix.Config{Dir: "data/log", Host: "assay.example.com", Signer: key})
//	entry, err := log.Add(ctx, tlog.EntryBodyDSSE001(env, keyPEM))
//	// entry.Index, entry.Hashes, entry.Checkpoint, entry.SET go into the bundle
//	http.Handle("/log/", http.StripPrefix("/log", log.Handler()))
//
// # Batches
//
// Add hands an entry to one sequencing goroutine. It gives Tessera everything
// that has arrived, waits until Tessera has made it durable and integrated it,
// reads back the leaf hashes from the public tiles, and signs one checkpoint
// over the root of what it read. All entries of the batch share that checkpoint.
// While a batch is on its way to disk, later entries wait for the next one; so
// load makes batches larger and not queues longer. Tessera's own published
// checkpoint follows at its own pace and nobody waits for it.
//
// # Promises
//
// When Add returns an entry, the entry is on disk and in the tree, and survives
// kill -9 and power loss as far as the disk keeps what fsync promised. When Add
// returns an error, the entry may still be in the log, or on its way there: the
// caller that cares looks for it with Find, which waits for what is on its way. An
// Add of a body that is on its way already joins it and gets the same entry.
//
// # What a crash leaves
//
// The only commit point is Tessera's rename of .state/treeState.
//
//   - Before it, entry bundles and tiles may be on disk that no tree covers. They
//     are not served (Handler knows the size), and the next batch overwrites them.
//   - After it, entries are in the log though nobody was told. Open rebuilds the
//     tree from the tiles, which is the same code that follows every batch, and
//     Find tells the caller.
//   - At any point, temporary files stay behind; Open sweeps those whose names
//     only a temporary file can have.
//   - The published checkpoint is older than the tree, never newer. Open refuses
//     the directory if it is newer or has another root (CodeRolledBack), which is
//     what an old backup restored over a running log looks like.
//
// # One appender
//
// Tessera keeps two processes from writing at once, but two appenders in one
// process corrupt the log: its locks are per process. Open therefore takes a lock
// of its own, on the file "lock", that excludes both. It needs a local file
// system: over NFS flock becomes the per-process kind.
package posix

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	tposix "github.com/transparency-dev/tessera/storage/posix"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const (
	// CodeConfigInvalid refuses a Config no log can run with.
	CodeConfigInvalid refusal.Code = "LOG_CONFIG_INVALID"
	// CodeClosed refuses work on a log that is closing or closed.
	CodeClosed refusal.Code = "LOG_CLOSED"
)

const (
	defaultBatchMaxSize       = 512
	defaultBatchMaxAge        = 2 * time.Millisecond
	defaultCheckpointInterval = time.Second

	maxBatchSize          = 4096
	minCheckpointInterval = 100 * time.Millisecond // Tessera's own floor
	// Tessera removes at most 100 obsolete partial bundles a run: this pace
	// keeps up with 5,000 entries a second.
	gcInterval = 5 * time.Second
)

// Signer signs checkpoints and SETs; see tlog.Signer. Each rekor-v1 entry costs
// one signature, so the key should be local.
type Signer = tlog.Signer

// Config says where a log lives and who it is.
type Config struct {
	// Dir holds the log, and nothing else. Required; created if absent.
	Dir string
	// Host is the host name of the log's URL, and its origin. Required. A
	// directory belongs to one host and one key for ever.
	Host string
	// Signer holds the log's ECDSA P-256 key. Required.
	Signer Signer
	// Format is the dialect of checkpoints and SETs. Default rekor-v1.
	Format tlog.EntryFormat
	// BatchMaxSize is the number of entries that closes a batch at once. Default 512, at most 4096.
	BatchMaxSize uint
	// BatchMaxAge is how long the first entry of a batch waits for company. Default 2 ms.
	BatchMaxAge time.Duration
	// CheckpointInterval is the pace of the published checkpoint. Default 1 s, at least 100 ms.
	CheckpointInterval time.Duration
	// Now is the clock for integration times. Default time.Now.
	Now func() time.Time
	// Logger takes operational events. Default: none are logged.
	Logger *slog.Logger
}

func (c *Config) setDefaults() error {
	if c.Dir == "" || c.Signer == nil {
		return refusal.New(CodeConfigInvalid, "log: directory and signer are required")
	}
	if c.Format == "" {
		c.Format = tlog.RekorV1
	}
	if !c.Format.Valid() {
		return refusal.New(CodeConfigInvalid, "log format %q: want %s or %s", c.Format, tlog.RekorV1, tlog.RekorV2)
	}
	if c.BatchMaxSize == 0 {
		c.BatchMaxSize = defaultBatchMaxSize
	}
	if c.BatchMaxAge == 0 {
		c.BatchMaxAge = defaultBatchMaxAge
	}
	if c.CheckpointInterval == 0 {
		c.CheckpointInterval = defaultCheckpointInterval
	}
	if c.BatchMaxSize > maxBatchSize || c.BatchMaxAge < 0 || c.CheckpointInterval < minCheckpointInterval {
		return refusal.New(CodeConfigInvalid, "log: batch size %d (limit %d), batch age %s, checkpoint interval %s (at least %s)",
			c.BatchMaxSize, maxBatchSize, c.BatchMaxAge, c.CheckpointInterval, minCheckpointInterval)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Log is an open log. Its methods may be used concurrently.
type Log struct {
	cfg  Config
	key  *tlog.Key
	id   string // hex of the log ID, for SETs
	lock *dirLock

	appender *tessera.Appender
	reader   tessera.LogReader
	shutdown func(context.Context) error
	bg       context.Context    // of Tessera's goroutines and of signing for batches
	cancel   context.CancelFunc // ends bg
	notes    *noteSigner

	tree *tree

	mu       sync.Mutex // guards the five below
	pending  []*waiter
	inFlight map[hash]*waiter // from enqueue to release
	closing  bool
	failed   error // set once: the log takes no more entries
	lastTime int64 // the last integration time given out

	kick      chan struct{} // capacity 1: pending is not empty
	quit      chan struct{} // closed by Close
	sequenced chan struct{} // closed when the sequencer has ended

	finishing sync.WaitGroup
	finishers chan struct{} // bounds the batches whose checkpoint is being signed

	headMu sync.Mutex // guards head
	head   *head      // of the largest tree signed
}

// Open opens the log in cfg.Dir, or begins one. It refuses a directory that
// another Log has open, in this process or another (CodeLocked), and one that
// was begun for another host or key (CodeIdentityChanged). The context is for
// opening only.
func Open(ctx context.Context, cfg Config) (_ *Log, err error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	key, err := tlog.NewKey(cfg.Host, cfg.Signer.Public())
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.release())
		}
	}()
	// Nothing but this Log writes to the directory from here on.
	if err := claimIdentity(cfg.Dir, key, cfg.Format); err != nil {
		return nil, err
	}
	if err := sweepState(cfg.Dir, cfg.Logger); err != nil {
		return nil, err
	}
	published, err := readPublished(cfg.Dir, key)
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, key: key, id: hex.EncodeToString(key.LogID), lock: lock,
		notes:     &noteSigner{key: key, signer: cfg.Signer, last: published},
		inFlight:  make(map[hash]*waiter),
		kick:      make(chan struct{}, 1),
		quit:      make(chan struct{}),
		sequenced: make(chan struct{}),
		finishers: make(chan struct{}, maxFinishers),
	}
	if err := l.start(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// start brings up Tessera and loads the tree. On error nothing is left running.
func (l *Log) start(ctx context.Context) error {
	driver, err := tposix.New(ctx, tposix.Config{Path: l.cfg.Dir})
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	opts := tessera.NewAppendOptions().
		WithCheckpointSigner(l.notes).
		WithBatching(l.cfg.BatchMaxSize, l.cfg.BatchMaxAge).
		WithCheckpointInterval(l.cfg.CheckpointInterval).
		WithCheckpointRepublishInterval(0). // an unchanged tree keeps its checkpoint
		WithGarbageCollectionInterval(gcInterval)
	l.bg, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.notes.ctx = l.bg
	l.appender, l.shutdown, l.reader, err = tessera.NewAppender(l.bg, driver, opts)
	if err != nil {
		l.cancel()
		return fmt.Errorf("log: opening %s: %w", l.cfg.Dir, err)
	}
	if err := l.load(ctx); err != nil {
		l.stopTessera(ctx)
		return err
	}
	go l.sequence()
	return nil
}

// load rebuilds the tree from the tiles and holds it against what was published.
func (l *Log) load(ctx context.Context) error {
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return fmt.Errorf("log: reading the tree size: %w", err)
	}
	if err := sweepTiles(l.cfg.Dir, size, l.cfg.Logger); err != nil {
		return err
	}
	if l.tree, err = loadTree(ctx, size, l.reader.ReadTile); err != nil {
		return err
	}
	return l.notes.admit(ctx, l.tree)
}

// Close takes no more entries, finishes those it has, publishes a checkpoint
// that covers them, and gives up the directory. If ctx ends first Close returns
// its error and keeps the directory locked until the process ends, because
// writes may still be under way.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	already := l.closing
	l.closing = true
	l.mu.Unlock()
	if already {
		return refusal.New(CodeClosed, "log is closed")
	}
	close(l.quit)
	drained := make(chan struct{})
	go func() {
		<-l.sequenced
		l.finishing.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		return fmt.Errorf("log: closing %s: %w", l.cfg.Dir, ctx.Err())
	}
	// Waits for publication. A crash before that only leaves an older
	// published checkpoint; the next process publishes the tree it finds. A log
	// that has failed might never publish, and is not waited for.
	if l.Health() == nil {
		if err := l.shutdown(ctx); err != nil {
			return fmt.Errorf("log: closing %s: %w", l.cfg.Dir, err)
		}
	}
	l.stopTessera(ctx)
	return l.lock.release()
}

// Size returns the number of entries that are durable, integrated and read back.
func (l *Log) Size() uint64 { return l.tree.size() }

// RootAt returns the root of the first size entries, of which there must be as many.
func (l *Log) RootAt(ctx context.Context, size uint64) ([]byte, error) {
	return l.tree.rootAt(ctx, size)
}

// Host returns the origin host.
func (l *Log) Host() string { return l.key.Host }

// LogID returns the SHA-256 of the log key's SubjectPublicKeyInfo.
func (l *Log) LogID() []byte { return append([]byte(nil), l.key.LogID...) }

// Key returns the log's public identity, for a trusted root.
func (l *Log) Key() *tlog.Key { return l.key }

// Format returns the dialect of the checkpoints.
func (l *Log) Format() tlog.EntryFormat { return l.cfg.Format }

// Health returns the error that made the log stop taking entries, nil while it takes them.
func (l *Log) Health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}
