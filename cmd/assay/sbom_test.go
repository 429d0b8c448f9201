package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const cdxComponents = `[{"type":"library","name":"lodash","version":"4.17.20","purl":"pkg:npm/lodash@4.17.20","licenses":[{"license":{"id":"MIT"}}]},` +
	`{"type":"library","group":"golang.org/x","name":"net","version":"v0.1.0","purl":"pkg:golang/golang.org/x/net@v0.1.0","licenses":[{"license":{"id":"BSD-3-Clause"}}]},` +
	`{"type":"library","group":"local","name":"thing"}]`

// cdx is a document about the artifact that holds content.
func cdx(content, aggregate, components string) string {
	return fmt.Sprintf(`{"bomFormat":"CycloneDX","specVersion":"1.6","serialNumber":"urn:uuid:00000000-0000-8000-8000-000000000000","version":1,`+
		`"metadata":{"component":{"type":"file","bom-ref":"root","name":"app","hashes":[{"alg":"SHA-256","content":%q}]},`+
		`"properties":[{"name":"assay:scan:incomplete","value":"depth-limit a.zip!/b.zip archives in archives"},`+
		`{"name":"assay:scan:incomplete","value":"malformed c.jar no end"}]},"components":%s,`+
		`"compositions":[{"aggregate":%q,"assemblies":["root"]}]}`, digestOf(content), components, aggregate)
}

func summaryOf(name, content string, byType map[string]int32, licenses ...string) *assayv1.SBOMSummary {
	s := &assayv1.SBOMSummary{
		AttestationId: digestOf("sbom of " + name), Subject: subject(name, content), Origin: assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED,
		ComponentsByType: byType, Licenses: licenses, Complete: true, Format: "zip",
	}
	for _, n := range byType {
		s.ComponentCount += n
	}
	return s
}

func incomplete(s *assayv1.SBOMSummary, reasons ...string) *assayv1.SBOMSummary {
	s.Complete, s.IncompleteReasons = false, reasons
	return s
}

// attestsWith makes a server attest what it gets, and say this of what is inside.
func attestsWith(s *clienttest.Server, sboms ...*assayv1.SBOMSummary) {
	s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
		subjects, err := clienttest.Receive(stream)
		if err != nil {
			return err
		}
		result := &assayv1.AttestResult{Attestation: clienttest.Attestation(subjects...), Sboms: sboms}
		return stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Result{Result: result}})
	}
}

func matchOf(name string, claimed bool, purls ...string) *assayv1.ComponentMatch {
	m := &assayv1.ComponentMatch{
		Purl: purls[0], Subject: subject(name, name), AttestationId: digestOf("sbom of " + name), Environments: []string{"dev", "prod"},
		Origin: assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED, Complete: !claimed, CreateTime: timestamppb.New(time.Unix(1760000000, 0)),
		Builds: []*assayv1.ComponentBuild{{
			AttestationId: digestOf("build"), BuilderId: "https://assay.example/builders/dev", InvocationId: "https://github.com/acme/app/actions/runs/7/attempts/1",
			SourceUri: "git+https://github.com/acme/app@refs/heads/main", SourceDigest: map[string]string{"gitCommit": "6113728f27ae82c7b1a177c8d03f9e96e0adf246"},
		}},
	}
	if claimed {
		m.Origin, m.AttestationId = assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED, digestOf("claim of "+name)
	}
	for _, purl := range purls {
		m.Components = append(m.Components, &assayv1.MatchedComponent{Purl: purl, Name: "lodash", Version: "1", Licenses: []string{"MIT"}})
	}
	return m
}

