package posix

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api/layout"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

const (
	// CodeEntryTooLarge refuses an entry body above tlog.MaxEntryBytes.
	CodeEntryTooLarge refusal.Code = "LOG_ENTRY_TOO_LARGE"
	// CodeEntryEmpty refuses an entry without a body.
	CodeEntryEmpty refusal.Code = "LOG_ENTRY_EMPTY"
	// CodeOverloaded refuses an entry when too many wait already. Nothing was written; try later.
	CodeOverloaded refusal.Code = "LOG_OVERLOADED"
	// CodeWriteFailed says that the disk failed. The log takes no more entries until it is opened again.
	CodeWriteFailed refusal.Code = "LOG_WRITE_FAILED"
	// CodeDiskFull says that the disk is full. The log goes on when there is room.
	CodeDiskFull refusal.Code = "LOG_DISK_FULL"
	// CodeSignFailed says that the log key could not sign. The entry is in the log; Find and Entry get it.
	CodeSignFailed refusal.Code = "LOG_SIGN_FAILED"
)

const (
	maxPending   = 4096 // entries waiting for a batch
	maxFinishers = 8    // batches waiting for their checkpoint's signature
)

// Entry is an entry of the log with the proof that it is one.
type Entry struct {
	Index    uint64
	LogID    []byte // of the log's key; not to be changed
	LeafHash [32]byte
	Body     []byte
	// IntegratedTime is in Unix seconds. Among the entries of one Log it never decreases.
	IntegratedTime int64
	// SET is the signed entry timestamp over the four fields above; rekor-v1 only.
	SET []byte
	// TreeSize and RootHash name the tree that Checkpoint signs and Hashes lead to.
	TreeSize   uint64
	RootHash   []byte
	Hashes     [][]byte
	Checkpoint string
}

// head is a tree head with its signed checkpoint.
type head struct {
	size       uint64
	root       []byte
	checkpoint string
}

// waiter is an entry on its way into the log. The sequencer owns it until done
// is closed; from then on it is only read.
type waiter struct {
	entry  *tessera.Entry
	leaf   hash
	future tessera.IndexFuture

	done  chan struct{}
	err   error
	index uint64
	time  int64
	head  *head
}

// Add puts an entry into the log and returns it with its proof. Entries that are handed
// in beside it go in before it, as a rule into the same batch, and nobody asks for their
// proofs; Add returns when all are in. If the context
// ends first, Add returns its error and the entries may or may not be in the log, or
// may yet get there. While one is on its way, an Add of the same body joins it.
func (l *Log) Add(ctx context.Context, body []byte, beside ...[]byte) (*Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	var company [2]*waiter // none is the rule, one the exception
	waiting := company[:0]
	for _, b := range append(beside[:len(beside):len(beside)], body) {
		w, err := l.hand(b)
		if err != nil {
			return nil, err
		}
		waiting = append(waiting, w)
	}
	for _, w := range waiting {
		select {
		case <-w.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("log: the entry was handed in, its outcome is unknown: %w", ctx.Err())
		}
		if w.err != nil {
			return nil, w.err
		}
	}
	w := waiting[len(waiting)-1]
	return l.entry(ctx, body, w.index, w.leaf, w.time, w.head)
}

// hand checks a body and hands it to the sequencer.
func (l *Log) hand(body []byte) (*waiter, error) {
	if len(body) > tlog.MaxEntryBytes {
		return nil, refusal.New(CodeEntryTooLarge, "log entry has %d bytes, limit %d", len(body), tlog.MaxEntryBytes)
	}
	if len(body) == 0 {
		return nil, refusal.New(CodeEntryEmpty, "log entry has no body")
	}
	w := &waiter{entry: tessera.NewEntry(body), done: make(chan struct{})}
	w.leaf = hash(w.entry.LeafHash())
	return l.enqueue(w)
}

