package server_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/testenv/oidctest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type hostileToken struct {
	token  string
	reason string
}

// canary is a server that nobody has any business with; hits counts who came.
func canary(t *testing.T) (address string, hits *atomic.Int64) {
	t.Helper()
	hits = new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { hits.Add(1) }))
	t.Cleanup(srv.Close)
	return srv.URL, hits
}

// TestExchangeHostileTokens: every token here is refused with the code of its own
// flaw, opens no session, and makes the service talk to nobody but its issuer.
func TestExchangeHostileTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test:8780")
	l := w.start(t)
	trap, hits := canary(t)
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance)); err != nil {
		t.Fatalf("a good token: %v", err)
	}
	before := l.count(t, "sessions")
	cases := map[string]hostileToken{}
	for _, more := range []map[string]hostileToken{
		claimTokens(w), audienceTokens(w), headerTokens(t, w, trap), spelledTokens(w), callerTokens(w),
	} {
		for name, c := range more {
			if _, twice := cases[name]; twice || c.token == "" && name != "empty" {
				t.Fatalf("case %q is there twice or has no token", name)
			}
			cases[name] = c
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := l.exchange(t.Context(), c.token)
			code := codes.Unauthenticated
			if c.reason == "CALLER_NOT_ALLOWED" {
				code = codes.PermissionDenied
			}
			wantReason(t, err, code, c.reason)
			if sig := c.token[strings.LastIndexByte(c.token, '.')+1:]; len(sig) > 20 && strings.Contains(err.Error(), sig) {
				t.Error("the error repeats the token's signature")
			}
		})
	}
	if n := l.count(t, "sessions") - before; n != 0 {
		t.Errorf("%d sessions were opened by refused tokens", n)
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests went where a token pointed", n)
	}
}

// claimTokens are rightly signed, and wrong about time, issuer or what is there.
func claimTokens(w *world) map[string]hostileToken {
	now := w.now()
	mint := func(c oidctest.Claims) string { return w.issuer.Mint(w.instance, c) }
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	out := map[string]hostileToken{
		"expired":           {mint(oidctest.Claims{"iat": at(-time.Hour), "nbf": at(-time.Hour), "exp": at(-30 * time.Minute)}), "TOKEN_EXPIRED"},
		"issued later":      {mint(oidctest.Claims{"iat": at(10 * time.Minute), "nbf": nil, "exp": at(15 * time.Minute)}), "TOKEN_NOT_YET_VALID"},
		"valid later":       {mint(oidctest.Claims{"nbf": at(10 * time.Minute)}), "TOKEN_NOT_YET_VALID"},
		"lives for a day":   {mint(oidctest.Claims{"exp": at(24 * time.Hour)}), "TOKEN_LIFETIME_TOO_LONG"},
		"exp before iat":    {mint(oidctest.Claims{"exp": at(-time.Second)}), "TOKEN_CLAIM_INVALID"},
		"exp is text":       {mint(oidctest.Claims{"exp": "9999999999"}), "TOKEN_CLAIM_INVALID"},
		"exp is a fraction": {mint(oidctest.Claims{"exp": 1e300}), "TOKEN_CLAIM_INVALID"},
		"empty jti":         {mint(oidctest.Claims{"jti": ""}), "TOKEN_CLAIM_INVALID"},
		"iss with a slash":  {mint(oidctest.Claims{"iss": w.issuer.URL() + "/"}), "ISSUER_UNKNOWN"},
		"iss in capitals":   {mint(oidctest.Claims{"iss": strings.ToUpper(w.issuer.URL())}), "ISSUER_UNKNOWN"},
		"iss holding ours":  {mint(oidctest.Claims{"iss": "https://evil.example/?" + w.issuer.URL()}), "ISSUER_UNKNOWN"},
		"iss of GitHub":     {mint(oidctest.Claims{"iss": "https://token.actions.githubusercontent.com"}), "ISSUER_UNKNOWN"},
		"iss is a list":     {mint(oidctest.Claims{"iss": []string{w.issuer.URL()}}), "TOKEN_CLAIM_INVALID"},
	}
	for _, name := range []string{"exp", "iat", "jti", "iss", "aud", "repository_owner_id", "repository_id", "run_id", "job_workflow_ref", "runner_environment", "event_name"} {
		out["no "+name] = hostileToken{mint(oidctest.Claims{name: nil}), "TOKEN_CLAIM_MISSING"}
	}
	return out
}

