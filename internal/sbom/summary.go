package sbom

import (
	"slices"
	"strings"
)

// Summary is an inventory in a few numbers.
type Summary struct {
	Components int
	// ByType counts by package URL type; "" for components without package URL.
	ByType map[string]int
	// Licenses are those that occur, as LicenseIDs lists them.
	Licenses []string
	Complete bool
	// Incomplete holds the codes that occur, in order, each once.
	Incomplete []string
}

// Summarize counts.
func Summarize(inv *Inventory) Summary {
	s := Summary{Components: len(inv.Components), ByType: map[string]int{}, Complete: inv.Complete()}
	seen := map[string]bool{} // most packages have one of a few licences
	var exprs []string
	for i := range inv.Components {
		c := &inv.Components[i]
		s.ByType[purlType(c.PURL)]++
		for _, l := range c.Licenses {
			if !seen[l] {
				seen[l] = true
				exprs = append(exprs, l)
			}
		}
	}
	s.Licenses = LicenseIDs(exprs)
	for _, r := range inv.Incomplete {
		s.Incomplete = append(s.Incomplete, string(r.Code))
	}
	slices.Sort(s.Incomplete)
	s.Incomplete = slices.Compact(s.Incomplete)
	return s
}

// purlType is the type of a canonical package URL.
func purlType(purl string) string {
	typ, _, _ := strings.Cut(strings.TrimPrefix(purl, "pkg:"), "/")
	return typ
}
