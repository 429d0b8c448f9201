package archive

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/assay-build/assay/internal/sbom"
)

// TestXZ reads what the library writes, with every check, several blocks and several streams.
func TestXZ(t *testing.T) {
	t.Parallel()
	data := tarOf(t, member{name: "a", data: string(noise(200_000)) + strings.Repeat("text ", 50_000)})
	part := func(data []byte, c xz.WriterConfig) []byte {
		var out bytes.Buffer
		c.DictCap = 1 << 16
		w, err := c.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	pack := func(c xz.WriterConfig) []byte { return part(data, c) }
	first, second := part(data[:70_000], xz.WriterConfig{}), part(data[70_000:], xz.WriterConfig{})
	for name, packed := range map[string][]byte{
		"crc32":       pack(xz.WriterConfig{CheckSum: xz.CRC32}),
		"crc64":       pack(xz.WriterConfig{CheckSum: xz.CRC64}),
		"sha256":      pack(xz.WriterConfig{CheckSum: xz.SHA256}),
		"none":        pack(xz.WriterConfig{NoCheckSum: true}),
		"blocks":      pack(xz.WriterConfig{BlockSize: 50_000}),
		"two streams": append(append(first, 0, 0, 0, 0), second...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree, b := open(t, packed, "a.tar.xz")
			checkReasons(t, b)
			if got := contents(t, tree); got["a"] == "" || tree.Format() != "tar+xz" {
				t.Errorf("format %q, %d files", tree.Format(), len(got))
			}
			for _, at := range []int{3, 9, 14, 30, len(packed) / 2, len(packed) - 20, len(packed) - 3} {
				broken := bytes.Clone(packed)
				broken[at] ^= 0x40
				if tree, b := open(t, broken, "a.tar.xz"); len(b.Reasons()) == 0 && tree.Format() != "file" && name != "none" {
					t.Errorf("byte %d of %d: nothing is said", at, len(packed))
				}
			}
		})
	}
}

// TestXZTool reads a stream of XZ Utils: "printf 'hello, xz\n' | xz -9e".
func TestXZTool(t *testing.T) {
	t.Parallel()
	packed, err := base64.StdEncoding.DecodeString(xzHello)
	if err != nil {
		t.Fatal(err)
	}
	tree, b := open(t, packed, "hello.txt.xz")
	checkReasons(t, b)
	checkContents(t, tree, map[string]string{"hello.txt": "hello, xz\n"})
}

// TestZipMethods reads members packed in every way that is read.
func TestZipMethods(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("content ", 1000)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var x bytes.Buffer
	w, err := xz.NewWriter(&x)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, text)
	w.Close()
	data := zipRaw(t,
		rawZip{"zstd", 93, enc.EncodeAll([]byte(text), nil), text},
		rawZip{"xz", 95, x.Bytes(), text},
		rawZip{"stored", 0, []byte(text), text})
	tree, b := open(t, data, "a.zip")
	checkContents(t, tree, map[string]string{"zstd": text, "xz": text, "stored": text})
	checkReasons(t, b)

	broken := zipRaw(t, rawZip{"zstd", 93, enc.EncodeAll([]byte(text+"!"), nil), text}, rawZip{"ok", 0, []byte("ok"), "ok"})
	tree, b = open(t, broken, "a.zip")
	if f, err := tree.Open("zstd"); err != nil {
		t.Fatal(err)
	} else if _, err := io.ReadAll(f); err == nil || f.Close() != nil {
		t.Error("a member that is longer than it says is read")
	}
	checkReasons(t, b, sbom.ReasonMalformed)
}

const xzHello = "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jMAQAJaGVsbG8sIHh6CgAAAOsStov8cd8oAAEiChUa4WcftvN9AQAAAAAEWVo="
