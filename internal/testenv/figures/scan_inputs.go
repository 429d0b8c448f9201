package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
)

// scanInput is an artifact, as Assay takes it and as others do.
type scanInput struct {
	name string
	path string // the artifact
	dir  string // what it was packed from, or the folder that it is in
	// single: the file itself is what others read. image: it is one that docker saved.
	single, image bool
	// complete: nothing of it may stay unread.
	complete  bool
	limit     time.Duration // of this run, 0 where there is none
	limitName string
}

// scanInputs makes the artifacts, now and here. What cannot be made is said and left out.
func (c *config) scanInputs(ctx context.Context, work string, l *limits) []*scanInput {
	var inputs []*scanInput
	add := func(what string, in *scanInput, err error) {
		if err != nil {
			note("%s is left out: %v", what, err)
			return
		}
		inputs = append(inputs, in)
	}
	in, err := goProgram(filepath.Join(work, "go"))
	add("a Go binary", in, err)
	in, err = nodeModules(ctx, filepath.Join(work, "npm"))
	add("node_modules", in, err)
	root := filepath.Join(work, "debian")
	in, err = debianRoot(ctx, root)
	add("a Debian root", in, err)
	if err == nil {
		in, err = c.image(root, in.path, l)
		add("an image", in, err)
	}
	return inputs
}

// goProgram is cosign, which has some 250 modules, or this program.
func goProgram(dir string) (*scanInput, error) {
	from, err := exec.LookPath("cosign")
	if err != nil {
		if from, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	to := filepath.Join(dir, filepath.Base(from))
	size, err := copyFile(to, from)
	return &scanInput{name: fmt.Sprintf("Go binary, %d MB", size/1e6), path: to, dir: dir, single: true, complete: true}, err
}

func copyFile(to, from string) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755) // a program must look like one
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	return n, errors.Join(err, out.Close())
}

// The packages that are installed are those of the truth tests of package scan.
const nodeProject = `{"name":"truth","version":"1.0.0","private":true,
	"dependencies":{"express":"4.21.2","webpack":"5.97.1","@aws-sdk/client-s3":"3.726.1","react-dom":"18.3.1"},
	"devDependencies":{"jest":"29.7.0","eslint":"8.57.1","@babel/preset-env":"7.26.0","esbuild":"0.24.2"}}`

func nodeModules(ctx context.Context, work string) (*scanInput, error) {
	dir := filepath.Join(work, "project")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(nodeProject), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("npm install: %w: %.300s", err, out)
	}
	return packed("node_modules", dir, filepath.Join(work, "project.tar"))
}

// packed is a folder as a tar.
func packed(name, dir, path string) (*scanInput, error) {
	size, err := packTar(path, dir)
	return &scanInput{name: fmt.Sprintf("%s, %d MB", name, size/1e6), path: path, dir: dir}, err
}

