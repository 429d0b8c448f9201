package scan

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	rpmdb "github.com/erikvarga/go-rpmdb/pkg"
	_ "modernc.org/sqlite" // go-rpmdb opens SQLite databases by this driver
)

// rpmCase is a database of a distribution, and what rpm -qa said of it there.
type rpmCase struct{ file, list string }

// rpmCases are the databases that come with the tests of go-rpmdb: Berkeley DB of both
// byte orders, NDB and SQLite.
func rpmCases() []rpmCase {
	return []rpmCase{
		{"centos5-plain/Packages", "CentOS5Plain"},
		{"centos6-plain/Packages", "CentOS6Plain"},
		{"centos6-devtools/Packages", "CentOS6DevTools"},
		{"centos6-many/Packages", "CentOS6Many"},
		{"centos7-plain/Packages", "CentOS7Plain"},
		{"centos7-devtools/Packages", "CentOS7DevTools"},
		{"centos7-many/Packages", "CentOS7Many"},
		{"centos7-python35/Packages", "CentOS7Python35"},
		{"centos7-httpd24/Packages", "CentOS7Httpd24"},
		{"centos8-modularitylabel/Packages", "CentOS8Modularitylabel"},
		{"ubi8-s390x/Packages", "UBI8s390x"},
		{"sle15-bci/Packages.db", "SLE15WithNDB"},
		{"fedora35/rpmdb.sqlite", "Fedora35WithSQLite3"},
		{"fedora35-plus-mongo/rpmdb.sqlite", "Fedora35PlusMongoDBWithSQLite3"},
	}
}

// TestTruthRPM compares with what rpm -qa printed on the machine of each database, and
// with a second reader.
func TestTruthRPM(t *testing.T) {
	t.Parallel()
	dir := rpmTestdata(t)
	cases := rpmCases()
	if testing.Short() {
		cases = []rpmCase{cases[0], cases[10], cases[11], cases[12]}
	}
	lists := rpmLists(t, dir)
	for _, c := range cases {
		t.Run(path.Dir(c.file), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, "testdata", c.file)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			inv := scanned(t, "rootfs.tar", tarOf(t, inMemory{"var/lib/rpm/" + path.Base(c.file): string(data)}))
			if len(inv.Incomplete) > 0 {
				t.Errorf("incomplete: %v", inv.Incomplete)
			}
			found := purlsOf(inv, "rpm")
			for _, p := range lists[c.list] {
				if !slices.Contains(found, p) {
					t.Errorf("rpm -qa has %s", p)
				}
			}
			compareTruth(t, c.file, secondReading(t, file), found)
			licensed, edges := 0, 0
			for _, k := range inv.Components {
				edges += len(k.DependsOn)
				licensed += min(len(k.Licenses), 1)
			}
			t.Logf("%d by rpm -qa; %d with licences; %d edges; %d in the root", len(lists[c.list]), licensed, edges, len(inv.Root))
			if licensed < len(found)-1 || edges < len(found) {
				t.Errorf("of %d packages, %d have licences; %d edges", len(found), licensed, edges)
			}
		})
	}
}

// rpmTestdata is the source of go-rpmdb in the module cache.
func rpmTestdata(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/erikvarga/go-rpmdb").Output()
	dir := filepath.Join(strings.TrimSpace(string(out)), "pkg")
	if err != nil || dir == "pkg" {
		t.Skipf("the source of go-rpmdb is not here: %v", err)
	}
	return dir
}

// rpmLists are the outputs of rpm -qa, which stand in its tests as Go code. Some are the
// start of a longer output.
func rpmLists(t *testing.T, dir string) map[string][]string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(dir, "rpmdb_testcase_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`^\s*(\w+) = func\(\)`)
	entry := regexp.MustCompile(`^\s*\{intRef\((\d*)\), "([^"]*)", "([^"]*)", "([^"]*)", "([^"]*)", `)
	lists := map[string][]string{}
	name := ""
	for line := range strings.Lines(string(source)) {
		if m := function.FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if m := entry.FindStringSubmatch(line); m != nil {
			lists[name] = append(lists[name], rpmPURL(t, m[2], m[3]+"-"+m[4], m[5], m[1]))
		}
	}
	return lists
}

func rpmPURL(t *testing.T, name, version, arch, epoch string) string {
	t.Helper()
	if epoch == "0" {
		epoch = ""
	}
	if arch == "0" || arch == "None" {
		arch = ""
	}
	purl, err := osPURL("rpm", "", name, version, "arch", arch, "epoch", epoch)
	if err != nil {
		t.Fatal(err)
	}
	return purl
}

// secondReading is what go-rpmdb finds.
func secondReading(t *testing.T, file string) []string {
	t.Helper()
	// It locks the file, and SQLite writes beside it: work on a copy.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(own, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := rpmdb.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	packages, err := db.ListPackages()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range packages {
		out = append(out, rpmPURL(t, p.Name, p.Version+"-"+p.Release, p.Arch, strconv.Itoa(p.EpochNum())))
	}
	return out
}
