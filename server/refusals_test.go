package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/testenv"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// rig is a sandbox with a raw connection: what a hostile client would use.
type rig struct {
	*testenv.Env
	conn *grpc.ClientConn
	ctx  context.Context // carries a session
}

func newRig(t testing.TB, edit ...func(*server.Config)) *rig {
	t.Helper()
	env := testenv.New(t, edit...)
	conn, err := grpc.NewClient("passthrough:"+strings.TrimPrefix(env.Server, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &rig{Env: env, conn: conn}
	r.ctx = r.session(t, r.Issuer.Mint(env.Server))
	return r
}

func (r *rig) session(t testing.TB, token string) context.Context {
	t.Helper()
	resp, err := assayv1.NewIdentityServiceClient(r.conn).Exchange(t.Context(), &assayv1.ExchangeRequest{
		Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: token},
	})
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+resp.GetSessionToken())
}

// reasonOf is the stable code of an error, and the first field it blames.
func reasonOf(err error) (reason, field string) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	return reason, field
}

func wantRefusal(t *testing.T, err error, code codes.Code, reason, field string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want %s", reason)
	}
	gotReason, gotField := reasonOf(err)
	if status.Code(err) != code || gotReason != reason || gotField != field {
		t.Errorf("got %s %s in %q; want %s %s in %q\n%v", status.Code(err), gotReason, gotField, code, reason, field, err)
	}
}

const okDigest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func digests(s ...string) []*assayv1.Subject {
	var out []*assayv1.Subject
	for i := 0; i+1 < len(s); i += 2 {
		out = append(out, &assayv1.Subject{Name: s[i], Digest: map[string]string{"sha256": s[i+1]}})
	}
	return out
}

func TestAttestDigestsRefusals(t *testing.T) {
	r := newRig(t)
	many := make([]*assayv1.Subject, 1025)
	for i := range many {
		many[i] = &assayv1.Subject{Name: strings.Repeat("n", i%200+1), Digest: map[string]string{"sha256": okDigest}}
	}
	unknown := &assayv1.AttestDigestsRequest{Subjects: digests("a", okDigest)}
	unknown.GetSubjects()[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	for name, tt := range map[string]struct {
		req           *assayv1.AttestDigestsRequest
		reason, field string
	}{
		"nothing":               {&assayv1.AttestDigestsRequest{}, "NO_SUBJECTS", ""},
		"1025 subjects":         {&assayv1.AttestDigestsRequest{Subjects: many}, "TOO_MANY_SUBJECTS", ""},
		"unknown field":         {unknown, "UNKNOWN_FIELD", "subjects"},
		"no digest":             {&assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{{Name: "a"}}}, "SUBJECT_NO_DIGEST", "subjects[0]"},
		"sha512 alone":          {&assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{{Name: "a", Digest: map[string]string{"sha512": strings.Repeat("ab", 64)}}}}, "SUBJECT_NO_DIGEST", "subjects[0]"},
		"upper-case digest":     {&assayv1.AttestDigestsRequest{Subjects: digests("a", strings.ToUpper(okDigest))}, "DIGEST_INVALID", "subjects[0]"},
		"short digest":          {&assayv1.AttestDigestsRequest{Subjects: digests("a", okDigest[1:])}, "DIGEST_INVALID", "subjects[0]"},
		"md5":                   {&assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{{Name: "a", Digest: map[string]string{"sha256": okDigest, "md5": strings.Repeat("ab", 16)}}}}, "REQUEST_INVALID", "subjects[0]"},
		"empty name":            {&assayv1.AttestDigestsRequest{Subjects: digests("", okDigest)}, "SUBJECT_NAME_INVALID", "subjects[0]"},
		"parent name":           {&assayv1.AttestDigestsRequest{Subjects: digests("../x", okDigest)}, "SUBJECT_NAME_INVALID", "subjects[0]"},
		"absolute name":         {&assayv1.AttestDigestsRequest{Subjects: digests("/etc/passwd", okDigest)}, "SUBJECT_NAME_INVALID", "subjects[0]"},
		"control character":     {&assayv1.AttestDigestsRequest{Subjects: digests("a\x1b[31m", okDigest)}, "SUBJECT_NAME_INVALID", "subjects[0]"},
		"right-to-left":         {&assayv1.AttestDigestsRequest{Subjects: digests("a\u202egnp", okDigest)}, "SUBJECT_NAME_INVALID", "subjects[0]"},
		"name too long":         {&assayv1.AttestDigestsRequest{Subjects: digests(strings.Repeat("n", 513), okDigest)}, "SUBJECT_NAME_INVALID", "subjects[0]"},
		"two of one name":       {&assayv1.AttestDigestsRequest{Subjects: digests("a", okDigest, "a", okDigest)}, "DUPLICATE_SUBJECT", "subjects[1].name"},
		"second subject is bad": {&assayv1.AttestDigestsRequest{Subjects: digests("a", okDigest, "b/../c", okDigest)}, "SUBJECT_NAME_INVALID", "subjects[1]"},
		"kind":                  {&assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{{Name: "a", Kind: 77, Digest: map[string]string{"sha256": okDigest}}}}, "ARTIFACT_KIND_UNKNOWN", "subjects[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := assayv1.NewAttestationServiceClient(r.conn).AttestDigests(r.ctx, tt.req)
			wantRefusal(t, err, codes.InvalidArgument, tt.reason, tt.field)
		})
	}
	nothingStored(t, r)
}

