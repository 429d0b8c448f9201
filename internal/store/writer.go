package store

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/assay-build/assay/internal/refusal"
)

// Bounds of the queue of writes and of one commit. A commit is kept small so that
// whoever waits for the next one waits milliseconds.
const (
	maxQueuedOps   = 8192
	maxQueuedBytes = 2 * maxBlobBytes // so that behind the largest write others may wait
	maxBatchOps    = 512
	maxBatchBytes  = 2 << 20
	// maxYields is how often collect lets others run before it settles for what is
	// in the queue; measured, none costs a fifth more processor time.
	maxYields = 2
)

// op is one write that somebody waits for.
type op struct {
	// run does the write inside the transaction of its batch. If it refuses, it
	// must have written nothing: the rest of the batch is committed all the same.
	run func(*conn) error
	// ask, where run is nil, is written together with the other asks of the batch.
	ask  Ask
	size int

	state atomic.Int32
	err   error
	done  chan error
}

// An op is queued until the writer takes it or its caller gives up on it,
// whichever is first. Both decide by compare-and-swap, so that a caller who was
// told "nothing was written" was told the truth.
const (
	opQueued int32 = iota
	opTaken
	opAbandoned
)

// writer is the one goroutine that writes. It commits in groups:
//
//  1. It takes what is in the queue, at most one batch.
//  2. It runs every op in one transaction. An op that refuses (a replayed token,
//     a duplicate) is answered with its refusal and takes no part. What ops share,
//     asks and the head of the log, is written once for all of them.
//  3. COMMIT: SQLite appends the changed pages to the write-ahead log and flushes
//     it. This is the instant at which the batch becomes durable and visible.
//  4. It answers every op.
//
// A crash before 3, or in it before the flush is done, leaves a log without a
// valid commit record: on the next open SQLite ignores that tail, and nobody was
// told otherwise. A crash between 3 and 4 leaves writes that nobody was told of;
// callers repeat, and every operation of the store can be repeated. After 4 the
// write survives kill -9 and power loss, as far as the disk keeps what it flushed.
//
// If an op fails in a way it did not foresee, the whole batch is rolled back and
// each op is run again in a transaction of its own, so that it fails alone. If the
// disk is full, the batch is refused and the next one is tried. If the disk fails,
// the outcome is unknown and the store stops writing: see condFailed.
type writer struct {
	conn    *conn
	asks    *askBook
	head    *headMark
	index   *index
	copier  *checkpointer
	log     *slog.Logger
	queue   chan *op
	bytes   atomic.Int64
	stopped chan struct{}
	failure atomic.Pointer[refusal.Error]

	// mu is held shared while an op is put into the queue, so that close does not
	// close the queue under it.
	mu     sync.RWMutex
	closed bool
}

func startWriter(c *conn, k *checkpointer, head *headMark, index *index, log *slog.Logger) *writer {
	w := &writer{
		conn:    c,
		asks:    newAskBook(),
		head:    head,
		index:   index,
		copier:  k,
		log:     log,
		queue:   make(chan *op, maxQueuedOps),
		stopped: make(chan struct{}),
	}
	go w.loop()
	return w
}

// close refuses new writes, finishes those in the queue and returns.
func (w *writer) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.stopped
}

// do queues a write and waits until it is durable or refused.
func (w *writer) do(ctx context.Context, size int, run func(*conn) error) error {
	return w.submit(ctx, &op{run: run, size: size, done: make(chan error, 1)})
}

func (w *writer) submit(ctx context.Context, o *op) error {
	if err := w.enqueue(ctx, o); err != nil {
		return err
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
	}
	if o.state.CompareAndSwap(opQueued, opAbandoned) {
		return refusal.New(CodeStoreBusy, "gave up waiting for the writer, nothing was written: %w", context.Cause(ctx))
	}
	// Its batch is under way and takes milliseconds. Waiting for it gives the
	// caller a definite answer.
	return <-o.done
}

