package server_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// people is an identity provider for humans.
func people(t testing.TB, w *world) *oidctest.Issuer {
	t.Helper()
	idp := issuerAt(t, w)
	none := oidctest.Claims{}
	for claim := range idp.Job() {
		none[claim] = nil
	}
	idp.SetJob(none)
	return idp
}

// issuerAt is one more issuer, of claims that a test chooses.
func issuerAt(t testing.TB, w *world) *oidctest.Issuer {
	t.Helper()
	var issuer *oidctest.Issuer
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { issuer.Handler().ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	key, err := issuerKey()
	if err != nil {
		t.Fatal(err)
	}
	if issuer, err = oidctest.New(oidctest.Config{BaseURL: srv.URL, Key: key, Now: w.now}); err != nil {
		t.Fatal(err)
	}
	return issuer
}

const clientID = "assay-cli"

// person is an ID token of somebody with these groups.
func person(idp *oidctest.Issuer, name string, groups ...string) string {
	return idp.Forge(oidctest.Forgery{Claims: oidctest.Claims{
		"aud": clientID, "sub": "u-" + name, "hd": "example.com", "groups": groups, "email": name + "@example.com", "email_verified": true,
	}})
}

// withPeople lets people of idp in, and gives each role to the group of its name.
func withPeople(idp *oidctest.Issuer) func(*server.Config) {
	return func(c *server.Config) {
		c.Identity.Issuers = append(c.Identity.Issuers, server.IssuerConf{
			URL: idp.URL(), Type: "human", Audience: []string{clientID}, Allow: map[string][]string{"hd": {"example.com"}},
		})
		for _, role := range []string{"auditor", "security", "admin", "deployer", "attestor", "breakglass"} {
			c.Access.Roles = append(c.Access.Roles, server.RoleConf{Role: role, Members: []server.MemberConf{{Issuer: idp.URL(), Group: role}}})
		}
	}
}

// withAWS lets builds and roles of the stand-in in.
func withAWS(a *testenv.AWS) func(*server.Config) {
	return func(c *server.Config) { a.Configure(c) }
}

func newAWS(t testing.TB, w *world) *testenv.AWS {
	t.Helper()
	a, err := testenv.NewAWS(w.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func bearing(ctx context.Context, session string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+session)
}

// TestAccessMatrix asks for every method of every service, as everybody, and
// compares who may do what with a table that people review.
func TestAccessMatrix(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp, cloud := people(t, w), newAWS(t, w)
	l := w.start(t, withPeople(idp), withAWS(cloud), func(c *server.Config) {
		c.Identity.Issuers[0].AllowedOwnerIDs = append(c.Identity.Issuers[0].AllowedOwnerIDs, ownerID+1)
	}).login(t)
	made := l.digests(t, l.ctx, digests("app", okDigest)...)
	decided := l.decide(t, "staging", digests("app", okDigest)[0], "ALLOWED")

	callers := map[string]context.Context{
		"anonymous":   t.Context(),
		"build":       l.ctx,
		"other build": l.session(t, w.issuer.Mint(w.instance, oidctest.Claims{"repository_owner_id": fmt.Sprint(ownerID + 1)})),
		"codebuild":   bearing(t.Context(), l.buildSession(t, cloud.RunningBuild())),
		"aws role":    bearing(t.Context(), l.roleSession(t, cloud.Deploy.Session("deploy-1"))),
		"person":      l.session(t, person(idp, "nobody")),
	}
	for _, role := range []string{"auditor", "security", "admin", "deployer", "attestor", "breakglass"} {
		callers["role "+role] = l.session(t, person(idp, role, role))
	}
	requests := map[string]proto.Message{
		"AttestDigests":  &assayv1.AttestDigestsRequest{Subjects: digests("x", okDigest)},
		"AttestBuild":    &assayv1.AttestBuildRequest{BuildArn: cloud.RunningBuild().ARN},
		"Verify":         &assayv1.VerifyRequest{Environment: "dev", Subjects: digests("x", okDigest)},
		"GetAttestation": &assayv1.GetAttestationRequest{AttestationId: made.GetAttestation().GetAttestationId()},
		"GetDecision":    &assayv1.GetDecisionRequest{DecisionId: decided.GetDecisionId()},
	}
	var table strings.Builder
	names := slices.Sorted(maps.Keys(callers))
	fmt.Fprintf(&table, "%-40s", "")
	for _, name := range names {
		fmt.Fprintf(&table, " %-*s", max(len(name), len("hidden")), name)
	}
	table.WriteString("\n")
	methods := 0
	for _, service := range []protoreflect.ServiceDescriptor{
		assayv1.File_assay_v1_identity_service_proto.Services().Get(0),
		assayv1.File_assay_v1_attestation_service_proto.Services().Get(0),
		assayv1.File_assay_v1_verification_service_proto.Services().Get(0),
		assayv1.File_assay_v1_audit_service_proto.Services().Get(0),
		assayv1.File_assay_v1_policy_service_proto.Services().Get(0),
	} {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			methods++
			fmt.Fprintf(&table, "%-40s", fmt.Sprintf("%s.%s", service.Name(), m.Name()))
			for _, name := range names {
				fmt.Fprintf(&table, " %-*s", max(len(name), len("hidden")), outcome(t, l.conn, callers[name], m, requests[string(m.Name())]))
			}
			table.WriteString("\n")
		}
	}
	if methods < 25 {
		t.Fatalf("only %d methods", methods)
	}
	path := filepath.Join("testdata", "access-matrix.txt")
	got := regexp.MustCompile(`(?m) +$`).ReplaceAllString(table.String(), "")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("who may do what has changed (-want +got):\n%s", diff)
	}
}

