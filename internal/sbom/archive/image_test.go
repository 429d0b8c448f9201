package archive

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/sbom"
)

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// layoutOf makes an OCI layout: for each image its platform and its layers.
func layoutOf(tb testing.TB, images ...imageSpec) []byte {
	tb.Helper()
	members := []member{{name: "oci-layout", data: "{}"}, {name: "./blobs/"}}
	seen := map[string]bool{}
	blob := func(data []byte) string {
		name := "blobs/sha256/" + digest(data)
		if !seen[name] {
			seen[name] = true
			members = append(members, member{name: name, data: string(data)})
		}
		return "sha256:" + digest(data)
	}
	var manifests []string
	for _, im := range images {
		os, arch, _ := strings.Cut(im.platform, "/")
		config := blob(fmt.Appendf(nil, `{"os":%q,"architecture":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, os, arch))
		var layers []string
		for _, l := range im.layers {
			layers = append(layers, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, im.layerType(), blob(l), len(l)))
		}
		m := blob(fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[%s]}`, config, strings.Join(layers, ",")))
		manifests = append(manifests, fmt.Sprintf(`{"digest":%q,"size":1,"platform":{"os":%q,"architecture":%q}%s}`, m, os, arch, im.annotation))
	}
	members = append(members, member{name: "index.json", data: `{"schemaVersion":2,"manifests":[` + strings.Join(manifests, ",") + `]}`})
	return tarOf(tb, members...)
}

type imageSpec struct {
	platform   string
	layers     [][]byte
	media      string
	annotation string
}

func (s imageSpec) layerType() string {
	if s.media != "" {
		return s.media
	}
	return "application/vnd.oci.image.layer.v1.tar"
}

// TestLayers: whiteouts, hard links and links to folders, as the OCI image specification
// and containerd have them.
func TestLayers(t *testing.T) {
	t.Parallel()
	base := []member{
		{name: "usr/"}, {name: "usr/bin/sh", data: "dash"}, {name: "usr/lib/libc.so", data: "libc"},
		{name: "lib", target: "usr/lib"}, {name: "var/cache/a", data: "1"}, {name: "var/cache/sub/b", data: "2"},
	}
	has := func(more ...string) map[string]string {
		m := map[string]string{"usr/bin/sh": "dash", "usr/lib/libc.so": "libc", "var/cache/a": "1", "var/cache/sub/b": "2"}
		for i := 0; i < len(more); i += 2 {
			if m[more[i]] = more[i+1]; more[i+1] == "-" {
				delete(m, more[i])
			}
		}
		return m
	}
	for _, c := range []struct {
		name  string
		upper []member
		want  map[string]string
	}{
		{"nothing", nil, has()},
		{"added", []member{{name: "./etc/passwd", data: "root"}}, has("etc/passwd", "root")},
		{"changed", []member{{name: "usr/bin/sh", data: "bash"}}, has("usr/bin/sh", "bash")},
		{"whiteout", []member{{name: "usr/bin/.wh.sh"}}, has("usr/bin/sh", "-")},
		{"whiteout of a folder", []member{{name: "var/.wh.cache"}}, has("var/cache/a", "-", "var/cache/sub/b", "-")},
		{"whiteout of what is not there", []member{{name: "usr/.wh.gone"}, {name: "gone/.wh.x"}}, has()},
		{"whiteout below a link", []member{{name: "lib/.wh.libc.so"}}, has("usr/lib/libc.so", "-")},
		{"whiteout, then new", []member{{name: "usr/bin/.wh.sh"}, {name: "usr/bin/sh", data: "new"}}, has("usr/bin/sh", "new")},
		{"opaque", []member{{name: "var/cache/.wh..wh..opq"}, {name: "var/cache/c", data: "3"}}, has("var/cache/a", "-", "var/cache/sub/b", "-", "var/cache/c", "3")},
		{"opaque after", []member{{name: "var/cache/sub/c", data: "3"}, {name: "var/cache/.wh..wh..opq"}}, has("var/cache/a", "-", "var/cache/sub/b", "-", "var/cache/sub/c", "3")},
		{"AUFS", []member{{name: ".wh..wh.plnk/x"}, {name: ".wh..wh.aufs"}}, has(".wh..wh.plnk/x", "")},
		{"file for a folder", []member{{name: "var/cache", data: "file"}}, has("var/cache", "file", "var/cache/a", "-", "var/cache/sub/b", "-")},
		{"folder for a file", []member{{name: "usr/bin/sh/"}, {name: "usr/bin/sh/x", data: "x"}}, has("usr/bin/sh", "-", "usr/bin/sh/x", "x")},
		{"below a link", []member{{name: "lib/new.so", data: "new"}}, has("usr/lib/new.so", "new")},
		{"folder over a folder", []member{{name: "usr/lib/"}}, has()},
		{"folder over a link", []member{{name: "lib/"}, {name: "lib/x", data: "x"}}, has("lib/x", "x")},
		{"hard link", []member{{name: "bin/sh", hard: "/usr/bin/sh"}}, has("bin/sh", "dash")},
		{"hard link below a link", []member{{name: "libc", hard: "lib/libc.so"}}, has("libc", "libc")},
		{"device for a file", []member{{name: "usr/bin/sh", typ: tar.TypeChar}}, has("usr/bin/sh", "-")},
		{"absolute", []member{{name: "/etc/x", data: "x"}}, has("etc/x", "x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tree, b := open(t, layoutOf(t, imageSpec{platform: "linux/amd64", layers: [][]byte{tarOf(t, base...), gzipped(t, tarOf(t, c.upper...))}}), "i.tar")
			checkContents(t, tree, c.want)
			checkReasons(t, b)
			if im := tree.Images(); len(im) != 1 || im[0].Prefix != "" || im[0].Platform != "linux/amd64" || len(im[0].Config) == 0 {
				t.Errorf("images %v", im)
			}
		})
	}
}

