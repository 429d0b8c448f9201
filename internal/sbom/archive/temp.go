package archive

import (
	"fmt"
	"os"

	"github.com/assay-build/assay/internal/sbom"
)

// temp is a file without a name: it is gone when it is closed, and when the process ends,
// however it ends.
type temp struct {
	b    *Budget
	file *os.File
	size int64
	// chunks wait to be written; they are kept for the next time.
	chunks [2][]byte
}

func (b *Budget) newTemp() (*temp, error) {
	f, err := unnamedFile(b.tempDir)
	if err != nil {
		return nil, b.fail(fmt.Errorf("archive: temporary file: %w", err))
	}
	return &temp{b: b, file: f}, nil
}

// Write appends.
func (t *temp) Write(p []byte) (int, error) {
	if err := t.reserve(len(p)); err != nil {
		return 0, err
	}
	n, err := t.file.Write(p)
	if err != nil {
		return n, t.failed(err)
	}
	return n, nil
}

// reserve counts n bytes that are about to be written.
func (t *temp) reserve(n int) error {
	if t.b.temp+int64(n) > t.b.limits.MaxTempBytes {
		return problemf(sbom.ReasonTotalSize, "more than %d bytes unpacked at one time", t.b.limits.MaxTempBytes)
	}
	t.size += int64(n)
	t.b.temp += int64(n)
	return nil
}

func (t *temp) failed(err error) error {
	return t.b.fail(fmt.Errorf("archive: temporary file: %w", err))
}

// tempWriter appends to a file on the side. The first failure is kept.
type tempWriter struct {
	t    *temp
	free chan []byte
	full chan []byte
	done chan error
}

// writer starts to write; finish must be called before the file is read.
func (t *temp) writer() *tempWriter {
	w := &tempWriter{t: t, free: make(chan []byte, 2), full: make(chan []byte, 2), done: make(chan error, 1)}
	if t.chunks[0] == nil {
		for i := range t.chunks {
			t.chunks[i] = make([]byte, chunkBytes)
		}
	}
	for _, c := range t.chunks {
		w.free <- c
	}
	go func() {
		var first error
		for p := range w.full {
			if first == nil {
				_, first = t.file.Write(p)
			}
			w.free <- p[:chunkBytes]
		}
		w.done <- first
	}()
	return w
}

// next is a chunk to fill.
func (w *tempWriter) next() []byte { return <-w.free }

func (w *tempWriter) write(p []byte) error {
	if err := w.t.reserve(len(p)); err != nil {
		return err
	}
	w.full <- p
	return nil
}

// finish waits until all is written.
func (w *tempWriter) finish() error {
	close(w.full)
	if err := <-w.done; err != nil {
		return w.t.failed(err)
	}
	return nil
}

func (t *temp) ReadAt(p []byte, off int64) (int, error) {
	return guarded{t.file, t.b}.ReadAt(p, off)
}

func (t *temp) Close() error {
	t.b.temp -= t.size
	t.size = 0
	return t.file.Close()
}

// namedThenUnnamed is for file systems that have no unnamed files.
func namedThenUnnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "unpacked-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