// debianRoot is a new Debian where that can be made, or what of this machine a scan of
// its packages needs.
func debianRoot(ctx context.Context, dir string) (*scanInput, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "debootstrap", "--variant=minbase", "bookworm", dir).CombinedOutput()
	if err == nil {
		// As images have it: without the packages that it was installed from.
		if err := removeAll(filepath.Join(dir, "var/cache/apt/archives/*.deb")); err != nil {
			return nil, err
		}
		return packed("Debian root", dir, dir+".tar")
	}
	note("debootstrap: %v %.200s; the packages of this machine stand in", err, out)
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if _, err := copyFile(filepath.Join(dir, "var/lib/dpkg/status"), "/var/lib/dpkg/status"); err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/usr/share/doc/*/copyright")
	for _, p := range append(files, "/etc/os-release") {
		if _, e := copyFile(filepath.Join(dir, p), p); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return nil, err
	}
	return packed("dpkg of this machine", dir, dir+".tar")
}

func removeAll(pattern string) error {
	files, err := filepath.Glob(pattern)
	for _, p := range files {
		err = errors.Join(err, os.Remove(p))
	}
	return err
}

// image is a root file system in one compressed layer, as docker saves it today: with
// the manifest of old beside an OCI layout.
func (c *config) image(root, layer string, l *limits) (*scanInput, error) {
	blobs := filepath.Join(root+"-image", "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	diff, digest, size, err := compressLayer(layer, blobs)
	if err != nil {
		return nil, err
	}
	add := func(v any) (string, int, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return "", 0, err
		}
		sum := sha256.Sum256(data)
		name := hex.EncodeToString(sum[:])
		return name, len(data), os.WriteFile(filepath.Join(blobs, name), data, 0o600)
	}
	type object = map[string]any
	config, configSize, err := add(object{"architecture": "amd64", "os": "linux", "config": object{}, "rootfs": object{"type": "layers", "diff_ids": []string{"sha256:" + diff}}})
	if err != nil {
		return nil, err
	}
	descriptor := func(mediaType, digest string, size int) object {
		return object{"mediaType": "application/vnd.oci.image." + mediaType, "digest": "sha256:" + digest, "size": size}
	}
	manifest, manifestSize, err := add(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("config.v1+json", config, configSize),
		"layers": []object{descriptor("layer.v1.tar+gzip", digest, size)},
	})
	if err != nil {
		return nil, err
	}
	for name, v := range map[string]any{
		"oci-layout":    object{"imageLayoutVersion": "1.0.0"},
		"index.json":    object{"schemaVersion": 2, "manifests": []object{descriptor("manifest.v1+json", manifest, manifestSize)}},
		"manifest.json": []object{{"Config": "blobs/sha256/" + config, "RepoTags": []string{"figures:1"}, "Layers": []string{"blobs/sha256/" + digest}}},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(root+"-image", name), data, 0o600); err != nil {
			return nil, err
		}
	}
	in, err := packed("image of it, gzip", root+"-image", root+"-image.tar")
	if err != nil {
		return nil, err
	}
	in.image, in.limitName = true, "gunzip and SHA-256"
	in.limit, err = c.unpacking(filepath.Join(blobs, digest), l)
	return in, err
}

// compressLayer writes a layer under the digest of what it is compressed to.
func compressLayer(layer, dir string) (diff, digest string, size int, err error) {
	in, err := os.Open(layer)
	if err != nil {
		return "", "", 0, err
	}
	defer in.Close()
	part := filepath.Join(dir, "part")
	out, err := os.Create(part)
	if err != nil {
		return "", "", 0, err
	}
	plain, compressed := sha256.New(), sha256.New()
	w := gzip.NewWriter(io.MultiWriter(out, compressed))
	_, err = io.Copy(io.MultiWriter(w, plain), in)
	if err = errors.Join(err, w.Close()); err != nil {
		return "", "", 0, errors.Join(err, out.Close())
	}
	n, err := out.Seek(0, io.SeekCurrent)
	digest = hex.EncodeToString(compressed.Sum(nil))
	err = errors.Join(err, out.Close(), os.Rename(part, filepath.Join(dir, digest)))
	return hex.EncodeToString(plain.Sum(nil)), digest, int(n), err
}

// packTar packs a folder: its folders, files and links.
func packTar(path, dir string) (size int64, err error) {
	out, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		return packOne(w, dir, p, d)
	})
	err = errors.Join(err, w.Close())
	size, e := out.Seek(0, io.SeekCurrent)
	return size, errors.Join(err, e, out.Close())
}

func packOne(w *tar.Writer, dir, p string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	case 0, fs.ModeDir:
	default:
		return nil // devices of a root file system
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(dir, p)
	if err != nil {
		return err
	}
	if h.Name = filepath.ToSlash(rel); d.IsDir() {
		h.Name += "/"
	}
	if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	in, err := os.Open(p)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(w, in)
	return err
}
