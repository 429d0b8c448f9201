package scan

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCargoLock(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("ab", 32)
	inv := scanned(t, "Cargo.lock", []byte(`version = 4

[[package]]
name = "app"
version = "0.1.0"
dependencies = ["serde", "rand 0.7.3", "rand 0.8.5 (registry+https://github.com/rust-lang/crates.io-index)", "forked", "nothing", "inner"]

[[package]]
name = "serde"
version = "1.0.0+meta"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "`+sum+`"
dependencies = ["serde"]

[[package]]
name = "rand"
version = "0.7.3"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "<none>"

[[package]]
name = "rand"
version = "0.8.5"
source = "registry+https://github.com/rust-lang/crates.io-index"

[[package]]
name = "forked"
version = "2.0.0"
source = "git+https://github.com/example/forked?branch=main#0123456789abcdef0123456789abcdef01234567"

[[package]]
name = "inner"
version = "3.0.0"
source = "sparse+https://crates.example.com/index/"
`))
	checkOutline(t, inv, `
		pkg:cargo/app@0.1.0 application > pkg:cargo/forked@2.0.0?vcs_url=git%2Bhttps:%2F%2Fgithub.com%2Fexample%2Fforked%400123456789abcdef0123456789abcdef01234567 pkg:cargo/inner@3.0.0?repository_url=https:%2F%2Fcrates.example.com%2Findex pkg:cargo/rand@0.7.3 pkg:cargo/rand@0.8.5 pkg:cargo/serde@1.0.0%2Bmeta
		pkg:cargo/forked@2.0.0?vcs_url=git%2Bhttps:%2F%2Fgithub.com%2Fexample%2Fforked%400123456789abcdef0123456789abcdef01234567
		pkg:cargo/inner@3.0.0?repository_url=https:%2F%2Fcrates.example.com%2Findex
		pkg:cargo/rand@0.7.3
		pkg:cargo/rand@0.8.5
		pkg:cargo/serde@1.0.0%2Bmeta SHA-256`, "pkg:cargo/app@0.1.0")
}

// The first version of the format has the checksums apart, and the project on its own.
func TestCargoLockOld(t *testing.T) {
	t.Parallel()
	inv := scanned(t, "Cargo.lock", []byte(`[root]
name = "app"
version = "0.1.0"
dependencies = ["libc 0.2.20 (registry+https://github.com/rust-lang/crates.io-index)"]

[[package]]
name = "libc"
version = "0.2.20"
source = "registry+https://github.com/rust-lang/crates.io-index"

[metadata]
"checksum libc 0.2.20 (registry+https://github.com/rust-lang/crates.io-index)" = "`+strings.Repeat("0f", 32)+`"
`))
	checkOutline(t, inv, `
		pkg:cargo/app@0.1.0 application > pkg:cargo/libc@0.2.20
		pkg:cargo/libc@0.2.20 SHA-256`, "pkg:cargo/app@0.1.0")
	inv = scanned(t, "Cargo.lock", []byte("not = [toml"))
	if want := []string{"malformed Cargo.lock", "opaque "}; !slices.Equal(reasonsOf(inv), want) {
		t.Errorf("%q, want %q", reasonsOf(inv), want)
	}
}

// The locks that lie in the module cache of this machine, against a reading of their lines.
func TestTruthCargoLock(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	cache := strings.TrimSpace(string(out))
	var locks []string
	for _, pattern := range []string{
		"github.com/google/osv-scalibr@*/extractor/filesystem/language/rust/cargolock/testdata/*.lock",
		"github.com/google/osv-scalibr@*/enricher/reachability/rust/testdata/*/Cargo.lock",
		"github.com/sigstore/protobuf-specs@*/gen/pb-rust/Cargo.lock",
		"github.com/cedar-policy/cedar-go@*/test/*/Cargo.lock",
		"github.com/in-toto/attestation@*/rust/Cargo.lock",
		"cuelang.org/go@*/cue/interpreter/wasm/testdata/rust/Cargo.lock",
	} {
		found, err := filepath.Glob(filepath.Join(cache, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, found...)
	}
	if len(locks) == 0 {
		t.Skip("no Cargo.lock in the module cache")
	}
	entry := regexp.MustCompile(`(?m)^name = "(.*)"\nversion = "(.*)"$`)
	plain := regexp.MustCompile(`\?.*$`)
	var truth, found []string
	edges, sums := 0, 0
	for i, lock := range locks {
		data := readTestFile(t, lock)
		prefix := string(rune('A'+i)) + " "
		for _, m := range entry.FindAllStringSubmatch(string(data), -1) {
			truth = append(truth, prefix+"pkg:cargo/"+m[1]+"@"+strings.ReplaceAll(m[2], "+", "%2B"))
		}
		inv := scanned(t, "Cargo.lock", data)
		for _, c := range inv.Components {
			found = append(found, prefix+plain.ReplaceAllString(c.PURL, ""))
			edges += len(c.DependsOn)
			sums += len(c.Hashes)
		}
	}
	compareTruth(t, "Cargo.lock", truth, found)
	t.Logf("Cargo.lock: %d locks, %d edges, %d checksums", len(locks), edges, sums)
}

// elfWith makes an ELF executable that has one section besides its names.
func elfWith(name string, content []byte) []byte {
	names := "\x00" + name + "\x00.shstrtab\x00"
	const headerSize, sectionSize = 64, 64
	contentAt := uint64(headerSize)
	namesAt := contentAt + uint64(len(content))
	sectionsAt := namesAt + uint64(len(names))
	var buf bytes.Buffer
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: sectionsAt,
		Ehsize: headerSize, Shentsize: sectionSize, Shnum: 3, Shstrndx: 2,
	}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: contentAt, Size: uint64(len(content))},
		{Name: uint32(2 + len(name)), Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))},
	}
	binary.Write(&buf, binary.LittleEndian, header)
	buf.Write(content)
	buf.WriteString(names)
	binary.Write(&buf, binary.LittleEndian, sections)
	return buf.Bytes()
}

