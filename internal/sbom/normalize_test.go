package sbom

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
)

// TestNormalizeMakesValid: whatever a scan found, what Normalize leaves is valid, a
// fixed point, and the same in whatever order it was found.
func TestNormalizeMakesValid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		inv := hostileInventory().Draw(t, "inventory")
		shuffled := inv.clone()
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(shuffled.Components), func(i, k int) {
			shuffled.Components[i], shuffled.Components[k] = shuffled.Components[k], shuffled.Components[i]
		})
		r.Shuffle(len(shuffled.Incomplete), func(i, k int) {
			shuffled.Incomplete[i], shuffled.Incomplete[k] = shuffled.Incomplete[k], shuffled.Incomplete[i]
		})
		inv.Normalize()
		if err := inv.Validate(); err != nil {
			t.Fatal(err)
		}
		shuffled.Normalize()
		if !reflect.DeepEqual(inv, shuffled) {
			t.Fatalf("the order of findings shows:\n%+v\n%+v", inv, shuffled)
		}
		again := inv.clone()
		again.Normalize()
		if !reflect.DeepEqual(inv, again) {
			t.Fatalf("not a fixed point:\n%+v\n%+v", inv, again)
		}
	})
}

func TestNormalizeMerges(t *testing.T) {
	t.Parallel()
	inv := &Inventory{
		Components: []Component{
			{PURL: "pkg:npm/b@1", Name: "b", Scope: "optional", Licenses: []string{"MIT AND ISC"}, Locations: []string{"z"}, DependsOn: []string{"pkg:npm/a@1", "pkg:npm/gone@1"}},
			{PURL: "pkg:npm/a@1", Name: "a"},
			{PURL: "pkg:NPM/b@1", Name: "b", Scope: "required", Licenses: []string{"Expat", "UNKNOWN"}, Locations: []string{"y"}, DependsOn: []string{"pkg:npm/b@1"}, Type: "library"},
			{PURL: "pkg:npm/c d", Name: "c d"},
			{PURL: "pkg:npm/", Name: ""},
		},
		Root: []string{"pkg:NPM/b@1", "pkg:npm/c d", "pkg:npm/b@1"},
	}
	inv.Normalize()
	want := &Inventory{
		Components: []Component{
			{Name: "c d"},
			{PURL: "pkg:npm/a@1", Name: "a"},
			{PURL: "pkg:npm/b@1", Name: "b", Scope: "required", Licenses: []string{"ISC", "MIT"}, Locations: []string{"y", "z"}, DependsOn: []string{"pkg:npm/a@1"}},
		},
		Root: []string{"pkg:npm/b@1"},
		Incomplete: []Reason{
			{Code: ReasonMalformed, Detail: `"" makes no package URL`},
			{Code: ReasonMalformed, Detail: `"c d" makes no package URL`},
			{Code: ReasonMalformed, Detail: "1 packages without a name"},
		},
	}
	if !reflect.DeepEqual(inv, want) {
		t.Errorf("got\n%+v\nwant\n%+v", inv, want)
	}
}

func TestNormalizeCuts(t *testing.T) {
	t.Parallel()
	inv := &Inventory{}
	for i := range MaxComponents + 5 {
		inv.Components = append(inv.Components, Component{PURL: fmt.Sprintf("pkg:npm/p%07d@1", i), Name: "p"})
	}
	for i := range MaxDependencies + 5 {
		inv.Components[0].DependsOn = append(inv.Components[0].DependsOn, inv.Components[i].PURL)
	}
	for i := range 2 * MaxReasons {
		inv.Incomplete = append(inv.Incomplete, Reason{Code: ReasonDepth, Path: fmt.Sprint(i)})
	}
	inv.Incomplete = append(inv.Incomplete, Reason{Code: ReasonUnsupported, Path: "last"})
	inv.Normalize()
	if err := inv.Validate(); err != nil {
		t.Fatal(err)
	}
	codes := map[ReasonCode]int{}
	for _, r := range inv.Incomplete {
		codes[r.Code]++
	}
	if len(inv.Components) != MaxComponents || len(inv.Components[0].DependsOn) != MaxDependencies || len(inv.Incomplete) != MaxReasons ||
		codes[ReasonUnsupported] != 1 || codes[ReasonComponents] != 2 {
		t.Errorf("%d components, %d dependencies, reasons %v", len(inv.Components), len(inv.Components[0].DependsOn), codes)
	}
}

