package scan

import (
	"crypto/sha1" //nolint:gosec // Maven and RPM repositories publish SHA-1; it is recorded, never relied on.
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"github.com/assay-build/assay/internal/sbom"
)

// container is the archive that a tree was opened from: the artifact itself, or a member
// of another tree.
type container struct {
	// name is its file name, without folders.
	name string
	// path is where it is in the outer tree; the name, for the artifact itself.
	path string
	// format is what the archive package recognised, "file" for one plain file.
	format string
	// nested: it lies within another archive.
	nested bool

	open   func() (io.Reader, func() error, error)
	hashes []sbom.Hash
	err    error
}

// sums gives the SHA-1 and the SHA-256 of the archive's own bytes, in this order. They are
// computed when first asked for, since most archives are read in part only.
func (c *container) sums() ([]sbom.Hash, error) {
	if c.hashes != nil || c.err != nil {
		return c.hashes, c.err
	}
	in, done, err := c.open()
	if err != nil {
		c.err = err
		return nil, err
	}
	h1, h256 := sha1.New(), sha256.New() //nolint:gosec // see the import
	_, err = io.Copy(io.MultiWriter(h1, h256), in)
	if err = errors.Join(err, done()); err != nil {
		c.err = err
		return nil, err
	}
	c.hashes = []sbom.Hash{
		{Algorithm: "SHA-1", Value: hex.EncodeToString(h1.Sum(nil))},
		{Algorithm: "SHA-256", Value: hex.EncodeToString(h256.Sum(nil))},
	}
	return c.hashes, nil
}
