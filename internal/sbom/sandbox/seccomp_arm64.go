package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch       = unix.AUDIT_ARCH_AARCH64
	foreignSyscalls = 0
)

// forbiddenHere are those that other architectures do not have.
func forbiddenHere() []uint32 { return []uint32{unix.SYS_KEXEC_FILE_LOAD} }