// wasmWith makes a WebAssembly module with a type section and a custom one.
func wasmWith(name string, content []byte) []byte {
	out := []byte(wasmMagic + "\x01\x01\x00\x00")
	custom := append(append([]byte{byte(len(name))}, name...), content...)
	return append(binary.AppendUvarint(out, uint64(len(custom))), custom...)
}

func deflated(t testing.TB, data string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zlib.NewWriter(&buf)
	z.Write([]byte(data))
	z.Close()
	return buf.Bytes()
}

const auditJSON = `{"packages":[
	{"name":"adler","version":"1.0.2","source":"crates.io"},
	{"name":"cc","version":"1.0.79","source":"crates.io","kind":"build"},
	{"name":"tool","version":"0.3.0","source":"local","dependencies":[0,1],"root":true}]}`

const auditOutline = `
	pkg:cargo/adler@1.0.2 required
	pkg:cargo/cc@1.0.79 excluded
	pkg:cargo/tool@0.3.0 required application > pkg:cargo/adler@1.0.2 pkg:cargo/cc@1.0.79`

func TestAuditable(t *testing.T) {
	t.Parallel()
	section := deflated(t, auditJSON)
	for name, data := range map[string][]byte{
		"elf":  elfWith(auditSectionName, section),
		"wasm": wasmWith(auditSectionName, section),
	} {
		t.Run(name, func(t *testing.T) {
			inv := scanned(t, "tool", data)
			checkOutline(t, inv, auditOutline, "pkg:cargo/tool@0.3.0")
			if len(inv.Incomplete) > 0 {
				t.Errorf("incomplete: %+v", inv.Incomplete)
			}
		})
	}
}

func TestAuditableHostile(t *testing.T) {
	t.Parallel()
	bomb := deflated(t, `{"packages":[`+strings.Repeat(" ", maxAuditJSON)+`]}`)
	tests := map[string]struct {
		data []byte
		want string
	}{
		"unpacks to more than it may": {elfWith(auditSectionName, bomb), "file-size-limit tool"},
		"no zlib":                     {elfWith(auditSectionName, []byte("plain")), "malformed tool"},
		"cut short":                   {elfWith(auditSectionName, deflated(t, auditJSON)[:40]), "malformed tool"},
		"no JSON":                     {elfWith(auditSectionName, deflated(t, "{")), "malformed tool"},
		"an index too far":            {elfWith(auditSectionName, deflated(t, `{"packages":[{"name":"a","version":"1","dependencies":[7]}]}`)), "malformed tool"},
		"an index below":              {elfWith(auditSectionName, deflated(t, `{"packages":[{"name":"a","version":"1","dependencies":[-1]}]}`)), "malformed tool"},
		"another section":             {elfWith(".other", deflated(t, auditJSON)), "opaque "},
		"a section without a size":    {append([]byte(wasmMagic), 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "malformed tool"},
		"a size beyond the end":       {append([]byte(wasmMagic), 0x00, 0xff, 0xff, 0xff, 0x7f, 0x07, '.', 'd'), "opaque "},
		"too many sections":           {[]byte(wasmMagic + strings.Repeat("\x01\x00", maxWasmSections+1)), "malformed tool"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inv := scanned(t, "tool", test.data)
			if got := reasonsOf(inv); !slices.Contains(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// A program that cargo auditable built, from the tests of osv-scalibr.
func TestAuditableReal(t *testing.T) {
	t.Parallel()
	dir := languageData(t, "rust/cargoauditable")
	inv := scanned(t, "uses_serde_json", readTestFile(t, filepath.Join(dir, "uses_serde_json", "uses_serde_json")))
	checkOutline(t, inv, `
		pkg:cargo/itoa@1.0.14 required
		pkg:cargo/memchr@2.7.4 required
		pkg:cargo/proc-macro2@1.0.92 required > pkg:cargo/unicode-ident@1.0.14
		pkg:cargo/quote@1.0.38 required > pkg:cargo/proc-macro2@1.0.92
		pkg:cargo/ryu@1.0.18 required
		pkg:cargo/serde@1.0.217 required > pkg:cargo/serde_derive@1.0.217
		pkg:cargo/serde_derive@1.0.217 required > pkg:cargo/proc-macro2@1.0.92 pkg:cargo/quote@1.0.38 pkg:cargo/syn@2.0.95
		pkg:cargo/serde_json@1.0.135 required > pkg:cargo/itoa@1.0.14 pkg:cargo/memchr@2.7.4 pkg:cargo/ryu@1.0.18 pkg:cargo/serde@1.0.217
		pkg:cargo/syn@2.0.95 required > pkg:cargo/proc-macro2@1.0.92 pkg:cargo/quote@1.0.38 pkg:cargo/unicode-ident@1.0.14
		pkg:cargo/unicode-ident@1.0.14 required
		pkg:cargo/uses_json@0.1.0 required application > pkg:cargo/serde@1.0.217 pkg:cargo/serde_json@1.0.135`)
}

func FuzzCargoLock(f *testing.F) {
	fuzzReaders(f, "Cargo.lock", "[[package]]\nname='a'\nversion='1'\ndependencies=['a 1 (x)','b']\n", "[root]\nname='a'\n[metadata]\n'checksum a 1 (x)'=1\n")
}

func FuzzAuditable(f *testing.F) {
	section := deflated(f, auditJSON)
	fuzzReaders(f, "tool", string(elfWith(auditSectionName, section)), string(wasmWith(auditSectionName, section)))
}