// TestSBOMGolden holds what people read about what is inside.
func TestSBOMGolden(t *testing.T) {
	s := clienttest.New(t)
	dir := t.TempDir()
	t.Chdir(dir)
	names := []string{"a.zip", "b.tar", "c.bin", "d.jar"}
	for i := range 24 {
		names = append(names, fmt.Sprintf("many/%02d", i))
	}
	var sboms []*assayv1.SBOMSummary
	for i, name := range names {
		write(t, dir, "dist/"+name, name)
		one := summaryOf(name, name, map[string]int32{"npm": 10, "golang": 12, "": 1}, "Apache-2.0", "BSD-3-Clause", "GPL-2.0-only", "ISC", "MIT", "MPL-2.0", "Zlib")
		switch i {
		case 1:
			one = incomplete(summaryOf(name, name, map[string]int32{"npm": 1}), "depth-limit", "malformed")
		case 2, 25:
			one = incomplete(summaryOf(name, name, nil), "opaque")
		case 3:
			one = incomplete(summaryOf(name, name, nil), "encrypted")
		case 26:
			one = incomplete(one, "time-limit")
		}
		sboms = append(sboms, one)
	}
	attestsWith(s, sboms...)
	summary := filepath.Join(dir, "summary.md")
	env := map[string]string{"GITHUB_STEP_SUMMARY": summary}
	back := func(r result) string {
		text := "exit " + string(rune('0'+r.code)) + "\n--- stdout\n" + r.stdout + "--- stderr\n" + r.stderr
		return strings.ReplaceAll(text, s.URL, "SERVER")
	}
	outputs := map[string]string{"sboms-attest.txt": back(runWith(t, s, env, "attest", "dist"))}
	markdown, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	outputs["sboms-summary.md"] = strings.ReplaceAll(string(markdown), text(s.URL), "SERVER")

	at := s.Signer.SBOM(cdx("app", "incomplete", cdxComponents), subject("app", "app"))
	s.SBOMs(at)
	ref := "app@sha256:" + digestOf("app")
	outputs["sbom.txt"] = back(runWith(t, s, nil, "sbom", ref))
	outputs["sbom-cyclonedx.txt"] = back(runWith(t, s, nil, "sbom", ref, "--output", "cyclonedx-json"))
	outputs["sbom-spdx.txt"] = back(runWith(t, s, nil, "sbom", ref, "--output", "spdx-json"))
	outputs["show-sbom.txt"] = back(runWith(t, s, nil, "show", at.GetAttestationId()))
	claim := s.Signer.Evidence(client.PredicateCycloneDX, cdx("app", "complete", cdxComponents), subject("app", "app"))
	s.SBOMs(claim)
	outputs["sbom-claimed.txt"] = back(runWith(t, s, nil, "sbom", ref))
	outputs["show-claimed.txt"] = back(runWith(t, s, nil, "show", claim.GetAttestationId()))

	s.OnSearchComponents = func(context.Context, *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
		nowhere := matchOf("other", false, "pkg:npm/lodash@2")
		nowhere.Environments, nowhere.Builds = nil, nil
		return &assayv1.SearchComponentsResponse{
			Matches:        []*assayv1.ComponentMatch{matchOf("app", false, "pkg:npm/lodash@1", "pkg:npm/lodash@2"), nowhere, matchOf("app", true, "pkg:npm/lodash@1", "pkg:npm/lodash@3")},
			UndecidedPurls: []string{"pkg:npm/lodash@latest"},
		}, nil
	}
	outputs["search.txt"] = back(runWith(t, s, nil, "search", "component", "pkg:npm/lodash@<3"))
	outputs["search.json"] = back(runWith(t, s, nil, "search", "component", "--name", "lodash", "--format", "json", "--limit", "1"))
	s.OnSearchComponents = func(context.Context, *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
		return &assayv1.SearchComponentsResponse{Matches: []*assayv1.ComponentMatch{matchOf("app", false, "pkg:npm/lodash@1")}, Truncated: true}, nil
	}
	cut := runWith(t, s, nil, "search", "component", "pkg:npm/lodash@<3")
	if cut.code != exitUndecided {
		t.Errorf("a search that was cut short ends with %d", cut.code)
	}
	outputs["search-truncated.txt"] = back(cut)
	outputs["attach.txt"] = back(runWith(t, s, nil, "attach", ref, "--type", "cyclonedx", "--predicate", write(t, dir, "app.cdx.json", cdx("app", "unknown", "[]"))))
	t.Chdir(packageDir)
	for name, got := range outputs {
		golden(t, name, got)
	}
}