// TestPlatforms: each image of an index is in a folder of its own, and its links stay there.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	layer := func(arch string) []byte {
		return tarOf(t, member{name: "usr/lib/os-release", data: arch}, member{name: "etc/os-release", target: "/usr/lib/os-release"},
			member{name: "up", target: "../../../usr/lib/os-release"})
	}
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v0.1"}`)
	tree, b := open(t, layoutOf(t,
		imageSpec{platform: "linux/amd64", layers: [][]byte{layer("amd64")}},
		imageSpec{platform: "linux/arm64", layers: [][]byte{layer("arm64")}},
		imageSpec{platform: "linux/arm64", layers: [][]byte{layer("other")}},
		imageSpec{
			platform: "unknown/unknown", layers: [][]byte{statement}, media: "application/vnd.in-toto+json",
			annotation: `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`,
		},
		// What only claims to be a statement is an image all the same.
		imageSpec{
			platform: "unknown/unknown", layers: [][]byte{layer("hidden")},
			annotation: `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`,
		},
	), "i.tar")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{
		"linux_amd64/usr/lib/os-release": "amd64", "linux_arm64/usr/lib/os-release": "arm64",
		"linux_arm64_2/usr/lib/os-release": "other", "image/usr/lib/os-release": "hidden",
	})
	for _, p := range []string{"linux_arm64/etc/os-release", "linux_arm64/up"} {
		if data, err := fs.ReadFile(tree, p); err != nil || string(data) != "arm64" {
			t.Errorf("%s: %q, %v", p, data, err)
		}
	}
	if tree.Format() != "oci-layout" || len(tree.Images()) != 4 || b.Files() != 4 {
		t.Errorf("format %q, %d images, %d files", tree.Format(), len(tree.Images()), b.Files())
	}
}

// TestDocker reads what "docker save" writes, old and new, also compressed as a whole.
func TestDocker(t *testing.T) {
	t.Parallel()
	first, second := tarOf(t, member{name: "a", data: "1"}), tarOf(t, member{name: "b", data: "2"})
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%s","sha256:%s","sha256:%s"]}}`,
		digest(first), digest(second), digest(first))
	configName := digest([]byte(config)) + ".json"
	data := tarOf(t,
		member{name: "1/layer.tar", data: string(first)}, member{name: "2/layer.tar", data: string(second)},
		member{name: "3/layer.tar", target: "../1/layer.tar"}, member{name: configName, data: config},
		member{name: "manifest.json", data: fmt.Sprintf(`[{"Config":%q,"RepoTags":["a:1"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`, configName)})
	for name, data := range map[string][]byte{"i.tar": data, "i.tar.gz": gzipped(t, data)} {
		tree, b := open(t, data, name)
		checkReasons(t, b)
		checkContents(t, tree, map[string]string{"a": "1", "b": "2"})
		if tree.Format() != "docker-archive" {
			t.Errorf("format %q", tree.Format())
		}
	}
	// Docker 25.0 wrote an index without manifests beside it.
	blob := "blobs/sha256/" + digest(first)
	tree, b := open(t, tarOf(t,
		member{name: "oci-layout", data: "{}"}, member{name: "index.json", data: `{"schemaVersion":2,"manifests":null}`},
		member{name: blob, data: string(first)}, member{name: configName, data: config},
		member{name: "manifest.json", data: fmt.Sprintf(`[{"Config":%q,"Layers":[%q]}]`, configName, blob)}), "i.tar")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{"a": "1"})
	// A manifest.json of something else makes no image of a tar.
	tree, b = open(t, tarOf(t, member{name: "manifest.json", data: `{"name":"web app"}`}, member{name: "index.html", data: "hi"}), "a.tar")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{"manifest.json": `{"name":"web app"}`, "index.html": "hi"})
}

