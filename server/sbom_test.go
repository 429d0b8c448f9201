package server_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc"
)

// packageLock is what npm writes of an application with these packages.
func packageLock(packages ...string) []byte {
	entries := []string{`"":{"name":"app","version":"1.0.0"}`}
	for _, p := range packages {
		at := strings.LastIndexByte(p, '@')
		entries = append(entries, `"node_modules/`+p[:at]+`":{"version":"`+p[at+1:]+`","license":"MIT"}`)
	}
	return []byte(`{"name":"app","version":"1.0.0","lockfileVersion":3,"packages":{` + strings.Join(entries, ",") + `}}`)
}

// zipOf is an archive of files in the order given: name, content, name, content.
func zipOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		f, err := w.Create(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (l *life) attestation(t testing.TB, ctx context.Context, id string) *assayv1.Attestation {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(l.conn).GetAttestation(ctx, &assayv1.GetAttestationRequest{AttestationId: id})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetAttestation()
}

func purls(t testing.TB, document []byte) (list []string, h sbom.Header) {
	t.Helper()
	h, err := sbom.Read(bytes.NewReader(document), func(c sbom.Component) error {
		list = append(list, c.PURL)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, h
}

// TestSBOM: what is uploaded is looked into; the SBOM is signed, registered, bound to the
// artifact and to its provenance, and the same again for the same build.
func TestSBOM(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.example")
	l := w.start(t).login(t)
	app := zipOf(t, "app/package-lock.json", string(packageLock("lodash@4.17.20", "left-pad@1.3.0")), "app/index.js", "1")
	messages := append([]*assayv1.AttestRequest{headerMessage(2)}, artifactMessages("dist/app.zip", app)...)
	messages = append(messages, artifactMessages("dist/notes.bin", []byte{0, 1, 2})...)
	result, err := uploadAll(l.ctx, l.conn, messages)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.GetSboms()) != 2 {
		t.Fatalf("%d SBOMs of two artifacts", len(result.GetSboms()))
	}
	sum := result.GetSboms()[0]
	if sum.GetSubject().GetName() != "dist/app.zip" || sum.GetOrigin() != assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED ||
		sum.GetComponentsByType()["npm"] < 2 || !slices.Contains(sum.GetLicenses(), "MIT") || !sum.GetComplete() || len(sum.GetIncompleteReasons()) != 0 {
		t.Errorf("%v", sum)
	}
	if opaque := result.GetSboms()[1]; opaque.GetComplete() || !slices.Equal(opaque.GetIncompleteReasons(), []string{"opaque"}) || opaque.GetComponentCount() != 0 {
		t.Errorf("of what nobody can look into: %v", opaque)
	}

	a := l.attestation(t, l.ctx, sum.GetAttestationId())
	if _, err := l.verifier(t).VerifyOwn(a.GetBundle()); err != nil {
		t.Fatal(err)
	}
	st := statementOf(t, a.GetBundle())
	if st.PredicateType != attest.PredicateCycloneDX || len(st.Subjects) != 1 || st.Subjects[0].Digest["sha256"] != sha256Hex(app) {
		t.Errorf("%+v", st.Subjects)
	}
	if got := st.Subjects[0].Annotations; got["assay.build/predicateOrigin"] != "generated" || got["assay.build/provenance"] != result.GetAttestation().GetAttestationId() {
		t.Errorf("annotations %v", got)
	}
	list, h := purls(t, st.Predicate)
	if !slices.Contains(list, "pkg:npm/lodash@4.17.20") || !slices.Contains(list, "pkg:npm/left-pad@1.3.0") || h.Aggregate != sbom.AggregateComplete {
		t.Errorf("%q, %+v", list, h)
	}
	var document struct {
		Metadata struct {
			Component struct {
				Hashes []struct{ Alg, Content string }
			}
		}
	}
	if err := json.Unmarshal(st.Predicate, &document); err != nil {
		t.Fatal(err)
	}
	if hashes := document.Metadata.Component.Hashes; len(hashes) != 2 || hashes[0].Content != sha256Hex(app) {
		t.Errorf("the document is bound to %v", hashes)
	}

	// Nothing is left of the bytes, and the repeat finds everything.
	for _, dir := range []string{"spool", "scan"} {
		left, err := filepath.Glob(filepath.Join(w.data, dir, "*", "*"))
		if err != nil || len(left) != 0 {
			t.Errorf("left in %s: %q %v", dir, left, err)
		}
	}
	before := l.kept(t)
	again, err := uploadAll(l.ctx, l.conn, messages)
	if err != nil || !again.GetRepeated() || again.GetSboms()[0].GetAttestationId() != sum.GetAttestationId() {
		t.Errorf("%v, %v", again, err)
	}
	l.unchanged(t, before)
}

const sbomPolicy = `
@id("built") @message("prod needs provenance")
permit (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "prod" || context.environment == "strict" }
when { resource has provenance && resource.provenance.trusted };

@id("sbom") @message("prod needs a complete SBOM without left-pad") @remedy("upload the artifact")
forbid (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "prod" }
unless { resource has sbom && resource.sbom.complete && !resource.sbom.names.contains("pkg:npm/left-pad") };

@id("claimed") @message("strict needs an attached SBOM without left-pad")
forbid (principal, action == Assay::Action::"deploy", resource)
when { context.environment == "strict" }
unless { resource has claimedSbom && !resource.claimedSbom.names.contains("pkg:npm/left-pad") };
`

func withPolicy(t testing.TB, text string) func(*server.Config) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.cedar")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *server.Config) { c.Policy.File = file }
}

// TestSBOMDecides: what is inside decides, and what somebody says is inside is something
// else.
func TestSBOMDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.example")
	l := w.start(t, withPolicy(t, sbomPolicy)).login(t)
	good := string(zipOf(t, "package-lock.json", string(packageLock("lodash@4.17.21"))))
	bad := string(zipOf(t, "package-lock.json", string(packageLock("lodash@4.17.21", "left-pad@1.3.0"))))
	l.upload(t, l.ctx, "good.zip", good)
	l.upload(t, l.ctx, "bad.zip", bad)
	l.upload(t, l.ctx, "opaque", "opaque")
	l.digests(t, l.ctx, subject("unseen", "unseen"))

	d := l.decide(t, "prod", subject("good.zip", good), "ALLOWED")
	if len(l.decisionOf(t, d).GetAttestationIds()) != 2 {
		t.Errorf("it rests on %q; want provenance and SBOM", l.decisionOf(t, d).GetAttestationIds())
	}
	if d = l.decide(t, "prod", subject("bad.zip", bad), "DENIED_BY_RULE"); !strings.Contains(d.GetMessage(), "left-pad") {
		t.Errorf("%s", d.GetMessage())
	}
	l.decide(t, "prod", subject("opaque", "opaque"), "DENIED_BY_RULE")
	l.decide(t, "prod", subject("unseen", "unseen"), "DENIED_BY_RULE")
	l.decide(t, "strict", subject("good.zip", good), "DENIED_BY_RULE")

	// A claim opens what asks for a claim, as soon as it is acknowledged, and nothing else.
	l.attach(t, subject("unseen", "unseen"), cycloneDX("unseen", "pkg:npm/nice@1.0.0"))
	l.decide(t, "strict", subject("unseen", "unseen"), "ALLOWED")
	l.decide(t, "prod", subject("unseen", "unseen"), "DENIED_BY_RULE")
	l.attach(t, subject("bad.zip", bad), cycloneDX("bad.zip", "pkg:npm/nice@1.0.0"))
	l.decide(t, "prod", subject("bad.zip", bad), "DENIED_BY_RULE")
	l.stop()
	l = w.start(t, withPolicy(t, sbomPolicy)).login(t)
	l.decide(t, "prod", subject("good.zip", good), "ALLOWED")
	l.decide(t, "strict", subject("unseen", "unseen"), "ALLOWED")
}

