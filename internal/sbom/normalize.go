package sbom

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Normalize puts an inventory into the form that Validate checks, whatever it holds:
// text is cleaned and cut, package URLs are spelt canonically, everything is sorted,
// components that stand for one package become one, references that lead nowhere and
// what is beyond a limit go. What it had to leave out for a limit it notes in
// Incomplete. The same findings in another order give the same inventory.
func (inv *Inventory) Normalize() {
	inv.Format = oneLine(inv.Format, maxDetailBytes)
	inv.Files, inv.Bytes = max(inv.Files, 0), max(inv.Bytes, 0)
	renamed := inv.cleanComponents(licenseMemo{})
	inv.mergeComponents()
	known := make(map[string]bool, len(inv.Components))
	for i := range inv.Components {
		known[inv.Components[i].PURL] = true
	}
	delete(known, "")
	refs := references{known: known, renamed: renamed}
	edges := 0
	for i := range inv.Components {
		c := &inv.Components[i]
		c.DependsOn = refs.clean(c.DependsOn, c.PURL)
		if room := min(MaxDependencies, MaxEdges-edges); len(c.DependsOn) > room {
			c.DependsOn = cut(c.DependsOn, room)
			inv.note(ReasonComponents, "", "more dependencies than are kept")
		}
		edges += len(c.DependsOn)
	}
	inv.Root = refs.clean(inv.Root, "")
	inv.cleanReasons()
}

// note adds a reason; cleanReasons, which comes last, puts it in its place.
func (inv *Inventory) note(code ReasonCode, path, detail string) {
	inv.Incomplete = append(inv.Incomplete, Reason{Code: code, Path: path, Detail: detail})
}

// cleanComponents cleans each component alone. It returns the canonical spelling of
// each package URL that was spelt otherwise.
func (inv *Inventory) cleanComponents(known licenseMemo) map[string]string {
	renamed := map[string]string{}
	nameless := 0
	for i := range inv.Components {
		c := &inv.Components[i]
		if given := c.PURL; given != "" {
			c.PURL = ""
			if p, err := ParsePURL(given); err == nil {
				c.PURL = p.String()
				if c.Name == "" {
					c.Name = p.Name
				}
			} else {
				inv.note(ReasonMalformed, first(c.Locations), fmt.Sprintf("%.100q makes no package URL", cleanText(c.Name)))
			}
			if c.PURL != given {
				renamed[given] = c.PURL
			}
		}
		c.Licenses = known.clean(c.Licenses)
		c.clean()
		if c.Name == "" {
			nameless++
		}
	}
	if nameless > 0 {
		inv.Components = slices.DeleteFunc(inv.Components, func(c Component) bool { return c.Name == "" })
		inv.note(ReasonMalformed, "", fmt.Sprintf("%d packages without a name", nameless))
	}
	return renamed
}

func (c *Component) clean() {
	c.Group, c.Name, c.Version = cleanText(c.Group), cleanText(c.Name), cleanText(c.Version)
	if !slices.Contains(componentTypes(), c.Type) || c.Type == "library" {
		c.Type = "" // which stands for library: one spelling
	}
	if !knownScope(c.Scope) {
		c.Scope = ""
	}
	for i := range c.Hashes {
		c.Hashes[i].Value = strings.ToLower(c.Hashes[i].Value)
	}
	c.Hashes = slices.DeleteFunc(c.Hashes, func(h Hash) bool { return !h.valid() })
	c.cleanLists()
}

func (c *Component) cleanLists() {
	slices.SortFunc(c.Hashes, compareHashes)
	c.Hashes = cut(slices.Compact(c.Hashes), MaxHashes)
	c.Licenses = cut(sortUnique(c.Licenses), MaxLicenses)
	c.Locations = cut(cleanStrings(c.Locations), MaxLocations)
}

// mergeComponents sorts, and makes one of those that stand for the same package.
func (inv *Inventory) mergeComponents() {
	all := inv.Components
	slices.SortStableFunc(all, func(a, b Component) int { return cmp.Or(compareComponents(&a, &b), compareDetails(&a, &b)) })
	kept := all[:0]
	for i := range all {
		if n := len(kept); n > 0 && compareComponents(&kept[n-1], &all[i]) == 0 {
			kept[n-1].merge(&all[i])
			continue
		}
		kept = append(kept, all[i])
	}
	if n := len(kept); n > MaxVersions {
		if kept = dropVersions(kept); len(kept) < n {
			inv.note(ReasonComponents, "", fmt.Sprintf("%d of more than %d versions of one package", n-len(kept), MaxVersions))
		}
	}
	if len(kept) > MaxComponents {
		inv.note(ReasonComponents, "", fmt.Sprintf("%d components; at most %d are kept", len(kept), MaxComponents))
	}
	clear(all[len(kept):])
	inv.Components = cut(kept, MaxComponents)
}

// MaxVersions is how many versions of one package an inventory holds. No artifact has
// so many; searches compare every version that any inventory ever named, so one that
// invents them is cut here.
const MaxVersions = 1000

// dropVersions keeps the first MaxVersions of each package, of components in their order.
func dropVersions(sorted []Component) []Component {
	kept, run := sorted[:0], 0
	var before string
	for i := range sorted {
		c := &sorted[i]
		of := c.packageKey()
		if run++; i == 0 || of != before {
			before, run = of, 1
		}
		if run <= MaxVersions {
			kept = append(kept, *c)
		}
	}
	return kept
}