// entry completes the answer in the goroutine of the caller, so that proofs and
// SETs of one batch are made in parallel.
func (l *Log) entry(ctx context.Context, body []byte, index uint64, leaf hash, at int64, h *head) (*Entry, error) {
	hashes, err := l.tree.inclusion(ctx, index, h.size)
	if err != nil {
		return nil, err
	}
	e := &Entry{
		Index: index, LogID: l.key.LogID, LeafHash: leaf, Body: body, IntegratedTime: at,
		TreeSize: h.size, RootHash: h.root, Hashes: hashes, Checkpoint: h.checkpoint,
	}
	if l.cfg.Format == tlog.RekorV1 {
		digest := sha256.Sum256(tlog.SETPayload(body, at, int64(index), l.id))
		if e.SET, err = l.cfg.Signer.Sign(ctx, digest[:]); err != nil {
			return nil, refusal.New(CodeSignFailed, "signing the timestamp of log entry %d: %w", index, err)
		}
	}
	return e, nil
}

// enqueue hands w to the sequencer and returns it, or the waiter of the same leaf
// that is on its way already: an Add that was abandoned and repeated gives one entry.
func (l *Log) enqueue(w *waiter) (*waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, ok := l.inFlight[w.leaf]; ok {
		return first, nil
	}
	switch {
	case l.closing:
		return nil, refusal.New(CodeClosed, "log is closed")
	case l.failed != nil:
		return nil, l.failed
	case len(l.pending) >= maxPending:
		return nil, refusal.New(CodeOverloaded, "%d log entries wait already", len(l.pending))
	}
	l.pending = append(l.pending, w)
	l.inFlight[w.leaf] = w
	l.wake()
	return w, nil
}

// release answers the callers of a batch.
func (l *Log) release(ws []*waiter) {
	l.mu.Lock()
	for _, w := range ws {
		delete(l.inFlight, w.leaf)
	}
	l.mu.Unlock()
	for _, w := range ws {
		close(w.done)
	}
}

// wake tells the sequencer that entries are pending.
func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default: // it has been told
	}
}

// take removes up to n pending entries, oldest first.
func (l *Log) take(n int) []*waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.pending))
	ws := l.pending[:n:n]
	if l.pending = l.pending[n:]; len(l.pending) == 0 {
		l.pending = nil
	}
	return ws
}

// sequence is the sequencer: it makes one batch after another until Close, and
// then empties the queue.
func (l *Log) sequence() {
	defer close(l.sequenced)
	for {
		select {
		case <-l.kick:
		case <-l.quit:
			for ws := l.fill(); len(ws) > 0; ws = l.fill() {
				l.commit(ws)
			}
			return
		}
		for ws := l.fill(); len(ws) > 0; ws = l.fill() {
			l.commit(ws)
		}
	}
}

// fill collects one batch. Entries go to Tessera as they arrive; its queue
// closes BatchMaxAge after the first of them, or when the batch is full. We stop
// somewhat earlier, because an entry that just misses Tessera's queue would make
// the whole batch wait for a second round to disk.
func (l *Log) fill() []*waiter {
	limit := int(l.cfg.BatchMaxSize)
	ws := l.take(limit)
	if len(ws) == 0 {
		return nil
	}
	window := l.cfg.BatchMaxAge * 3 / 4
	start := time.Now()
	l.submit(ws)
	timer := time.NewTimer(window)
	defer timer.Stop()
	for len(ws) < limit {
		select {
		case <-timer.C:
			return ws
		case <-l.kick:
			if time.Since(start) > window {
				return ws // the caller's next fill takes it
			}
			more := l.take(limit - len(ws))
			l.submit(more)
			ws = append(ws, more...)
		}
	}
	return ws
}

func (l *Log) submit(ws []*waiter) {
	for _, w := range ws {
		w.future = l.appender.Add(l.bg, w.entry)
	}
}

// commit waits until Tessera has the batch on disk, reads back what it wrote,
// and starts the checkpoint. Only the sequencer calls it, so there is one batch
// at a time between Tessera's queue and our tree.
func (l *Log) commit(ws []*waiter) {
	ctx := l.bg
	var failure error
	for _, w := range ws {
		idx, err := w.future()
		if w.index = idx.Index; err != nil {
			failure, w.err = err, writeError(err)
		}
	}
	if failure != nil {
		l.cfg.Logger.ErrorContext(ctx, "log: writing a batch failed", "err", failure)
	}
	// A batch can fail after its commit point, and is then in the tree. So the
	// tree follows what is on disk, not what the futures said.
	first, leaves, err := l.catchUp(ctx)
	if err == nil {
		err = checkBatch(ws, first, leaves)
	}
	switch {
	case err != nil:
		l.fail(err)
	case refusal.CodeOf(writeError(failure)) == CodeWriteFailed:
		l.fail(writeError(failure))
	}
	if err != nil {
		for _, w := range ws {
			w.err = err
		}
		l.release(ws)
		return
	}
	l.finish(ctx, ws, l.now())
}

