package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	"github.com/assay-build/assay/internal/testenv/vectors"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func (l *life) searchOnce(ctx context.Context, req *assayv1.SearchComponentsRequest) (*assayv1.SearchComponentsResponse, error) {
	return assayv1.NewAuditServiceClient(l.conn).SearchComponents(ctx, req)
}

// locks are n artifacts, each with shared and with a package of its own.
func locks(t testing.TB, prefix string, n int, shared string) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte, n)
	for i := range n {
		name := fmt.Sprintf("%s-%03d.zip", prefix, i)
		out[name] = zipOf(t, "package-lock.json", string(packageLock(shared, fmt.Sprintf("own-%s@1.0.%d", prefix, i))))
	}
	return out
}

// attestAll uploads artifacts in one call.
func (l *life) attestAll(ctx context.Context, artifacts map[string][]byte) error {
	messages := []*assayv1.AttestRequest{headerMessage(len(artifacts))}
	for name, data := range artifacts {
		messages = append(messages, artifactMessages(name, data)...)
	}
	_, err := uploadAll(ctx, l.conn, messages)
	return err
}

// TestSearchRefusals: what is no question is refused before anything is looked for,
// whether or not there is anything to find.
func TestSearchRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	for i := range 3 {
		s := subject(fmt.Sprintf("app-%d", i), fmt.Sprintf("app-%d", i))
		l.digests(t, l.ctx, s)
		l.attach(t, s, cycloneDX("app", "pkg:npm/lodash@4.17.20", "pkg:npm/left-pad@1.3.0"))
	}
	type request = assayv1.SearchComponentsRequest
	question := &request{Purl: "pkg:npm/lodash", PageSize: 1}
	first, err := l.searchOnce(l.ctx, question)
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	token := first.GetNextPageToken()
	listed, err := assayv1.NewAuditServiceClient(l.conn).ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{PageSize: 1})
	if err != nil || listed.GetNextPageToken() == "" {
		t.Fatal(err)
	}
	flipped := []byte(token)
	flipped[3] ^= 1
	long := strings.Repeat("a", 100_000)
	for name, tt := range map[string]struct {
		req    *request
		reason string
	}{
		"nothing asked":               {&request{}, "COMPONENT_QUERY_INVALID"},
		"a range of nothing":          {&request{VersionRange: "<2"}, "COMPONENT_QUERY_INVALID"},
		"a range of a licence":        {&request{License: "MIT", VersionRange: "<2"}, "COMPONENT_QUERY_INVALID"},
		"two licences":                {&request{License: "MIT OR Apache-2.0"}, "COMPONENT_QUERY_INVALID"},
		"a version and a range":       {&request{Purl: "pkg:npm/lodash@4.17.20", VersionRange: "<5"}, "COMPONENT_QUERY_INVALID"},
		"two ranges":                  {&request{Purl: "pkg:npm/lodash@<4", VersionRange: "<5"}, "COMPONENT_QUERY_INVALID"},
		"a subpath":                   {&request{Purl: "pkg:npm/lodash@4.17.20#a/b"}, "COMPONENT_QUERY_INVALID"},
		"no package url":              {&request{Purl: "lodash"}, "PURL_INVALID"},
		"no type":                     {&request{Purl: "pkg:lodash"}, "PURL_INVALID"},
		"a pattern":                   {&request{Purl: "pkg:*/lodash"}, "PURL_INVALID"},
		"no name":                     {&request{Purl: "pkg:npm/"}, "PURL_INVALID"},
		"not escaped":                 {&request{Purl: "pkg:npm/a b"}, "PURL_INVALID"},
		"a long package url":          {&request{Purl: "pkg:npm/" + long}, "PURL_INVALID"},
		"a long name":                 {&request{Name: long}, "REQUEST_INVALID"},
		"a long licence":              {&request{License: long}, "REQUEST_INVALID"},
		"an empty range":              {&request{Purl: "pkg:npm/lodash", VersionRange: " "}, "VERSION_RANGE_INVALID"},
		"a comparison with nothing":   {&request{Purl: "pkg:npm/lodash@<"}, "VERSION_RANGE_INVALID"},
		"a long range":                {&request{Purl: "pkg:npm/lodash", VersionRange: "<" + long}, "VERSION_RANGE_INVALID"},
		"too many comparisons":        {&request{Purl: "pkg:npm/lodash", VersionRange: strings.Repeat("<1,", 65) + "<1"}, "VERSION_RANGE_INVALID"},
		"vers without a type":         {&request{Purl: "pkg:npm/lodash", VersionRange: "vers:/<2"}, "VERSION_RANGE_INVALID"},
		"page_size -1":                {&request{Purl: "pkg:npm/lodash", PageSize: -1}, "PAGE_SIZE_INVALID"},
		"page_size 1001":              {&request{Purl: "pkg:npm/lodash", PageSize: 1001}, "PAGE_SIZE_INVALID"},
		"page_size -1, of nobody":     {&request{Purl: "pkg:npm/nobody", PageSize: -1}, "PAGE_SIZE_INVALID"},
		"page_size 1001, of nobody":   {&request{Name: "nobody", PageSize: 1001}, "PAGE_SIZE_INVALID"},
		"another question's token":    {&request{Purl: "pkg:npm/left-pad", PageToken: token}, "PAGE_TOKEN_INVALID"},
		"another spelling's token":    {&request{Purl: "pkg:npm/lodash@>=0", PageToken: token}, "PAGE_TOKEN_INVALID"},
		"the token, in another field": {&request{Name: "lodash", PageToken: token}, "PAGE_TOKEN_INVALID"},
		"the token, and a licence":    {&request{Purl: "pkg:npm/lodash", License: "MIT", PageToken: token}, "PAGE_TOKEN_INVALID"},
		"the token, of nobody":        {&request{Purl: "pkg:npm/nobody", PageToken: token}, "PAGE_TOKEN_INVALID"},
		"a list's token":              {&request{Purl: "pkg:npm/lodash", PageToken: listed.GetNextPageToken()}, "PAGE_TOKEN_INVALID"},
		"a changed token":             {&request{Purl: "pkg:npm/lodash", PageToken: string(flipped)}, "PAGE_TOKEN_INVALID"},
		"a token cut short":           {&request{Purl: "pkg:npm/lodash", PageToken: token[:len(token)-1]}, "PAGE_TOKEN_INVALID"},
		"a long token":                {&request{Purl: "pkg:npm/lodash", PageToken: long}, "PAGE_TOKEN_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := l.searchOnce(l.ctx, tt.req)
			if err == nil {
				t.Fatalf("answered %v", resp)
			}
			wantReason(t, err, codes.InvalidArgument, tt.reason)
		})
	}
	// The token is good for its question, whatever the size of the page.
	for _, size := range []int32{0, 1, 2, 1000} {
		resp, err := l.searchOnce(l.ctx, &request{Purl: "pkg:npm/lodash", PageSize: size, PageToken: token})
		if err != nil || len(resp.GetMatches()) == 0 || resp.GetMatches()[0].GetAttestationId() == first.GetMatches()[0].GetAttestationId() {
			t.Errorf("size %d: %v, %v", size, resp, err)
		}
	}
}