func TestAttestStreamRefusals(t *testing.T) {
	r := newRig(t)
	header := func(n int32) *assayv1.AttestRequest {
		return &assayv1.AttestRequest{Message: &assayv1.AttestRequest_Header{Header: &assayv1.AttestHeader{ArtifactCount: n}}}
	}
	start := func(name string, size int64) *assayv1.AttestRequest {
		return &assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactStart{ArtifactStart: &assayv1.ArtifactStart{Name: name, Size: size}}}
	}
	chunk := func(n int) *assayv1.AttestRequest {
		return &assayv1.AttestRequest{Message: &assayv1.AttestRequest_Chunk{Chunk: make([]byte, n)}}
	}
	end := func(sha string) *assayv1.AttestRequest {
		return &assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactEnd{ArtifactEnd: &assayv1.ArtifactEnd{Sha256: sha}}}
	}
	type msgs []*assayv1.AttestRequest
	for name, tt := range map[string]struct {
		send          msgs
		code          codes.Code
		reason, field string
	}{
		"nothing":                  {msgs{}, codes.InvalidArgument, "STREAM_PROTOCOL", ""},
		"no header":                {msgs{start("a", 1)}, codes.InvalidArgument, "STREAM_PROTOCOL", ""},
		"empty message":            {msgs{{}}, codes.InvalidArgument, "STREAM_PROTOCOL", ""},
		"two headers":              {msgs{header(1), header(1)}, codes.InvalidArgument, "STREAM_PROTOCOL", "artifacts[0]"},
		"no artifacts announced":   {msgs{header(0)}, codes.InvalidArgument, "NO_SUBJECTS", "header.artifact_count"},
		"negative count":           {msgs{header(-1)}, codes.InvalidArgument, "NO_SUBJECTS", "header.artifact_count"},
		"1025 announced":           {msgs{header(1025)}, codes.InvalidArgument, "TOO_MANY_SUBJECTS", "header.artifact_count"},
		"ends before the artifact": {msgs{header(1)}, codes.InvalidArgument, "STREAM_PROTOCOL", "artifacts[0]"},
		"ends inside the artifact": {msgs{header(1), start("a", 2), chunk(1)}, codes.InvalidArgument, "ARTIFACT_SIZE_MISMATCH", "artifacts[0]"},
		"shorter than announced":   {msgs{header(1), start("a", 2), chunk(1), end("")}, codes.InvalidArgument, "ARTIFACT_SIZE_MISMATCH", "artifacts[0].size"},
		"longer than announced":    {msgs{header(1), start("a", 2), chunk(3)}, codes.InvalidArgument, "ARTIFACT_SIZE_MISMATCH", "artifacts[0].size"},
		"too large":                {msgs{header(1), start("a", 1<<40)}, codes.InvalidArgument, "ARTIFACT_TOO_LARGE", "artifacts[0].size"},
		"negative size":            {msgs{header(1), start("a", -2)}, codes.InvalidArgument, "ARTIFACT_TOO_LARGE", "artifacts[0].size"},
		"chunk too large":          {msgs{header(1), start("a", -1), chunk(1<<20 + 1)}, codes.InvalidArgument, "CHUNK_TOO_LARGE", "artifacts[0]"},
		"other bytes than hashed":  {msgs{header(1), start("a", 1), chunk(1), end(okDigest)}, codes.DataLoss, "DIGEST_MISMATCH", "artifacts[0].sha256"},
		"chunk before start":       {msgs{header(1), chunk(1)}, codes.InvalidArgument, "STREAM_PROTOCOL", "artifacts[0]"},
		"more than announced":      {msgs{header(1), start("a", 0), end(""), start("b", 0)}, codes.InvalidArgument, "STREAM_PROTOCOL", ""},
		"name":                     {msgs{header(1), start("a\\..\\b", 0)}, codes.InvalidArgument, "SUBJECT_NAME_INVALID", "artifacts[0].name"},
		"second artifact's name":   {msgs{header(2), start("a", 0), end(""), start("a", 0), end("")}, codes.InvalidArgument, "DUPLICATE_SUBJECT", "subjects[1].name"},
	} {
		t.Run(name, func(t *testing.T) {
			err := upload(r.ctx, r.conn, tt.send)
			wantRefusal(t, err, tt.code, tt.reason, tt.field)
		})
	}
	nothingStored(t, r)
	left, err := os.ReadDir(filepath.Join(r.Data, "spool"))
	if err != nil || len(left) > 0 {
		t.Errorf("the spool holds %d entries after refused uploads (%v)", len(left), err)
	}
}