func (w *writer) enqueue(ctx context.Context, o *op) error {
	if err := ctx.Err(); err != nil {
		return refusal.New(CodeStoreBusy, "not queued, nothing was written: %w", err)
	}
	if f := w.failure.Load(); f != nil {
		return f
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return refusal.New(CodeStoreClosed, "the store is closed")
	}
	if queued := w.bytes.Add(int64(o.size)); queued > maxQueuedBytes && queued > int64(o.size) {
		w.bytes.Add(-int64(o.size))
		return refusal.New(CodeStoreBusy, "%d bytes wait to be written, at most %d may", queued-int64(o.size), maxQueuedBytes)
	}
	select {
	case w.queue <- o:
		return nil
	default:
		w.bytes.Add(-int64(o.size))
		return refusal.New(CodeStoreBusy, "%d writes wait already, which is the limit", maxQueuedOps)
	}
}

func (w *writer) loop() {
	defer close(w.stopped)
	batch := make([]*op, 0, maxBatchOps)
	for first := range w.queue {
		batch = w.collect(append(batch[:0], first))
		w.commit(batch)
		size := dirtyBytes
		for i, o := range batch {
			size += o.size
			batch[i] = nil
			o.done <- o.err
		}
		w.checkpoint(size + w.tend())
	}
}

// tend keeps the component index in order, between two commits. Nothing that was
// acknowledged hangs on it.
func (w *writer) tend() int {
	if w.failure.Load() != nil {
		return 0
	}
	size, err := w.index.tend(w.conn)
	switch conditionOf(err) {
	case condFailed:
		w.fail(err)
	default:
		if err != nil {
			w.log.Warn("the component index could not be folded, will try again", "error", err)
		}
	}
	return size
}

func (w *writer) checkpoint(size int) {
	if w.failure.Load() != nil {
		return
	}
	switch err := w.copier.after(w.conn, size); conditionOf(err) {
	case condFailed:
		w.fail(err)
	default:
		if err != nil {
			w.log.Warn("the write-ahead log could not be copied, will try again", "error", err)
		}
	}
}

// collect takes what else is in the queue. Those who were just answered are about
// to write again: letting them run first makes one batch of what would be two.
func (w *writer) collect(batch []*op) []*op {
	size := batch[0].size
	if !w.take(batch[0]) {
		batch = batch[:0]
	}
	yields := 0
	for len(batch) < maxBatchOps && size < maxBatchBytes {
		select {
		case o, ok := <-w.queue:
			if !ok {
				return batch
			}
			if w.take(o) {
				batch = append(batch, o)
				size += o.size
			}
			continue
		default:
		}
		if yields == maxYields {
			break
		}
		yields++
		runtime.Gosched()
	}
	return batch
}

// take claims an op that left the queue, and reports whether its caller still waits.
func (w *writer) take(o *op) bool {
	w.bytes.Add(-int64(o.size))
	return o.state.CompareAndSwap(opQueued, opTaken)
}

// commit decides each op of the batch.
func (w *writer) commit(batch []*op) {
	if f := w.failure.Load(); f != nil {
		answer(batch, f)
		return
	}
	err := w.transact(batch)
	if err != nil && conditionOf(err) == condOther && len(batch) > 1 {
		for i := range batch {
			w.commit(batch[i : i+1])
		}
		return
	}
	if err == nil {
		return
	}
	if conditionOf(err) == condFailed {
		w.fail(err)
	}
	answer(batch, refused(err))
}

// fail ends writing for good.
func (w *writer) fail(err error) {
	w.failure.Store(refusal.New(CodeStorageFailed, "the disk or the database file failed: %w", err))
	w.log.Error("storage failed; no more writes until the store is opened again", "error", err)
}

func answer(batch []*op, err error) {
	for _, o := range batch {
		o.err = err
	}
}

// transact runs the batch in one transaction. It returns nil if every op was
// either committed or refused by itself.
func (w *writer) transact(batch []*op) error {
	return w.conn.transact(func() error {
		w.head.batch = LogHead{}
		w.index.begin()
		var asks []*op
		for _, o := range batch {
			if o.run == nil {
				asks = append(asks, o)
				continue
			}
			if o.err = o.run(w.conn); o.err != nil && refusal.CodeOf(o.err) == "" {
				return o.err
			}
		}
		if err := w.asks.write(w.conn, asks); err != nil {
			return err
		}
		w.index.publish(w.conn)
		return w.head.write(w.conn)
	})
}