// TestSBOMDishonestServer: nothing of an SBOM that cannot be believed is printed or
// written.
func TestSBOMDishonestServer(t *testing.T) {
	s := clienttest.New(t)
	doc := cdx("app", "complete", cdxComponents)
	listed := s.Signer.SBOM(doc, subject("app", "app"))
	for name, given := range map[string]*assayv1.Attestation{
		"wrong subject":               s.Signer.SBOM(cdx("other", "complete", cdxComponents), subject("app", "other")),
		"an SBOM of another artifact": s.Signer.SBOM(cdx("other", "complete", cdxComponents), subject("app", "app")),
		"signed by nobody":            clienttest.NewSigner().SBOM(doc, subject("app", "app")),
		"another one":                 s.Signer.SBOM(cdx("app", "complete", "[]"), subject("app", "app")),
	} {
		row := listed
		if name != "another one" {
			row = &assayv1.Attestation{
				AttestationId: given.GetAttestationId(), PredicateType: given.GetPredicateType(), Subjects: []*assayv1.Subject{subject("app", "app")},
			}
		}
		s.SBOMs(row)
		s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
			return &assayv1.GetAttestationResponse{Attestation: given}, nil
		}
		for _, output := range []string{"table", "cyclonedx-json", "spdx-json"} {
			file := filepath.Join(t.TempDir(), "out")
			for _, more := range [][]string{nil, {"--file", file}} {
				args := append([]string{"sbom", "sha256:" + digestOf("app"), "--output", output}, more...)
				r := runWith(t, s, nil, args...)
				if r.code != exitUndecided || r.stdout != "" || !strings.Contains(r.stderr, client.CodeAnswerInvalid) {
					t.Errorf("%s, %s: %+v", name, output, r)
				}
			}
			if _, err := os.Stat(file); err == nil {
				t.Errorf("%s, %s: a file was written", name, output)
			}
		}
	}
	path := write(t, t.TempDir(), "app.cdx.json", doc)
	for name, answer := range map[string]*assayv1.Attestation{
		"wrong subject": s.Signer.Evidence(client.PredicateCycloneDX, doc, subject("app", "other")),
		"wrong bytes":   s.Signer.Evidence(client.PredicateCycloneDX, doc+" ", subject("app", "app")),
	} {
		s.OnUploadEvidence = func(stream assayv1.AttestationService_UploadEvidenceServer) error {
			if _, _, err := clienttest.ReceiveEvidence(stream); err != nil {
				return err
			}
			return stream.SendAndClose(&assayv1.UploadEvidenceResponse{Result: &assayv1.AttestResult{Attestation: answer}})
		}
		r := runWith(t, s, nil, "attach", "sha256:"+digestOf("app"), "--type", "cyclonedx", "--predicate", path)
		if r.code != exitUndecided || r.stdout != "" || !strings.Contains(r.stderr, client.CodeAnswerInvalid) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestSBOMHostileText: whatever stands in a document, a summary or a match, nothing but
// characters that show comes out, except in a document that is passed on as it was signed.
func TestSBOMHostileText(t *testing.T) {
	s := clienttest.New(t)
	h := strings.ToValidUTF8(hostile, "")
	dir := t.TempDir()
	app := write(t, dir, "app", "app")
	summary := filepath.Join(dir, "summary.md")
	bad := incomplete(summaryOf("app", "app", map[string]int32{h: 3}, h, h+"2"), h)
	bad.Format = h
	attestsWith(s, bad)
	components := fmt.Sprintf(`[{"type":"library","group":%[1]s,"name":%[1]s,"version":%[1]s,"licenses":[{"license":{"name":%[1]s}}]}]`, jsonString(h))
	at := s.Signer.Attest(client.PredicateCycloneDX, cdx("app", "incomplete", components), subject("app", "app"), map[string]string{
		"assay.build/predicateOrigin": "generated", "assay.build/provenance": clean(h),
	})
	s.SBOMs(at)
	s.OnSearchComponents = func(context.Context, *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
		m := matchOf("app", true, h)
		m.Subject.Name, m.Environments = h, []string{h}
		scribble(m.Components[0].ProtoReflect(), h)
		scribble(m.Builds[0].ProtoReflect(), h)
		return &assayv1.SearchComponentsResponse{Matches: []*assayv1.ComponentMatch{m}, UndecidedPurls: []string{h}}, nil
	}
	env := map[string]string{"GITHUB_STEP_SUMMARY": summary}
	for _, args := range [][]string{
		{"attest", app}, {"attest", app, "--format", "json"}, {"sbom", app}, {"show", at.GetAttestationId()},
		{"search", "component", "pkg:npm/lodash"}, {"search", "component", "pkg:npm/lodash", "--format", "json"},
		{"sbom", app, "--output", "\x1b[2J"}, {"sbom", app, "--file", "/\x1b[2J/x"}, {"search", "component", "\x1b[2J"}, {"list", "--type", "\x1b[2J"},
	} {
		r := runWith(t, s, env, args...)
		onlyShows(t, strings.Join(args, " "), r.stdout+r.stderr)
		if want := strings.Contains(strings.Join(args, " "), "\x1b"); (r.code == exitUsage) != want {
			t.Errorf("%q: %+v", args, r)
		}
	}
	markdown, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	onlyShows(t, "summary", string(markdown))
	if strings.Contains(string(markdown), "script>") || strings.Contains(string(markdown), "](n)") {
		t.Error("the summary holds live Markdown or HTML of the server's")
	}
}

// jsonString is s as JSON.
func jsonString(s string) string { return string(escapeJSON(fmt.Appendf(nil, "%q", clean(s)))) }

func TestTypeFilter(t *testing.T) {
	for _, tt := range []struct{ filter, name, want string }{
		{"", "", ""},
		{"x = 1", "", "x = 1"},
		{"", "spdx", `predicate_type = "https://spdx.dev/Document"`},
		{"commit = \"a\"", "provenance", `commit = "a" AND predicate_type = "https://slsa.dev/provenance/v1"`},
		{" ", "https://example.com/x", `predicate_type = "https://example.com/x"`},
		{"", "bom", "?"},
		{"", `https://example.com/" OR x`, "?"},
		{"", "https://example.com/\n", "?"},
	} {
		got, err := typeFilter(tt.filter, tt.name)
		if err != nil {
			got = "?"
		}
		if got != tt.want {
			t.Errorf("typeFilter(%q, %q) = %q, want %q", tt.filter, tt.name, got, tt.want)
		}
	}
	for uri, want := range map[string]string{
		"https://slsa.dev/provenance/v1": "provenance", "https://cyclonedx.org/bom": "cyclonedx", "https://spdx.dev/Document": "spdx",
		"https://slsa.dev/verification_summary/v1": "verification_summary", "https://example.com/test-result/v0.1/": "test-result", "x": "x", "v1": "v1", "": "",
	} {
		if got := typeName(uri); got != want {
			t.Errorf("typeName(%q) = %q, want %q", uri, got, want)
		}
	}
}
