package archive

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/assay-build/assay/internal/sbom"
)

// descriptor is what OCI image-spec, descriptor.md, says of a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    platform          `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// manifest is an index and a manifest at once: one document must not be both
// (CVE-2021-41190).
type manifest struct {
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
	FSLayers  []any        `json:"fsLayers"`
}

// dockerImage is an element of manifest.json.
type dockerImage struct {
	Config string   `json:"Config"`
	Layers []string `json:"Layers"`
}

// imageConfig is what is read of a configuration.
type imageConfig struct {
	platform
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// attestationType marks what BuildKit puts beside an image: statements, no file system.
const attestationType = "vnd.docker.reference.type"

// oci follows index.json, and looks at manifest.json where "docker save" wrote both.
func (ir *imageReader) oci() {
	if data, ok := ir.document("index.json"); ok {
		ir.index("index.json", data, descriptor{}, map[string]bool{}, 1)
	}
	if ir.outer.entry("manifest.json") != nil {
		ir.compareDocker()
	}
	if len(ir.roots) == 0 {
		ir.note(sbom.ReasonMalformed, "index.json", "an index without an image that can be read")
	}
}

// index reads an index or a manifest, and what it lists.
func (ir *imageReader) index(where string, data []byte, from descriptor, seen map[string]bool, depth int) {
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		ir.note(sbom.ReasonMalformed, where, "no index and no manifest of an image")
		return
	}
	switch {
	case len(m.FSLayers) > 0:
		ir.note(sbom.ReasonUnsupported, where, "an image manifest of version 1")
	case len(m.Layers) > 0 && len(m.Manifests) > 0:
		ir.note(sbom.ReasonUnsafePath, where, "a document that is an index and a manifest")
	}
	if len(m.Layers) > 0 || m.Config.Digest != "" {
		ir.manifest(where, &m, from)
	}
	for _, d := range m.Manifests {
		if ir.outer.b.alive(ir.outer.ctx) != nil || seen[d.Digest] {
			continue
		}
		if depth >= maxIndexDepth || len(ir.roots) >= maxImages || len(seen) >= 8*maxImages {
			ir.note(sbom.ReasonEntries, where, "too many images, or indexes too deep in each other")
			return
		}
		seen[d.Digest] = true
		if p, ok := ir.blobPath(where, d.Digest); ok {
			if data, ok := ir.document(p); ok {
				ir.outer.verify(ir.outer.prefix+p, bytes.NewReader(data), d.Digest)
				ir.index(p, data, d, seen, depth+1)
			}
		}
	}
}

// manifest makes one image of a manifest.
func (ir *imageReader) manifest(where string, m *manifest, from descriptor) {
	root := rootFS{image: Image{Platform: from.Platform.String()}}
	if len(m.Layers) > maxImageLayers {
		ir.note(sbom.ReasonEntries, where, fmt.Sprintf("an image of more than %d layers", maxImageLayers))
		return
	}
	statements := from.Annotations[attestationType] != ""
	for _, d := range m.Layers {
		statements = statements && d.MediaType == "application/vnd.in-toto+json"
		if p, ok := ir.blobPath(where, d.Digest); ok {
			root.layers = append(root.layers, layerRef{path: p, digest: d.Digest})
		}
	}
	if statements {
		return
	}
	if p, ok := ir.blobPath(where, m.Config.Digest); ok && ir.outer.entry(p) != nil {
		if data, ok := ir.document(p); ok {
			ir.outer.verify(ir.outer.prefix+p, bytes.NewReader(data), m.Config.Digest)
			ir.config(&root, p, data)
		}
	}
	ir.roots = append(ir.roots, root)
}

// config takes what the configuration adds: the platform, and digests of unpacked layers.
func (ir *imageReader) config(root *rootFS, where string, data []byte) {
	root.image.Config = data
	var c imageConfig
	// Artifacts that are no images have configurations of any kind; those of images are objects.
	if err := json.Unmarshal(data, &c); err != nil {
		if root.image.Platform != "" {
			ir.note(sbom.ReasonMalformed, where, "an image configuration that cannot be read")
		}
		return
	}
	if root.image.Platform == "" {
		root.image.Platform = c.String()
	}
	for i := range root.layers {
		if len(c.RootFS.DiffIDs) == len(root.layers) {
			root.layers[i].diffID = c.RootFS.DiffIDs[i]
		}
	}
}

// docker reads manifest.json; false where it is that of something else.
func (ir *imageReader) docker() bool {
	images, ok := ir.dockerImages()
	if !ok {
		return false
	}
	if len(images) > maxImages {
		ir.note(sbom.ReasonEntries, "manifest.json", fmt.Sprintf("more than %d images", maxImages))
		images = images[:maxImages]
	}
	for _, im := range images {
		ir.dockerRoot(im)
	}
	return true
}

