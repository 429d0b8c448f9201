package sbom

import (
	"encoding/hex"
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// hostileText draws what an artifact may hold where text is expected.
func hostileText() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[A-Za-z0-9._@/-]{1,20}`),
		rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 20), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{
			"", " ", "\x00", "a\nb", "\x1b[31mred", "\u202egpj.exe", "\xff\xfe", "<script>&amp;", `"quoted"\`, "\u2028", "日本語",
			strings.Repeat("x", MaxTextBytes+9), strings.Repeat("é", MaxTextBytes), "pkg:npm/a", "urn:uuid:00000000-0000-8000-8000-000000000000",
		}),
	)
}

// hostileInventory draws findings as a scan might make them of hostile bytes, before
// Normalize.
func hostileInventory() *rapid.Generator[*Inventory] {
	purl := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 9).Draw(t, "raw") == 0 {
			return hostileText().Draw(t, "purl")
		}
		typ := rapid.SampledFrom([]string{"npm", "pypi", "golang", "maven", "deb"}).Draw(t, "type")
		s, err := NewPURL(typ, "", rapid.SampledFrom([]string{"a", "b", "c", "@s/d", "E_f", "libstdc++"}).Draw(t, "name"),
			rapid.SampledFrom([]string{"", "1", "1.0+x", "é"}).Draw(t, "version"))
		if err != nil {
			return ""
		}
		return s
	})
	license := rapid.OneOf(hostileText(), rapid.SampledFrom([]string{
		"MIT", "Apache-2.0 OR MIT", "MIT AND ISC", "GPL-2+ with classpath exception", "BSD", "custom words", "LicenseRef-x", "NONE",
	}))
	hash := rapid.Custom(func(t *rapid.T) Hash {
		alg := rapid.SampledFrom([]string{"SHA-1", "SHA-256", "SHA-384", "SHA-512", "MD5", "X"}).Draw(t, "alg")
		n := rapid.SampledFrom([]int{hashBytes(alg), hashBytes(alg), 3}).Draw(t, "n")
		return Hash{alg, strings.ToUpper(hex.EncodeToString(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "value")))}
	})
	text := hostileText()
	component := rapid.Custom(func(t *rapid.T) Component {
		return Component{
			PURL: purl.Draw(t, "purl"), Name: text.Draw(t, "name"), Group: text.Draw(t, "group"), Version: text.Draw(t, "version"),
			Type:      rapid.SampledFrom([]string{"", "library", "application", "operating-system", "nonsense"}).Draw(t, "type"),
			Scope:     rapid.SampledFrom([]string{"", "required", "optional", "excluded", "x"}).Draw(t, "scope"),
			Hashes:    rapid.SliceOfN(hash, 0, 3).Draw(t, "hashes"),
			Licenses:  rapid.SliceOfN(license, 0, 3).Draw(t, "licenses"),
			DependsOn: rapid.SliceOfN(purl, 0, 3).Draw(t, "dependsOn"),
			Locations: rapid.SliceOfN(text, 0, MaxLocations+2).Draw(t, "locations"),
		}
	})
	reason := rapid.Custom(func(t *rapid.T) Reason {
		return Reason{
			Code: rapid.SampledFrom([]ReasonCode{ReasonMalformed, ReasonDepth, ReasonTime, "nonsense"}).Draw(t, "code"),
			Path: text.Draw(t, "path"), Detail: text.Draw(t, "detail"),
		}
	})
	return rapid.Custom(func(t *rapid.T) *Inventory {
		return &Inventory{
			Format: text.Draw(t, "format"), Components: rapid.SliceOfN(component, 0, 8).Draw(t, "components"),
			Root: rapid.SliceOfN(purl, 0, 3).Draw(t, "root"), Incomplete: rapid.SliceOfN(reason, 0, 4).Draw(t, "incomplete"),
			Files: rapid.IntRange(-1, 9).Draw(t, "files"), Bytes: rapid.Int64Range(-1, 9).Draw(t, "bytes"),
		}
	})
}

// clone copies everything that Normalize writes to.
func (inv *Inventory) clone() *Inventory {
	c := *inv
	c.Root = append([]string(nil), inv.Root...)
	c.Incomplete = append([]Reason(nil), inv.Incomplete...)
	c.Components = append([]Component(nil), inv.Components...)
	for i := range c.Components {
		k := &c.Components[i]
		k.Hashes = append([]Hash(nil), k.Hashes...)
		k.Licenses = append([]string(nil), k.Licenses...)
		k.DependsOn = append([]string(nil), k.DependsOn...)
		k.Locations = append([]string(nil), k.Locations...)
	}
	return &c
}

// largeInventory is like that of a big image: n packages with everything.
func largeInventory(n int) *Inventory {
	inv := &Inventory{Format: "oci-layout", Files: n}
	purl := func(i int) string { return fmt.Sprintf("pkg:npm/%%40scope/package-%d@1.%d.0", i, i%50) }
	for i := range n {
		c := Component{
			PURL: purl(i), Group: "@scope", Name: fmt.Sprintf("package-%d", i), Version: fmt.Sprintf("1.%d.0", i%50), Scope: "required",
			Hashes:    []Hash{{"SHA-512", fmt.Sprintf("%0128x", i)}},
			Licenses:  []string{[]string{"MIT", "Apache-2.0", "MIT OR Apache-2.0", "BSD-3-Clause"}[i%4]},
			Locations: []string{fmt.Sprintf("app/node_modules/@scope/package-%d/package.json", i)},
		}
		for k := 1; k <= 3 && i+k < n; k++ {
			c.DependsOn = append(c.DependsOn, purl(i+k))
		}
		inv.Components = append(inv.Components, c)
	}
	inv.Root = []string{purl(0)}
	inv.Normalize()
	return inv
}
