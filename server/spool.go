package server

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/assay-build/assay/internal/refusal"
	"golang.org/x/sys/unix"
)

// CodeSpoolFull refuses an upload for want of disk.
const CodeSpoolFull refusal.Code = "SPOOL_FULL"

// spool is where uploaded bytes wait while they are examined. Nothing in it is
// ever needed after the call that wrote it: it is emptied when the service
// starts, so a crash leaves nothing behind for longer than that. File names are
// counters; nothing a client says becomes a path.
//
// It leaves a reserve of its file system free: uploads must not take the last
// space from the database and the log.
type spool struct {
	dir     string
	written atomic.Int64 // by all uploads, since the last look at the free space
	step    atomic.Int64 // how much of that calls for the next look
}

const (
	maxReserve = 1 << 30
	maxStep    = 32 << 20
)

func openSpool(dir string) (*spool, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &spool{dir: dir}, nil
}

// session makes a private directory for one upload; the caller removes it.
func (s *spool) session() (string, error) { return os.MkdirTemp(s.dir, "attest-") }

// wrote counts n bytes that are about to be written, and looks for room for them
// at every step.
func (s *spool) wrote(n int64) error {
	if s.written.Add(n) < s.step.Load() {
		return nil
	}
	return s.room(n)
}

// room refuses where n bytes more would touch the reserve.
func (s *spool) room(n int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return fmt.Errorf("spool: statfs: %w", err)
	}
	block := int64(fs.Bsize)
	reserve := min(int64(fs.Blocks)*block/20, maxReserve)
	s.written.Store(0)
	s.step.Store(min(reserve/2, maxStep))
	if int64(fs.Bavail)*block < reserve+n {
		return refusal.New(CodeSpoolFull, "too little space is left to receive the artifact")
	}
	return nil
}

// artifactWriter hashes and spools the bytes of one artifact. SHA-256 with the
// file, SHA-512, and the receiving goroutine run beside each other: in line,
// SHA-512 alone would halve the rate of an upload. Each queue is a few chunks
// deep, which is what bounds the memory of an upload.
type artifactWriter struct {
	file *os.File
	size int64
	h256 hash.Hash
	h512 hash.Hash

	toFile, to512 chan []byte
	workers       sync.WaitGroup
	failed        atomic.Pointer[error] // of the file; the first one stays
}

const queuedChunks = 4

func (s *spool) create(dir, name string) (*artifactWriter, error) {
	f, err := s.file(dir, name)
	if err != nil {
		return nil, err
	}
	w := &artifactWriter{
		file: f.File, h256: sha256.New(), h512: sha512.New(),
		toFile: make(chan []byte, queuedChunks), to512: make(chan []byte, queuedChunks),
	}
	w.workers.Go(func() {
		for chunk := range w.to512 {
			w.h512.Write(chunk)
		}
	})
	w.workers.Go(func() {
		for chunk := range w.toFile {
			w.h256.Write(chunk)
			if w.failed.Load() != nil {
				continue
			}
			err := s.wrote(int64(len(chunk)))
			if err == nil {
				_, err = w.file.Write(chunk)
			}
			if err != nil {
				err = spoolError(err)
				w.failed.Store(&err)
			}
		}
	})
	return w, nil
}

// write hands over a chunk, which must not change any more. An error may be that
// of an earlier chunk.
func (w *artifactWriter) write(chunk []byte) error {
	w.size += int64(len(chunk))
	w.to512 <- chunk
	w.toFile <- chunk
	return w.err()
}

func (w *artifactWriter) err() error {
	if p := w.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// close waits for what was handed over. The file stays until somebody has looked into
// it. It must be called, once.
func (w *artifactWriter) close() (sha256Hex, sha512Hex string, err error) {
	close(w.to512)
	close(w.toFile)
	w.workers.Wait()
	if err := errors.Join(w.err(), w.file.Close()); err != nil {
		return "", "", spoolError(err)
	}
	return hex.EncodeToString(w.h256.Sum(nil)), hex.EncodeToString(w.h512.Sum(nil)), nil
}

// spoolFile is a file of the spool that is written in one go.
type spoolFile struct {
	*os.File
	spool *spool
}

// file makes one in dir.
func (s *spool) file(dir, name string) (*spoolFile, error) {
	if err := s.room(0); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, spoolError(err)
	}
	return &spoolFile{f, s}, nil
}

func (f *spoolFile) Write(b []byte) (int, error) {
	if err := f.spool.wrote(int64(len(b))); err != nil {
		return 0, err
	}
	n, err := f.File.Write(b)
	if err != nil {
		err = spoolError(err)
	}
	return n, err
}

func spoolError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return refusal.New(CodeSpoolFull, "no space left to receive the artifact")
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		return errors.New("spool: " + p.Op + ": " + p.Err.Error())
	}
	return err
}