// packageKey is equal for the versions of one package, whose components follow each
// other in their order. A version, qualifiers or a subpath begin where one of their
// signs stands: elsewhere in a canonical package URL they are escaped.
func (c *Component) packageKey() string {
	if c.PURL == "" {
		return c.Group + "\n" + c.Name
	}
	if i := strings.IndexAny(c.PURL, "@?#"); i >= 0 {
		return c.PURL[:i]
	}
	return c.PURL
}

// merge adds what another finding of the same package says.
func (c *Component) merge(o *Component) {
	c.Type = cmp.Or(c.Type, o.Type)
	c.Group, c.Version = cmp.Or(c.Group, o.Group), cmp.Or(c.Version, o.Version)
	c.Scope = StrongerScope(c.Scope, o.Scope)
	c.Hashes = append(slices.Clip(c.Hashes), o.Hashes...)
	c.Licenses = append(slices.Clip(c.Licenses), o.Licenses...)
	c.Locations = append(slices.Clip(c.Locations), o.Locations...)
	c.DependsOn = append(slices.Clip(c.DependsOn), o.DependsOn...)
	c.cleanLists()
}

// StrongerScope is the scope of a package of which two findings say different things.
// What one needs is needed, and a component without a scope counts as required
// (CycloneDX 1.6), so what is found installed is not excluded because a lock calls it a
// development dependency.
func StrongerScope(a, b string) string {
	for _, s := range [...]string{"required", "", "optional"} {
		if a == s || b == s {
			return s
		}
	}
	return "excluded"
}

func (inv *Inventory) cleanReasons() {
	for i := range inv.Incomplete {
		r := &inv.Incomplete[i]
		if !r.Code.known() {
			r.Code = ReasonFailed
		}
		r.Path, r.Detail = cleanText(r.Path), oneLine(r.Detail, maxDetailBytes)
	}
	slices.SortFunc(inv.Incomplete, compareReasons)
	inv.Incomplete = keepReasons(slices.Compact(inv.Incomplete))
}

// keepReasons cuts to MaxReasons so that every code that occurs stays: policies ask for
// codes, and hundreds of files of one kind must not hide another.
func keepReasons(sorted []Reason) []Reason {
	if len(sorted) <= MaxReasons {
		return orNilSlice(sorted)
	}
	codes := map[ReasonCode]int{}
	for _, r := range sorted {
		codes[r.Code]++
	}
	spare := MaxReasons - len(codes)
	kept := make([]Reason, 0, MaxReasons)
	for i, r := range sorted {
		switch firstOfCode := i == 0 || sorted[i-1].Code != r.Code; {
		case firstOfCode:
			kept = append(kept, r)
		case spare > 0:
			kept = append(kept, r)
			spare--
		}
	}
	return kept
}

// references cleans lists of package URLs that must be among the components.
type references struct {
	known   map[string]bool
	renamed map[string]string
}

func (r *references) clean(list []string, self string) []string {
	for i, ref := range list {
		if canonical, ok := r.renamed[ref]; ok {
			list[i] = canonical
		}
	}
	list = slices.DeleteFunc(list, func(ref string) bool { return ref == self || !r.known[ref] })
	slices.Sort(list)
	return orNilSlice(slices.Compact(list))
}

// cleanStrings cleans, sorts, and drops what is empty or twice.
func cleanStrings(list []string) []string {
	for i := range list {
		list[i] = cleanText(list[i])
	}
	return sortUnique(slices.DeleteFunc(list, func(s string) bool { return s == "" }))
}

func sortUnique(list []string) []string {
	slices.Sort(list)
	return orNilSlice(slices.Compact(list))
}

// licenseMemo remembers what was made of a text: most packages have one of a few.
type licenseMemo map[string][]string

// maxLicenseMemo bounds it for documents where each has its own.
const maxLicenseMemo = 4 << 10

// clean normalizes licences that all apply, and splits those that say so themselves:
// "A AND B" is A, and B.
func (m licenseMemo) clean(list []string) []string {
	var out []string
	for _, text := range list {
		parts, ok := m[text]
		if !ok {
			if expr, isSPDX := NormalizeLicense(text); isSPDX {
				parts = splitLicense(expr)
			} else if expr != "" {
				parts = []string{expr}
			}
			if len(m) < maxLicenseMemo && len(text) <= MaxTextBytes {
				m[text] = parts
			}
		}
		out = append(out, parts...)
	}
	return out
}

func cut[T any](list []T, limit int) []T { return orNilSlice(list[:min(len(list), limit)]) }

// orNilSlice makes empty lists alike, so that inventories can be compared.
func orNilSlice[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// compareComponents orders by package URL. Those without one, which only documents of
// others have, are told apart by their names.
func compareComponents(a, b *Component) int {
	if a.PURL != "" || b.PURL != "" {
		return cmp.Compare(a.PURL, b.PURL)
	}
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.Type, b.Type))
}

// compareDetails orders findings of one package, so that merging takes the same one
// first whatever order they were found in.
func compareDetails(a, b *Component) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Type, b.Type))
}

func compareHashes(a, b Hash) int {
	return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), cmp.Compare(a.Value, b.Value))
}

func compareReasons(a, b Reason) int {
	return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Detail, b.Detail))
}