// now returns the time of integration. It never goes back, whatever the clock
// does. The floor is not kept across restarts: a clock that was once wrong by
// years would otherwise stay wrong for ever.
func (l *Log) now() int64 {
	at := l.cfg.Now().Unix()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastTime = max(l.lastTime, at)
	return l.lastTime
}

// catchUp appends to the tree the leaf hashes that the public tiles have and it
// has not. This is also how the tree recovers from a failed batch.
func (l *Log) catchUp(ctx context.Context) (first uint64, leaves []hash, err error) {
	first = l.tree.size()
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return first, nil, refusal.New(CodeWriteFailed, "log: reading the tree size: %w", err)
	}
	if size < first {
		return first, nil, refusal.New(CodeRolledBack, "log shrank from %d to %d entries while open", first, size)
	}
	for ri := range layout.Range(first, size-first, size) {
		hs, err := readHashes(ctx, l.reader.ReadTile, 0, ri.Index, ri.Partial)
		if err != nil {
			return first, nil, err
		}
		leaves = append(leaves, hs[ri.First:ri.First+ri.N]...)
	}
	l.tree.append(leaves)
	return first, leaves, nil
}

// checkBatch makes sure that each acknowledged entry stands where Tessera said,
// before anything is signed that says so. Another writer in the directory would
// show here.
func checkBatch(ws []*waiter, first uint64, leaves []hash) error {
	for _, w := range ws {
		if w.err != nil {
			continue
		}
		if w.index < first || w.index-first >= uint64(len(leaves)) || leaves[w.index-first] != w.leaf {
			return refusal.New(CodeCorrupt, "log entry %d is not on disk as it was written", w.index)
		}
	}
	return nil
}

// finish signs the batch's checkpoint and releases its callers, while the
// sequencer goes on with the next batch. If signing fails the entries are in the
// log all the same, and the callers are told so.
func (l *Log) finish(ctx context.Context, ws []*waiter, at int64) {
	size, root, err := l.tree.root(ctx)
	if err != nil {
		l.fail(err)
	}
	l.finishers <- struct{}{}
	l.finishing.Go(func() {
		defer func() { <-l.finishers }()
		var h *head
		if err == nil {
			h, err = l.sign(ctx, size, root)
		}
		for _, w := range ws {
			if w.err == nil {
				w.err, w.head, w.time = err, h, at
			}
		}
		l.release(ws)
	})
}

// sign makes the checkpoint of a tree head.
func (l *Log) sign(ctx context.Context, size uint64, root []byte) (*head, error) {
	cp, err := l.key.SignCheckpoint(ctx, l.cfg.Format, size, root, l.cfg.Signer)
	if err != nil {
		return nil, refusal.New(CodeSignFailed, "%w", err)
	}
	h := &head{size: size, root: root, checkpoint: cp}
	l.headMu.Lock()
	defer l.headMu.Unlock()
	if l.head == nil || l.head.size < size {
		l.head = h
	}
	return h, nil
}

// fail stops the log: an error of the disk, or a tree that is not what it should
// be, does not get better by writing on.
func (l *Log) fail(err error) {
	l.mu.Lock()
	if l.failed == nil {
		l.failed = err
	}
	ws := l.pending
	l.pending = nil
	l.mu.Unlock()
	l.cfg.Logger.Error("log: takes no more entries", "err", err)
	for _, w := range ws {
		w.err = err
	}
	l.release(ws)
}

// writeError gives Tessera's error its code. A full disk is told by the text
// where the error's chain was cut (Tessera formats some causes with %v). If it
// was an fsync that failed, the state of the disk is unknown, full or not.
func writeError(err error) error {
	if err == nil {
		return nil
	}
	full := false
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		full = full || errors.Is(err, e) || strings.Contains(err.Error(), e.Error())
	}
	if full && !strings.Contains(err.Error(), "failed to sync") {
		return refusal.New(CodeDiskFull, "log: %w", err)
	}
	return refusal.New(CodeWriteFailed, "log: %w", err)
}
