package check

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assay-build/assay/internal/sbom"
)

// TestOwnDocuments: what the service writes itself passes as a client's document, and
// says the same.
func TestOwnDocuments(t *testing.T) {
	t.Parallel()
	log4j, api := "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1", "pkg:maven/org.apache.logging.log4j/log4j-api@2.14.1"
	inv := &sbom.Inventory{Format: "jar", Root: []string{log4j}, Components: []sbom.Component{
		{PURL: api, Group: "org.apache.logging.log4j", Name: "log4j-api", Version: "2.14.1", Licenses: []string{"Apache-2.0"}},
		{PURL: log4j, Group: "org.apache.logging.log4j", Name: "log4j-core", Version: "2.14.1", Licenses: []string{"Apache-2.0 OR MIT"},
			Hashes: []sbom.Hash{{Algorithm: "SHA-1", Value: "9141212b8507ab50a45525b545b39d224614528b"}}, DependsOn: []string{api}},
	}}
	inv.Normalize()
	doc, err := sbom.Encode(sbom.Artifact{Name: "app.jar", SHA256: sha256Hex, SHA512: sha512Hex, Size: 3}, inv, sbom.Tool{Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	got, report, err := checkText(t, string(doc), Want{PredicateType: predicateCycloneDX, SHA256: sha256Hex, SHA512: sha512Hex})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inv.Components, got.Components); diff != "" {
		t.Errorf("components (-written +read):\n%s", diff)
	}
	if diff := cmp.Diff(inv.Root, got.Root); diff != "" {
		t.Errorf("root (-written +read):\n%s", diff)
	}
	if !report.SelfBound || report.Aggregate != "complete" || report.Components != 2 {
		t.Errorf("%+v", report)
	}

	var asSPDX bytes.Buffer
	if err := sbom.WriteSPDX(&asSPDX, doc, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	got, report, err = checkText(t, asSPDX.String(), Want{PredicateType: predicateSPDX, SHA256: sha256Hex, SHA512: sha512Hex})
	if err != nil {
		t.Fatalf("%v\n%s", err, asSPDX.String())
	}
	if !report.SelfBound || report.Components != 2 {
		t.Errorf("%+v", report)
	}
	var purls []string
	for _, c := range got.Components {
		purls = append(purls, c.PURL)
	}
	if diff := cmp.Diff([]string{api, log4j}, purls); diff != "" {
		t.Errorf("package URLs (-written +read):\n%s", diff)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := Check(ctx, strings.NewReader(whole), int64(len(whole)), cycloneDX(), DefaultLimits())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want that of the context", err)
	}
}
