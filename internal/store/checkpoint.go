package store

import (
	"context"
	"database/sql/driver"
	"log/slog"
)

const (
	// checkpointBytes is about how far the write-ahead log grows before its pages
	// are copied into the database file. Longer means that pages which are written
	// often are copied less often, and that a reader looks in more places.
	checkpointBytes = 32 << 20
	// backstopPages is the length of the write-ahead log at which SQLite itself
	// makes a commit wait for the copy, should the checkpointer fall behind.
	backstopPages = 32 << 10
	// dirtyBytes is about what an op adds to the write-ahead log beside its
	// payload: pages of indexes.
	dirtyBytes = 16 << 10
)

// checkpointer copies pages from the write-ahead log into the database file, so
// that the log does not grow for ever, while the writer goes on committing. What
// the writer added in the meantime it copies itself between two commits; the log is
// then wholly copied and is written again from its start. Copying all of it between
// two commits would hold up every write for tens of milliseconds.
//
// No crash story is needed: a checkpoint flushes the log before it copies and the
// file before it lets the log be written over, so the log stays the truth until
// the file is.
type checkpointer struct {
	conn   *conn
	log    *slog.Logger
	kick   chan struct{} // holds one; the copy is wanted
	copied chan error    // holds one; the copy was made, or failed
	done   chan struct{}

	// Of the writer's goroutine: how much the log has grown since it was last
	// copied, and whether a copy is being made.
	grown   int
	copying bool
}

func startCheckpointer(ctx context.Context, path string, log *slog.Logger) (*checkpointer, error) {
	c, err := openConn(ctx, path)
	if err != nil {
		return nil, err
	}
	k := &checkpointer{conn: c, log: log, kick: make(chan struct{}, 1), copied: make(chan error, 1), done: make(chan struct{})}
	go func() {
		defer close(k.done)
		for range k.kick {
			k.copied <- checkpoint(c)
		}
	}()
	return k, nil
}

func (k *checkpointer) close() error {
	close(k.kick)
	<-k.done
	return k.conn.close()
}

// after is called by the writer between commits, when size more was written.
func (k *checkpointer) after(writer *conn, size int) error {
	k.grown += size
	if !k.copying {
		if k.grown >= checkpointBytes {
			k.copying, k.grown = true, 0
			k.kick <- struct{}{}
		}
		return nil
	}
	select {
	case err := <-k.copied:
		k.copying = false
		if err == nil {
			err = checkpoint(writer)
		}
		return err
	default:
		return nil
	}
}

// checkpoint copies what no reader still needs from the log. It waits for nobody:
// what cannot be copied now is left for the next time.
func checkpoint(c *conn) error {
	var dest [3]driver.Value
	_, err := c.row("PRAGMA wal_checkpoint(PASSIVE)", dest[:])
	return err
}
