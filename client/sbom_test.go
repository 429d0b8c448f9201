package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// document is a CycloneDX document about the artifact that holds content, with one
// package of the version given.
func document(content, version, aggregate string) string {
	return fmt.Sprintf(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,`+
		`"metadata":{"component":{"type":"file","bom-ref":"root","name":"app","hashes":[{"alg":"SHA-256","content":%q}]},`+
		`"properties":[{"name":"assay:scan:format","value":"zip"},{"name":"assay:scan:incomplete","value":"depth-limit a.zip!/b.zip"}]},`+
		`"components":[{"type":"library","name":"lodash","version":%[2]q,"purl":"pkg:npm/lodash@%[2]s"}],`+
		`"compositions":[{"aggregate":%[3]q,"assemblies":["root"]}]}`, digestOf(content), version, aggregate)
}

const spdxDocument = ` {"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","name":"app",` +
	`"documentNamespace":"https://example.com/app","creationInfo":{"created":"2026-01-01T00:00:00Z","creators":["Tool: t"]},` +
	`"packages":[{"name":"lodash","SPDXID":"SPDXRef-1","downloadLocation":"NOASSERTION","filesAnalyzed":false}],` +
	"\n" + `"relationships":[{"spdxElementId":"SPDXRef-DOCUMENT","relationshipType":"DESCRIBES","relatedSpdxElement":"SPDXRef-1"}]}`

func subjectOf(content string) *assayv1.Subject {
	return &assayv1.Subject{Name: "app", Digest: map[string]string{"sha256": digestOf(content)}}
}

func at(a *assayv1.Attestation, second int64) *assayv1.Attestation {
	a.CreateTime = timestamppb.New(time.Unix(second, 0))
	return a
}

// TestSBOMChoice: generated before claimed, complete before incomplete, later before
// earlier, whatever the order of the list.
func TestSBOMChoice(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	generated := func(second int64, version, aggregate string) *assayv1.Attestation {
		return at(s.Signer.SBOM(document("app", version, aggregate), subjectOf("app")), second)
	}
	claimed := func(second int64, predicateType, document string) *assayv1.Attestation {
		return at(s.Signer.Evidence(predicateType, document, subjectOf("app")), second)
	}
	oldComplete, newIncomplete := generated(1, "1", "complete"), generated(2, "2", "incomplete")
	newComplete, newestIncomplete := generated(3, "3", "complete"), generated(4, "4", "unknown")
	cdx, spdx := claimed(8, PredicateCycloneDX, document("app", "8", "complete")), claimed(9, PredicateSPDX, spdxDocument)
	vague := claimed(10, PredicateCycloneDX, document("app", "10", "unknown"))
	other := at(s.Signer.SBOM(document("other", "7", "complete"), subjectOf("other")), 99)
	const isGenerated, isClaimed = assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED, assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED
	tests := []struct {
		name    string
		all     []*assayv1.Attestation
		options SBOMOptions
		want    *assayv1.Attestation
	}{
		{"the only one", []*assayv1.Attestation{newIncomplete}, SBOMOptions{}, newIncomplete},
		{"complete", []*assayv1.Attestation{newIncomplete, oldComplete}, SBOMOptions{}, oldComplete},
		{"newest complete", []*assayv1.Attestation{oldComplete, newComplete, newestIncomplete}, SBOMOptions{}, newComplete},
		{"newest of the incomplete", []*assayv1.Attestation{newIncomplete, newestIncomplete}, SBOMOptions{}, newestIncomplete},
		{"generated though later ones are claimed", []*assayv1.Attestation{spdx, cdx, newIncomplete}, SBOMOptions{}, newIncomplete},
		{"only claimed", []*assayv1.Attestation{newComplete, spdx, cdx}, SBOMOptions{Origin: isClaimed}, cdx},
		{"complete of the claimed", []*assayv1.Attestation{vague, cdx}, SBOMOptions{Origin: isClaimed}, cdx},
		{"preferred of the claimed", []*assayv1.Attestation{spdx, cdx}, SBOMOptions{Prefer: PredicateSPDX}, spdx},
		{"nothing generated", []*assayv1.Attestation{spdx, cdx}, SBOMOptions{Origin: isGenerated}, nil},
		{"of another artifact", []*assayv1.Attestation{other}, SBOMOptions{}, nil},
		{"none", nil, SBOMOptions{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.SBOMs(tt.all...)
			got, err := c.SBOM(t.Context(), digestOf("app"), tt.options)
			if tt.want == nil {
				wantCode(t, err, CodeSBOMNotFound)
				if !errors.Is(err, ErrNotFound) {
					t.Errorf("%v is not ErrNotFound", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Attestation.GetAttestationId() != tt.want.GetAttestationId() {
				t.Errorf("chose the one of %s, want that of %s", got.Attestation.GetCreateTime().AsTime(), tt.want.GetCreateTime().AsTime())
			}
		})
	}
}

func TestSBOMContents(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	want := document("app", "1", "incomplete")
	s.SBOMs(s.Signer.SBOM(want, subjectOf("app")))
	got, err := c.SBOM(t.Context(), digestOf("app"), SBOMOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Document) != want || got.Complete() || got.Aggregate != "incomplete" || len(got.Incomplete) != 1 || got.Incomplete[0] != "depth-limit" ||
		got.Format != "cyclonedx" || got.SpecVersion != "1.6" || got.Provenance != strings.Repeat("0", 64) || got.AttachedBy != "" {
		t.Errorf("got %+v", got)
	}
	s.SBOMs(s.Signer.Evidence(PredicateSPDX, spdxDocument, subjectOf("app")))
	if got, err = c.SBOM(t.Context(), digestOf("app"), SBOMOptions{}); err != nil {
		t.Fatal(err)
	}
	if string(got.Document) != spdxDocument || got.Complete() || got.Format != "spdx" || got.Origin != assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED || got.AttachedBy == "" {
		t.Errorf("got %+v", got)
	}
	_, err = c.SBOM(t.Context(), "sha256:"+digestOf("app"), SBOMOptions{})
	wantCode(t, err, CodeSubjectInvalid)
}

// TestSBOMDishonest: whatever a server gives out in the place of the SBOM.
func TestSBOMDishonest(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	honest := func() *assayv1.Attestation {
		return s.Signer.SBOM(document("app", "1", "complete"), subjectOf("app"))
	}
	edited := func(edit func(*assayv1.Attestation)) *assayv1.Attestation {
		a := honest()
		edit(a)
		return a
	}
	resigned := func(edit func(*attest.BundleParts)) *assayv1.Attestation {
		return edited(func(a *assayv1.Attestation) {
			parts, err := attest.ParseOwnBundle(a.GetBundle())
			if err != nil {
				t.Fatal(err)
			}
			edit(parts)
			if a.Bundle, err = attest.MarshalBundle(parts); err != nil {
				t.Fatal(err)
			}
		})
	}
	annotated := func(doc string, annotations map[string]string) *assayv1.Attestation {
		subject := subjectOf("app")
		subject.Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED
		return s.Signer.Attest(PredicateCycloneDX, doc, subject, annotations)
	}
	generated := map[string]string{"assay.build/predicateOrigin": "generated"}
	stranger, other := clienttest.NewSigner(), s.Signer.SBOM(document("app", "2", "complete"), subjectOf("app"))
	tests := []struct {
		name  string
		fetch *assayv1.Attestation // in the place of what is listed; nil for an honest one
		list  *assayv1.Attestation // what is listed; nil for what is fetched
		text  string
	}{
		{name: "honest", fetch: honest()},
		{name: "of another instance", fetch: stranger.SBOM(document("app", "1", "complete"), subjectOf("app")), text: "no key of the instance"},
		{name: "signature of another statement", fetch: resigned(func(p *attest.BundleParts) {
			theirs, err := attest.ParseOwnBundle(other.GetBundle())
			if err != nil {
				t.Fatal(err)
			}
			p.Envelope.Signatures = theirs.Envelope.Signatures
		}), text: "no key of the instance"},
		{name: "log entry of another", fetch: resigned(func(p *attest.BundleParts) {
			theirs, err := attest.ParseOwnBundle(other.GetBundle())
			if err != nil {
				t.Fatal(err)
			}
			p.LogEntry = theirs.LogEntry
		}), text: "not about this attestation"},
		{name: "an unknown log", fetch: resigned(func(p *attest.BundleParts) { p.LogEntry.LogID = make([]byte, 32) }), text: "no log of the instance"},
		{name: "another kind of entry", fetch: resigned(func(p *attest.BundleParts) { p.LogEntry.Version = "0.0.3" }), text: "not about this attestation"},
		{name: "another tree", fetch: resigned(func(p *attest.BundleParts) { p.LogEntry.RootHash = make([]byte, 32) }), text: "does not hold"},
		{name: "a larger tree", fetch: resigned(func(p *attest.BundleParts) { p.LogEntry.TreeSize = 2 }), text: "does not hold"},
		{name: "a checkpoint nobody signed", fetch: resigned(func(p *attest.BundleParts) {
			p.LogEntry.Checkpoint = strings.Replace(p.LogEntry.Checkpoint, "\n1\n", "\n2\n", 1)
		}), text: "checkpoint"},
		{name: "a time nobody signed", fetch: resigned(func(p *attest.BundleParts) { p.LogEntry.IntegratedTime = 1760000000 }), text: "time"},
		{name: "of another artifact", fetch: s.Signer.SBOM(document("other", "1", "complete"), subjectOf("other")), list: listedFor("app"), text: "not about sha256:"},
		{name: "document of another artifact", fetch: s.Signer.SBOM(document("other", "1", "complete"), subjectOf("app")), text: "says that it is about"},
		{name: "document of nothing", fetch: annotated(`{"bomFormat":"CycloneDX","specVersion":"1.6"}`, generated), text: "does not say what it is about"},
		{name: "no document", fetch: annotated(`{}`, generated), text: "the SBOM: "},
		{name: "SPDX called CycloneDX", fetch: annotated(spdxDocument, generated), text: "holds spdx"},
		{name: "claimed, listed as generated", fetch: annotated(document("app", "1", "complete"), nil), text: "listed as SBOM_ORIGIN_GENERATED and signed as SBOM_ORIGIN_CLAIMED"},
		{name: "generated, listed as claimed", fetch: edited(func(a *assayv1.Attestation) {
			a.Subjects[0].Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_CLAIMED
		}), text: "listed as SBOM_ORIGIN_CLAIMED"},
		{name: "another id", fetch: other, list: honest(), text: "where"},
		{name: "no id", fetch: honest(), list: edited(func(a *assayv1.Attestation) { a.AttestationId = "x" }), text: "without an id"},
		{name: "bundle cut short", fetch: edited(func(a *assayv1.Attestation) { a.Bundle = a.Bundle[:len(a.Bundle)-1] }), text: "bundle"},
		{name: "provenance", fetch: clienttest.Attestation(subjectOf("app")), list: listedFor("app"), text: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			listed := tt.list
			if listed == nil {
				listed = tt.fetch
			}
			if listed.GetAttestationId() == "" {
				listed.AttestationId = tt.fetch.GetAttestationId()
			}
			s.SBOMs(listed)
			s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
				return &assayv1.GetAttestationResponse{Attestation: tt.fetch}, nil
			}
			_, err := c.SBOM(t.Context(), digestOf("app"), SBOMOptions{})
			if tt.name == "honest" {
				wantCode(t, err, "")
				return
			}
			wantDishonest(t, err, tt.text)
		})
	}
}

// listedFor is a row of a list that says that it is about the artifact.
func listedFor(content string) *assayv1.Attestation {
	subject := subjectOf(content)
	subject.Origin = assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED
	return &assayv1.Attestation{PredicateType: PredicateCycloneDX, Subjects: []*assayv1.Subject{subject}}
}

func TestTrustedRootDishonest(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	s.SBOMs(s.Signer.SBOM(document("app", "1", "complete"), subjectOf("app")))
	honest := s.Signer.TrustedRoot()
	for name, edit := range map[string]func(*assayv1.GetTrustedRootResponse){
		"no logs": func(r *assayv1.GetTrustedRootResponse) {
			r.TrustedRoot = []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
		},
		"a log under a false id": func(r *assayv1.GetTrustedRootResponse) {
			r.TrustedRoot = []byte(strings.Replace(string(r.TrustedRoot), `"keyId":"`, `"keyId":"AAAA`, 1))
		},
		"another key": func(r *assayv1.GetTrustedRootResponse) { r.AttestationKeysPem = string(clienttest.KeyPEM()) },
	} {
		s.OnGetTrustedRoot = func(context.Context, *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
			r := proto.Clone(honest).(*assayv1.GetTrustedRootResponse)
			edit(r)
			return r, nil
		}
		_, err := c.SBOM(t.Context(), digestOf("app"), SBOMOptions{})
		if wantDishonest(t, err, ""); t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestSBOMsOfAttest: what an attest says of SBOMs is of its own artifacts.
func TestSBOMsOfAttest(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	path := write(t, t.TempDir(), "app", "app")
	good := func() *assayv1.SBOMSummary {
		return &assayv1.SBOMSummary{
			AttestationId: digestOf("id"), Subject: subjectOf("app"), Origin: assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED,
			ComponentCount: 1, ComponentsByType: map[string]int32{"npm": 1}, Complete: true,
		}
	}
	edited := func(edit func(*assayv1.SBOMSummary)) []*assayv1.SBOMSummary {
		one := good()
		edit(one)
		return []*assayv1.SBOMSummary{one}
	}
	tests := []struct {
		name  string
		sboms []*assayv1.SBOMSummary
		text  string
	}{
		{"honest", []*assayv1.SBOMSummary{good()}, ""},
		{"none", nil, ""},
		{"twice", []*assayv1.SBOMSummary{good(), good()}, "comes twice"},
		{"another artifact", edited(func(s *assayv1.SBOMSummary) { s.Subject.Name = "other" }), "not attested"},
		{"another digest", edited(func(s *assayv1.SBOMSummary) { s.Subject = subjectOf("other") }), "not attested"},
		{"no id", edited(func(s *assayv1.SBOMSummary) { s.AttestationId = "x" }), "no attestation id"},
		{"claimed", edited(func(s *assayv1.SBOMSummary) { s.Origin = assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED }), "want SBOM_ORIGIN_GENERATED"},
		{"complete for a reason", edited(func(s *assayv1.SBOMSummary) { s.IncompleteReasons = []string{"opaque"} }), "complete"},
		{"complete and empty", edited(func(s *assayv1.SBOMSummary) { s.ComponentCount = 0 }), "complete"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stages []Stage
			s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
				subjects, err := clienttest.Receive(stream)
				if err != nil {
					return err
				}
				p := &assayv1.AttestProgress{Stage: assayv1.AttestStage_ATTEST_STAGE_SCANNING}
				if err := stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Progress{Progress: p}}); err != nil {
					return err
				}
				result := &assayv1.AttestResult{Attestation: clienttest.Attestation(subjects...), Sboms: tt.sboms}
				return stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Result{Result: result}})
			}
			got, err := c.Attest(t.Context(), []Artifact{{Name: "app", Path: path}}, func(e Event) { stages = append(stages, e.Stage) })
			if tt.text != "" {
				wantDishonest(t, err, tt.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got.SBOMs) != len(tt.sboms) || stages[len(stages)-1] != StageScanning {
				t.Errorf("%d SBOMs, stages %v", len(got.SBOMs), stages)
			}
		})
	}
	s.OnAttestDigests = func(_ context.Context, req *assayv1.AttestDigestsRequest) (*assayv1.AttestDigestsResponse, error) {
		return &assayv1.AttestDigestsResponse{Result: &assayv1.AttestResult{
			Attestation: clienttest.Attestation(req.GetSubjects()...), Sboms: []*assayv1.SBOMSummary{good()},
		}}, nil
	}
	_, err := c.AttestDigests(t.Context(), []Subject{{Name: "app", SHA256: digestOf("app")}})
	wantDishonest(t, err, "never saw")
}