// upload sends messages and returns how the service ended the call.
func upload(ctx context.Context, conn *grpc.ClientConn, send []*assayv1.AttestRequest) error {
	stream, err := assayv1.NewAttestationServiceClient(conn).Attest(ctx)
	if err != nil {
		return err
	}
	for _, m := range send {
		if err := stream.Send(m); err != nil {
			break // the reason is in Recv
		}
	}
	_ = stream.CloseSend()
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func nothingStored(t *testing.T, r *rig) {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(r.conn).ListAttestations(r.ctx, &assayv1.ListAttestationsRequest{})
	if err != nil || len(resp.GetAttestations()) > 0 {
		t.Errorf("%d attestations after nothing but refusals (%v)", len(resp.GetAttestations()), err)
	}
}

func TestVerifyRefusals(t *testing.T) {
	r := newRig(t)
	for name, tt := range map[string]struct {
		req           *assayv1.VerifyRequest
		reason, field string
	}{
		"nothing":          {&assayv1.VerifyRequest{Environment: "dev"}, "NO_SUBJECTS", "subjects"},
		"101 subjects":     {&assayv1.VerifyRequest{Environment: "dev", Subjects: make101()}, "TOO_MANY_SUBJECTS", "subjects"},
		"no environment":   {&assayv1.VerifyRequest{Subjects: digests("a", okDigest)}, "REQUEST_INVALID", "environment"},
		"long environment": {&assayv1.VerifyRequest{Environment: strings.Repeat("e", 65), Subjects: digests("a", okDigest)}, "REQUEST_INVALID", "environment"},
		"no digest":        {&assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{{Name: "a"}}}, "SUBJECT_NO_DIGEST", "subjects[0].digest"},
		"empty digest":     {&assayv1.VerifyRequest{Environment: "dev", Subjects: digests("a", "")}, "DIGEST_INVALID", "subjects[0].digest"},
		"sha1 alone":       {&assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{{Digest: map[string]string{"sha1": strings.Repeat("ab", 20)}}}}, "SUBJECT_NO_DIGEST", "subjects[0].digest"},
		"bad digest":       {&assayv1.VerifyRequest{Environment: "dev", Subjects: digests("a", okDigest+"00")}, "DIGEST_INVALID", "subjects[0].digest"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := assayv1.NewVerificationServiceClient(r.conn).Verify(r.ctx, tt.req)
			wantRefusal(t, err, codes.InvalidArgument, tt.reason, tt.field)
		})
	}
}

func make101() []*assayv1.Subject {
	out := make([]*assayv1.Subject, 101)
	for i := range out {
		out[i] = digests("a", okDigest)[0]
	}
	return out
}

