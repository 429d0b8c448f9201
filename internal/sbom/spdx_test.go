package sbom

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
)

func testTime() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 123, time.FixedZone("x", 3600)) }

func TestSPDXGolden(t *testing.T) {
	t.Parallel()
	doc, err := Encode(testArtifact(), smallInventory(), Tool{Name: "assay"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := WriteSPDX(&out, doc, testTime()); err != nil {
		t.Fatal(err)
	}
	golden(t, "spdx.json", serialPattern().ReplaceAll(out.Bytes(), []byte("urn:uuid:SERIAL")))
}

// TestSPDXRoundTrip: whatever was found, the rendering is read by the library of SPDX,
// is the same each time, and reads back as what was encoded.
func TestSPDXRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		inv := hostileInventory().Draw(t, "inventory")
		inv.Normalize()
		doc, err := Encode(testArtifact(), inv, testTool())
		if err != nil {
			t.Fatal(err)
		}
		var out, again bytes.Buffer
		if err := WriteSPDX(&out, doc, testTime()); err != nil {
			t.Fatal(err)
		}
		if err := WriteSPDX(&again, doc, testTime()); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
			t.Fatalf("another rendering, %v", err)
		}
		if err := attest.CheckJSON(out.Bytes(), 1<<20); err != nil {
			t.Fatal(err)
		}
		checkWithTools(t, inv, out.Bytes())
		var got []Component
		h, err := Read(&out, func(c Component) error { got = append(got, c); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if h.Format != FormatSPDX || h.SpecVersion != "2.3" || h.Name != "app-1.0.tgz" || len(h.Hashes) != 2 {
			t.Fatalf("header %+v", h)
		}
		if want := spdxForm(inv); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("read\n%+v\nwant\n%+v", got, want)
		}
	})
}

// spdxForm is what SPDX can keep of an inventory.
func spdxForm(inv *Inventory) []Component {
	out := inv.clone().Components
	for i := range out {
		c := &out[i]
		c.DependsOn, c.Locations, c.Scope, c.Group = nil, nil, "", ""
		if p, err := ParsePURL(c.PURL); err == nil {
			c.Group = p.Namespace
		}
	}
	return out
}

// checkWithTools reads the document with the library of the SPDX project and looks for
// every package and every reference.
func checkWithTools(t *rapid.T, inv *Inventory, doc []byte) {
	parsed, err := spdxjson.Read(bytes.NewReader(doc))
	if err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	if len(parsed.Packages) != len(inv.Components)+1 {
		t.Fatalf("%d packages of %d components", len(parsed.Packages), len(inv.Components))
	}
	ids := map[string]bool{"DOCUMENT": true}
	purls := map[string]bool{}
	for _, p := range parsed.Packages {
		ids[string(p.PackageSPDXIdentifier)] = true
		for _, r := range p.PackageExternalReferences {
			purls[r.Locator] = true
		}
	}
	edges := len(inv.Root)
	for i := range inv.Components {
		edges += len(inv.Components[i].DependsOn)
		if purl := inv.Components[i].PURL; purl != "" && !purls[purl] {
			t.Fatalf("%s is missing", purl)
		}
	}
	for _, r := range parsed.Relationships {
		if !ids[string(r.RefA.ElementRefID)] || !ids[string(r.RefB.ElementRefID)] {
			t.Fatalf("%+v leads nowhere", r)
		}
		if r.Relationship == "DEPENDS_ON" {
			edges--
		}
	}
	if edges != 0 {
		t.Fatalf("%d dependencies are missing", edges)
	}
}
