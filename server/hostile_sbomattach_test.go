package server_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
)

// evidenceHeader is about s, or about the first artifact of a result where there is one.
func evidenceHeader(s *assayv1.Subject, size int64, result *assayv1.AttestResult) *assayv1.EvidenceHeader {
	if result != nil {
		s = result.GetSboms()[0].GetSubject()
		s = &assayv1.Subject{Name: s.GetName(), Digest: s.GetDigest()}
	}
	return &assayv1.EvidenceHeader{Subject: s, PredicateType: attest.PredicateCycloneDX, Size: size}
}

func chunkMessage(b []byte) *assayv1.UploadEvidenceRequest {
	return &assayv1.UploadEvidenceRequest{Message: &assayv1.UploadEvidenceRequest_Chunk{Chunk: b}}
}

func evidenceMessage(h *assayv1.EvidenceHeader) *assayv1.UploadEvidenceRequest {
	return &assayv1.UploadEvidenceRequest{Message: &assayv1.UploadEvidenceRequest_Header{Header: h}}
}

// sendEvidence sends messages as they are, and returns how the service ended the call.
func (l *life) sendEvidence(ctx context.Context, messages ...*assayv1.UploadEvidenceRequest) error {
	stream, err := assayv1.NewAttestationServiceClient(l.conn).UploadEvidence(ctx)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if stream.Send(m) != nil {
			break // the reason is in CloseAndRecv
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// bothTenants lets a second tenant in, and returns a session of it.
func bothTenants(c *server.Config) {
	c.Identity.Issuers[0].AllowedOwnerIDs = append(c.Identity.Issuers[0].AllowedOwnerIDs, ownerID+1)
}

func (l *life) otherTenant(t testing.TB, more ...oidctest.Claims) context.Context {
	t.Helper()
	return l.session(t, l.Issuer.Mint(l.world.instance, append([]oidctest.Claims{{
		"repository_owner_id": fmt.Sprint(ownerID + 1), "repository_owner": "mallory", "repository": "mallory/toy", "repository_id": "4712",
		"workflow_ref":     "mallory/toy/.github/workflows/x.yml@refs/heads/main",
		"job_workflow_ref": "mallory/toy/.github/workflows/x.yml@refs/heads/main",
	}}, more...)...))
}

// document is a CycloneDX document of these members beside the obligatory ones.
func document(members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"bomFormat":"CycloneDX","specVersion":"1.5","version":1` + members + `}`
}

func about(alg, content string) string {
	return document(`"metadata":{"component":{"type":"file","name":"app","hashes":[{"alg":"` + alg + `","content":"` + content + `"}]}}`)
}

// TestAttachRefusals: each check of what is attached refuses in its own words, through
// both calls alike, and a refusal leaves nothing behind.
func TestAttachRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp := people(t, w)
	l := w.start(t, withPeople(idp), bothTenants).login(t)
	other := l.otherTenant(t)
	auditor := l.session(t, person(idp, "a", "auditor"))
	deployer := l.session(t, person(idp, "d", "deployer"))
	nobody := l.session(t, person(idp, "n"))
	content := "the artifact"
	l.upload(t, l.ctx, "app", content)
	sum512 := sha512.Sum512([]byte(content))
	app := subject("app", content)
	with := func(alg, digest string) *assayv1.Subject {
		s := proto.CloneOf(app)
		s.Digest[alg] = digest
		return s
	}
	good := string(cycloneDX("app", "pkg:npm/lodash@4.17.20"))
	component := `{"type":"library","name":"a","bom-ref":"a"}`
	const spdx = attest.PredicateSPDX
	for name, tt := range map[string]struct {
		ctx           context.Context
		subject       *assayv1.Subject
		predicateType string
		document      string
		code          codes.Code
		reason, field string
	}{
		"no predicate type":      {predicateType: "-", reason: "PREDICATE_TYPE_UNSUPPORTED", field: "predicate_type"},
		"provenance":             {predicateType: attest.PredicateSLSAProvenanceV1, reason: "PREDICATE_TYPE_UNSUPPORTED", field: "predicate_type"},
		"a version in the type":  {predicateType: attest.PredicateCycloneDX + "/v1.5", reason: "PREDICATE_TYPE_UNSUPPORTED", field: "predicate_type"},
		"a type with a line end": {predicateType: attest.PredicateCycloneDX + "\n", reason: "PREDICATE_TYPE_UNSUPPORTED", field: "predicate_type"},

		"no subject":          {subject: &assayv1.Subject{}, reason: "SUBJECT_NO_DIGEST", field: "subject.digest"},
		"a name alone":        {subject: &assayv1.Subject{Name: "app"}, reason: "SUBJECT_NO_DIGEST", field: "subject.digest"},
		"a bad digest":        {subject: with("sha256", "00"), reason: "DIGEST_INVALID", field: "subject.digest"},
		"a name with escapes": {subject: &assayv1.Subject{Name: "app\x1b[2J", Digest: app.GetDigest()}, reason: "REQUEST_INVALID", field: "subject.name"},
		"an unknown subject":  {subject: subject("app", "another"), code: codes.NotFound, reason: "SUBJECT_UNKNOWN"},
		"another name":        {subject: subject("App", content), code: codes.NotFound, reason: "SUBJECT_UNKNOWN"},
		"another sha512":      {subject: with("sha512", strings.Repeat("0", 128)), code: codes.NotFound, reason: "SUBJECT_UNKNOWN"},
		"a digest too many":   {subject: with("sha384", strings.Repeat("0", 96)), code: codes.NotFound, reason: "SUBJECT_UNKNOWN"},
		"another tenant's":    {ctx: other, code: codes.NotFound, reason: "SUBJECT_UNKNOWN"},
		"of somebody":         {ctx: nobody, code: codes.NotFound, reason: "SUBJECT_UNKNOWN"},
		"read, and no more":   {ctx: auditor, code: codes.PermissionDenied, reason: "ACCESS_DENIED"},
		"deployed, no more":   {ctx: deployer, code: codes.PermissionDenied, reason: "ACCESS_DENIED"},
		"without a session":   {ctx: t.Context(), code: codes.Unauthenticated, reason: "SESSION_MISSING"},

		"xml":                     {document: `<?xml version="1.0"?><bom xmlns="http://cyclonedx.org/schema/bom/1.5"/>`, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"xml with entities":       {document: `<!DOCTYPE bom [<!ENTITY a SYSTEM "file:///etc/passwd">]><bom>&a;</bom>`, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"protobuf":                {document: "\x0a\x031.5\x12\x2durn:uuid:3e671687-395b-41f5-a30f-a58921a69b79", reason: "SBOM_FORMAT_UNSUPPORTED"},
		"of no format":            {document: `{}`, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"an array":                {document: `[]`, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"spdx, called cyclonedx":  {document: `{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT"}`, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"cyclonedx, called spdx":  {predicateType: spdx, document: good, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"cyclonedx 1.3":           {document: strings.Replace(good, "1.5", "1.3", 1), reason: "SBOM_VERSION_UNSUPPORTED"},
		"cyclonedx 1.8":           {document: strings.Replace(good, "1.5", "1.8", 1), reason: "SBOM_VERSION_UNSUPPORTED"},
		"spdx 3":                  {predicateType: spdx, document: `{"spdxVersion":"SPDX-3.0","SPDXID":"SPDXRef-DOCUMENT"}`, reason: "SBOM_VERSION_UNSUPPORTED"},
		"a mark of byte order":    {document: "\xef\xbb\xbf" + good, reason: "JSON_INVALID"},
		"utf-16":                  {document: "\xff\xfe{\x00}\x00", reason: "SBOM_FORMAT_UNSUPPORTED"},
		"not utf-8":               {document: strings.Replace(good, "lodash", "lod\xffash", 1), reason: "JSON_INVALID"},
		"half a surrogate":        {document: strings.Replace(good, `"name":"lodash"`, `"name":"\ud800"`, 1), reason: "JSON_INVALID"},
		"cut short":               {document: good[:len(good)-4], reason: "JSON_INVALID"},
		"two of them":             {document: good + good, reason: "JSON_INVALID"},
		"a comment":               {document: "/* */" + good, reason: "SBOM_FORMAT_UNSUPPORTED"},
		"a key twice":             {document: document(`"components":[` + component + `],"components":[]`), reason: "JSON_DUPLICATE_KEY"},
		"a key twice, escaped":    {document: document(`"components":[` + component + `],"\u0063omponents":[]`), reason: "JSON_DUPLICATE_KEY"},
		"a key twice, deep":       {document: document(`"components":[{"type":"library","name":"a","name":"b"}]`), reason: "JSON_DUPLICATE_KEY"},
		"a key in two cases":      {document: document(`"components":[` + component + `],"Components":[]`), reason: "JSON_CASE_VARIANT_KEY"},
		"too deep":                {document: document(`"components":` + strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100)), reason: "JSON_TOO_DEEP"},
		"components too deep":     {document: document(strings.Repeat(`"components":[{"type":"file","name":"a",`, 100) + `"version":"1"` + strings.Repeat(`}]`, 100)), reason: "JSON_TOO_DEEP"},
		"an unknown member":       {document: document(`"extra":1`), reason: "SBOM_INVALID"},
		"a component of no type":  {document: document(`"components":[{"name":"a"}]`), reason: "SBOM_INVALID"},
		"the same twice":          {document: document(`"components":[{"type":"file","name":"a"},{"name":"a","type":"file"}]`), reason: "SBOM_INVALID"},
		"a bad serial number":     {document: document(`"serialNumber":"1"`), reason: "SBOM_INVALID"},
		"a reference twice":       {document: document(`"components":[` + component + `,{"type":"file","name":"b","bom-ref":"a"}]`), reason: "SBOM_REFERENCE_DUPLICATE"},
		"a reference to nowhere":  {document: document(`"components":[` + component + `],"dependencies":[{"ref":"a","dependsOn":["b"]}]`), reason: "SBOM_REFERENCE_UNKNOWN"},
		"spdx, a reference twice": {predicateType: spdx, document: spdxDocument(`{"SPDXID":"SPDXRef-a","name":"a","downloadLocation":"NOASSERTION"},{"SPDXID":"SPDXRef-a","name":"b","downloadLocation":"NOASSERTION"}`), reason: "SBOM_REFERENCE_DUPLICATE"},
		"no package url":          {document: document(`"components":[{"type":"library","name":"a","purl":"lodash@4"}]`), reason: "PURL_INVALID"},
		"another's sha256":        {document: about("SHA-256", sha256Hex([]byte("another"))), reason: "SBOM_SUBJECT_MISMATCH"},
		"another's sha512":        {document: about("SHA-512", strings.Repeat("0", 128)), reason: "SBOM_SUBJECT_MISMATCH"},
	} {
		if raced && tt.document != "" {
			continue // two processes each; package check's own tests have them
		}
		t.Run(name, func(t *testing.T) {
			ctx, s := l.ctx, app
			if tt.ctx != nil {
				ctx = tt.ctx
			}
			if tt.subject != nil {
				s = tt.subject
			}
			predicateType, document := attest.PredicateCycloneDX, good
			switch tt.predicateType {
			case "":
			case "-":
				predicateType = ""
			default:
				predicateType = tt.predicateType
			}
			if tt.document != "" {
				document = tt.document
			}
			code := tt.code
			if code == codes.OK {
				code = codes.InvalidArgument
			}
			before := l.kept(t)
			_, err := assayv1.NewAttestationServiceClient(l.conn).AttachEvidence(ctx, &assayv1.AttachEvidenceRequest{
				Subject: s, PredicateType: predicateType, Predicate: []byte(document),
			})
			wantReason(t, err, code, tt.reason)
			_, field := reasonOf(err)
			if tt.field != "" && field != tt.field || tt.document != "" && !strings.HasPrefix(field, "predicate") {
				t.Errorf("it blames %q", field)
			}
			_, err = uploadEvidence(ctx, l.conn, &assayv1.EvidenceHeader{Subject: s, PredicateType: predicateType, Size: int64(len(document))}, []byte(document), 7)
			wantReason(t, err, code, tt.reason)
			if _, field := reasonOf(err); tt.field != "" && field != "header."+tt.field {
				t.Errorf("in pieces it blames %q", field)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
				t.Errorf("the refusal has a character that does not show: %q", err)
			}
			l.unchanged(t, before)
		})
	}
	// What is hidden and what is not there answer alike.
	_, hidden := uploadEvidence(other, l.conn, evidenceHeader(app, -1, nil), []byte(good), 1<<20)
	_, absent := uploadEvidence(other, l.conn, evidenceHeader(subject("app", "nothing"), -1, nil), []byte(good), 1<<20)
	if strings.ReplaceAll(hidden.Error(), sha256Hex([]byte(content)), "X") != strings.ReplaceAll(absent.Error(), sha256Hex([]byte("nothing")), "X") {
		t.Errorf("%v\n%v", hidden, absent)
	}
	nothingLeft(t, w)

	// And each of these is about its subject.
	for name, document := range map[string]string{
		"its sha256":  about("SHA-256", sha256Hex([]byte(content))),
		"its sha512":  about("SHA-512", hex.EncodeToString(sum512[:])),
		"another md5": about("MD5", strings.Repeat("0", 32)),
	} {
		if r := l.attach(t, app, []byte(document)); r.GetRepeated() {
			t.Errorf("%s: attached before", name)
		}
	}
	security := l.session(t, person(idp, "s", "security"))
	if _, err := uploadEvidence(security, l.conn, evidenceHeader(app, -1, nil), []byte(good), 100); err == nil {
		return // the policy lets security attach, whoever's it is
	} else if reason, _ := reasonOf(err); reason != "BUILDER_UNKNOWN" {
		t.Errorf("security: %v", err)
	}
}

