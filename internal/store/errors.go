package store

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/assay-build/assay/internal/refusal"
)

// The refusals of reads and writes.
const (
	// CodeNotFound: there is no such row.
	CodeNotFound refusal.Code = "NOT_FOUND"
	// CodeRecordInvalid: what was to be stored breaks a stated rule or limit.
	CodeRecordInvalid refusal.Code = "RECORD_INVALID"
	// CodeStoreBusy: the write was not taken, because the queue is full or the
	// caller's deadline passed while it waited there. Nothing was written.
	CodeStoreBusy refusal.Code = "STORE_BUSY"
	// CodeStoreClosed: the store was closed. Nothing was written.
	CodeStoreClosed refusal.Code = "STORE_CLOSED"
	// CodeStorageFull: the disk is full. Nothing was written; reads go on and so
	// will writes once there is room.
	CodeStorageFull refusal.Code = "STORAGE_FULL"
	// CodeStorageFailed: the disk failed a read, a write or a flush. It is not
	// known whether the write under way will be there after a restart. The store
	// takes no further writes until it is opened again.
	CodeStorageFailed refusal.Code = "STORAGE_FAILED"
)

// ErrNotFound matches, by errors.Is, every refusal with CodeNotFound.
var ErrNotFound error = refusal.New(CodeNotFound, "no such row")

// condition is what an error of SQLite means for the store.
type condition int

const (
	condOther  condition = iota // the fault of one statement
	condFull                    // no room; may pass
	condFailed                  // the file can no longer be trusted to keep what it is told
)

// conditionOf sorts errors by what is to be done about them. A failed flush is
// never retried: the kernel may have dropped the pages it could not write, and a
// second flush would then succeed without them.
func conditionOf(err error) condition {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return condOther
	}
	if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE {
		// The index of the write-ahead log could not grow. It is not durable state:
		// SQLite rebuilds it. This is how a full disk shows there.
		return condFull
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return condFull
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL:
		return condFailed
	}
	return condOther
}

// refused turns what SQLite said into what callers are promised.
func refused(err error) error {
	if err == nil || refusal.CodeOf(err) != "" {
		return err
	}
	switch conditionOf(err) {
	case condFull:
		return refusal.New(CodeStorageFull, "the disk is full: %w", err)
	case condFailed:
		return refusal.New(CodeStorageFailed, "the disk or the database file failed: %w", err)
	}
	return fmt.Errorf("store: %w", err)
}

func invalid(field, format string, args ...any) error {
	return refusal.New(CodeRecordInvalid, format, args...).InField(field)
}
