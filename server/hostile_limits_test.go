package server_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// rawCall speaks HTTP/2 by hand, as no gRPC client would. It returns the fields of
// the answer's headers and trailers, or how the peer ended the stream.
func rawCall(t *testing.T, addr string, fields [][2]string, body []byte) map[string]string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = framer.WriteSettings()
	first := block.Next(8 << 10)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		part := block.Next(8 << 10)
		_ = framer.WriteContinuation(1, block.Len() == 0, part)
	}
	for last := false; !last; {
		n := min(len(body), 8<<10)
		last = n == len(body)
		_ = framer.WriteData(1, last, body[:n])
		body = body[n:]
	}
	got := make(map[string]string)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			got["end"] = "connection closed"
			return got
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				got[h.Name] = h.Value
			}
			if f.StreamEnded() {
				return got
			}
		case *http2.RSTStreamFrame:
			got["end"] = "RST_STREAM " + f.ErrCode.String()
			return got
		case *http2.GoAwayFrame:
			got["end"] = "GOAWAY " + f.ErrCode.String()
			return got
		}
	}
}

func grpcFields(path string, more ...[2]string) [][2]string {
	return append([][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "assay.test"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	}, more...)
}

func grpcMessage(t *testing.T, m proto.Message, compress bool) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	flag := byte(0)
	if compress {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(raw)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		raw, flag = b.Bytes(), 1
	}
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(raw))), raw...)
}

// TestWireLimits: what is too large, compressed or misspelt is refused before any
// handler sees it, and costs the others nothing.
func TestWireLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	const trustedRoot = "/assay.v1.AuditService/GetTrustedRoot"
	empty := grpcMessage(t, &assayv1.GetTrustedRootRequest{}, false)
	if got := rawCall(t, l.addr(), grpcFields(trustedRoot), empty); got["grpc-status"] != "0" {
		t.Fatalf("a good raw call: %v; the test tests nothing", got)
	}
	bomb := grpcMessage(t, &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: strings.Repeat("x", 64<<20)}}, true)
	whoAmI := "/assay.v1.IdentityService/WhoAmI"
	bearer := [2]string{"authorization", bearerOf(l.ctx)}
	for name, tt := range map[string]struct {
		fields [][2]string
		body   []byte
		want   map[string]bool // acceptable "grpc-status" or "end"
	}{
		"20 KiB of metadata":       {grpcFields(trustedRoot, [2]string{"x-large", strings.Repeat("x", 20<<10)}), empty, map[string]bool{"connection closed": true}},
		"1000 fields":              {grpcFields(trustedRoot, manyFields(1000)...), empty, map[string]bool{"connection closed": true}},
		"gzip":                     {grpcFields(trustedRoot, [2]string{"grpc-encoding", "gzip"}), grpcMessage(t, &assayv1.GetTrustedRootRequest{}, true), map[string]bool{"12": true}},
		"gzip bomb":                {grpcFields("/assay.v1.IdentityService/Exchange", [2]string{"grpc-encoding", "gzip"}), bomb, map[string]bool{"12": true}},
		"compressed, says not how": {grpcFields(trustedRoot), grpcMessage(t, &assayv1.GetTrustedRootRequest{}, true), map[string]bool{"13": true}},
		"length of 4 GiB":          {grpcFields(trustedRoot), []byte{0, 0xff, 0xff, 0xff, 0xff}, map[string]bool{"8": true}},
		"shorter than it says":     {grpcFields(trustedRoot), []byte{0, 0, 0, 0, 9, 1}, map[string]bool{"13": true}},
		"not protobuf":             {grpcFields("/assay.v1.IdentityService/Exchange"), []byte{0, 0, 0, 0, 2, 0xff, 0xff}, map[string]bool{"13": true}},
		"path without a slash":     {grpcFields(trustedRoot[1:]), empty, map[string]bool{"12": true}},
		"path with two":            {grpcFields("/" + trustedRoot), empty, map[string]bool{"12": true}},
		"path in another case":     {grpcFields(strings.ToLower(trustedRoot)), empty, map[string]bool{"12": true}},
		"private, path no slash":   {grpcFields(whoAmI[1:]), empty, map[string]bool{"12": true}},
		"two bearers":              {grpcFields(whoAmI, bearer, bearer), empty, map[string]bool{"16": true}},
		"bearer in capitals":       {grpcFields(whoAmI, [2]string{"authorization", strings.ToUpper(bearer[1])}), empty, map[string]bool{"16": true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := rawCall(t, l.addr(), tt.fields, tt.body)
			if !tt.want[got["grpc-status"]] && !tt.want[got["end"]] {
				t.Errorf("answer %v; want one of %v", got, tt.want)
			}
		})
	}
	// grpc answers these before any code of ours could add a reason.
	err := upload(l.ctx, l.conn, []*assayv1.AttestRequest{{Message: &assayv1.AttestRequest_Chunk{Chunk: make([]byte, 5<<20)}}})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a chunk of 5 MiB: %v", err)
	}
	_, err = assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: strings.Repeat("x", 5<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a unary message of 5 MiB: %v", err)
	}
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func manyFields(n int) (out [][2]string) {
	for i := range n {
		out = append(out, [2]string{fmt.Sprintf("x-%d", i), "value"})
	}
	return out
}

