package testenv_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/assay-build/assay/"

// TestArrow keeps the direction of imports that docs/architecture.md draws.
func TestArrow(t *testing.T) {
	forbidden := map[string][]string{
		"internal/refusal":          {"internal/", "server", "client", "proto/"},
		"internal/outage":           {"internal/", "server", "client", "proto/"},
		"internal/boundhttp":        {"internal/", "server", "client", "proto/"},
		"internal/durable":          {"internal/", "server", "client", "proto/"},
		"internal/attest":           {"internal/tlog", "internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/signing", "server", "client", "proto/"},
		"internal/tlog":             {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/signing", "server", "client", "proto/"},
		"internal/verify":           {"internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/signing", "internal/tlog/posix", "server", "client", "proto/"},
		"internal/policy":           {"internal/store", "internal/identity", "internal/provenance", "internal/signing", "internal/tlog/posix", "server", "client", "proto/"},
		"internal/stsproof":         {"internal/identity", "internal/codebuild", "internal/verify", "internal/policy", "internal/store", "internal/provenance", "internal/signing", "server", "client", "proto/"},
		"internal/codebuild":        {"internal/identity", "internal/stsproof", "internal/verify", "internal/policy", "internal/store", "internal/provenance", "internal/signing", "server", "client", "proto/"},
		"internal/identity":         {"internal/verify", "internal/policy", "internal/store", "internal/provenance", "server", "client", "proto/"},
		"internal/provenance":       {"internal/verify", "internal/policy", "internal/store", "server", "client", "proto/"},
		"internal/signing":          {"internal/verify", "internal/policy", "internal/store", "internal/identity", "server", "client", "proto/"},
		"internal/signing/awskms":   {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/notary", "internal/tsaclient", "internal/tufrepo", "server", "client", "proto/"},
		"internal/signing/ca":       {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/notary", "internal/tsaclient", "internal/tufrepo", "server", "client", "proto/"},
		"internal/signing/mldsakey": {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/notary", "internal/tsaclient", "internal/tufrepo", "server", "client", "proto/"},
		"internal/notary":           {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/signing", "internal/tsaclient", "internal/tufrepo", "server", "client", "proto/"},
		"internal/tsaclient":        {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/signing", "internal/notary", "internal/tufrepo", "server", "client", "proto/"},
		"internal/tufrepo":          {"internal/verify", "internal/policy", "internal/store", "internal/identity", "internal/provenance", "internal/notary", "internal/tsaclient", "server", "client", "proto/"},
		"internal/store":            {"internal/verify", "internal/policy", "internal/identity", "internal/signing", "server", "client", "proto/"},
		"client":                    {"server", "internal/store", "internal/signing", "internal/policy", "internal/identity", "internal/testenv"},
		"server":                    {"client", "internal/testenv"},
		"cmd/assay":                 {"server", "internal/store", "internal/signing", "internal/policy", "internal/identity", "internal/codebuild", "internal/tlog/posix", "internal/testenv"},
		"cmd/assayd":                {"client", "internal/testenv"},
	}
	for pkg, not := range forbidden {
		for _, dep := range deps(t, pkg) {
			if dep == pkg {
				continue
			}
			for _, f := range not {
				if dep == f || strings.HasPrefix(dep, strings.TrimSuffix(f, "/")+"/") {
					t.Errorf("%s imports %s", pkg, dep)
				}
			}
		}
	}
}

// TestVerifyDoesNoIO keeps files, processes and the network out of the packages
// that judge. Dependencies may link net; these packages themselves must not use it.
func TestVerifyDoesNoIO(t *testing.T) {
	for _, pkg := range []string{"internal/attest", "internal/tlog", "internal/verify", "internal/policy"} {
		out := goList(t, "-f", `{{join .Imports "\n"}}`, "./"+pkg)
		for _, banned := range []string{"os", "os/exec", "net", "net/http", "io/ioutil", "time/tzdata", "database/sql"} {
			if slices.Contains(out, banned) {
				t.Errorf("%s imports %s", pkg, banned)
			}
		}
	}
}

func deps(t *testing.T, pkg string) []string {
	t.Helper()
	var ours []string
	for _, dep := range goList(t, "-deps", "./"+pkg) {
		if rest, ok := strings.CutPrefix(dep, module); ok {
			ours = append(ours, rest)
		}
	}
	if len(ours) == 0 {
		t.Fatalf("go list names no package of the module for %s", pkg)
	}
	return ours
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}
