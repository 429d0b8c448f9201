package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAttachEvidence(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	// Larger than a chunk, and with white space at both ends: it is kept byte for byte.
	big := " " + strings.Replace(document("app", "1", "complete"), `"version":1,`, `"version":1,"x":"`+strings.Repeat("y", 5<<20)+`",`, 1) + "\n"
	for name, text := range map[string]string{"small": document("app", "1", "complete"), "big": big} {
		got, err := c.AttachEvidence(t.Context(), Subject{SHA256: digestOf("app")}, PredicateCycloneDX, strings.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.SBOMs(got.Attestation)
		back, err := c.SBOM(t.Context(), digestOf("app"), SBOMOptions{})
		if err != nil || string(back.Document) != text || back.Origin != assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED {
			t.Errorf("%s: %d bytes come back as %d (%v)", name, len(text), len(back.Document), err)
		}
	}
	text := document("app", "1", "complete")
	for _, tt := range []struct {
		name    string
		subject Subject
		in      io.Reader
		size    int64
		code    string
	}{
		{"size unknown", Subject{SHA256: digestOf("app")}, strings.NewReader(text), -7, ""},
		{"named", Subject{Name: "lib/app", SHA256: digestOf("app")}, strings.NewReader(text), -1, ""},
		{"no digest", Subject{Name: "app"}, strings.NewReader(text), -1, CodeSubjectInvalid},
		{"a name that leads out", Subject{Name: "../app", SHA256: digestOf("app")}, strings.NewReader(text), -1, CodeSubjectInvalid},
		{"shorter", Subject{SHA256: digestOf("app")}, strings.NewReader(text), int64(len(text)) + 1, CodeArtifactChanged},
		{"longer", Subject{SHA256: digestOf("app")}, strings.NewReader(text), int64(len(text)) - 1, CodeArtifactChanged},
		{"unreadable", Subject{SHA256: digestOf("app")}, io.MultiReader(strings.NewReader(text), broken{}), -1, CodeArtifactUnreadable},
		{"unseekable", Subject{SHA256: digestOf("app")}, broken{}, -1, CodeArtifactUnreadable},
	} {
		_, err := c.AttachEvidence(t.Context(), tt.subject, PredicateCycloneDX, tt.in, tt.size)
		if wantCode(t, err, tt.code); t.Failed() {
			t.Fatal(tt.name)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error)       { return 0, errors.New("disk on fire") }
func (broken) Seek(int64, int) (int64, error) { return 0, errors.New("disk on fire") }

// TestAttachRestarts: what can be read again is sent again, from where it began.
func TestAttachRestarts(t *testing.T) {
	s := clienttest.New(t)
	c, slept := dial(t, s)
	attempts := 0
	s.OnUploadEvidence = func(stream assayv1.AttestationService_UploadEvidenceServer) error {
		header, got, err := clienttest.ReceiveEvidence(stream)
		if err != nil {
			return err
		}
		if attempts++; attempts < 3 {
			return status.Error(codes.Unavailable, "going away")
		}
		at := s.Signer.Evidence(header.GetPredicateType(), got, header.GetSubject())
		return stream.SendAndClose(&assayv1.UploadEvidenceResponse{Result: &assayv1.AttestResult{Attestation: at, Repeated: true}})
	}
	text := document("app", "1", "complete")
	in := strings.NewReader("head" + text)
	if _, err := in.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got, err := c.AttachEvidence(t.Context(), Subject{SHA256: digestOf("app")}, PredicateCycloneDX, in, int64(len(text)))
	if err != nil || !got.Repeated || attempts != 3 || len(slept.waits) != 2 {
		t.Fatalf("%v after %d attempts", err, attempts)
	}
	// A pipe is gone once it was read.
	attempts = 0
	_, err = c.AttachEvidence(t.Context(), Subject{SHA256: digestOf("app")}, PredicateCycloneDX, io.MultiReader(strings.NewReader(text)), -1)
	if wantCode(t, err, "UNAVAILABLE"); attempts != 1 {
		t.Errorf("%d attempts", attempts)
	}
	// A refusal is one.
	s.OnUploadEvidence = func(assayv1.AttestationService_UploadEvidenceServer) error {
		return clienttest.Refuse(codes.InvalidArgument, "SBOM_TOO_LARGE", "too large")
	}
	_, err = c.AttachEvidence(t.Context(), Subject{SHA256: digestOf("app")}, PredicateCycloneDX, bytes.NewReader(make([]byte, 20<<20)), 20<<20)
	wantCode(t, err, "SBOM_TOO_LARGE")
}

// TestAttachDishonest: a server that signs something else, or for somebody else.
func TestAttachDishonest(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	text := document("app", "1", "complete")
	summary := func(id string) []*assayv1.SBOMSummary {
		return []*assayv1.SBOMSummary{{AttestationId: id, Subject: subjectOf("app"), Origin: assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED}}
	}
	honest := s.Signer.Evidence(PredicateCycloneDX, text, subjectOf("app"))
	wrong := summary(honest.GetAttestationId())
	wrong[0].Origin = assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED
	tests := []struct {
		name  string
		at    *assayv1.Attestation
		sboms []*assayv1.SBOMSummary
		text  string
	}{
		{"honest", honest, summary(honest.GetAttestationId()), ""},
		{"nothing", nil, nil, "no attestation"},
		{"wrong subject", s.Signer.Evidence(PredicateCycloneDX, text, subjectOf("other")), nil, "the statement is about"},
		{"wrong name", s.Signer.Evidence(PredicateCycloneDX, text, &assayv1.Subject{Name: "x", Digest: subjectOf("app").GetDigest()}), nil, "the statement is about"},
		{"wrong bytes", s.Signer.Evidence(PredicateCycloneDX, text+" ", subjectOf("app")), nil, "another document"},
		{"wrong type", s.Signer.Evidence(PredicateSPDX, text, subjectOf("app")), nil, "want a"},
		{"as its own", s.Signer.SBOM(text, subjectOf("app")), nil, "its own work"},
		{"summary of another", honest, summary(digestOf("x")), "another SBOM"},
		{"summary of its own", honest, wrong, "want SBOM_ORIGIN_CLAIMED"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.OnUploadEvidence = func(stream assayv1.AttestationService_UploadEvidenceServer) error {
				if _, _, err := clienttest.ReceiveEvidence(stream); err != nil {
					return err
				}
				return stream.SendAndClose(&assayv1.UploadEvidenceResponse{Result: &assayv1.AttestResult{Attestation: tt.at, Sboms: tt.sboms}})
			}
			_, err := c.AttachEvidence(t.Context(), Subject{Name: "app", SHA256: digestOf("app")}, PredicateCycloneDX, strings.NewReader(text), -1)
			if tt.text == "" {
				wantCode(t, err, "")
				return
			}
			wantDishonest(t, err, tt.text)
		})
	}
	// An answer to half of a document is none.
	s.OnUploadEvidence = func(stream assayv1.AttestationService_UploadEvidenceServer) error {
		return stream.SendAndClose(&assayv1.UploadEvidenceResponse{Result: &assayv1.AttestResult{Attestation: honest}})
	}
	_, err := c.AttachEvidence(t.Context(), Subject{Name: "app", SHA256: digestOf("app")}, PredicateCycloneDX, bytes.NewReader(make([]byte, 60<<20)), -1)
	wantDishonest(t, err, "")
}

func TestSearchComponents(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	match := func(id string) *assayv1.ComponentMatch {
		return &assayv1.ComponentMatch{Purl: "pkg:npm/lodash@1", Subject: subjectOf("app"), AttestationId: digestOf(id)}
	}
	s.OnSearchComponents = func(_ context.Context, req *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
		if req.GetPurl() != "pkg:npm/lodash" || req.GetVersionRange() != "<2" || req.GetLicense() != "MIT" || req.GetPageSize() != 2 {
			t.Errorf("asked %v", req)
		}
		if req.GetPageToken() == "" {
			return &assayv1.SearchComponentsResponse{
				Matches: []*assayv1.ComponentMatch{match("a"), match("b")}, NextPageToken: "next", UndecidedPurls: []string{"pkg:npm/lodash@?", "pkg:npm/lodash@x"},
			}, nil
		}
		return &assayv1.SearchComponentsResponse{Matches: []*assayv1.ComponentMatch{match("c")}, UndecidedPurls: []string{"pkg:npm/lodash@x", "pkg:npm/lodash@y"}}, nil
	}
	var undecided []string
	options := ComponentSearch{
		PURL: "pkg:npm/lodash", VersionRange: "<2", License: "MIT", PageSize: 2,
		Undecided: func(purl string) { undecided = append(undecided, purl) },
	}
	var got []string
	for m, err := range c.SearchComponents(t.Context(), options) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.GetAttestationId())
	}
	if len(got) != 3 || got[2] != digestOf("c") || strings.Join(undecided, " ") != "pkg:npm/lodash@? pkg:npm/lodash@x pkg:npm/lodash@y" {
		t.Errorf("matches %v, undecided %v", got, undecided)
	}
	for name, bad := range map[string]*assayv1.ComponentMatch{
		"no artifact": {AttestationId: digestOf("a"), Subject: &assayv1.Subject{Name: "app"}},
		"no SBOM":     {AttestationId: "x", Subject: subjectOf("app")},
	} {
		s.OnSearchComponents = func(context.Context, *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
			return &assayv1.SearchComponentsResponse{Matches: []*assayv1.ComponentMatch{match("a"), bad}}, nil
		}
		var last error
		for _, err := range c.SearchComponents(t.Context(), ComponentSearch{Name: "lodash"}) {
			last = err
		}
		if wantDishonest(t, last, "a match"); t.Failed() {
			t.Fatal(name)
		}
	}
	s.OnSearchComponents = func(context.Context, *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
		return nil, clienttest.Refuse(codes.InvalidArgument, "COMPONENT_QUERY_INVALID", "nothing asked")
	}
	for _, err := range c.SearchComponents(t.Context(), ComponentSearch{}) {
		wantCode(t, err, "COMPONENT_QUERY_INVALID")
	}
}