func spdxDocument(packages string) string {
	return `{"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","name":"app","documentNamespace":"https://example.com/app",` +
		`"creationInfo":{"created":"2024-01-01T00:00:00Z","creators":["Tool: x"]},"packages":[` + packages + `]}`
}

// TestAttachProtocol: header, chunks, end, and nothing else; what was announced is what
// must come.
func TestAttachProtocol(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	good := cycloneDX("app", "pkg:npm/lodash@4.17.20")
	header := func(size int64) *assayv1.UploadEvidenceRequest { return evidenceMessage(evidenceHeader(s, size, nil)) }
	size := int64(len(good))
	before := l.kept(t)
	for name, tt := range map[string]struct {
		messages      []*assayv1.UploadEvidenceRequest
		reason, field string
	}{
		"nothing":                   {nil, "STREAM_PROTOCOL", ""},
		"an empty message":          {[]*assayv1.UploadEvidenceRequest{{}}, "STREAM_PROTOCOL", ""},
		"no header":                 {[]*assayv1.UploadEvidenceRequest{chunkMessage(good)}, "STREAM_PROTOCOL", ""},
		"chunk before header":       {[]*assayv1.UploadEvidenceRequest{chunkMessage(good), header(size)}, "STREAM_PROTOCOL", ""},
		"header twice":              {[]*assayv1.UploadEvidenceRequest{header(size), header(size), chunkMessage(good)}, "STREAM_PROTOCOL", ""},
		"header at the end":         {[]*assayv1.UploadEvidenceRequest{header(-1), chunkMessage(good), header(size)}, "STREAM_PROTOCOL", ""},
		"empty message within":      {[]*assayv1.UploadEvidenceRequest{header(-1), chunkMessage(good), {}}, "STREAM_PROTOCOL", ""},
		"less than announced":       {[]*assayv1.UploadEvidenceRequest{header(size + 1), chunkMessage(good)}, "EVIDENCE_SIZE_MISMATCH", "header.size"},
		"more than announced":       {[]*assayv1.UploadEvidenceRequest{header(size - 1), chunkMessage(good)}, "EVIDENCE_SIZE_MISMATCH", "header.size"},
		"nothing announced":         {[]*assayv1.UploadEvidenceRequest{header(0), chunkMessage(good)}, "EVIDENCE_SIZE_MISMATCH", "header.size"},
		"nothing came":              {[]*assayv1.UploadEvidenceRequest{header(size)}, "EVIDENCE_SIZE_MISMATCH", "header.size"},
		"empty, as announced":       {[]*assayv1.UploadEvidenceRequest{header(0)}, "SBOM_FORMAT_UNSUPPORTED", ""},
		"empty chunks":              {[]*assayv1.UploadEvidenceRequest{header(-1), chunkMessage(nil), chunkMessage(nil)}, "SBOM_FORMAT_UNSUPPORTED", ""},
		"too much announced":        {[]*assayv1.UploadEvidenceRequest{header(check.MaxBytes + 1)}, "SBOM_TOO_LARGE", "header.size"},
		"far too much announced":    {[]*assayv1.UploadEvidenceRequest{header(1 << 62)}, "SBOM_TOO_LARGE", "header.size"},
		"a negative size":           {[]*assayv1.UploadEvidenceRequest{header(-2)}, "SBOM_TOO_LARGE", "header.size"},
		"a chunk that is too large": {[]*assayv1.UploadEvidenceRequest{header(-1), chunkMessage(make([]byte, 1<<20+1))}, "CHUNK_TOO_LARGE", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := l.sendEvidence(l.ctx, tt.messages...)
			wantReason(t, err, codes.InvalidArgument, tt.reason)
			if _, field := reasonOf(err); field != tt.field && tt.field != "" {
				t.Errorf("it blames %q", field)
			}
		})
	}
	// The small call takes what fits into one message.
	for name, predicate := range map[string][]byte{"empty": nil, "too large": bytes.Repeat([]byte(" "), 1<<20+1)} {
		_, err := assayv1.NewAttestationServiceClient(l.conn).AttachEvidence(l.ctx, &assayv1.AttachEvidenceRequest{Subject: s, PredicateType: attest.PredicateCycloneDX, Predicate: predicate})
		wantReason(t, err, codes.InvalidArgument, "REQUEST_INVALID")
		if _, field := reasonOf(err); field != "predicate" {
			t.Errorf("%s: it blames %q", name, field)
		}
	}
	l.unchanged(t, before)
	nothingLeft(t, w)
	if err := l.sendEvidence(l.ctx, header(-1), chunkMessage(nil), chunkMessage(good)); err != nil {
		t.Errorf("an honest one afterwards: %v", err)
	}
}

