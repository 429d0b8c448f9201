package scan

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTruthDebian compares with dpkg-query on this machine: its database, its copyright
// files and its os-release, as the tar of a root file system.
func TestTruthDebian(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("no dpkg here")
	}
	os := osOf(osDir("/"), "")
	out, err := exec.Command("dpkg-query", "--show", "--showformat", "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	var truth, withCopyright []string
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || f[0] != "installed" {
			continue
		}
		purl, err := osPURL("deb", os.id, f[1], f[2], "arch", f[3], "distro", os.distro())
		if err != nil {
			t.Fatal(err)
		}
		truth = append(truth, purl)
		if _, err := debianFile("usr/share/doc/" + f[1] + "/copyright"); err == nil {
			withCopyright = append(withCopyright, purl)
		}
	}

	inv := scanned(t, "rootfs.tar", tarOf(t, debianRoot(t)))
	found := purlsOf(inv, "deb")
	compareTruth(t, "dpkg", truth, found)

	licensed, edges := 0, 0
	for _, c := range inv.Components {
		edges += len(c.DependsOn)
		if len(c.Licenses) > 0 && slices.Contains(withCopyright, c.PURL) {
			licensed++
		}
	}
	t.Logf("dpkg: %d of %d copyright files name a licence; %d edges; %d in the root", licensed, len(withCopyright), edges, len(inv.Root))
	if licensed*100 < 90*len(withCopyright) {
		t.Errorf("only %d of %d copyright files gave a licence", licensed, len(withCopyright))
	}
	if edges < len(found) {
		t.Errorf("%d packages have %d dependencies", len(found), edges)
	}
}

// debianRoot is what of this machine a scan of its packages needs.
func debianRoot(t testing.TB) inMemory {
	t.Helper()
	files := inMemory{}
	for _, p := range []string{"var/lib/dpkg/status", "usr/lib/os-release"} {
		data, err := debianFile(p)
		if err != nil {
			t.Skipf("this machine is no Debian: %v", err)
		}
		files[p] = string(data)
	}
	files["etc/os-release"] = "-> ../usr/lib/os-release"
	copyrights, err := filepath.Glob("/usr/share/doc/*/copyright")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range copyrights {
		data, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(p, "/")] = string(data)
	}
	return files
}

func debianFile(p string) ([]byte, error) { return os.ReadFile("/" + p) }

func osDir(p string) fs.FS { return os.DirFS(p) }
