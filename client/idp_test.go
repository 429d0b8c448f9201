package client

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/assay-build/assay/internal/testenv/oidctest"
)

// idpKey is shared: making one takes longer than all else.
var idpKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// fakeIdP is an identity provider whose answers a test may change: each function
// is given the honest one.
type fakeIdP struct {
	URL, ClientID string
	idp           *oidctest.IdP

	Discovery, Token, Device func(map[string]any)
	// OnToken answers token requests altogether.
	OnToken http.HandlerFunc
}

func newFakeIdP(t *testing.T) *fakeIdP {
	t.Helper()
	p := &fakeIdP{ClientID: "assay-cli"}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	p.URL = srv.URL
	var err error
	if p.idp, err = oidctest.NewIdP(oidctest.IdPConfig{BaseURL: srv.URL, ClientID: p.ClientID, Device: true, Key: idpKey()}); err != nil {
		t.Fatal(err)
	}
	p.Discovery = func(map[string]any) {}
	return p
}

func (p *fakeIdP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	change := map[string]func(map[string]any){
		"/.well-known/openid-configuration": func(doc map[string]any) {
			doc["authorization_response_iss_parameter_supported"] = true
			p.Discovery(doc)
		},
		"/token": p.Token, "/device_authorization": p.Device,
	}[r.URL.Path]
	switch {
	case r.URL.Path == "/device": // the page behind verification_uri
		p.idp.ApproveDevice(r.URL.Query().Get("user_code"), true)
	case r.URL.Path == "/token" && p.OnToken != nil:
		p.OnToken(w, r)
	case change == nil:
		p.idp.Handler().ServeHTTP(w, r)
	default:
		rec := httptest.NewRecorder()
		p.idp.Handler().ServeHTTP(rec, r)
		var body map[string]any
		if json.Unmarshal(rec.Body.Bytes(), &body) == nil && rec.Code == http.StatusOK {
			change(body)
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_ = json.NewEncoder(w).Encode(body) // a client that went away
	}
}

// browse goes to an address as a browser would, and on to where it is led.
func browse(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	return string(page), err
}