func naughty(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors.Dir(t, "blns"), "blns.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) < 400 {
		t.Fatalf("only %d strings", len(list))
	}
	list = append(list, "a\x00b", "'; DROP TABLE sboms; --", `" OR "1"="1`, "1' OR '1'='1", "%", "_", "lodash%", "lod_sh", "?1", ":name", "@name", "$1", "\n", "\n0 0 1 a", "pkg:npm/lodash' --", "*", "lodash*", "\u202e")
	return slices.DeleteFunc(list, func(s string) bool { return !utf8.ValidString(s) })
}

// TestSearchNaughtyStrings: no text in any field is more than a text: it is found where
// it is, finds nothing else, and is never a fault of the service.
func TestSearchNaughtyStrings(t *testing.T) {
	t.Parallel()
	list := naughty(t)
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	l.digests(t, l.ctx, subject("naughty", "naughty"), subject("innocent", "innocent"))
	l.attach(t, subject("innocent", "innocent"), cycloneDX("innocent", "pkg:npm/lodash@4.17.20"))
	var components []string
	for i, s := range list {
		if strings.TrimSpace(s) == "" {
			continue // names nothing, and would be refused
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		components = append(components, fmt.Sprintf(`{"type":"library","bom-ref":"c%d","name":%s,"version":%[2]s,"group":%[2]s,"licenses":[{"license":{"name":%[2]s}}]}`, i, text))
	}
	l.attach(t, subject("naughty", "naughty"), []byte(document(`"components":[`+strings.Join(components, ",")+`]`)))
	var found, lost int
	for _, s := range list {
		for field, req := range map[string]*assayv1.SearchComponentsRequest{
			"purl": {Purl: s}, "a name in a purl": {Purl: "pkg:npm/" + s}, "a version in a purl": {Purl: "pkg:npm/lodash@" + s},
			"name": {Name: s}, "version_range": {Name: "lodash", VersionRange: s}, "a bound": {Purl: "pkg:npm/lodash", VersionRange: "<" + s},
			"license": {License: s}, "page_token": {Purl: "pkg:npm/lodash", PageToken: s},
		} {
			resp, err := l.searchOnce(l.ctx, req)
			if reason, _ := reasonOf(err); err != nil && (status.Code(err) != codes.InvalidArgument || reason == "") {
				t.Errorf("%s %q: %v", field, s, err)
			}
			for _, m := range resp.GetMatches() {
				if strings.Contains(field, "name") && m.GetSubject().GetName() == "innocent" && s != "lodash" {
					t.Errorf("%s %q found %v", field, s, m)
				}
			}
			if field == "name" && len(resp.GetMatches()) > 0 {
				found++
			} else if field == "name" && strings.TrimFunc(s, func(r rune) bool { return r <= ' ' }) != "" {
				if lost++; lost < 20 {
					t.Logf("not found by its name: %q, %v", s, err)
				}
			}
		}
	}
	t.Logf("%d of %d found by their names", found, len(list))
	if found < len(list)*9/10 {
		t.Errorf("%d of %d found by their names", found, len(list))
	}
	if n := l.count(t, "sboms"); n != 2 {
		t.Errorf("%d SBOMs afterwards", n)
	}
	if strings.Contains(l.logs.String(), `"level":"ERROR"`) {
		t.Errorf("errors in the log")
	}
}

// TestSearchHidesOthers: what another tenant has shows in no row, no count, no page, and
// not among what could not be decided.
func TestSearchHidesOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	idp := people(t, w)
	l := w.start(t, withPeople(idp), bothTenants).login(t)
	other := l.otherTenant(t)
	const mine, theirs = 7, 12
	for i := range mine + theirs {
		name, ctx := fmt.Sprintf("mine-%d", i), l.ctx
		if i >= mine {
			name, ctx = fmt.Sprintf("theirs-%d", i), other
		}
		s := subject(name, name)
		l.digests(t, ctx, s)
		weird := "pkg:npm/shared@weird-" + name
		if _, err := uploadEvidence(ctx, l.conn, evidenceHeader(s, -1, nil), cycloneDX(name, "pkg:npm/shared@1.0.0", weird, "pkg:npm/only-"+name+"@1.0.0"), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	// The same bytes, by both.
	both := zipOf(t, "package-lock.json", string(packageLock("shared@1.0.0")))
	l.upload(t, l.ctx, "both.zip", string(both))
	for run := range 25 { // so many that they would fill the list of builds
		ctx := l.otherTenant(t, runClaims(run))
		if run == 0 {
			l.upload(t, ctx, "their-name.zip", string(both))
			continue
		}
		l.digests(t, ctx, subject("their-name.zip", string(both)))
	}

	for _, size := range []int32{0, 1, 2, 3, 5, 1000} {
		var pages []int
		names := map[string]bool{}
		req := &assayv1.SearchComponentsRequest{Purl: "pkg:npm/shared@<2", PageSize: size}
		for {
			resp, err := l.searchOnce(l.ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, len(resp.GetMatches()))
			for _, m := range resp.GetMatches() {
				if names[m.GetAttestationId()] {
					t.Errorf("%s twice", m.GetSubject().GetName())
				}
				names[m.GetAttestationId()] = true
				if strings.Contains(m.String(), "their") || strings.Contains(m.String(), "mallory") {
					t.Errorf("another tenant's: %v", m)
				}
				if m.GetSubject().GetName() == "both.zip" && (len(m.GetBuilds()) != 1 || !strings.Contains(m.GetBuilds()[0].GetInvocationId(), "octo-org")) {
					t.Errorf("builds of what both made: %v", m.GetBuilds())
				}
			}
			if n := len(resp.GetUndecidedPurls()); n != mine {
				t.Errorf("%d undecided of %d: %q", n, mine, resp.GetUndecidedPurls())
			}
			for _, p := range resp.GetUndecidedPurls() {
				if !strings.Contains(p, "weird-mine-") {
					t.Errorf("another tenant's: %s", p)
				}
			}
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if len(names) != mine+1 {
			t.Errorf("size %d: %d rows of %d", size, len(names), mine+1)
		}
		for _, n := range pages[:len(pages)-1] {
			if n != int(size) {
				t.Errorf("size %d: pages of %v", size, pages)
			}
		}
	}
	for name, req := range map[string]*assayv1.SearchComponentsRequest{
		"a purl": {Purl: "pkg:npm/only-theirs-9"}, "a name": {Name: "only-theirs-9"}, "a range": {Purl: "pkg:npm/only-theirs-9@<2"},
	} {
		hidden, err := l.searchOnce(l.ctx, req)
		if err != nil || !proto.Equal(hidden, &assayv1.SearchComponentsResponse{}) {
			t.Errorf("%s: %v, %v; want what nobody has", name, hidden, err)
		}
		if seen := l.search(t, other, req); len(seen) != 1 {
			t.Errorf("%s: its owner finds %d", name, len(seen))
		}
	}
	if got := l.search(t, l.session(t, person(idp, "a", "auditor")), &assayv1.SearchComponentsRequest{Purl: "pkg:npm/shared", PageSize: 4}); len(got) != mine+theirs+2 {
		t.Errorf("the auditor finds %d of %d", len(got), mine+theirs+2)
	}
	_, err := l.searchOnce(l.session(t, person(idp, "n")), &assayv1.SearchComponentsRequest{Purl: "pkg:npm/shared"})
	wantReason(t, err, codes.PermissionDenied, "ACCESS_DENIED")
}

// TestSearchWhileAttesting: who reads page after page gets each artifact exactly once,
// however many are attested meanwhile.
func TestSearchWhileAttesting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	n, more := 100, 40
	if testing.Short() || raced {
		n, more = 40, 10
	}
	old := locks(t, "old", n, "shared@1.0.0")
	if err := l.attestAll(l.ctx, old); err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	writing := l.session(t, l.Issuer.Mint(w.instance, runClaims(1), oidctest.Claims{"run_attempt": "2"}))
	fresh := locks(t, "new", more, "shared@1.0.0")
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		one := map[string][]byte{}
		for name, data := range fresh {
			if one[name] = data; len(one) == 5 {
				if err := l.attestAll(writing, one); err != nil {
					return err
				}
				one = map[string][]byte{}
			}
		}
		return nil
	})
	rounds := 0
	for going := true; going; rounds++ {
		select {
		case <-done:
			going = false // and once more
		default:
		}
		seen := map[string]int{}
		for _, m := range l.search(t, l.ctx, &assayv1.SearchComponentsRequest{Purl: "pkg:npm/shared@1.0.0", PageSize: 7}) {
			seen[m.GetSubject().GetName()]++
		}
		for name := range old {
			if seen[name] != 1 {
				t.Fatalf("round %d: %s was found %d times", rounds, name, seen[name])
			}
		}
		for name, times := range seen {
			if _, known := fresh[name]; times != 1 || !known && old[name] == nil {
				t.Fatalf("round %d: %s was found %d times", rounds, name, times)
			}
		}
		if !going && len(seen) != n+more {
			t.Errorf("at last %d of %d are found", len(seen), n+more)
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds", rounds)
}