func (l *life) decisionOf(t testing.TB, d *assayv1.Decision) *assayv1.Decision {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(l.conn).GetDecision(l.ctx, &assayv1.GetDecisionRequest{DecisionId: d.GetDecisionId()})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetDecision()
}

// cycloneDX is a document that somebody else made, with some white space of its own.
func cycloneDX(name string, purls ...string) []byte {
	var components []string
	for _, p := range purls {
		n, version, _ := strings.Cut(p[strings.LastIndexByte(p, '/')+1:], "@")
		components = append(components, `{"type":"library","name":"`+n+`","version":"`+version+`","purl":"`+p+`", "bom-ref":"`+p+`"}`)
	}
	return []byte(`{ "bomFormat":"CycloneDX", "specVersion":"1.5", "version":1,
  "metadata":{"component":{"type":"application","name":"` + name + `","bom-ref":"root"}},
  "components":[` + strings.Join(components, ",\n") + "],\n\"compositions\":[{\"aggregate\":\"complete\",\"assemblies\":[\"root\"]}] }\n")
}

func (l *life) attach(t testing.TB, s *assayv1.Subject, document []byte) *assayv1.AttestResult {
	t.Helper()
	resp, err := assayv1.NewAttestationServiceClient(l.conn).AttachEvidence(l.ctx, &assayv1.AttachEvidenceRequest{
		Subject: s, PredicateType: attest.PredicateCycloneDX, Predicate: document,
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetResult()
}

// uploadEvidence attaches in chunks.
func uploadEvidence(ctx context.Context, conn *grpc.ClientConn, h *assayv1.EvidenceHeader, document []byte, chunk int) (*assayv1.AttestResult, error) {
	stream, err := assayv1.NewAttestationServiceClient(conn).UploadEvidence(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&assayv1.UploadEvidenceRequest{Message: &assayv1.UploadEvidenceRequest_Header{Header: h}})
	for len(document) > 0 {
		n := min(len(document), chunk)
		if stream.Send(&assayv1.UploadEvidenceRequest{Message: &assayv1.UploadEvidenceRequest_Chunk{Chunk: document[:n]}}) != nil {
			break // the reason is in CloseAndRecv
		}
		document = document[n:]
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetResult(), err
}

// TestAttachEvidence: kept byte for byte, marked as a claim, found by what it says.
func TestAttachEvidence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.example")
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	document := cycloneDX("app", "pkg:npm/lodash@4.17.20", "pkg:pypi/requests@2.31.0")
	result := l.attach(t, s, document)
	st := statementOf(t, result.GetAttestation().GetBundle())
	if a := st.Subjects[0].Annotations; a["assay.build/predicateOrigin"] != "claimed" || a["assay.build/attachedBy"] == "" || st.Subjects[0].Name != "app" {
		t.Errorf("%+v", st.Subjects)
	}
	parts, err := attest.ParseOwnBundle(result.GetAttestation().GetBundle())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := attest.RawPredicate(parts.Envelope.Payload); err != nil || !bytes.Equal(got, document) {
		t.Errorf("%v: the document changed to %s", err, got)
	}
	if sum := result.GetSboms()[0]; sum.GetOrigin() != assayv1.SBOMOrigin_SBOM_ORIGIN_CLAIMED || sum.GetComponentCount() != 2 || sum.GetFormat() != "cyclonedx" || !sum.GetComplete() {
		t.Errorf("%v", sum)
	}
	if _, err := l.verifier(t).VerifyOwn(result.GetAttestation().GetBundle()); err != nil {
		t.Error(err)
	}
	again, err := uploadEvidence(l.ctx, l.conn, &assayv1.EvidenceHeader{Subject: s, PredicateType: attest.PredicateCycloneDX, Size: int64(len(document))}, document, 100)
	if err != nil || !again.GetRepeated() || again.GetAttestation().GetAttestationId() != result.GetAttestation().GetAttestationId() {
		t.Errorf("%v, %v", again, err)
	}
	// Another run says the same: that is another claim.
	other := l.session(t, l.Issuer.Mint(w.instance, runClaims(7)))
	theirs, err := uploadEvidence(other, l.conn, &assayv1.EvidenceHeader{Subject: s, PredicateType: attest.PredicateCycloneDX, Size: -1}, document, 1<<20)
	if err != nil || theirs.GetRepeated() || theirs.GetAttestation().GetAttestationId() == result.GetAttestation().GetAttestationId() {
		t.Errorf("%v, %v", theirs, err)
	}
}

func (l *life) search(t testing.TB, ctx context.Context, req *assayv1.SearchComponentsRequest) []*assayv1.ComponentMatch {
	t.Helper()
	var all []*assayv1.ComponentMatch
	for {
		resp, err := assayv1.NewAuditServiceClient(l.conn).SearchComponents(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, resp.GetMatches()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

// TestSearchComponents asks the questions of the day of the next log4j.
func TestSearchComponents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.example")
	l := w.start(t).login(t)
	contents := map[string]string{}
	for name, packages := range map[string][]string{
		"old.zip": {"lodash@4.17.20", "left-pad@1.3.0"}, "new.zip": {"lodash@4.17.21"}, "ancient.zip": {"lodash@3.10.1"}, "none.zip": {"ms@2.1.3"},
	} {
		contents[name] = string(zipOf(t, "package-lock.json", string(packageLock(packages...))))
		l.upload(t, l.ctx, name, contents[name])
	}
	l.digests(t, l.ctx, subject("claimed", "claimed"))
	l.attach(t, subject("claimed", "claimed"), cycloneDX("claimed", "pkg:npm/lodash@4.0.0", "pkg:npm/lodash@not-a-version"))
	l.decide(t, "dev", subject("old.zip", contents["old.zip"]), "ALLOWED")

	for _, tt := range []struct {
		name string
		req  *assayv1.SearchComponentsRequest
		want []string
	}{
		{"any version", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash"}, []string{"ancient.zip", "claimed", "new.zip", "old.zip"}},
		{"one version", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@4.17.20"}, []string{"old.zip"}},
		{"a range", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@<4.17.21"}, []string{"ancient.zip", "claimed", "old.zip"}},
		{"two bounds", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@>=4.0.0,<4.17.21"}, []string{"claimed", "old.zip"}},
		{"vers", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash", VersionRange: "vers:npm/>=4.17.0|<4.17.21"}, []string{"old.zip"}},
		{"a name", &assayv1.SearchComponentsRequest{Name: "left-pad"}, []string{"old.zip"}},
		{"a licence", &assayv1.SearchComponentsRequest{License: "MIT"}, []string{"ancient.zip", "new.zip", "none.zip", "old.zip"}},
		{"a licence and a package", &assayv1.SearchComponentsRequest{License: "MIT", Purl: "pkg:npm/ms"}, []string{"none.zip"}},
		{"pages of one", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash", PageSize: 1}, []string{"ancient.zip", "claimed", "new.zip", "old.zip"}},
		{"another type", &assayv1.SearchComponentsRequest{Purl: "pkg:pypi/lodash"}, nil},
		{"nobody", &assayv1.SearchComponentsRequest{Purl: "pkg:npm/nobody@1.0.0"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var names []string
			for _, m := range l.search(t, l.ctx, tt.req) {
				names = append(names, m.GetSubject().GetName())
				if m.GetSubject().GetName() != "claimed" && m.GetSubject().GetDigest()["sha256"] != sha256Hex([]byte(contents[m.GetSubject().GetName()])) {
					t.Errorf("another artifact: %v", m)
				}
			}
			slices.Sort(names)
			if !slices.Equal(names, tt.want) {
				t.Errorf("%q; want %q", names, tt.want)
			}
		})
	}

	old := l.search(t, l.ctx, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@4.17.20"})[0]
	if old.GetPurl() != "pkg:npm/lodash@4.17.20" || !slices.Equal(old.GetEnvironments(), []string{"dev"}) || old.GetOrigin() != assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED || !old.GetComplete() {
		t.Errorf("%v", old)
	}
	if b := old.GetBuilds(); len(b) != 1 || !strings.Contains(b[0].GetInvocationId(), "/actions/runs/") || b[0].GetSourceUri() == "" {
		t.Errorf("builds %v", b)
	}
	resp, err := assayv1.NewAuditServiceClient(l.conn).SearchComponents(l.ctx, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash@<9"})
	if err != nil || !slices.Equal(resp.GetUndecidedPurls(), []string{"pkg:npm/lodash@not-a-version"}) {
		t.Errorf("undecided: %q, %v", resp.GetUndecidedPurls(), err)
	}

	// Another tenant finds nothing of it.
	l.stop()
	l = w.start(t, func(c *server.Config) {
		c.Identity.Issuers[0].AllowedOwnerIDs = append(c.Identity.Issuers[0].AllowedOwnerIDs, 4711)
	})
	stranger := l.session(t, l.Issuer.Mint(w.instance, oidctest.Claims{"repository_owner_id": "4711", "repository_id": "4712", "repository": "evil/app", "repository_owner": "evil"}))
	if got := l.search(t, stranger, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash"}); len(got) != 0 {
		t.Errorf("another tenant's: %v", got)
	}
	if got := l.search(t, l.login(t).ctx, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/lodash"}); len(got) != 4 {
		t.Errorf("after a restart %d are found", len(got))
	}
}
