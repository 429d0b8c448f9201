package client

import (
	"context"
	"time"

	"github.com/assay-build/assay/internal/stsproof"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/metadata"
)

const (
	// sessionMargin is how long before its end a session is given up, so that it
	// does not end while a call is on its way.
	sessionMargin = 30 * time.Second
	// maxSessionToken bounds what is sent back with every call.
	maxSessionToken = 4096
)

// sessions opens a session when one is first needed and keeps it while it is good.
type sessions struct {
	identity assayv1.IdentityServiceClient
	source   CredentialSource
	audience string
	now      func() time.Time

	// turn holds one item while somebody reads or opens the session. It is a
	// channel, not a mutex, so that waiting ends with the caller's context. It is
	// held across the exchange: concurrent callers share one session instead of
	// spending a platform token each.
	turn    chan struct{}
	current string
	goodTil time.Time
}

func newSessions(identity assayv1.IdentityServiceClient, source CredentialSource, audience string, now func() time.Time) *sessions {
	return &sessions{identity: identity, source: source, audience: audience, now: now, turn: make(chan struct{}, 1)}
}

// token returns a session token that is good now.
func (s *sessions) token(ctx context.Context) (string, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", fromStatus(ctx.Err())
	}
	if s.current != "" && s.now().Before(s.goodTil) {
		return s.current, nil
	}
	return s.open(ctx)
}

// open exchanges a credential for a session. The credential is fetched anew at
// each attempt: it works once, and an Exchange whose answer was lost may have
// consumed it. The caller holds s.turn.
func (s *sessions) open(ctx context.Context) (string, error) {
	if s.source == nil {
		return "", newError(ErrUnauthenticated, CodeCredentialMissing, "this call needs a credential and none is configured")
	}
	req, err := s.credential(ctx)
	if err != nil {
		return "", err
	}
	resp, err := s.identity.Exchange(ctx, req)
	if err != nil {
		return "", fromStatus(err)
	}
	token := resp.GetSessionToken()
	if !validToken(token) {
		return "", dishonest("Exchange returned a session token of %d bytes that cannot go into a header", len(token))
	}
	// A clock that runs ahead of the server's finds every session expired; the
	// token is used all the same for the call at hand.
	s.current, s.goodTil = token, resp.GetExpireTime().AsTime().Add(-sessionMargin)
	return token, nil
}

func (s *sessions) credential(ctx context.Context) (*assayv1.ExchangeRequest, error) {
	if source, ok := s.source.(challenged); ok {
		return source.CredentialWithChallenge(ctx, s.audience, s.challenge)
	}
	return s.source.Credential(ctx, s.audience)
}

// challenge asks the server for a nonce. What gets signed is our audience in any
// case; a server that names another could not accept the proof, or collects proofs
// for somebody else. Either way nothing is sent.
func (s *sessions) challenge(ctx context.Context) (*assayv1.ChallengeResponse, error) {
	resp, err := s.identity.Challenge(ctx, &assayv1.ChallengeRequest{})
	if err != nil {
		return nil, fromStatus(err)
	}
	if resp.GetAudience() != s.audience {
		return nil, dishonest("Challenge is for audience %.200q; the configured one is %q", resp.GetAudience(), s.audience)
	}
	if n := len(resp.GetNonce()); n != stsproof.NonceBytes {
		return nil, dishonest("Challenge has a nonce of %d bytes, not %d", n, stsproof.NonceBytes)
	}
	return resp, nil
}

// drop forgets a session the server called expired, unless a newer one has
// taken its place already.
func (s *sessions) drop(token string) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.current == token {
		s.current = ""
	}
}

func validToken(token string) bool {
	if token == "" || len(token) > maxSessionToken {
		return false
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return true
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}
