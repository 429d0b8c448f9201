package scan

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/sbom"
)

// TestTruthImage puts images together from layers: the packages of this machine where it
// is a Debian, then a layer that adds a Go binary, one that removes packages. The truth
// is what is left in the last layer.
func TestTruthImage(t *testing.T) {
	t.Parallel()
	first := syntheticRoot()
	if root := debianRootOrNone(t); root != nil {
		first = root
	}
	binary := smallProgram(t)
	distroless := inMemory{
		"var/lib/dpkg/status.d/extra":   "Package: extra\nVersion: 1\nArchitecture: all\n",
		"var/lib/dpkg/status.d/removed": "Package: removed\nVersion: 1\nArchitecture: all\n",
		"opt/old/app":                   binary[:4096],
		"opt/old/go.mod":                "module m\n\nrequire example.com/removed v1.0.0\n",
	}
	last := inMemory{
		"var/lib/dpkg/status.d/.wh.removed": "", "opt/old/.wh..wh..opq": "", "opt/old/conan.lock": `{"version":"0.5","requires":["zlib/1.2.11"]}`,
		"usr/bin/app": binary,
	}
	layers := [][]byte{tarOf(t, first), tarOf(t, distroless), tarOf(t, last)}

	merged := inMemory{}
	for _, files := range []inMemory{first, {
		"var/lib/dpkg/status.d/extra": distroless["var/lib/dpkg/status.d/extra"],
		"opt/old/conan.lock":          last["opt/old/conan.lock"], "usr/bin/app": binary,
	}} {
		for p, text := range files {
			merged[p] = text
		}
	}
	truth := allPURLs(scanned(t, "rootfs.tar", tarOf(t, merged)))
	for name, image := range map[string][]byte{
		"oci-layout":     ociLayout(t, false, layers),
		"oci-layout.gz":  ociLayout(t, true, layers),
		"docker-archive": dockerArchive(t, layers),
	} {
		inv := scanned(t, "image.tar", image)
		compareTruth(t, name, truth, allPURLs(inv))
		if inv.Format != strings.TrimSuffix(name, ".gz") || len(inv.Incomplete) > 0 {
			t.Errorf("%s: format %q, incomplete %v", name, inv.Format, inv.Incomplete)
		}
		if found := allPURLs(inv); slices.ContainsFunc(found, func(p string) bool { return strings.Contains(p, "removed") }) {
			t.Errorf("%s: what a layer removed is still there", name)
		}
	}
}

func allPURLs(inv *sbom.Inventory) []string {
	var out []string
	for _, c := range inv.Components {
		out = append(out, c.PURL)
	}
	return out
}

// blobs is a content-addressed store inside a tar.
type blobs struct {
	t     testing.TB
	files inMemory
}

func (b *blobs) add(mediaType string, data []byte) map[string]any {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	b.files["blobs/sha256/"+digest] = string(data)
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + digest, "size": len(data)}
}

func (b *blobs) json(v any) []byte {
	b.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// ociLayout is an image as an OCI layout in a tar.
func ociLayout(t testing.TB, compressed bool, layers [][]byte) []byte {
	t.Helper()
	b := &blobs{t: t, files: inMemory{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}}
	var descriptors []any
	var diffs []string
	for _, l := range layers {
		sum := sha256.Sum256(l)
		diffs = append(diffs, "sha256:"+hex.EncodeToString(sum[:]))
		mediaType := "application/vnd.oci.image.layer.v1.tar"
		if compressed {
			mediaType, l = mediaType+"+gzip", gzipped(t, l)
		}
		descriptors = append(descriptors, b.add(mediaType, l))
	}
	config := b.add("application/vnd.oci.image.config.v1+json", b.json(map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	}))
	manifest := b.add("application/vnd.oci.image.manifest.v1+json", b.json(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descriptors,
	}))
	b.files["index.json"] = string(b.json(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	return tarOf(t, b.files)
}

// dockerArchive is an image as docker save writes it.
func dockerArchive(t testing.TB, layers [][]byte) []byte {
	t.Helper()
	b := &blobs{t: t, files: inMemory{}}
	var paths, diffs []string
	for _, l := range layers {
		sum := sha256.Sum256(l)
		digest := hex.EncodeToString(sum[:])
		paths, diffs = append(paths, digest+"/layer.tar"), append(diffs, "sha256:"+digest)
		b.files[digest+"/layer.tar"] = string(l)
	}
	b.files["config.json"] = string(b.json(map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	}))
	b.files["manifest.json"] = string(b.json([]any{map[string]any{"Config": "config.json", "RepoTags": []string{"app:1"}, "Layers": paths}}))
	return tarOf(t, b.files)
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// arOf packs members as ar does.
func arOf(members ...[2]string) []byte {
	out := []byte("!<arch>\n")
	for _, m := range members {
		out = fmt.Appendf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m[0], 0, 0, 0, "100644", len(m[1]))
		out = append(out, m[1]...)
		if len(m[1])%2 == 1 {
			out = append(out, '\n')
		}
	}
	return out
}

// TestPackageFiles scans packages that are the artifact, and packages in a folder of one.
func TestPackageFiles(t *testing.T) {
	t.Parallel()
	deb := arOf([2]string{"debian-binary", "2.0\n"},
		[2]string{"control.tar.gz", string(gzipped(t, tarOf(t, inMemory{"./control": "Package: app\nVersion: 1.0-1\nArchitecture: amd64\nDepends: libc6\n"})))},
		[2]string{"data.tar.gz", string(gzipped(t, tarOf(t, inMemory{"./usr/share/doc/app/copyright": "see /usr/share/common-licenses/GPL-3\n"})))})
	apk := slices.Concat(
		gzipped(t, withoutEnd(tarOf(t, inMemory{".SIGN.RSA.key": "signature"}))),
		gzipped(t, withoutEnd(tarOf(t, inMemory{".PKGINFO": "pkgname = app\npkgver = 1.0-r0\narch = x86_64\nlicense = MIT\ndepend = musl\n"}))),
		gzipped(t, tarOf(t, inMemory{"usr/bin/app": "#!/bin/sh\n"})))
	const debPURL, apkPURL = "pkg:deb/debian/app@1.0-1?arch=amd64", "pkg:apk/alpine/app@1.0-r0?arch=x86_64"
	for _, tt := range []struct {
		name, format string
		data         []byte
		purls        []string
	}{
		{"app.deb", "ar", deb, []string{debPURL}},
		{"app.apk", "apk", apk, []string{apkPURL}},
		{"pool.tar", "tar", tarOf(t, inMemory{"pool/app.deb": string(deb), "pool/app.apk": string(apk), "app.rpm": string(rpmFile())}), []string{apkPURL, debPURL, "pkg:rpm/app@1.0-2.fc40?arch=x86_64"}},
	} {
		inv := scanned(t, tt.name, tt.data)
		if got := allPURLs(inv); !slices.Equal(got, tt.purls) || inv.Format != tt.format {
			t.Errorf("%s: format %q, found %q, incomplete %v; want %q", tt.name, inv.Format, got, inv.Incomplete, tt.purls)
			continue
		}
		for _, c := range inv.Components {
			if len(c.Licenses) == 0 {
				t.Errorf("%s: %s has no licence", tt.name, c.PURL)
			}
		}
	}
}

// withoutEnd is a tar that another follows in the next gzip member, as apk has it: without
// the two empty blocks.
func withoutEnd(data []byte) []byte { return data[:len(data)-1024] }