// outcome calls a method: "yes" where access was granted, whatever came of the
// call, "no" where the access policy refused, "hidden" where the row is kept from
// the caller, "-" where there is no session.
func outcome(t *testing.T, conn *grpc.ClientConn, ctx context.Context, m protoreflect.MethodDescriptor, req proto.Message) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	method := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if req == nil {
		req = dynamicpb.NewMessage(m.Input())
	}
	resp := dynamicpb.NewMessage(m.Output())
	var err error
	if m.IsStreamingClient() || m.IsStreamingServer() {
		var s grpc.ClientStream
		s, err = conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}, method)
		if err == nil {
			_ = s.SendMsg(req)
			_ = s.CloseSend()
			err = s.RecvMsg(resp)
		}
	} else {
		err = conn.Invoke(ctx, method, req, resp)
	}
	reason, _ := reasonOf(err)
	switch {
	case reason == "ACCESS_DENIED" && status.Code(err) == codes.PermissionDenied:
		return "no"
	case reason == "SESSION_MISSING" && status.Code(err) == codes.Unauthenticated:
		return "-"
	case reason == "NOT_FOUND" && (m.Name() == "GetAttestation" || m.Name() == "GetDecision"):
		return "hidden"
	case reason == "BUILDER_UNKNOWN":
		return "yes" // and then there is nothing that a person could attest
	case err == nil, status.Code(err) == codes.Unimplemented, status.Code(err) == codes.InvalidArgument,
		reason == "CODEBUILD_NOT_FINISHED", m.Name() == "Exchange" && reason == "REQUEST_INVALID":
		return "yes" // what the call came to is none of this test's business
	}
	return "yes? " + status.Code(err).String() + " " + reason
}

// TestRowsOfOthers: lists leave out what belongs to another tenant, pages and all,
// and so do single reads; an auditor sees everything.
func TestRowsOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp := people(t, w)
	l := w.start(t, withPeople(idp), func(c *server.Config) {
		c.Identity.Issuers[0].AllowedOwnerIDs = append(c.Identity.Issuers[0].AllowedOwnerIDs, ownerID+1)
	})
	owners := map[string]context.Context{}
	for i, name := range []string{"one", "two"} {
		owners[name] = l.session(t, w.issuer.Mint(w.instance, oidctest.Claims{"repository_owner_id": fmt.Sprint(ownerID + i)}))
	}
	ids := map[string][]string{}
	for i := range 60 {
		name := []string{"one", "two", "two"}[i%3]
		r := l.digests(t, owners[name], digests(fmt.Sprintf("app-%d", i), fmt.Sprintf("%064x", i+1))...)
		ids[name] = append(ids[name], r.GetAttestation().GetAttestationId())
	}
	audit := assayv1.NewAuditServiceClient(l.conn)
	list := func(ctx context.Context) (out []string) {
		token := ""
		for {
			resp, err := audit.ListAttestations(ctx, &assayv1.ListAttestationsRequest{PageSize: 7, PageToken: token, OrderBy: "create_time"})
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range resp.GetAttestations() {
				out = append(out, a.GetAttestationId())
			}
			if token = resp.GetNextPageToken(); token == "" {
				return out
			}
		}
	}
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	for name, ctx := range owners {
		if got := list(ctx); !slices.Equal(sorted(got), sorted(ids[name])) {
			t.Errorf("%s sees %d attestations of %d", name, len(got), len(ids[name]))
		}
	}
	if got := list(l.session(t, person(idp, "a", "auditor"))); len(got) != 60 {
		t.Errorf("the auditor sees %d of 60", len(got))
	}
	_, err := audit.GetAttestation(owners["one"], &assayv1.GetAttestationRequest{AttestationId: ids["two"][0]})
	_, absent := audit.GetAttestation(owners["one"], &assayv1.GetAttestationRequest{AttestationId: strings.Repeat("0", 64)})
	wantReason(t, err, codes.NotFound, "NOT_FOUND")
	if strings.ReplaceAll(status.Convert(err).Message(), ids["two"][0], "") != strings.ReplaceAll(status.Convert(absent).Message(), strings.Repeat("0", 64), "") {
		t.Errorf("what is hidden and what is not there answer differently:\n%v\n%v", err, absent)
	}
	// The digest of another tenant's artifact is no reason to show its row.
	resp, err := audit.ListAttestations(owners["one"], &assayv1.ListAttestationsRequest{Filter: fmt.Sprintf("subject.digest = sha256:%064x", 2)})
	if err != nil || len(resp.GetAttestations()) != 0 {
		t.Errorf("%d rows, %v", len(resp.GetAttestations()), err)
	}
	// Denials are written down with the policy that made them, in the line of the access.
	if !strings.Contains(l.logs.String(), `"msg":"access","method":"/assay.v1.AuditService/GetAttestation","action":"read","allowed":false,"reason":"ACCESS_DENIED"`) {
		t.Error("the denied read is not in the log")
	}
}