// TestNormalizeDropsVersions: versions of one package beyond the limit go, whatever
// tells them apart; other packages stay, and so does what refers to those.
func TestNormalizeDropsVersions(t *testing.T) {
	t.Parallel()
	const over = 7
	inv := &Inventory{Components: []Component{{PURL: "pkg:npm/app@1", Name: "app"}}}
	for i := range MaxVersions + over {
		for _, c := range []Component{
			{PURL: fmt.Sprintf("pkg:npm/a@1.%06d", i), Name: "a"},
			{PURL: fmt.Sprintf("pkg:deb/debian/b@1?arch=a%06d", i), Name: "b"},
			{PURL: fmt.Sprintf("pkg:npm/a-%06d@1", i), Name: "a"},
			{PURL: fmt.Sprintf("pkg:npm/%%40s%06d/a@1", i), Name: "a"},
			{Name: "nameless", Version: fmt.Sprintf("1.%06d", i)},
		} {
			if c.PURL != "" {
				inv.Components[0].DependsOn = append(inv.Components[0].DependsOn, c.PURL)
			}
			inv.Components = append(inv.Components, c)
		}
	}
	slices.Reverse(inv.Components)
	inv.Normalize()
	if err := inv.Validate(); err != nil {
		t.Fatal(err)
	}
	left := map[string]int{}
	for _, c := range inv.Components {
		left[c.packageKey()]++
	}
	for _, of := range []string{"pkg:npm/a", "pkg:deb/debian/b", "\nnameless"} {
		if left[of] != MaxVersions {
			t.Errorf("%d of %q", left[of], of)
		}
	}
	if want := 3 + 2*(MaxVersions+over) + 1; len(left) != want || len(inv.Components) != 3*MaxVersions+want-3 {
		t.Errorf("%d of %d packages, %d components", len(left), want, len(inv.Components))
	}
	if !slices.Equal(inv.Incomplete, []Reason{{Code: ReasonComponents, Detail: "21 of more than 1000 versions of one package"}}) {
		t.Errorf("%v", inv.Incomplete)
	}
	few := &Inventory{}
	for i := range MaxVersions {
		few.Components = append(few.Components, Component{PURL: fmt.Sprintf("pkg:npm/a@1.%06d", i), Name: "a"})
	}
	if few.Normalize(); len(few.Components) != MaxVersions || !few.Complete() {
		t.Errorf("%d components, %v", len(few.Components), few.Incomplete)
	}
}

