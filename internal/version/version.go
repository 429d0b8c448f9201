// Package version says which build of Assay this is. Releases need no linker
// flags: the Go toolchain records module version, commit and time in the binary.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// Module is the version alone, for example "v0.1.0": what is the same for everybody who
// built the same release.
func Module() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// String returns one line, for example "v0.1.0 (3f2a9c1) go1.26.8 linux/amd64".
func String() string {
	commit, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					dirty = ", modified"
				}
			}
		}
	}
	parts := []string{Module()}
	if commit != "" {
		parts = append(parts, "("+commit[:min(12, len(commit))]+dirty+")")
	}
	return strings.Join(append(parts, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH), " ")
}