// audienceTokens are for somebody else, or for somebody else too.
func audienceTokens(w *world) map[string]hostileToken {
	mint := func(aud any) string { return w.issuer.Forge(oidctest.Forgery{Claims: oidctest.Claims{"aud": aud}}) }
	return map[string]hostileToken{
		"aud of GitHub's default": {mint("https://github.com/octo-org"), "TOKEN_AUDIENCE_MISMATCH"},
		"aud of sigstore":         {mint("sigstore"), "TOKEN_AUDIENCE_MISMATCH"},
		"aud with one more":       {mint([]string{w.instance, "https://other.example"}), "TOKEN_AUDIENCE_MISMATCH"},
		"aud twice":               {mint([]string{w.instance, w.instance}), "TOKEN_AUDIENCE_MISMATCH"},
		"aud is a prefix":         {mint(w.instance[:len(w.instance)-1]), "TOKEN_AUDIENCE_MISMATCH"},
		"aud is longer":           {mint(w.instance + "/"), "TOKEN_AUDIENCE_MISMATCH"},
		"aud in capitals":         {mint(strings.ToUpper(w.instance)), "TOKEN_AUDIENCE_MISMATCH"},
		"aud is empty":            {mint(""), "TOKEN_AUDIENCE_MISMATCH"},
		"aud is an empty list":    {mint([]string{}), "TOKEN_AUDIENCE_MISMATCH"},
		"aud is a nested list":    {mint([]any{[]string{w.instance}}), "TOKEN_CLAIM_INVALID"},
		"aud is an object":        {mint(map[string]string{w.instance: "x"}), "TOKEN_CLAIM_INVALID"},
	}
}