// TestLayersProperty compares the merge with a simple model: maps of paths, layer by layer.
func TestLayersProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		paths := rapid.SampledFrom([]string{"a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "b/a/b"})
		model := map[string]string{}
		var layers [][]byte
		for i := range rapid.IntRange(1, 4).Draw(rt, "layers") {
			var members []member
			mine := map[string]string{} // what this layer brings
			lower := maps.Clone(model)
			for range rapid.IntRange(0, 6).Draw(rt, "members") {
				p := paths.Draw(rt, "path")
				dir, base := path.Split(p)
				switch rapid.IntRange(0, 3).Draw(rt, "kind") {
				case 0:
					members = append(members, member{name: dir + ".wh." + base})
					drop(lower, func(q string) bool { return q == p || strings.HasPrefix(q, p+"/") })
				case 1:
					members = append(members, member{name: p + "/.wh..wh..opq"})
					drop(lower, func(q string) bool { return strings.HasPrefix(q, p+"/") })
				default:
					if conflicts(mine, p) {
						continue
					}
					mine[p] = fmt.Sprint(i)
					members = append(members, member{name: p, data: mine[p]})
				}
			}
			for p := range mine {
				drop(lower, func(q string) bool { return q == p || strings.HasPrefix(q, p+"/") || strings.HasPrefix(p, q+"/") })
			}
			maps.Copy(lower, mine)
			model = lower
			layers = append(layers, tarOf(t, members...))
		}
		tree, b := open(t, layoutOf(t, imageSpec{platform: "linux/amd64", layers: layers}), "i.tar")
		got := contents(t, tree)
		if !maps.Equal(got, model) && !fileBelowFile(b) {
			rt.Fatalf("the tree has %v, want %v; %v", got, model, b.Reasons())
		}
	})
}

func drop(m map[string]string, gone func(string) bool) {
	maps.DeleteFunc(m, func(p, _ string) bool { return gone(p) })
}

// conflicts: a layer that has p as a file and as a folder is tried elsewhere.
func conflicts(m map[string]string, p string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(m)), func(q string) bool {
		return p == q || strings.HasPrefix(q, p+"/") || strings.HasPrefix(p, q+"/")
	})
}

// fileBelowFile: a runtime refuses to put a file below a file of an earlier layer. Here
// both are shown, and it is said.
func fileBelowFile(b *Budget) bool {
	return slices.ContainsFunc(b.Reasons(), func(r sbom.Reason) bool { return r.Detail == "below a path that is a file" })
}

// TestDeb reads a Debian package.
func TestDeb(t *testing.T) {
	t.Parallel()
	control := gzipped(t, tarOf(t, member{name: "./"}, member{name: "./control", data: "Package: a"}))
	data := tarOf(t, member{name: "./usr/"}, member{name: "./usr/bin/a", data: "elf"}, member{name: "./usr/bin/b", target: "a"}, member{name: "./c", hard: "./usr/bin/a"})
	deb := "!<arch>\n"
	for _, part := range []struct{ name, data string }{{"debian-binary", "2.0\n"}, {"control.tar.gz", string(control)}, {"data.tar", string(data)}} {
		deb += fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", part.name, 0, 0, 0, "100644", len(part.data), part.data)
		if len(part.data)%2 == 1 {
			deb += "\n"
		}
	}
	tree, b := open(t, []byte(deb), "a.deb")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{"DEBIAN/control": "Package: a", "usr/bin/a": "elf", "c": "elf"})
	if tree.Format() != "ar" {
		t.Errorf("format %q", tree.Format())
	}
}