// dockerRoot makes one image of an element of manifest.json.
func (ir *imageReader) dockerRoot(im dockerImage) {
	root := rootFS{}
	if len(im.Layers) > maxImageLayers {
		ir.note(sbom.ReasonEntries, "manifest.json", fmt.Sprintf("an image of more than %d layers", maxImageLayers))
		return
	}
	for _, p := range im.Layers {
		root.layers = append(root.layers, layerRef{path: path.Clean(p), digest: digestOfPath(p)})
	}
	if data, ok := ir.document(path.Clean(im.Config)); ok {
		ir.config(&root, im.Config, data)
		if want := digestOfPath(strings.TrimSuffix(im.Config, ".json")); want != "" {
			ir.outer.verify(ir.outer.prefix+im.Config, bytes.NewReader(data), want)
		}
	}
	for _, l := range root.layers {
		if l.digest == "" && l.diffID == "" {
			ir.note(sbom.ReasonMalformed, l.path, "a layer that no digest is known of")
		}
	}
	ir.roots = append(ir.roots, root)
}

func (ir *imageReader) dockerImages() (images []dockerImage, ok bool) {
	e := ir.outer.entry("manifest.json")
	if e.size > maxImageJSON {
		return nil, false
	}
	data := make([]byte, e.size)
	n, _ := ir.outer.raw(e).ReadAt(data, 0)
	if err := json.Unmarshal(data[:n], &images); err != nil {
		return nil, false
	}
	images = slices.DeleteFunc(images, func(im dockerImage) bool { return im.Config == "" && len(im.Layers) == 0 })
	return images, len(images) > 0
}

// compareDocker is for archives that are both: each reader would see its own image. What
// index.json does not have is shown beside what it has; it may have nothing, since Docker
// 25.0 wrote indexes that were empty.
func (ir *imageReader) compareDocker() {
	images, ok := ir.dockerImages()
	if !ok {
		return
	}
	known := map[string]bool{}
	for _, root := range ir.roots {
		known[root.layerList()] = true
	}
	empty := len(ir.roots) == 0
	for _, im := range images[:min(len(images), maxImages)] {
		list := rootFS{}
		for _, p := range im.Layers {
			list.layers = append(list.layers, layerRef{path: path.Clean(p)})
		}
		if known[list.layerList()] {
			ir.used[path.Clean(im.Config)] = true
			continue
		}
		if !empty {
			ir.note(sbom.ReasonUnsafePath, "manifest.json", "an image that index.json does not have")
		}
		ir.dockerRoot(im)
	}
}

func (r *rootFS) layerList() string {
	var list strings.Builder
	for _, l := range r.layers {
		list.WriteString(l.path + "\n")
	}
	return list.String()
}

// digestOfPath is the digest that a name stands for: "blobs/sha256/HEX", or HEX alone.
func digestOfPath(p string) string {
	base := path.Base(p)
	if len(base) == 2*sha256.Size && isHex(base) {
		return "sha256:" + base
	}
	return ""
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// blobPath is where a layout keeps a blob.
func (ir *imageReader) blobPath(where, digest string) (string, bool) {
	alg, value, _ := strings.Cut(digest, ":")
	known := alg == "sha256" && len(value) == 2*sha256.Size || alg == "sha512" && len(value) == 2*sha512.Size
	if !known || !isHex(value) {
		ir.note(sbom.ReasonMalformed, where, "a digest that is none: "+printable(digest, 100))
		return "", false
	}
	return "blobs/" + alg + "/" + value, true
}

// document reads a small file of the archive.
func (ir *imageReader) document(p string) ([]byte, bool) {
	e := ir.outer.entry(p)
	ir.used[p] = true
	if e == nil {
		ir.note(sbom.ReasonMalformed, p, "an image that lacks a document")
		return nil, false
	}
	if e.size > maxImageJSON {
		ir.note(sbom.ReasonFileSize, p, fmt.Sprintf("a document of more than %d bytes", maxImageJSON))
		return nil, false
	}
	data := make([]byte, e.size)
	if n, err := ir.outer.raw(e).ReadAt(data, 0); n < len(data) {
		ir.outer.b.noteErr(ir.outer.prefix+p, err)
		return nil, false
	}
	return data, true
}

func (ir *imageReader) note(code sbom.ReasonCode, p, detail string) {
	ir.outer.b.note(code, ir.outer.prefix+p, detail)
}

// verify compares content with a digest. What differs is noted and read all the same: the
// inventory says what is there, and that it is not what the image says.
func (t *Tree) verify(where string, r io.Reader, digest string) {
	alg, value, _ := strings.Cut(digest, ":")
	var h hash.Hash
	switch alg {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		t.b.note(sbom.ReasonMalformed, where, "a digest that is none: "+printable(digest, 100))
		return
	}
	buf := make([]byte, chunkBytes)
	for {
		if t.b.alive(t.ctx) != nil {
			return
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != value {
		t.b.note(sbom.ReasonMalformed, where, "content that is not what its digest says")
	}
}

// nameRoots gives each image a folder where there are several.
func (ir *imageReader) nameRoots() {
	if len(ir.roots) == 1 {
		return
	}
	used := map[string]bool{}
	for i := range ir.roots {
		base := folderName(ir.roots[i].image.Platform)
		name := base
		for n := 2; used[name]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		used[name] = true
		ir.roots[i].image.Prefix = name + "/"
	}
}

// folderName makes a folder of a platform: "linux/arm/v7" is "linux_arm_v7".
func folderName(p string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return '_'
	}, strings.ToLower(p))
	if strings.Trim(name, "_") == "" {
		return "image"
	}
	return name[:min(len(name), 64)]
}

func (p platform) String() string {
	if p.OS == "" && p.Architecture == "" || p.OS == "unknown" {
		return ""
	}
	return printable(strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"), 100)
}