// headerTokens bring a key, an algorithm or an instruction of their own.
func headerTokens(t *testing.T, w *world, trap string) map[string]hostileToken {
	t.Helper()
	own, err := issuerKey()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(own.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	aud := oidctest.Claims{"aud": w.instance}
	header := func(h map[string]any, alg string, key any) string {
		return w.issuer.Forge(oidctest.Forgery{Claims: aud, Header: h, Alg: alg, Key: key})
	}
	jwk := map[string]any{
		"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(foreign.N.Bytes()),
	}
	late := w.now().Add(-time.Hour).Unix()
	expired := oidctest.Claims{"aud": w.instance, "iat": late, "exp": late + 60}
	return map[string]hostileToken{
		"another's key":             {header(nil, "RS256", foreign), "TOKEN_SIGNATURE_INVALID"},
		"another's key and expired": {w.issuer.Forge(oidctest.Forgery{Claims: expired, Key: foreign}), "TOKEN_SIGNATURE_INVALID"},
		"alg none":                  {header(nil, "none", nil), "TOKEN_ALG_REFUSED"},
		"alg None":                  {header(nil, "None", nil), "TOKEN_ALG_REFUSED"},
		"alg empty":                 {header(map[string]any{"alg": ""}, "RS256", nil), "TOKEN_ALG_REFUSED"},
		"alg missing":               {header(map[string]any{"alg": nil}, "RS256", nil), "TOKEN_ALG_REFUSED"},
		"HS256 over the PEM key":    {header(nil, "HS256", public), "TOKEN_ALG_REFUSED"},
		"HS256 over the DER key":    {header(nil, "HS256", spki), "TOKEN_ALG_REFUSED"},
		"RS512":                     {header(nil, "RS512", nil), "TOKEN_ALG_REFUSED"},
		"PS256, not on the list":    {header(nil, "PS256", nil), "TOKEN_ALG_REFUSED"},
		"RS256 said, PS256 made":    {header(map[string]any{"alg": "RS256"}, "PS256", nil), "TOKEN_SIGNATURE_INVALID"},
		"jwk":                       {header(map[string]any{"jwk": jwk}, "RS256", foreign), "TOKEN_HEADER_REFUSED"},
		"jwk without kid":           {header(map[string]any{"jwk": jwk, "kid": nil}, "RS256", foreign), "TOKEN_HEADER_REFUSED"},
		"jku":                       {header(map[string]any{"jku": trap + "/jwks"}, "RS256", foreign), "TOKEN_HEADER_REFUSED"},
		"x5u":                       {header(map[string]any{"x5u": trap + "/chain.pem"}, "RS256", foreign), "TOKEN_HEADER_REFUSED"},
		"x5c":                       {header(map[string]any{"x5c": []string{"MIIB"}}, "RS256", foreign), "TOKEN_HEADER_REFUSED"},
		"crit":                      {header(map[string]any{"crit": []string{"exp"}}, "RS256", nil), "TOKEN_HEADER_REFUSED"},
		"b64":                       {header(map[string]any{"b64": false}, "RS256", nil), "TOKEN_HEADER_REFUSED"},
		"zip":                       {header(map[string]any{"zip": "DEF"}, "RS256", nil), "TOKEN_HEADER_REFUSED"},
		"typ of an access token":    {header(map[string]any{"typ": "at+jwt"}, "RS256", nil), "TOKEN_HEADER_REFUSED"},
		"no kid":                    {header(map[string]any{"kid": nil}, "RS256", nil), "TOKEN_KID_MISSING"},
		"empty kid":                 {header(map[string]any{"kid": ""}, "RS256", nil), "TOKEN_KID_MISSING"},
		"unknown kid":               {header(map[string]any{"kid": "../../keys/attestation.pem"}, "RS256", nil), "TOKEN_KEY_UNKNOWN"},
	}
}

// spelledTokens are not the one spelling of a token that counts.
func spelledTokens(w *world) map[string]hostileToken {
	good := w.issuer.Mint(w.instance)
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	raw := func(header, payload string) string {
		f := oidctest.Forgery{Claims: oidctest.Claims{"aud": w.instance}}
		if header != "" {
			f.RawHeader = []byte(header)
		}
		if payload != "" {
			f.RawPayload = []byte(payload)
		}
		return w.issuer.Forge(f)
	}
	kid := w.issuer.KeyID()
	return map[string]hostileToken{
		"empty":                   {"", "TOKEN_MALFORMED"},
		"one dot":                 {parts[0] + "." + parts[1], "TOKEN_MALFORMED"},
		"JWE":                     {"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA", "TOKEN_MALFORMED"},
		"dots":                    {strings.Repeat(".", 8<<10), "TOKEN_MALFORMED"},
		"a MiB of dots":           {strings.Repeat(".", 1<<20), "TOKEN_TOO_LARGE"},
		"9 KiB":                   {w.issuer.Mint(w.instance, oidctest.Claims{"padding": strings.Repeat("x", 9<<10)}), "TOKEN_TOO_LARGE"},
		"padded":                  {good + "=", "TOKEN_MALFORMED"},
		"line break":              {good[:len(good)-4] + "\n" + good[len(good)-4:], "TOKEN_MALFORMED"},
		"blank before":            {" " + good, "TOKEN_MALFORMED"},
		"standard alphabet":       {parts[0] + "." + parts[1] + "." + strings.Repeat("+", len(parts[2])), "TOKEN_MALFORMED"},
		"signature gone":          {parts[0] + "." + parts[1] + ".", "TOKEN_SIGNATURE_INVALID"},
		"signature cut":           {parts[0] + "." + parts[1] + "." + parts[2][:128], "TOKEN_SIGNATURE_INVALID"},
		"other payload":           {parts[0] + "." + b64([]byte(`{"iss":"`+w.issuer.URL()+`"}`)) + "." + parts[2], "TOKEN_SIGNATURE_INVALID"},
		"header is a list":        {raw(`["RS256"]`, ""), "TOKEN_MALFORMED"},
		"header is not JSON":      {raw(`alg=RS256`, ""), "TOKEN_MALFORMED"},
		"alg twice":               {raw(`{"alg":"none","alg":"RS256","kid":"`+kid+`"}`, ""), "TOKEN_MALFORMED"},
		"alg in two cases":        {raw(`{"alg":"RS256","ALG":"none","kid":"`+kid+`"}`, ""), "TOKEN_MALFORMED"},
		"payload is null":         {raw("", `null`), "TOKEN_MALFORMED"},
		"iss twice":               {raw("", `{"iss":"https://evil.example","iss":"`+w.issuer.URL()+`"}`), "TOKEN_MALFORMED"},
		"payload nested too deep": {raw("", strings.Repeat(`{"a":`, 100)+"1"+strings.Repeat("}", 100)), "TOKEN_MALFORMED"},
	}
}

// callerTokens are GitHub's own, of somebody who is not to call here or with
// claims that GitHub would not write.
func callerTokens(w *world) map[string]hostileToken {
	mint := func(c oidctest.Claims) string { return w.issuer.Mint(w.instance, c) }
	id := func(v any) string { return mint(oidctest.Claims{"repository_owner_id": v}) }
	return map[string]hostileToken{
		"another owner": {mint(oidctest.Claims{"repository": "evil/octo-app", "repository_owner": "evil", "repository_owner_id": "666",
			"workflow_ref": "evil/octo-app/.github/workflows/r.yml@refs/heads/main"}), "CALLER_NOT_ALLOWED"},
		"same name, other owner":     {id("65438920"), "CALLER_NOT_ALLOWED"},
		"owner id with a digit more": {id("654389211"), "CALLER_NOT_ALLOWED"},
		"owner id inside":            {id("165438921"), "CALLER_NOT_ALLOWED"},
		"owner id with a zero":       {id("065438921"), "TOKEN_CLAIM_INVALID"},
		"owner id with a sign":       {id("+65438921"), "TOKEN_CLAIM_INVALID"},
		"owner id with a blank":      {id(" 65438921"), "TOKEN_CLAIM_INVALID"},
		"owner id is a number":       {id(65438921), "TOKEN_CLAIM_INVALID"},
		"owner id is huge":           {id("18446744073774990537"), "TOKEN_CLAIM_INVALID"}, // ours modulo 2^64
		"owner of the id only":       {mint(oidctest.Claims{"repository": "evil/octo-app"}), "TOKEN_CLAIM_INVALID"},
		"repository walks":           {mint(oidctest.Claims{"repository": "octo-org/.."}), "TOKEN_CLAIM_INVALID"},
		"repository with a newline":  {mint(oidctest.Claims{"repository": "octo-org/app\r\nx-admin: 1"}), "TOKEN_CLAIM_INVALID"},
		"ref with escapes":           {mint(oidctest.Claims{"ref": "refs/heads/\x1b[31m"}), "TOKEN_CLAIM_INVALID"},
		"unknown runner":             {mint(oidctest.Claims{"runner_environment": "my-laptop"}), "TOKEN_CLAIM_INVALID"},
		"sha of seven":               {mint(oidctest.Claims{"sha": "6113728"}), "TOKEN_CLAIM_INVALID"},
		"event in capitals":          {mint(oidctest.Claims{"event_name": "PUSH"}), "TOKEN_CLAIM_INVALID"},
	}
}

// TestExchangeRace: of 50 concurrent exchanges of one token one opens a session,
// in the real database.
func TestExchangeRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	token := w.issuer.Mint(w.instance)
	var wg sync.WaitGroup
	var opened, replayed atomic.Int64
	start := make(chan struct{})
	for range 50 {
		wg.Go(func() {
			<-start
			_, err := l.exchange(t.Context(), token)
			switch reason, _ := reasonOf(err); {
			case err == nil:
				opened.Add(1)
			case reason == "TOKEN_REPLAYED" && status.Code(err) == codes.Unauthenticated:
				replayed.Add(1)
			default:
				t.Errorf("%v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	if opened.Load() != 1 || replayed.Load() != 49 {
		t.Errorf("%d opened, %d replayed; want 1 and 49", opened.Load(), replayed.Load())
	}
	if n := l.count(t, "sessions"); n != 1 {
		t.Errorf("%d sessions are stored", n)
	}
	// The jti is what is consumed, not the text: the same one under another signature.
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance, oidctest.Claims{"jti": "one"})); err != nil {
		t.Fatal(err)
	}
	_, err := l.exchange(t.Context(), w.issuer.Mint(w.instance, oidctest.Claims{"jti": "one", "actor": "someone-else"}))
	wantReason(t, err, codes.Unauthenticated, "TOKEN_REPLAYED")
}

// TestExchangeIssuerAway: where the issuer's keys cannot be had, nobody gets in,
// and the answer says that trying again may help.
func TestExchangeIssuerAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	trap, hits := canary(t)
	answer := func(status int, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status); _, _ = rw.Write([]byte(body)) }
	}
	discovery := func(issuer, jwks string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "openid-configuration") {
				_, _ = rw.Write([]byte(`{"issuer":"` + issuer + `","jwks_uri":"` + jwks + `"}`))
				return
			}
			w.issuer.Handler().ServeHTTP(rw, r)
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"503":                     answer(503, ""),
		"429":                     answer(429, ""),
		"404":                     answer(404, ""),
		"hangs up":                func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"redirects":               func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, trap, http.StatusFound) },
		"not JSON":                answer(200, "<html>"),
		"empty":                   answer(200, ""),
		"endless":                 answer(200, strings.Repeat(" ", 1<<20)),
		"document of another":     discovery("https://evil.example", w.issuer.URL()+"/.well-known/jwks"),
		"keys of another host":    discovery(w.issuer.URL(), trap+"/jwks"),
		"keys of another scheme":  discovery(w.issuer.URL(), "file:///etc/passwd"),
		"document names it twice": answer(200, `{"issuer":"`+w.issuer.URL()+`","issuer":"x","jwks_uri":"`+w.issuer.URL()+`/.well-known/jwks"}`),
	} {
		t.Run(name, func(t *testing.T) {
			w.broken.Store(&h)
			w.advance(11 * time.Second) // beyond the least time between two fetches
			resp, err := l.exchange(t.Context(), w.issuer.Mint(w.instance))
			wantReason(t, err, codes.Unavailable, "ISSUER_UNAVAILABLE")
			if !hasRetryInfo(err) || resp.GetSessionToken() != "" {
				t.Errorf("retry info %t, session %q", hasRetryInfo(err), resp.GetSessionToken())
			}
		})
	}
	if l.count(t, "sessions") != 0 || l.count(t, "consumed") != 0 || hits.Load() != 0 {
		t.Errorf("%d sessions, %d tokens consumed, %d requests to a stranger; want none", l.count(t, "sessions"), l.count(t, "consumed"), hits.Load())
	}
	w.broken.Store(nil)
	w.advance(11 * time.Second)
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance)); err != nil {
		t.Fatalf("the issuer is back: %v", err)
	}
	gone := answer(503, "")
	w.broken.Store(&gone)
	w.advance(30 * time.Minute) // known keys are good for an hour
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance)); err != nil {
		t.Fatalf("with known keys: %v", err)
	}
	w.advance(31 * time.Minute)
	_, err := l.exchange(t.Context(), w.issuer.Mint(w.instance))
	wantReason(t, err, codes.Unavailable, "ISSUER_UNAVAILABLE")
}

