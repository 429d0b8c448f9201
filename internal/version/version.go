// Package version says which build of Assay this is. Releases need no linker
// flags: the Go toolchain records module version, commit and time in the binary.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// String returns one line, for example "v0.1.0 (3f2a9c1) go1.26.8 linux/amd64".
func String() string {
	v, commit, dirty := "devel", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			v = info.Main.Version
		}
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
	parts := []string{v}
	if commit != "" {
		parts = append(parts, "("+commit[:min(12, len(commit))]+dirty+")")
	}
	return strings.Join(append(parts, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH), " ")
}