// TestHTTPLimits: the same over JSON.
func TestHTTPLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	subject := `{"digest":{"sha256":"` + okDigest + `"}}`
	for name, tt := range map[string]struct {
		method, path, body string
		header             [2]string
		status             int
		want               string
	}{
		"good":                   {"POST", "/v1/verify", `{"environment":"dev","subjects":[` + subject + `]}`, [2]string{}, 200, "NO_ATTESTATION"},
		"5 MiB":                  {"POST", "/v1/verify", `{"environment":"` + strings.Repeat("x", 5<<20) + `"}`, [2]string{}, 400, "too large"},
		"5 MiB of nothing":       {"POST", "/v1/verify", strings.Repeat(" ", 5<<20), [2]string{}, 400, "too large"},
		"deep":                   {"POST", "/v1/verify", `{"subjects":` + strings.Repeat("[", 100000), [2]string{}, 400, "REQUEST_INVALID"},
		"header of 24 KiB":       {"GET", "/v1/identity", "", [2]string{"X-Large", strings.Repeat("x", 24<<10)}, 431, "Too Large"},
		"another's origin":       {"POST", "/v1/verify", `{}`, [2]string{"Origin", "https://evil.example"}, 403, ""},
		"cross-site":             {"POST", "/v1/verify", `{}`, [2]string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		"method override":        {"POST", "/v1/identity", "", [2]string{"X-HTTP-Method-Override", "GET"}, 501, ""},
		"metadata through":       {"GET", "/v1/identity", "", [2]string{"Grpc-Metadata-Authorization", "Bearer x"}, 200, "octo-app"},
		"a timeout of nothing":   {"GET", "/v1/identity", "", [2]string{"Grpc-Timeout", "1n"}, 504, "DEADLINE_EXCEEDED"},
		"a timeout of nonsense":  {"GET", "/v1/identity", "", [2]string{"Grpc-Timeout", "x"}, 400, "REQUEST_INVALID"},
		"walks out of the log":   {"GET", "/log/%2e%2e/keys/attestation.pem", "", [2]string{}, 404, ""},
		"walks by a backslash":   {"GET", `/log/..%5ckeys%5cattestation.pem`, "", [2]string{}, 404, ""},
		"the log's lock":         {"GET", "/log/lock", "", [2]string{}, 404, ""},
		"the log's state":        {"GET", "/log/.state/treeState", "", [2]string{}, 404, ""},
		"a list of a directory":  {"GET", "/log/tile/", "", [2]string{}, 404, ""},
		"profiles":               {"GET", "/debug/pprof/", "", [2]string{}, 404, ""},
		"variables":              {"GET", "/debug/vars", "", [2]string{}, 404, ""},
		"a write to the log":     {"PUT", "/log/checkpoint", "x", [2]string{}, 405, ""},
		"a redirect to a host":   {"GET", "//evil.example/..", "", [2]string{}, 307, ""},
		"another attestation id": {"GET", "/v1/attestations/..%2f..%2fkeys", "", [2]string{}, 404, "NOT_FOUND"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, l.Server+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", bearerOf(l.ctx))
			req.Header.Set("Content-Type", "application/json")
			if tt.header[0] != "" {
				req.Header.Set(tt.header[0], tt.header[1])
			}
			noRedirects := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			resp, err := noRedirects.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || !bytes.Contains(body, []byte(tt.want)) {
				t.Errorf("%d; want %d with %q\n%.300s", resp.StatusCode, tt.status, tt.want, body)
			}
			if to := resp.Header.Get("Location"); strings.HasPrefix(to, "//") || strings.Contains(to, "evil") {
				t.Errorf("redirected to %q", to)
			}
		})
	}
}

