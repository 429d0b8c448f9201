package client

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"iter"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// trustedRootMediaType starts the mediaType of every Sigstore TrustedRoot; what
// follows is the version.
const trustedRootMediaType = "application/vnd.dev.sigstore.trustedroot"

// ListOptions narrows a list. The zero value lists everything, newest first.
type ListOptions struct {
	// Filter is an AIP-160 filter, for example `source_uri = "…" AND create_time > "…"`.
	Filter string
	// OrderBy is "create_time desc" (the default) or "create_time".
	OrderBy string
	// PageSize is how many rows come with one call, 1 to 1000; 0 leaves it to the server.
	PageSize int
	// IncludeBundles fetches the bundle with each attestation.
	IncludeBundles bool
}

// ListAttestations yields attestations, fetching page after page as they are
// consumed. An error is yielded last.
func (c *Client) ListAttestations(ctx context.Context, o ListOptions) iter.Seq2[*assayv1.Attestation, error] {
	return pages(func(token string) (rows []*assayv1.Attestation, next string, err error) {
		err = c.authenticated(ctx, unaryTimeout, func(ctx context.Context) error {
			resp, err := c.audit.ListAttestations(ctx, &assayv1.ListAttestationsRequest{
				PageSize: int32(o.PageSize), PageToken: token, Filter: o.Filter, OrderBy: o.OrderBy, IncludeBundles: o.IncludeBundles,
			})
			rows, next = resp.GetAttestations(), resp.GetNextPageToken()
			return err
		})
		return rows, next, err
	})
}

// ListDecisions yields decisions like ListAttestations. IncludeBundles has no
// meaning here.
func (c *Client) ListDecisions(ctx context.Context, o ListOptions) iter.Seq2[*assayv1.Decision, error] {
	return pages(func(token string) (rows []*assayv1.Decision, next string, err error) {
		err = c.authenticated(ctx, unaryTimeout, func(ctx context.Context) error {
			resp, err := c.audit.ListDecisions(ctx, &assayv1.ListDecisionsRequest{
				PageSize: int32(o.PageSize), PageToken: token, Filter: o.Filter, OrderBy: o.OrderBy,
			})
			rows, next = resp.GetDecisions(), resp.GetNextPageToken()
			return err
		})
		return rows, next, err
	})
}

// maxEmptyPages bounds the pages without a row that are read in a row; a filter
// may well skip some.
const maxEmptyPages = 100

// pages turns a paged list into an iterator. It ends also for a server that
// hands out page tokens for ever.
func pages[T any](fetch func(token string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		token, empty := "", 0
		for {
			rows, next, err := fetch(token)
			if err != nil {
				yield(zero, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			if len(rows) > 0 {
				empty = 0
			} else {
				empty++
			}
			if next == token || empty > maxEmptyPages {
				yield(zero, dishonest("the list does not end: %d empty pages, the last page token repeated: %t", empty, next == token))
				return
			}
			token = next
		}
	}
}

// GetAttestation returns one attestation with its bundle, checked against its id.
func (c *Client) GetAttestation(ctx context.Context, id string) (*assayv1.Attestation, error) {
	a, err := c.fetchAttestation(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := checkAttestation(a); err != nil {
		return nil, err
	}
	return a, nil
}

// fetchAttestation returns an attestation of which nothing is checked but that its
// index entry has the id.
func (c *Client) fetchAttestation(ctx context.Context, id string) (*assayv1.Attestation, error) {
	if err := attest.CheckDigest("sha256", id); err != nil {
		return nil, badInput("ATTESTATION_ID_INVALID", "%q is not an attestation id: want 64 lower-case hex digits", id)
	}
	var resp *assayv1.GetAttestationResponse
	err := c.authenticated(ctx, unaryTimeout, func(ctx context.Context) (err error) {
		resp, err = c.audit.GetAttestation(ctx, &assayv1.GetAttestationRequest{AttestationId: id})
		return err
	})
	if err != nil {
		return nil, err
	}
	a := resp.GetAttestation()
	if a.GetAttestationId() != id {
		return nil, dishonest("attestation %q where %q was asked for", a.GetAttestationId(), id)
	}
	return a, nil
}

// TrustedRoot is what verifiers of this server's attestations start from. It is
// only as good as the way it came: fetch it once, over TLS, and keep it.
type TrustedRoot struct {
	// JSON is a Sigstore TrustedRoot.
	JSON []byte
	// AttestationKeysPEM holds the attestation public keys as PEM "PUBLIC KEY" blocks.
	AttestationKeysPEM []byte
}

// GetTrustedRoot returns what Config.Trust has verified. Where that has not been
// initialized it fetches the trusted root from the server, without a credential.
func (c *Client) GetTrustedRoot(ctx context.Context) (*TrustedRoot, error) {
	if c.trust != nil && c.trust.Initialized() {
		state, err := c.trust.Current(ctx)
		if err != nil {
			return nil, err
		}
		return &state.TrustedRoot, nil
	}
	var resp *assayv1.GetTrustedRootResponse
	err := c.anonymous(ctx, unaryTimeout, func(ctx context.Context) (err error) {
		resp, err = c.audit.GetTrustedRoot(ctx, &assayv1.GetTrustedRootRequest{})
		return err
	})
	if err != nil {
		return nil, err
	}
	var root struct {
		MediaType string `json:"mediaType"`
	}
	if err := attest.CheckJSON(resp.GetTrustedRoot(), maxMessageBytes); err != nil {
		return nil, dishonest("the trusted root: %w", err)
	}
	if err := json.Unmarshal(resp.GetTrustedRoot(), &root); err != nil {
		return nil, dishonest("the trusted root: %w", err)
	}
	if !strings.HasPrefix(root.MediaType, trustedRootMediaType) {
		return nil, dishonest("the trusted root is a %q", root.MediaType)
	}
	keys, err := publicKeys([]byte(resp.GetAttestationKeysPem()))
	if err != nil {
		return nil, err
	}
	return &TrustedRoot{JSON: resp.GetTrustedRoot(), AttestationKeysPEM: keys}, nil
}

// publicKeys returns the PEM again with nothing but the keys in it: no headers,
// no text between blocks.
func publicKeys(text []byte) ([]byte, error) {
	var out []byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || block.Type != "PUBLIC KEY" {
			return nil, dishonest("the attestation keys hold a %q that is no public key", block.Type)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(out) == 0 {
		return nil, dishonest("there are no attestation keys")
	}
	return out, nil
}

// Identity is who the server holds the caller to be.
type Identity = assayv1.WhoAmIResponse

// WhoAmI opens a session if none is open and returns who it belongs to.
func (c *Client) WhoAmI(ctx context.Context) (*Identity, error) {
	var resp *assayv1.WhoAmIResponse
	err := c.authenticated(ctx, unaryTimeout, func(ctx context.Context) (err error) {
		resp, err = c.identity.WhoAmI(ctx, &assayv1.WhoAmIRequest{})
		return err
	})
	if err != nil {
		return nil, err
	}
	if resp.GetCaller() == nil {
		return nil, dishonest("WhoAmI names nobody")
	}
	return resp, nil
}
