package sbom

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

func readAll(t *testing.T, in io.Reader) (Header, []Component) {
	t.Helper()
	var got []Component
	h, err := Read(in, func(c Component) error { got = append(got, c); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return h, got
}

// TestReadOfficial reads every valid document of the specification: none may fail, but
// for those whose package URLs are none, or that hold a component of no name.
func TestReadOfficial(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(vectors.Dir(t, "cyclonedx-spec/tools/src/test/resources"), "1.[4567]", "valid-*.json"))
	if err != nil || len(files) < 150 {
		t.Fatal(len(files), err)
	}
	refused, components := 0, 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Read(bytes.NewReader(data), func(c Component) error {
			components++
			one := Inventory{Components: []Component{c}}
			return one.Validate()
		})
		if err != nil {
			refused++
			if refusal.CodeOf(err) != CodePURLInvalid {
				t.Errorf("%s: %v", name, err)
			}
			t.Logf("%s: %v", filepath.Base(name), err)
		}
	}
	t.Logf("%d documents, %d components, %d refused", len(files), components, refused)
}

func TestReadCycloneDX(t *testing.T) {
	t.Parallel()
	// Members in an order that no tool writes, nesting, and things to be skipped.
	doc := `{
	 "compositions": [{"aggregate": "complete", "assemblies": ["other"]}, {"assemblies": ["r"], "aggregate": "incomplete"}],
	 "components": [
	  {"components": [{"name": "inner", "type": "library", "purl": "pkg:NPM/inner@1"}], "name": "outer", "type": "framework",
	   "licenses": [{"license": {"name": "Apache 2.0", "text": {"content": "…"}}}, {"license": {"id": "MIT"}}],
	   "hashes": [{"alg": "SHA-1", "content": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, {"alg": "BLAKE3", "content": "00"}],
	   "evidence": {"occurrences": [{"location": "b"}, {"location": "a"}]}, "pedigree": {"ancestors": [{"name": "not a component"}]}},
	  {"name": "expr", "type": "library", "licenses": [{"expression": "(MIT OR ISC) AND GPL-2.0+"}], "scope": "optional", "version": null}
	 ],
	 "services": [{"name": "x"}],
	 "metadata": {"component": {"name": "app", "bom-ref": "r", "type": "application", "hashes": [{"alg": "SHA-256", "content": "` + strings.Repeat("ab", 32) + `"}]},
	  "properties": [{"name": "assay:scan:incomplete", "value": "depth-limit a/b: deep"}, {"name": "assay:scan:incomplete", "value": "nonsense"}, {"name": "assay:scan:format", "value": "jar"}]},
	 "serialNumber": "urn:uuid:1", "specVersion": "1.5", "bomFormat": "CycloneDX", "version": 1
	}`
	wantHeader := Header{
		Format: "cyclonedx", SpecVersion: "1.5", Serial: "urn:uuid:1", Name: "app", Hashes: []Hash{{"SHA-256", strings.Repeat("ab", 32)}},
		Aggregate: "incomplete", ArtifactFormat: "jar", Incomplete: []string{"depth-limit"},
	}
	want := []Component{
		{PURL: "pkg:npm/inner@1", Name: "inner"},
		{Name: "outer", Type: "framework", Licenses: []string{"Apache-2.0", "MIT"}, Hashes: []Hash{{"SHA-1", strings.Repeat("a", 40)}}, Locations: []string{"a", "b"}},
		{Name: "expr", Licenses: []string{"GPL-2.0-or-later", "MIT OR ISC"}, Scope: "optional"},
	}
	for name, in := range map[string]io.Reader{"seeker": strings.NewReader(doc), "stream": iotest.OneByteReader(strings.NewReader(doc))} {
		h, got := readAll(t, in)
		if !reflect.DeepEqual(h, wantHeader) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\n%+v", name, h, got)
		}
	}
}

