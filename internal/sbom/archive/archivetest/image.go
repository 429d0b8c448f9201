package archivetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// layout is an OCI image layout while it is made.
type layout struct {
	files []tarFile
	known map[string]bool
}

// blob adds content under its digest.
func (l *layout) blob(data []byte) string {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	if l.known == nil {
		l.known = map[string]bool{}
	}
	if !l.known[digest] {
		l.known[digest] = true
		l.files = append(l.files, reg("blobs/sha256/"+digest, string(data)))
	}
	return "sha256:" + digest
}

// layer adds the members of a layer, compressed.
func (l *layout) layer(files ...tarFile) (string, error) {
	data, err := tarOf(files...)
	if err != nil {
		return "", err
	}
	return l.blob(gz(data)), nil
}

func descriptor(kind, digest string) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":%q,"size":1}`, kind, digest)
}

// manifest adds a manifest of layers and returns its descriptor.
func (l *layout) manifest(layers ...string) string {
	config := l.blob([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`))
	var list []string
	for _, d := range layers {
		list = append(list, descriptor("layer.v1.tar+gzip", d))
	}
	return descriptor("manifest.v1+json", l.blob([]byte(fmt.Sprintf(
		`{"schemaVersion":2,"config":%s,"layers":[%s]}`, descriptor("config.v1+json", config), strings.Join(list, ",")))))
}

// write returns the layout with an index of manifests, and what more is in it.
func (l *layout) write(manifests []string, more ...tarFile) ([]byte, error) {
	files := append([]tarFile{
		reg("oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
		reg("index.json", `{"schemaVersion":2,"manifests":[`+strings.Join(manifests, ",")+`]}`),
	}, l.files...)
	return tarOf(append(files, more...)...)
}

// anImage is a case of one image with the given layers.
func anImage(name string, want []sbom.ReasonCode, layers ...[]tarFile) recipe {
	return recipe{name: name, ext: ".tar", want: want, write: content(func() ([]byte, error) {
		l := &layout{}
		var digests []string
		for _, files := range layers {
			d, err := l.layer(files...)
			if err != nil {
				return nil, err
			}
			digests = append(digests, d)
		}
		return l.write([]string{l.manifest(digests...)})
	})}
}

// images are hostile container images.
func images() []recipe {
	unsafe, malformed := codes(sbom.ReasonUnsafePath), codes(sbom.ReasonMalformed)
	base := []tarFile{reg("etc/os-release", "ID=alpine\n"), reg("lib/apk/db/installed", "")}
	layered := func(files ...tarFile) [][]tarFile { return [][]tarFile{base, files} }
	made := func(name string, want []sbom.ReasonCode, make func(l *layout, digest string) ([]byte, error)) recipe {
		return recipe{name: name, ext: ".tar", want: want, write: content(func() ([]byte, error) {
			l := &layout{}
			digest, err := l.layer(base...)
			if err != nil {
				return nil, err
			}
			return make(l, digest)
		})}
	}
	many := made("image-layer-again", codes(sbom.ReasonEntries), func(l *layout, _ string) ([]byte, error) {
		var files []tarFile
		for i := range 20_000 {
			files = append(files, reg(fmt.Sprintf("f%05d", i), ""))
		}
		d, err := l.layer(files...)
		if err != nil {
			return nil, err
		}
		return l.write([]string{l.manifest(strings.Split(strings.Repeat(d+" ", 26)+d, " ")...)})
	})
	many.large = true
	return []recipe{
		anImage("image-slip", unsafe, layered(reg("../../etc/cron.d/evil", "evil"))...),
		anImage("image-whiteout-up", unsafe, layered(reg("etc/.wh...", ""))...),
		anImage("image-whiteout-here", unsafe, layered(reg("etc/.wh..", ""))...),
		anImage("image-whiteout-nothing", unsafe, layered(reg("etc/.wh.", ""))...),
		anImage("image-whiteout-own", unsafe, layered(reg("usr/bin/evil", "evil"), reg("usr/bin/.wh.evil", ""))...),
		anImage("image-opaque-own", nil, layered(reg("lib/kept", "kept"), reg("lib/.wh..wh..opq", ""))...),
		anImage("image-hardlink-out", unsafe, layered(hardlink("shadow", "../../etc/shadow"))...),
		anImage("image-hardlink-missing", malformed, layered(hardlink("shadow", "etc/shadow"))...),
		anImage("image-hardlink-below", nil, layered(hardlink("again", "/etc/os-release"))...),
		anImage("image-link-parent", nil, []tarFile{linkTo("etc", "../../../../real")}, []tarFile{reg("etc/os-release", "ID=alpine\n")}),
		anImage("image-link-loop", unsafe, []tarFile{linkTo("a", "b"), linkTo("b", "a")}, []tarFile{reg("a/x", "1")}),
		anImage("image-file-for-folder", unsafe, layered(reg("etc/os-release/x", "1"))...),
		anImage("image-devices", nil, layered(tarFile{Header: charDevice("etc/os-release")})...),
		made("image-layer-digest", malformed, func(l *layout, digest string) ([]byte, error) {
			last := &l.files[len(l.files)-1]
			last.data = string(gz([]byte(strings.Repeat("\x00", 1024))))
			return l.write([]string{l.manifest(digest)})
		}),
		made("image-layer-missing", malformed, func(l *layout, digest string) ([]byte, error) {
			return l.write([]string{l.manifest(digest, "sha256:"+strings.Repeat("0", 64))})
		}),
		made("image-digest-path", malformed, func(l *layout, digest string) ([]byte, error) {
			return l.write([]string{l.manifest(digest, "sha256:../../../etc/passwd")})
		}),
		made("image-manifest-digest", malformed, func(l *layout, digest string) ([]byte, error) {
			d := l.manifest(digest)
			last := &l.files[len(l.files)-1]
			last.data += " "
			return l.write([]string{d})
		}),
		made("image-index-loop", malformed, func(l *layout, digest string) ([]byte, error) {
			loop := strings.Repeat("1", 64)
			d := descriptor("index.v1+json", "sha256:"+loop)
			return l.write([]string{d, l.manifest(digest)}, reg("blobs/sha256/"+loop, `{"manifests":[`+d+`]}`))
		}),
		made("image-index-and-manifest", codes(sbom.ReasonMalformed, sbom.ReasonUnsafePath), func(l *layout, digest string) ([]byte, error) {
			both := fmt.Sprintf(`{"manifests":[%s],"layers":[%s]}`, l.manifest(digest), descriptor("layer.v1.tar+gzip", digest))
			return l.write([]string{descriptor("manifest.v1+json", l.blob([]byte(both)))})
		}),
		made("image-two-truths", unsafe, func(l *layout, digest string) ([]byte, error) {
			other, err := l.layer(reg("evil", "evil"))
			if err != nil {
				return nil, err
			}
			docker := fmt.Sprintf(`[{"Config":"c.json","Layers":["blobs/sha256/%s"]}]`, strings.TrimPrefix(other, "sha256:"))
			return l.write([]string{l.manifest(digest)}, reg("manifest.json", docker), reg("c.json", "{}"))
		}),
		made("image-duplicate-key", malformed, func(l *layout, digest string) ([]byte, error) {
			return l.write([]string{l.manifest(digest) + `],"manifests":[`})
		}),
		many,
		dockerCase("docker-layer-out", malformed, "../../../etc/passwd", ""),
		dockerCase("docker-layer-link-out", codes(sbom.ReasonMalformed, sbom.ReasonUnsafePath), "m/layer.tar", "../../../etc/passwd"),
		dockerCase("docker-no-digest", malformed, "l/layer.tar", ""),
	}
}

// dockerCase is what "docker save" would write, with a layer at a path of its own choice.
func dockerCase(name string, want []sbom.ReasonCode, layer, link string) recipe {
	return recipe{name: name, ext: ".tar", want: want, write: content(func() ([]byte, error) {
		inner, err := tarOf(reg("etc/os-release", "ID=alpine\n"))
		if err != nil {
			return nil, err
		}
		files := []tarFile{
			reg("manifest.json", fmt.Sprintf(`[{"Config":"c.json","RepoTags":["a:b"],"Layers":[%q]}]`, layer)),
			reg("c.json", `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}`),
			reg("l/layer.tar", string(inner)),
		}
		if link != "" {
			files = append(files, linkTo("m/layer.tar", link))
		}
		return tarOf(files...)
	})}
}

// packages are hostile packages of distributions, and archives nobody here reads.
func packages() []recipe {
	malformed := codes(sbom.ReasonMalformed)
	part := func(files ...tarFile) ([]byte, error) {
		data, err := tarOf(files...)
		return gz(data), err
	}
	deb := func(name string, want []sbom.ReasonCode, build func(control, data []byte) []byte) recipe {
		return recipe{name: name, ext: ".deb", want: want, write: content(func() ([]byte, error) {
			control, err := part(reg("./control", "Package: a\nVersion: 1\nArchitecture: all\n"))
			if err != nil {
				return nil, err
			}
			data, err := part(reg("./usr/share/a", "a"))
			return append([]byte("!<arch>\n"+arMember("debian-binary", []byte("2.0\n"))), build(control, data)...), err
		})}
	}
	magic := func(name, head string) recipe {
		return recipe{name: name, want: codes(sbom.ReasonUnsupported), write: content(func() ([]byte, error) {
			return append([]byte(head), bytes.Repeat([]byte{0xaa}, 600)...), nil
		})}
	}
	return []recipe{
		deb("deb-twice", codes(sbom.ReasonUnsafePath), func(control, data []byte) []byte {
			return []byte(arMember("control.tar.gz", control) + arMember("data.tar.gz", data) + arMember("data.tar.xz", data))
		}),
		deb("deb-truncated", malformed, func(control, data []byte) []byte {
			all := arMember("control.tar.gz", control) + arMember("data.tar.gz", data)
			return []byte(all[:len(all)-40])
		}),
		deb("deb-no-data", malformed, func(control, _ []byte) []byte { return []byte(arMember("control.tar.gz", control)) }),
		deb("deb-slip", codes(sbom.ReasonUnsafePath), func(control, _ []byte) []byte {
			data, _ := part(reg("./../../etc/passwd", "x")) // the names are ones that a tar can have
			return []byte(arMember("control.tar.gz", control) + arMember("data.tar.gz", data))
		}),
		deb("deb-lzma", codes(sbom.ReasonUnsupported), func(control, _ []byte) []byte {
			return []byte(arMember("control.tar.gz", control) + arMember("data.tar.lzma", []byte("\x5d\x00\x00\x80\x00\xff\xff")))
		}),
		deb("deb-size", malformed, func(control, data []byte) []byte {
			return []byte(strings.Replace(arMember("control.tar.gz", control)+arMember("data.tar.gz", data), "`\n", "?\n", 1))
		}),
		deb("deb-many-parts", codes(sbom.ReasonEntries), func(control, data []byte) []byte {
			all := arMember("control.tar.gz", control) + arMember("data.tar.gz", data)
			for i := range 70 {
				all += arMember(fmt.Sprintf("_x%d", i), nil)
			}
			return []byte(all + arMember("x.jar", hidden()))
		}),
		deb("deb-other-part", nil, func(control, data []byte) []byte {
			return []byte(arMember("control.tar.gz", control) + arMember("data.tar.gz", data) + arMember("_x.jar", hidden()))
		}),
		magic("unread-asar", "\x04\x00\x00\x00\x20\x00\x00\x00\x1c\x00\x00\x00\x16\x00\x00\x00{\"files\":{}}"),
		magic("unread-7z", "7z\xbc\xaf\x27\x1c"),
		magic("unread-rar", "Rar!\x1a\x07\x01\x00"),
		magic("unread-squashfs", "hsqs"),
		magic("unread-cpio", "070701"),
	}
}

// arMember is a member of ar, padded to an even length.
func arMember(name string, data []byte) string {
	out := fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", name, 0, 0, 0, "100644", len(data), data)
	if len(data)%2 == 1 {
		out += "\n"
	}
	return out
}