// TestMetricSeries: what a client chooses makes no metric series.
func TestMetricSeries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	series := func() int {
		_, body := httpGet(t, l.Server+"/metrics")
		return strings.Count(body, "\nassay_")
	}
	_ = invoke(l.ctx, l.conn, "/unknown/method")
	l.decide(t, "dev", subject("a", "a"), "NO_ATTESTATION")
	l.decide(t, "dev-0", subject("a", "a"), "ENVIRONMENT_UNKNOWN")
	_, _ = l.exchange(t.Context(), "x")
	_, _ = httpGet(t, l.Server+"/v1/x")
	before := series()
	if before < 20 {
		t.Fatalf("%d series: the test tests nothing", before)
	}
	for i := range 2000 {
		if err := invoke(l.ctx, l.conn, fmt.Sprintf("/assay.v1.Service%d/Method%d", i, i)); status.Code(err) != codes.Unimplemented {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		_, _ = httpGet(t, fmt.Sprintf("%s/v1/%d/x", l.Server, i))
		l.decide(t, fmt.Sprint("dev-", i), subject(fmt.Sprint(i), fmt.Sprint(i)), "ENVIRONMENT_UNKNOWN")
		_, err := l.exchange(t.Context(), fmt.Sprint(i))
		wantReason(t, err, codes.Unauthenticated, "TOKEN_MALFORMED")
	}
	if after := series(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

// TestSlowPeers: peers that say little, over either protocol, hold up nobody.
func TestSlowPeers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	for i := range 300 {
		conn, err := net.Dial("tcp", l.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		say := []string{"", "P", "GET / HTTP/1.1\r\nHost: x\r\nX-", http2.ClientPreface[:10], http2.ClientPreface, "POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"}[i%6]
		if _, err := io.WriteString(conn, say); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); resetStreams(l.addr(), 20000) }()
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := l.exchange(ctx, w.issuer.Mint(w.instance)); err != nil {
			t.Errorf("beside 300 slow peers and one in haste: %v", err)
		}
	}
	<-done
	if code, _ := httpGet(t, l.Server+"/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
}

// TestPageBytes: however large what is stored, a page is not; and page after page
// everything is there once.
func TestPageBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	const large, small = 16, 30
	for i := range large {
		l.digests(t, l.ctx, manySubjects(i, 1000)...)
	}
	for i := range small {
		l.digests(t, l.ctx, manySubjects(large+i, 1)...)
	}
	for _, bundles := range []bool{true, false} {
		seen := make(map[string]int)
		pages := 0
		for token := ""; pages == 0 || token != ""; pages++ {
			resp, err := assayv1.NewAuditServiceClient(l.conn).ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{
				PageSize: 1000, PageToken: token, IncludeBundles: bundles,
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := proto.Size(resp); n > 16<<20 {
				t.Errorf("a page of %d bytes", n)
			}
			for _, a := range resp.GetAttestations() {
				seen[a.GetAttestationId()]++
			}
			token = resp.GetNextPageToken()
		}
		if len(seen) != large+small || bundles && pages < 2 {
			t.Errorf("%d attestations on %d pages; want %d", len(seen), pages, large+small)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s is there %d times", id, n)
			}
		}
	}
	exact, err := assayv1.NewAuditServiceClient(l.conn).ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{PageSize: 9, Filter: "slsa_build_level = 2", IncludeBundles: true})
	if err != nil || len(exact.GetAttestations()) != 9 || exact.GetNextPageToken() == "" {
		t.Errorf("a page of 9 has %d (%v)", len(exact.GetAttestations()), err)
	}
}

// resetStreams opens streams and resets each at once (CVE-2023-44487), until it
// has done so n times or the service hangs up.
func resetStreams(addr string, n int) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range grpcFields("/assay.v1.AuditService/GetTrustedRoot") {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	out := bufio.NewWriterSize(conn, 64<<10)
	framer := http2.NewFramer(out, nil)
	_, _ = out.WriteString(http2.ClientPreface)
	_ = framer.WriteSettings()
	for id := uint32(1); id < uint32(2*n); id += 2 {
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}) != nil ||
			framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			return
		}
	}
	_ = out.Flush()
}

// TestGracefulStop: a service that is told to stop finishes the upload under way
// and takes no other; what it acknowledged last is there in the next life.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	stream, err := assayv1.NewAttestationServiceClient(l.conn).Attest(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	send := func(messages ...*assayv1.AttestRequest) {
		t.Helper()
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(append([]*assayv1.AttestRequest{headerMessage(2)}, artifactMessages("one", []byte("one"))...)...)
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	l.drain()
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := assayv1.NewIdentityServiceClient(l.conn).WhoAmI(l.ctx, &assayv1.WhoAmIRequest{})
		if status.Code(err) == codes.Unavailable {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a stopping service goes on taking calls: %v", err)
		}
	}
	send(artifactMessages("two", []byte("two"))...)
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var result *assayv1.AttestResult
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the upload under way was cut off: %v", err)
		}
		if resp.GetResult() != nil {
			result = resp.GetResult()
		}
	}
	l.stop()
	next := w.start(t).login(t)
	a, err := assayv1.NewAuditServiceClient(next.conn).GetAttestation(next.ctx, &assayv1.GetAttestationRequest{AttestationId: result.GetAttestation().GetAttestationId()})
	if err != nil || !bytes.Equal(a.GetAttestation().GetBundle(), result.GetAttestation().GetBundle()) {
		t.Errorf("after the stop: %v", err)
	}
}