func hasRetryInfo(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().AsDuration() > 0 {
			return true
		}
	}
	return false
}

// TestExchangeWithdrawnKey: a key that its issuer withdrew opens nothing once the
// key set is read again; the new one does at once.
func TestExchangeWithdrawnKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t).login(t)
	soon := w.now().Add(11 * time.Minute)
	old := w.issuer.Mint(w.instance, oidctest.Claims{"iat": soon.Unix(), "nbf": soon.Unix(), "exp": soon.Add(5 * time.Minute).Unix()})
	if err := w.issuer.Rotate(); err != nil {
		t.Fatal(err)
	}
	w.issuer.DropOldKeys()
	w.advance(11 * time.Minute)
	_, err := l.exchange(t.Context(), old)
	wantReason(t, err, codes.Unauthenticated, "TOKEN_KEY_UNKNOWN")
	if _, err := l.exchange(t.Context(), w.issuer.Mint(w.instance)); err != nil {
		t.Errorf("the new key: %v", err)
	}
}

// TestExchangeAbandoned: a caller that goes away leaves no session that answers to
// nobody's name, and its token is not half consumed.
func TestExchangeAbandoned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	l := w.start(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		_, _ = l.exchange(ctx, w.issuer.Mint(w.instance))
		cancel()
	}
	l.stop() // an abandoned handler may still be committing; a graceful stop waits for it
	if s, c := l.count(t, "sessions"), l.count(t, "consumed"); s != c {
		t.Errorf("%d sessions for %d consumed tokens", s, c)
	}
}
