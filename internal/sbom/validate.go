package sbom

import (
	"slices"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeInventoryInvalid: an inventory breaks a rule of the model. Inventories come from
// a process that reads hostile bytes, and whatever takes that process over speaks
// through them.
const CodeInventoryInvalid refusal.Code = "SBOM_INVENTORY_INVALID"

// Limits of one component and of the whole that Validate enforces and Normalize keeps.
const (
	MaxHashes      = 64      // of one component: a Python lock names every wheel
	MaxLicenses    = 64      // of one component
	MaxEdges       = 1 << 20 // dependencies in all
	maxDetailBytes = 200
)

// Validate checks every rule that Normalize establishes: limits; clean text; package
// URLs canonical, in order, each once; references that lead somewhere. What passes can
// be encoded, indexed and shown.
func (inv *Inventory) Validate() error {
	if len(inv.Components) > MaxComponents {
		return invalid("%d components; at most %d", len(inv.Components), MaxComponents)
	}
	if inv.Files < 0 || inv.Bytes < 0 {
		return invalid("negative counts: %d files, %d bytes", inv.Files, inv.Bytes)
	}
	if err := checkText("format", inv.Format, maxDetailBytes); err != nil {
		return err
	}
	known := make(map[string]bool, len(inv.Components))
	for i := range inv.Components {
		known[inv.Components[i].PURL] = true
	}
	delete(known, "") // components without a package URL cannot be referred to
	edges := 0
	for i := range inv.Components {
		c := &inv.Components[i]
		if err := c.validate(known); err != nil {
			return invalid("component %d, %.200q: %s", i, c.PURL, err.Error())
		}
		if i > 0 && compareComponents(&inv.Components[i-1], c) >= 0 {
			return invalid("component %d, %.200q: out of order or twice", i, c.PURL)
		}
		if edges += len(c.DependsOn); edges > MaxEdges {
			return invalid("more than %d dependencies in all", MaxEdges)
		}
	}
	if err := checkReferences("root", inv.Root, known, MaxComponents); err != nil {
		return err
	}
	return validateReasons(inv.Incomplete)
}

func (c *Component) validate(known map[string]bool) error {
	if c.PURL != "" {
		p, err := ParsePURL(c.PURL)
		if err != nil {
			return err
		}
		if p.String() != c.PURL {
			return invalid("not the canonical spelling, which is %.200q", p.String())
		}
	}
	if c.Name == "" {
		return invalid("no name")
	}
	for _, field := range [...][2]string{{"group", c.Group}, {"name", c.Name}, {"version", c.Version}} {
		if err := checkText(field[0], field[1], MaxTextBytes); err != nil {
			return err
		}
	}
	if c.Type != "" && !slices.Contains(componentTypes(), c.Type) {
		return invalid("type %.80q is none of CycloneDX", c.Type)
	}
	if c.Scope != "" && !knownScope(c.Scope) {
		return invalid("scope %.80q is none of CycloneDX", c.Scope)
	}
	if err := c.validateLists(); err != nil {
		return err
	}
	if slices.Contains(c.DependsOn, c.PURL) && c.PURL != "" {
		return invalid("depends on itself")
	}
	return checkReferences("dependsOn", c.DependsOn, known, MaxDependencies)
}

func (c *Component) validateLists() error {
	if len(c.Hashes) > MaxHashes {
		return invalid("%d hashes; at most %d", len(c.Hashes), MaxHashes)
	}
	for i, h := range c.Hashes {
		if !h.valid() {
			return invalid("hash %d: %.20q %.140q is no lower-case hex digest of that algorithm", i, h.Algorithm, h.Value)
		}
		if i > 0 && compareHashes(c.Hashes[i-1], h) >= 0 {
			return invalid("hash %d: out of order or twice", i)
		}
	}
	if err := checkList("licenses", c.Licenses, MaxLicenses); err != nil {
		return err
	}
	return checkList("locations", c.Locations, MaxLocations)
}

func validateReasons(reasons []Reason) error {
	if len(reasons) > MaxReasons {
		return invalid("%d reasons; at most %d", len(reasons), MaxReasons)
	}
	for i, r := range reasons {
		if !r.Code.known() {
			return invalid("reason %d: unknown code %.80q", i, r.Code)
		}
		if err := checkText("reason path", r.Path, MaxTextBytes); err != nil {
			return err
		}
		if err := checkText("reason detail", r.Detail, maxDetailBytes); err != nil {
			return err
		}
		if i > 0 && compareReasons(reasons[i-1], r) >= 0 {
			return invalid("reason %d: out of order or twice", i)
		}
	}
	return nil
}

// checkReferences checks package URLs that must be among those known.
func checkReferences(field string, refs []string, known map[string]bool, limit int) error {
	if len(refs) > limit {
		return invalid("%s: %d references; at most %d", field, len(refs), limit)
	}
	for i, ref := range refs {
		if !known[ref] {
			return invalid("%s: %.200q is no component", field, ref)
		}
		if i > 0 && refs[i-1] >= ref {
			return invalid("%s: %.200q is out of order or twice", field, ref)
		}
	}
	return nil
}

func checkList(field string, list []string, limit int) error {
	if len(list) > limit {
		return invalid("%s: %d; at most %d", field, len(list), limit)
	}
	for i, s := range list {
		if s == "" {
			return invalid("%s: an empty entry", field)
		}
		if err := checkText(field, s, MaxTextBytes); err != nil {
			return err
		}
		if i > 0 && list[i-1] >= s {
			return invalid("%s: %.200q is out of order or twice", field, s)
		}
	}
	return nil
}

func checkText(field, s string, limit int) error {
	if len(s) > limit {
		return invalid("%s: %d bytes; at most %d", field, len(s), limit)
	}
	if !plainText(s) {
		return invalid("%s: %.200q is not one clean line of UTF-8", field, s)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return refusal.New(CodeInventoryInvalid, format, args...)
}

// valid reports whether h is a digest of its algorithm.
func (h Hash) valid() bool {
	return len(h.Value) == 2*hashBytes(h.Algorithm) && h.Value != "" && strings.Trim(h.Value, "0123456789abcdef") == ""
}

func hashBytes(algorithm string) int {
	switch algorithm {
	case "MD5":
		return 16
	case "SHA-1":
		return 20
	case "SHA-256":
		return 32
	case "SHA-384":
		return 48
	case "SHA-512":
		return 64
	}
	return 0
}

func (c ReasonCode) known() bool {
	switch c {
	case ReasonEntries, ReasonFileSize, ReasonTotalSize, ReasonRatio, ReasonDepth, ReasonTime, ReasonMemory,
		ReasonComponents, ReasonMalformed, ReasonEncrypted, ReasonUnsafePath, ReasonUnsupported, ReasonFailed,
		ReasonCrashed, ReasonOpaque:
		return true
	}
	return false
}

func knownScope(s string) bool { return s == "required" || s == "optional" || s == "excluded" }

// componentTypes are those of CycloneDX 1.6.
func componentTypes() []string {
	return []string{"application", "container", "cryptographic-asset", "data", "device", "device-driver", "file",
		"firmware", "framework", "library", "machine-learning-model", "operating-system", "platform"}
}
