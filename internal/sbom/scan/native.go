package scan

import (
	"bytes"
	"encoding/binary"
)

// isNative reports whether a file starts as an executable, or a library, of a platform.
func isNative(head []byte) bool { return nativeFormat(head) != "" }

// nativeFormat is "elf", "pe" or "mach-o" by the first bytes, "" for anything else.
func nativeFormat(head []byte) string {
	if len(head) < 4 {
		return ""
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return "elf"
	case bytes.HasPrefix(head, []byte("MZ")):
		return "pe"
	}
	switch binary.BigEndian.Uint32(head) {
	case 0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe:
		return "mach-o"
	case 0xcafebabe: // a universal binary, or a Java class, whose version follows and is 45 or more
		if len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) < 45 {
			return "mach-o"
		}
	}
	return ""
}