// TestAttachTooLarge: more than the limits, whoever announced what.
func TestAttachTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	before := l.kept(t)
	_, err := uploadEvidence(l.ctx, l.conn, evidenceHeader(s, -1, nil), bytes.Repeat([]byte(" "), check.MaxBytes+1), 1<<20)
	wantReason(t, err, codes.InvalidArgument, "SBOM_TOO_LARGE")

	var many []byte
	if !testing.Short() && !raced {
		var b strings.Builder
		for i := range check.MaxComponents + 1 {
			fmt.Fprintf(&b, `{"type":"file","name":"%d"},`, i)
		}
		many = []byte(document(`"components":[` + strings.TrimSuffix(b.String(), ",") + `]`))
		_, err = uploadEvidence(l.ctx, l.conn, evidenceHeader(s, -1, nil), many, 1<<20)
		wantReason(t, err, codes.InvalidArgument, "SBOM_TOO_MANY_COMPONENTS")
	}
	l.unchanged(t, before)
	l.stop()

	// One that the checker has no time for is refused, and is not a fault of the service.
	if testing.Short() || raced {
		return
	}
	l = w.start(t, func(c *server.Config) { c.Scan.Timeout = time.Millisecond; c.Scan.TimeoutPerGiB = time.Millisecond }).login(t)
	_, err = uploadEvidence(l.ctx, l.conn, evidenceHeader(s, -1, nil), many, 1<<20)
	wantReason(t, err, codes.InvalidArgument, "SBOM_UNCHECKABLE")
	nothingLeft(t, w)
}

