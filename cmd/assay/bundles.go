package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// bundleWriter puts one bundle next to each artifact's name below a directory.
// The directory is opened before the attest, so that one which cannot be written
// to is found before anything is signed, and nothing below it, such as a link
// put there meanwhile, can lead a write out of it.
type bundleWriter struct {
	dir   string
	root  *os.Root
	names []string
}

// openBundles prepares dir. The names are known later, or from planBundles.
func openBundles(dir string) (*bundleWriter, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, usage("--bundle-dir: "+err.Error(), "")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, usage("--bundle-dir: "+err.Error(), "")
	}
	return &bundleWriter{dir: dir, root: root}, nil
}

func planBundles(dir string, job *attestJob) (*bundleWriter, error) {
	w, err := openBundles(dir)
	if err != nil {
		return nil, err
	}
	w.names = job.names()
	for _, name := range w.names {
		for _, suffix := range []string{bundleSuffix, notarySuffix, mldsaSuffix} {
			if err := w.checkFree(name, suffix, job); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

// checkFree refuses to write over an artifact.
func (w *bundleWriter) checkFree(name, suffix string, job *attestJob) error {
	info, err := w.root.Stat(filepath.FromSlash(name + suffix))
	if err != nil {
		return nil //nolint:nilerr // nothing there to overwrite; what else is wrong the write will tell
	}
	for i := range job.artifacts {
		in, err := os.Stat(job.artifacts[i].Path)
		if err == nil && os.SameFile(in, info) {
			return usage(fmt.Sprintf("the bundle of %s would overwrite the artifact %s", name, job.artifacts[i].Path),
				"choose another --bundle-dir")
		}
	}
	return nil
}

func (w *bundleWriter) close() error { return w.root.Close() }

// write returns the paths it wrote: for each name the bundle, and the signatures that
// stand beside it. Each file appears whole or not at all.
func (w *bundleWriter) write(at *assayv1.Attestation) ([]string, error) {
	var written []string
	put := func(name string, data []byte) error {
		file := filepath.FromSlash(name)
		err := writeAtomic(w.root, file, data)
		if err == nil {
			written = append(written, filepath.Join(w.dir, file))
		}
		return err
	}
	for _, name := range w.names {
		if parent := path.Dir(name); parent != "." {
			if err := w.root.MkdirAll(filepath.FromSlash(parent), 0o755); err != nil {
				return written, err
			}
		}
		if err := put(name+bundleSuffix, at.GetBundle()); err != nil {
			return written, err
		}
		for _, d := range at.GetDetachedSignatures() {
			suffix := detachedSuffix(d.GetKind())
			if suffix == "" {
				continue // of a server that knows more kinds
			}
			if err := put(name+suffix, d.GetSignature()); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func writeAtomic(root *os.Root, name string, data []byte) (err error) {
	tmp := filepath.Join(filepath.Dir(name), ".assay-"+rand.Text())
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		err = errors.Join(err, root.Remove(tmp))
	}
	return err
}