// TestValidateRefuses: one rule broken at a time.
func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	good := func() *Inventory {
		return &Inventory{
			Format: "jar",
			Components: []Component{
				{PURL: "pkg:npm/a@1", Name: "a", Hashes: []Hash{{"MD5", strings.Repeat("0", 32)}, {"SHA-1", strings.Repeat("a", 40)}}},
				{PURL: "pkg:npm/b@1", Name: "b", DependsOn: []string{"pkg:npm/a@1"}, Licenses: []string{"ISC", "MIT"}, Locations: []string{"x"}},
			},
			Root: []string{"pkg:npm/b@1"}, Incomplete: []Reason{{Code: ReasonDepth, Path: "p"}, {Code: ReasonTime}},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, breakIt := range map[string]func(*Inventory){
		"too many components":    func(i *Inventory) { i.Components = make([]Component, MaxComponents+1) },
		"negative files":         func(i *Inventory) { i.Files = -1 },
		"negative bytes":         func(i *Inventory) { i.Bytes = -1 },
		"format not clean":       func(i *Inventory) { i.Format = "a\n" },
		"purl invalid":           func(i *Inventory) { i.Components[0].PURL = "pkg:npm" },
		"purl not canonical":     func(i *Inventory) { i.Components[1].PURL = "pkg:NPM/b@1" },
		"out of order":           func(i *Inventory) { i.Components[0].PURL = "pkg:npm/z@1" },
		"twice":                  func(i *Inventory) { i.Components[0].PURL = "pkg:npm/b@1" },
		"no name":                func(i *Inventory) { i.Components[0].Name = "" },
		"name not UTF-8":         func(i *Inventory) { i.Components[0].Name = "\xff" },
		"name too long":          func(i *Inventory) { i.Components[0].Name = strings.Repeat("a", MaxTextBytes+1) },
		"name with escape":       func(i *Inventory) { i.Components[0].Name = "\x1b[2J" },
		"version turned":         func(i *Inventory) { i.Components[0].Version = "\u202e1" },
		"group with space":       func(i *Inventory) { i.Components[0].Group = " g" },
		"type":                   func(i *Inventory) { i.Components[0].Type = "virus" },
		"scope":                  func(i *Inventory) { i.Components[0].Scope = "maybe" },
		"hash algorithm":         func(i *Inventory) { i.Components[0].Hashes[0].Algorithm = "CRC" },
		"hash length":            func(i *Inventory) { i.Components[0].Hashes[0].Value = "00" },
		"hash not hex":           func(i *Inventory) { i.Components[0].Hashes[0].Value = strings.Repeat("G", 32) },
		"hash order":             func(i *Inventory) { h := i.Components[0].Hashes; h[0], h[1] = h[1], h[0] },
		"hashes too many":        func(i *Inventory) { i.Components[0].Hashes = make([]Hash, MaxHashes+1) },
		"licenses order":         func(i *Inventory) { i.Components[1].Licenses = []string{"MIT", "ISC"} },
		"license empty":          func(i *Inventory) { i.Components[1].Licenses = []string{""} },
		"licenses too many":      func(i *Inventory) { i.Components[1].Licenses = make([]string, MaxLicenses+1) },
		"locations too many":     func(i *Inventory) { i.Components[1].Locations = make([]string, MaxLocations+1) },
		"location not clean":     func(i *Inventory) { i.Components[1].Locations[0] = "a\x00" },
		"depends on nothing":     func(i *Inventory) { i.Components[1].DependsOn = []string{"pkg:npm/c@1"} },
		"depends on itself":      func(i *Inventory) { i.Components[1].DependsOn = []string{"pkg:npm/b@1"} },
		"depends on empty":       func(i *Inventory) { i.Components[0].PURL = ""; i.Components[1].DependsOn = []string{""} },
		"depends twice":          func(i *Inventory) { i.Components[1].DependsOn = []string{"pkg:npm/a@1", "pkg:npm/a@1"} },
		"dependencies too many":  func(i *Inventory) { i.Components[1].DependsOn = make([]string, MaxDependencies+1) },
		"root of nothing":        func(i *Inventory) { i.Root = []string{"pkg:npm/c@1"} },
		"root out of order":      func(i *Inventory) { i.Root = []string{"pkg:npm/b@1", "pkg:npm/a@1"} },
		"reasons too many":       func(i *Inventory) { i.Incomplete = make([]Reason, MaxReasons+1) },
		"reason code":            func(i *Inventory) { i.Incomplete[0].Code = "x" },
		"reason order":           func(i *Inventory) { i.Incomplete[0], i.Incomplete[1] = i.Incomplete[1], i.Incomplete[0] },
		"reason path not clean":  func(i *Inventory) { i.Incomplete[0].Path = "\n" },
		"reason detail too long": func(i *Inventory) { i.Incomplete[0].Detail = strings.Repeat("a", maxDetailBytes+1) },
	} {
		inv := good()
		breakIt(inv)
		if err := inv.Validate(); refusal.CodeOf(err) != CodeInventoryInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