// TestAttachStall: who stops talking, or goes away, loses the place and leaves nothing.
func TestAttachStall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t, func(c *server.Config) { c.Limits.IdleTimeout, c.Limits.MaxConcurrentUploads = time.Second, 1 }).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	good := cycloneDX("app", "pkg:npm/lodash@4.17.20")
	before := l.kept(t)
	begin := func(ctx context.Context) func() error {
		stream, err := assayv1.NewAttestationServiceClient(l.conn).UploadEvidence(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.Send(evidenceMessage(evidenceHeader(s, -1, nil))), stream.Send(chunkMessage(good[:len(good)/2]))); err != nil {
			t.Fatal(err)
		}
		return func() error { return stream.RecvMsg(new(assayv1.UploadEvidenceResponse)) }
	}
	stalled := begin(l.ctx)
	wantReason(t, stalled(), codes.DeadlineExceeded, "STREAM_IDLE")

	// The one place is free again; now the client goes in the middle.
	for i := range 3 {
		ctx, cancel := context.WithCancel(l.ctx)
		begin(ctx)
		l.spooled(t)
		cancel()
		l.logs.ended(t, assayv1.AttestationService_UploadEvidence_FullMethodName, i+2)
		nothingLeft(t, w)
	}
	// And while it is being checked, or sealed.
	for range 5 { // some never arrive
		ctx, cancel := context.WithCancel(l.ctx)
		stream, err := assayv1.NewAttestationServiceClient(l.conn).UploadEvidence(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.Send(evidenceMessage(evidenceHeader(s, -1, nil))), stream.Send(chunkMessage(good[:len(good)-3])), stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	l.stop() // it waits for what is under way
	nothingLeft(t, w)
	l.unchanged(t, before)
	l = w.start(t).login(t)
	if err := l.sendEvidence(l.ctx, evidenceMessage(evidenceHeader(s, -1, nil)), chunkMessage(good)); err != nil {
		t.Errorf("an honest one afterwards: %v", err)
	}
}

// spooled waits until an upload has its place.
func (l *life) spooled(t testing.TB) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(20 * time.Second); ; <-look.C {
		files, err := filepath.Glob(filepath.Join(l.world.data, "spool", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.Size() > 0 {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("nothing comes into the spool")
		}
	}
}

// TestAttachEscapes: what a document says for a terminal is kept as it is, byte for byte,
// and nowhere else shown.
func TestAttachEscapes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t, withPolicy(t, sbomPolicy)).login(t)
	s := subject("app", "app")
	l.digests(t, l.ctx, s)
	const escapes = `\u001b[2J\u001b]0;pwned\u0007\u202e\u0000\u0085\r\n`
	doc := []byte(document(`"metadata":{"component":{"type":"file","name":"` + escapes + `"}},"components":[{"type":"library","name":"evil` + escapes +
		`","version":"1` + escapes + `","group":"` + escapes + `","licenses":[{"license":{"name":"L` + escapes + `"}}],"purl":"pkg:npm/evil@1"},` +
		`{"type":"library","name":"bare` + escapes + `","version":"2` + escapes + `"}]`))
	result := l.attach(t, s, doc)
	kept := l.attestation(t, l.ctx, result.GetAttestation().GetAttestationId())
	parts, err := attest.ParseOwnBundle(kept.GetBundle())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := attest.RawPredicate(parts.Envelope.Payload); err != nil || !bytes.Equal(got, doc) {
		t.Errorf("%v: the document changed", err)
	}
	clean := func(what string, m proto.Message) {
		t.Helper()
		walkStrings(m, func(text string) {
			if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x202e }); i >= 0 {
				t.Errorf("%s: %q", what, text)
			}
		})
	}
	clean("the summary", result.GetSboms()[0])
	found := l.search(t, l.ctx, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/evil"})
	if len(found) != 1 {
		t.Fatalf("%d found", len(found))
	}
	clean("a match", found[0])
	for _, name := range []string{"bare\x1b[2J\x1b]0;pwned\a\u202e\x00\u0085\r\n", found[0].GetComponents()[0].GetName()} {
		got := l.search(t, l.ctx, &assayv1.SearchComponentsRequest{Name: name})
		if len(got) != 1 {
			t.Errorf("%q: %d found", name, len(got))
			continue
		}
		clean("a match", got[0])
	}
	d := l.decide(t, "strict", s, "ALLOWED")
	full := l.decisionOf(t, d)
	if full.GetFacts()["claimedSbom.licenses"] == "" {
		t.Errorf("no licences in %v; the test tests nothing", full.GetFacts())
	}
	full.VerificationSummary = nil
	clean("a decision", full)
	l.stop()
	if strings.ContainsFunc(l.logs.String(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x202e }) || strings.Contains(l.logs.String(), `\u001b`) {
		t.Error("escapes in the log")
	}
}

// walkStrings calls f with every text in m.
func walkStrings(m proto.Message, f func(string)) {
	_ = protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		if step := p.Path.Index(-1); step.Kind() == protopath.MapIndexStep {
			f(step.MapIndex().String())
		}
		if text, ok := p.Index(-1).Value.Interface().(string); ok {
			f(text)
		}
		return nil
	})
}
