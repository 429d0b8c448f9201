package client

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// listing serves pages and counts them.
func listing(s *clienttest.Server, pages [][]string) *int {
	calls := new(int)
	s.OnListAttestations = func(_ context.Context, req *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
		*calls++
		i, _ := strconv.Atoi(req.GetPageToken())
		resp := &assayv1.ListAttestationsResponse{}
		for _, id := range pages[i] {
			resp.Attestations = append(resp.Attestations, &assayv1.Attestation{AttestationId: id})
		}
		if i+1 < len(pages) {
			resp.NextPageToken = strconv.Itoa(i + 1)
		}
		return resp, nil
	}
	return calls
}

func TestListAttestations(t *testing.T) {
	s := clienttest.New(t)
	calls := listing(s, [][]string{{"a", "b"}, {}, {"c"}})
	c, _ := dial(t, s)
	var got []string
	for at, err := range c.ListAttestations(t.Context(), ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, at.GetAttestationId())
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("listed %q", got)
	}
	*calls = 0
	for range c.ListAttestations(t.Context(), ListOptions{}) {
		break
	}
	if *calls != 1 {
		t.Errorf("%d pages were fetched for one row", *calls)
	}
}

// TestListEnds: a server that hands out pages for ever.
func TestListEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		next func(call int) string
	}{
		{"the same token", func(int) string { return "again" }},
		{"ever new tokens", strconv.Itoa},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			calls := 0
			s.OnListAttestations = func(context.Context, *assayv1.ListAttestationsRequest) (*assayv1.ListAttestationsResponse, error) {
				calls++
				return &assayv1.ListAttestationsResponse{NextPageToken: tt.next(calls)}, nil
			}
			c, _ := dial(t, s)
			var last error
			for _, err := range c.ListAttestations(t.Context(), ListOptions{}) {
				last = err
			}
			wantDishonest(t, last, "does not end")
			if calls > maxEmptyPages+1 {
				t.Errorf("%d pages were fetched", calls)
			}
		})
	}
}

func TestGetAttestation(t *testing.T) {
	at := clienttest.Attestation(&assayv1.Subject{Name: "a", Digest: map[string]string{"sha256": digestOf("A")}})
	other := clienttest.Attestation(&assayv1.Subject{Name: "a", Digest: map[string]string{"sha256": digestOf("B")}})
	s := clienttest.New(t)
	var answer *assayv1.Attestation
	s.OnGetAttestation = func(context.Context, *assayv1.GetAttestationRequest) (*assayv1.GetAttestationResponse, error) {
		return &assayv1.GetAttestationResponse{Attestation: answer}, nil
	}
	c, _ := dial(t, s)
	answer = at
	if got, err := c.GetAttestation(t.Context(), at.GetAttestationId()); err != nil || got.GetAttestationId() != at.GetAttestationId() {
		t.Error(err)
	}
	answer = other
	_, err := c.GetAttestation(t.Context(), at.GetAttestationId())
	wantDishonest(t, err, "was asked for")
	answer = nil
	_, err = c.GetAttestation(t.Context(), at.GetAttestationId())
	wantDishonest(t, err, "was asked for")
	// The right id on the wrong statement.
	answer = clienttest.Attestation(other.GetSubjects()...)
	answer.AttestationId = at.GetAttestationId()
	_, err = c.GetAttestation(t.Context(), at.GetAttestationId())
	wantDishonest(t, err, "statement of another")
	for _, id := range []string{"", "abc", strings.ToUpper(digestOf("x")), "../" + digestOf("x")} {
		_, err := c.GetAttestation(t.Context(), id)
		wantCode(t, err, "ATTESTATION_ID_INVALID")
	}
}

func TestGetTrustedRoot(t *testing.T) {
	const root = `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`
	key := string(clienttest.KeyPEM())
	for _, tt := range []struct{ name, root, keys, text string }{
		{"honest", root, key, ""},
		{"two keys", root, key + key, ""},
		{"no JSON", "<html>", key, "trusted root"},
		{"another type", `{"mediaType":"text/html"}`, key, "trusted root"},
		{"two types", `{"mediaType":"x",` + root[1:], key, "trusted root"},
		{"empty", "", key, "trusted root"},
		{"no keys", root, "", "no attestation keys"},
		{"no PEM", root, "hello", "no attestation keys"},
		{"a private key", root, strings.ReplaceAll(key, "PUBLIC", "PRIVATE"), "no public key"},
		{"garbage in PEM", root, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			s.OnGetTrustedRoot = func(context.Context, *assayv1.GetTrustedRootRequest) (*assayv1.GetTrustedRootResponse, error) {
				return &assayv1.GetTrustedRootResponse{TrustedRoot: []byte(tt.root), AttestationKeysPem: "text\x1b[31m\n" + tt.keys}, nil
			}
			c, _ := dial(t, s)
			got, err := c.GetTrustedRoot(t.Context())
			if tt.text != "" {
				wantDishonest(t, err, tt.text)
				return
			}
			if err != nil || string(got.JSON) != tt.root || string(got.AttestationKeysPEM) != tt.keys {
				t.Errorf("%+v, %v", got, err)
			}
			if s.Exchanges.Load() != 0 {
				t.Error("a session was opened")
			}
		})
	}
}

func TestWhoAmINobody(t *testing.T) {
	s := clienttest.New(t)
	s.OnWhoAmI = func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		return &assayv1.WhoAmIResponse{}, nil
	}
	c, _ := dial(t, s)
	_, err := c.WhoAmI(t.Context())
	wantDishonest(t, err, "nobody")
}
