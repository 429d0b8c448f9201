package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
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
		info, err := w.root.Stat(filepath.FromSlash(name + bundleSuffix))
		if err != nil {
			continue // Nothing there to overwrite; what else is wrong the write will tell.
		}
		for i := range job.artifacts {
			in, err := os.Stat(job.artifacts[i].Path)
			if err == nil && os.SameFile(in, info) {
				return nil, usage(fmt.Sprintf("the bundle of %s would overwrite the artifact %s", name, job.artifacts[i].Path),
					"choose another --bundle-dir")
			}
		}
	}
	return w, nil
}

func (w *bundleWriter) close() error { return w.root.Close() }

// write returns the paths it wrote. Each file appears whole or not at all.
func (w *bundleWriter) write(bundle []byte) ([]string, error) {
	var written []string
	for _, name := range w.names {
		if parent := path.Dir(name); parent != "." {
			if err := w.root.MkdirAll(filepath.FromSlash(parent), 0o755); err != nil {
				return written, err
			}
		}
		file := filepath.FromSlash(name + bundleSuffix)
		if err := writeAtomic(w.root, file, bundle); err != nil {
			return written, err
		}
		written = append(written, filepath.Join(w.dir, file))
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