func TestReadSPDX(t *testing.T) {
	t.Parallel()
	doc := `{"SPDXID": "SPDXRef-DOCUMENT", "spdxVersion": "SPDX-2.2", "documentNamespace": "https://example.com/x",
	 "packages": [
	  {"SPDXID": "SPDXRef-a", "name": "app", "checksums": [{"algorithm": "SHA256", "checksumValue": "` + strings.Repeat("AB", 32) + `"}]},
	  {"SPDXID": "SPDXRef-b", "name": "b", "versionInfo": "1", "licenseConcluded": "MIT", "licenseDeclared": "NOASSERTION", "primaryPackagePurpose": "APPLICATION",
	   "externalRefs": [{"referenceType": "cpe23Type", "referenceLocator": "x"}, {"referenceType": "purl", "referenceLocator": "pkg:maven/g/b@1"}]},
	  {"SPDXID": "SPDXRef-c", "name": "c", "licenseConcluded": "NOASSERTION", "licenseDeclared": "ISC AND LicenseRef-x", "checksums": [{"algorithm": "SHA3-256", "checksumValue": "00"}]}
	 ],
	 "hasExtractedLicensingInfos": [{"licenseId": "LicenseRef-x", "name": "MIT", "extractedText": "mine"}],
	 "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-a"}]}`
	wantHeader := Header{
		Format: "spdx", SpecVersion: "2.2", Serial: "https://example.com/x", Name: "app", Hashes: []Hash{{"SHA-256", strings.Repeat("ab", 32)}}, Aggregate: "unknown",
	}
	want := []Component{
		{PURL: "pkg:maven/g/b@1", Name: "b", Group: "g", Version: "1", Licenses: []string{"MIT"}, Type: "application"},
		{Name: "c", Licenses: []string{"ISC", "LicenseRef-x"}},
	}
	for name, in := range map[string]io.Reader{"seeker": strings.NewReader(doc), "stream": iotest.OneByteReader(strings.NewReader(doc))} {
		h, got := readAll(t, in)
		if !reflect.DeepEqual(h, wantHeader) || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\n%+v", name, h, got)
		}
	}
	// Of a document that describes several packages, all are components.
	several := strings.Replace(doc, `"relationships": [`, `"documentDescribes": ["SPDXRef-b"], "relationships": [`, 1)
	if h, got := readAll(t, strings.NewReader(several)); len(got) != 3 || h.Name != "" {
		t.Errorf("%+v, %d components", h, len(got))
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	wrap := func(components string) string {
		return `{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [` + components + `]}`
	}
	nested := strings.Repeat(`{"type":"library","name":"a","components":[`, maxNesting+1) + strings.Repeat(`]}`, maxNesting+1)
	for name, c := range map[string]struct {
		doc  string
		code refusal.Code
	}{
		"empty":               {"", CodeDocumentInvalid},
		"not JSON":            {"<bom/>", CodeDocumentInvalid},
		"array":               {"[]", CodeDocumentInvalid},
		"no format":           {"{}", CodeDocumentInvalid},
		"cut":                 {wrap(`{"name":"a"`)[:70], CodeDocumentInvalid},
		"cut in array":        {`{"bomFormat": "CycloneDX", "components": [`, CodeDocumentInvalid},
		"trailing":            {wrap("") + "{}", CodeDocumentInvalid},
		"duplicate key":       {wrap(`{"name":"a","name":"b"}`), CodeDocumentInvalid},
		"invalid UTF-8":       {wrap("{\"name\":\"\xff\"}"), CodeDocumentInvalid},
		"version 1.3":         {`{"bomFormat": "CycloneDX", "specVersion": "1.3"}`, CodeDocumentInvalid},
		"components no array": {`{"bomFormat": "CycloneDX", "components": {}}`, CodeDocumentInvalid},
		"component no object": {wrap(`7`), CodeDocumentInvalid},
		"name no string":      {wrap(`{"name": 7}`), CodeDocumentInvalid},
		"no name":             {wrap(`{"type": "library"}`), CodeDocumentInvalid},
		"purl":                {wrap(`{"name": "a", "purl": "pkg:npm"}`), CodePURLInvalid},
		"too deep":            {wrap(nested), CodeDocumentInvalid},
		"bad literal":         {wrap(`{"name": tru}`), CodeDocumentInvalid},
		"SPDX 3":              {`{"spdxVersion": "SPDX-3.0"}`, CodeDocumentInvalid},
		"SPDX purl":           {`{"spdxVersion": "SPDX-2.3", "packages": [{"name": "a", "externalRefs": [{"referenceType": "purl", "referenceLocator": "npm/a"}]}]}`, CodePURLInvalid},
		"SPDX cut":            {`{"spdxVersion": "SPDX-2.3", "packages": [`, CodeDocumentInvalid},
	} {
		for _, in := range []io.Reader{strings.NewReader(c.doc), iotest.DataErrReader(strings.NewReader(c.doc))} {
			if _, err := Read(in, func(Component) error { return nil }); refusal.CodeOf(err) != c.code {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestReadPassesErrorsOn(t *testing.T) {
	t.Parallel()
	mine := errors.New("enough")
	doc := `{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "a"}]}`
	if _, err := Read(strings.NewReader(doc), func(Component) error { return mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
	if _, err := Read(iotest.ErrReader(mine), func(Component) error { return nil }); !errors.Is(err, mine) {
		t.Error(err)
	}
}

// TestReadTooMany: a document of one component more than the limit, which is never in
// memory as a whole, on either side.
func TestReadTooMany(t *testing.T) {
	if testing.Short() {
		t.Skip("reads hundreds of thousands of components")
	}
	read := func(n int) (int, uint64, error) {
		in, out := io.Pipe()
		go func() {
			fmt.Fprint(out, `{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "first"}`)
			for i := range n - 1 {
				if _, err := fmt.Fprintf(out, `,{"type":"library","name":"n%d","purl":"pkg:npm/n%d@1","description":"%0200d"}`, i, i, i); err != nil {
					return
				}
			}
			fmt.Fprint(out, `]}`)
			out.Close()
		}()
		defer in.Close()
		runtime.GC()
		runtime.GC() // twice: pools give up only then what other tests left in them
		var peak uint64
		var m runtime.MemStats
		count := 0
		_, err := Read(in, func(Component) error {
			if count++; count%20_000 == 0 {
				runtime.GC()
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
			return nil
		})
		return count, peak, err
	}
	n, peak, err := read(MaxComponents)
	if err != nil || n != MaxComponents || peak > 64<<20 {
		t.Errorf("%d components, %d bytes of heap, %v", n, peak, err)
	}
	if _, _, err := read(MaxComponents + 1); refusal.CodeOf(err) != CodeDocumentInvalid {
		t.Error(err)
	}
	t.Logf("%d components with a heap of at most %d KiB", n, peak>>10)
}

// FuzzRead: every component handed out is one that Validate accepts.
func FuzzRead(f *testing.F) {
	doc, err := Encode(testArtifact(), smallInventory(), testTool())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"spdxVersion":"SPDX-2.3","packages":[{"SPDXID":"a","name":"b","licenseDeclared":"MIT AND LicenseRef-x"}],"documentDescribes":["a"]}`))
	f.Add([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.4","components":[{"name":"a","components":[{"name":"b"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Read(bytes.NewReader(data), func(c Component) error {
			one := Inventory{Components: []Component{c}}
			if err := one.Validate(); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			return nil
		})
		stream, streamErr := Read(iotest.HalfReader(bytes.NewReader(data)), func(Component) error { return nil })
		if refusal.CodeOf(err) != refusal.CodeOf(streamErr) || !reflect.DeepEqual(h, stream) {
			t.Fatalf("the same bytes read differently: %+v %v, %+v %v", h, err, stream, streamErr)
		}
		if err != nil && refusal.CodeOf(err) == "" {
			t.Fatalf("no code: %v", err)
		}
		_ = WriteSPDX(io.Discard, data, testTime())
	})
}
