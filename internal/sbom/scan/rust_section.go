package scan

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds of the section of cargo auditable, compressed and not. Its authors advise
// readers to stop at 8 MiB.
const (
	maxAuditSection = 8 << 20
	maxAuditJSON    = 8 << 20
	// maxWasmSections: a module has some dozens.
	maxWasmSections = 100_000
)

const auditSectionName = ".dep-v0"

// wasmMagic is the magic and the version of a WebAssembly module.
const wasmMagic = "\x00asm\x01\x00\x00\x00"

func wantsAuditable(_ string, head []byte) bool {
	return isNative(head) || bytes.HasPrefix(head, []byte(wasmMagic))
}

// auditSection finds the section .dep-v0 and unpacks it; nil where there is none. An
// executable that cannot be parsed is none of Rust's as far as anybody can tell: the
// reader of Go executables, which sees it too, has the same to say.
func auditSection(f *file) ([]byte, error) {
	in, at, err := f.openAt()
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	head := make([]byte, 16)
	if n, err := at.ReadAt(head, 0); n < len(head) {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return nil, err
	}
	var section io.Reader
	switch nativeFormat(head) {
	case "elf":
		section = elfSection(at)
	case "pe":
		section = peSection(at)
	case "mach-o":
		section = machoSection(at, head)
	default:
		section, err = wasmSection(at)
	}
	if section == nil || err != nil {
		return nil, err
	}
	packed, err := readLimited(section, maxAuditSection)
	if err != nil {
		return nil, fmt.Errorf("the section %s: %w", auditSectionName, err)
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("the section %s: %w", auditSectionName, err)
	}
	defer z.Close()
	data, err := readLimited(z, maxAuditJSON)
	if err != nil {
		return nil, fmt.Errorf("the section %s: %w", auditSectionName, err)
	}
	return data, nil
}

func elfSection(at io.ReaderAt) io.Reader {
	x, err := elf.NewFile(at)
	if err != nil {
		return nil
	}
	if s := x.Section(auditSectionName); s != nil {
		return s.Open()
	}
	return nil
}

func peSection(at io.ReaderAt) io.Reader {
	x, err := pe.NewFile(at)
	if err != nil {
		return nil
	}
	if s := x.Section(auditSectionName); s != nil {
		// Sections are padded on disk; zlib knows its own end.
		return s.Open()
	}
	return nil
}

// machoSection takes that of the first architecture of a universal binary that has one:
// all are built of the same sources.
func machoSection(at io.ReaderAt, head []byte) io.Reader {
	if binary.BigEndian.Uint32(head) != macho.MagicFat {
		x, err := macho.NewFile(at)
		if err != nil {
			return nil
		}
		return machoSectionOf(x)
	}
	fat, err := macho.NewFatFile(at)
	if err != nil {
		return nil
	}
	for _, arch := range fat.Arches {
		if r := machoSectionOf(arch.File); r != nil {
			return r
		}
	}
	return nil
}

func machoSectionOf(x *macho.File) io.Reader {
	if s := x.Section(auditSectionName); s != nil {
		return s.Open()
	}
	return nil
}

// wasmSection looks through the sections of a module for the custom one (WebAssembly core
// specification 2.0, 5.5).
func wasmSection(at io.ReaderAt) (io.Reader, error) {
	in := io.NewSectionReader(at, int64(len(wasmMagic)), 1<<62)
	offset := int64(0)
	for range maxWasmSections {
		var head [1 + binary.MaxVarintLen32]byte
		n, err := in.ReadAt(head[:], offset)
		if n < 2 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return nil, err
		}
		size, width := binary.Uvarint(head[1:n])
		if width <= 0 || size > 1<<32 {
			return nil, errors.New("a section of WebAssembly without a size")
		}
		offset += 1 + int64(width)
		if head[0] == 0 {
			if r := wasmCustom(in, offset, int64(size)); r != nil {
				return r, nil
			}
		}
		offset += int64(size)
	}
	return nil, errors.New("more sections of WebAssembly than are read")
}

// wasmCustom gives the content of a custom section of the right name.
func wasmCustom(in io.ReaderAt, offset, size int64) io.Reader {
	want := append([]byte{byte(len(auditSectionName))}, auditSectionName...)
	name := make([]byte, len(want))
	if size < int64(len(want)) {
		return nil
	}
	if _, err := in.ReadAt(name, offset); err != nil || !bytes.Equal(name, want) {
		return nil
	}
	return io.NewSectionReader(in, offset+int64(len(want)), size-int64(len(want)))
}