func TestAuditRefusals(t *testing.T) {
	r := newRig(t)
	audit := assayv1.NewAuditServiceClient(r.conn)
	list := func(req *assayv1.ListAttestationsRequest) error {
		_, err := audit.ListAttestations(r.ctx, req)
		return err
	}
	for name, tt := range map[string]struct {
		err    error
		code   codes.Code
		reason string
	}{
		"page size":         {list(&assayv1.ListAttestationsRequest{PageSize: 1001}), codes.InvalidArgument, "PAGE_SIZE_INVALID"},
		"negative page":     {list(&assayv1.ListAttestationsRequest{PageSize: -1}), codes.InvalidArgument, "PAGE_SIZE_INVALID"},
		"page token":        {list(&assayv1.ListAttestationsRequest{PageToken: "AAAA"}), codes.InvalidArgument, "PAGE_TOKEN_INVALID"},
		"filter field":      {list(&assayv1.ListAttestationsRequest{Filter: `owner = "x"`}), codes.InvalidArgument, "FILTER_INVALID"},
		"filter injection":  {list(&assayv1.ListAttestationsRequest{Filter: `builder_id = "x' OR 1=1 --`}), codes.InvalidArgument, "FILTER_INVALID"},
		"order":             {list(&assayv1.ListAttestationsRequest{OrderBy: "builder_id; DROP TABLE attestations"}), codes.InvalidArgument, "ORDER_INVALID"},
		"attestation id":    {second(audit.GetAttestation(r.ctx, &assayv1.GetAttestationRequest{AttestationId: "../../etc/passwd"})), codes.InvalidArgument, "REQUEST_INVALID"},
		"no attestation":    {second(audit.GetAttestation(r.ctx, &assayv1.GetAttestationRequest{AttestationId: okDigest})), codes.NotFound, "NOT_FOUND"},
		"no decision":       {second(audit.GetDecision(r.ctx, &assayv1.GetDecisionRequest{DecisionId: "nope"})), codes.NotFound, "NOT_FOUND"},
		"empty decision id": {second(audit.GetDecision(r.ctx, &assayv1.GetDecisionRequest{})), codes.InvalidArgument, "REQUEST_INVALID"},
		"not a build's job": {second(assayv1.NewPolicyServiceClient(r.conn).PutPolicy(r.ctx, &assayv1.PutPolicyRequest{})), codes.PermissionDenied, "ACCESS_DENIED"},
	} {
		t.Run(name, func(t *testing.T) {
			if reason, _ := reasonOf(tt.err); status.Code(tt.err) != tt.code || reason != tt.reason {
				t.Errorf("got %s %s (%v); want %s %s", status.Code(tt.err), reason, tt.err, tt.code, tt.reason)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// TestSessionRefusals: every RPC but the public ones, without a session, with a
// damaged one, and with two.
func TestSessionRefusals(t *testing.T) {
	r := newRig(t)
	md, _ := metadata.FromOutgoingContext(r.ctx)
	good := md.Get("authorization")[0]
	public := map[string]bool{
		"/assay.v1.IdentityService/Challenge":   true,
		"/assay.v1.IdentityService/Exchange":    true,
		"/assay.v1.AuditService/GetTrustedRoot": true,
	}
	credentials := map[string]struct {
		values []string
		reason string
	}{
		"none":      {nil, "SESSION_MISSING"},
		"empty":     {[]string{""}, "SESSION_MISSING"},
		"no scheme": {[]string{strings.TrimPrefix(good, "Bearer ")}, "SESSION_MISSING"},
		"basic":     {[]string{"Basic dXNlcjpwYXNz"}, "SESSION_MISSING"},
		"truncated": {[]string{good[:len(good)-1]}, "SESSION_INVALID"},
		"longer":    {[]string{good + "A"}, "SESSION_INVALID"},
		"two":       {[]string{good, good}, "SESSION_MISSING"},
		"a jwt":     {[]string{"Bearer " + r.Issuer.Mint(r.Server)}, "SESSION_INVALID"},
	}
	methods := 0
	for _, file := range []string{"AttestationService", "AuditService", "IdentityService", "PolicyService", "VerificationService"} {
		for _, m := range serviceMethods(t, file) {
			if public[m] {
				continue
			}
			methods++
			for name, c := range credentials {
				ctx := t.Context()
				for _, v := range c.values {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", v)
				}
				err := invoke(ctx, r.conn, m)
				if reason, _ := reasonOf(err); status.Code(err) != codes.Unauthenticated || reason != c.reason {
					t.Errorf("%s with %s: %s %s, want Unauthenticated %s", m, name, status.Code(err), reason, c.reason)
				}
			}
		}
	}
	if methods < 20 {
		t.Fatalf("only %d methods were tried", methods)
	}
}

// invoke calls a method with an empty message, as a stream, which fits all kinds.
func invoke(ctx context.Context, conn *grpc.ClientConn, method string) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	_ = stream.SendMsg(&assayv1.WhoAmIRequest{})
	_ = stream.CloseSend()
	return stream.RecvMsg(&assayv1.WhoAmIResponse{})
}

func serviceMethods(t *testing.T, service string) []string {
	t.Helper()
	var out []string
	for _, desc := range []grpc.ServiceDesc{
		assayv1.AttestationService_ServiceDesc, assayv1.AuditService_ServiceDesc, assayv1.IdentityService_ServiceDesc,
		assayv1.PolicyService_ServiceDesc, assayv1.VerificationService_ServiceDesc,
	} {
		if desc.ServiceName != "assay.v1."+service {
			continue
		}
		for _, m := range desc.Methods {
			out = append(out, "/"+desc.ServiceName+"/"+m.MethodName)
		}
		for _, s := range desc.Streams {
			out = append(out, "/"+desc.ServiceName+"/"+s.StreamName)
		}
	}
	return out
}

// TestUnknownMethods: paths that are nearly right reach no handler.
func TestUnknownMethods(t *testing.T) {
	r := newRig(t)
	for _, method := range []string{
		"/assay.v1.AuditService/Nope", "/assay.v1.auditservice/GetTrustedRoot", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"//assay.v1.AuditService/GetTrustedRoot", "/assay.v1.AuditService/GetTrustedRoot/",
	} {
		if err := invoke(r.ctx, r.conn, method); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v, want Unimplemented", method, err)
		}
	}
}

// TestJSON: the same answers and refusals over HTTP, through the same way in.
func TestJSON(t *testing.T) {
	r := newRig(t)
	md, _ := metadata.FromOutgoingContext(r.ctx)
	token := md.Get("authorization")[0]
	for name, tt := range map[string]struct {
		method, path, body string
		auth               bool
		status             int
		want               string
	}{
		"whoami":              {"GET", "/v1/identity", "", true, 200, `"repository":"octo-org/octo-app"`},
		"no session":          {"GET", "/v1/identity", "", false, 401, "SESSION_MISSING"},
		"trusted root":        {"GET", "/v1/trustedRoot", "", false, 200, "attestation_keys_pem"},
		"verify":              {"POST", "/v1/verify", `{"environment":"dev","subjects":[{"digest":{"sha256":"` + okDigest + `"}}]}`, true, 200, "NO_ATTESTATION"},
		"duplicate key":       {"POST", "/v1/verify", `{"environment":"dev","environment":"prod","subjects":[]}`, true, 400, "duplicate"},
		"unknown key":         {"POST", "/v1/verify", `{"enviroment":"dev"}`, true, 400, "unknown field"},
		"wrong type":          {"POST", "/v1/verify", `{"environment":7}`, true, 400, "invalid"},
		"not JSON":            {"POST", "/v1/verify", `<xml/>`, true, 400, "REQUEST_INVALID"},
		"list":                {"GET", "/v1/attestations?page_size=5", "", true, 200, "{"},
		"list, unknown query": {"GET", "/v1/attestations?pagesize=5", "", true, 400, "UNKNOWN_FIELD"},
		"healthz":             {"GET", "/healthz", "", false, 200, "ok"},
		"readyz":              {"GET", "/readyz", "", false, 200, `"ready":true`},
		"metrics":             {"GET", "/metrics", "", false, 200, "assay_rpc_requests_total"},
		"trusted root file":   {"GET", "/trusted_root.json", "", false, 200, "tlogs"},
		"log checkpoint":      {"GET", "/log/../keys/attestation.pem", "", false, 404, ""},
		"nothing":             {"GET", "/nope", "", false, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, r.Server+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.auth {
				req.Header.Set("Authorization", token)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(body), `": "`, `":"`)
			if resp.StatusCode != tt.status || !strings.Contains(text, tt.want) {
				t.Errorf("%d, want %d with %q:\n%s", resp.StatusCode, tt.status, tt.want, body)
			}
			if resp.Header.Get("Content-Security-Policy") == "" {
				t.Error("no Content-Security-Policy")
			}
		})
	}
}
