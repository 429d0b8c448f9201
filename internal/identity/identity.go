// Package identity says who is calling: it turns one platform credential into a
// Caller, and a Caller into a session.
//
// # Credentials
//
// A Verifier holds the configured issuers. VerifyOIDC takes a compact JWS and
// believes it only if all of the following hold, checked in this order:
//
//  1. at most 8 KiB, exactly three parts, each strict base64url; a header and a
//     payload of strict JSON; alg and kid present; no key, certificate or URL in
//     the header (jwk, x5c, jku, x5u), no crit, nothing of a JWE;
//  2. iss equals a configured issuer, byte for byte; any other issuer causes no
//     outbound request at all;
//  3. alg is on that issuer's list (RS256 unless configured; never none or HS*),
//     and fits the type, the size and the own alg, use and key_ops of the key;
//  4. the key with that kid is in the issuer's key set, fetched from the issuer's
//     own host, at most an hour old, fetched again when a kid is unknown but no
//     more than once in ten seconds;
//  5. the signature is right. No claim but iss is looked at before this;
//  6. aud is exactly one of this deployment's names, or for people the client id,
//     and nothing besides; exp, iat and nbf are exact integers, within the clock
//     skew and the longest lifetime allowed;
//  7. jti is there. Buildkite and many identity providers set none: the token is
//     then named by the hash of what is signed;
//  8. the platform's claims are complete and well formed, and the caller is one
//     that the configuration allows: compared whole, ids as integers or digit for
//     digit, never by pattern. An issuer serves the world, or a whole company, so
//     one without such a list is refused when the Verifier is made;
//  9. where the configuration asks for it, the platform's own API agrees: GitHub's
//     about the run, CodeBuild's about the build that a pinned tag names. Neither is
//     asked about a token that has opened its session.
//
// The answer, Verified, carries the facts and the replay key.
//
// The types of issuers differ in what their claims become:
//
//	github-actions    a job of GitHub Actions (GitHubActions)
//	gitlab, buildkite a job, by a ClaimMapping that is data (Workload)
//	workload          anything else, by a configured ClaimMapping (Workload)
//	aws-web-identity  a role of one AWS account (AWSRole), or a build of CodeBuild
//	                  where an SCP pins the tag that names it (CodeBuild)
//	human             a person (Human)
//
// Other kinds of credential are other ways to a *Verified: AWS.VerifyProof takes a
// signed request of sts:GetCallerIdentity, and Certificates.Verify the client
// certificate of a TLS connection. A certificate is good for a workload's name
// only: exactly one SPIFFE ID or, without URI, exactly one DNS name, each listed
// whole for the one authority that vouches for it.
//
// # Sessions
//
// Sessions.Open consumes a Verified once, in the store, atomically, and hands
// out an opaque token of constant length:
//
//	"asy_" base64url( id[16] || HMAC-SHA256(key, id)[32] )
//
// Sessions.Check recomputes the MAC before anything else, so a forged token
// costs a hash and reaches neither cache nor database. What the store keeps for
// a session carries a second MAC over id, expiry and caller: somebody who can
// write to the database, but has not the key, cannot change who a session is.
//
//	v, err := identity.NewVerifier(identity.Config{
//		Audience: []string{"https://assay.example.com"},
//		Issuers: []identity.IssuerConfig{{
//			URL:             "https://token.actions.githubusercontent.com",
//			AllowedOwnerIDs: []int64{9919},
//		}, {
//			URL:   "https://gitlab.example.com",
//			Type:  identity.TypeGitLab,
//			Allow: map[string][]string{"namespace_id": {"72"}},
//		}},
//	})
//	…
//	verified, err := v.VerifyOIDC(ctx, token)           // once
//	session, expires, err := sessions.Open(ctx, verified)
//	…
//	caller, expires, err := sessions.Check(ctx, session) // every later call
package identity

import "time"

// Verified is a credential that was checked and not yet consumed.
type Verified struct {
	Caller *Caller
	// ReplayKey names the credential among all credentials of all issuers:
	// iss, NUL, jti; iss, two NULs and the hash of a token that has no jti; "sts",
	// NUL and the nonce of a proof; or the issuer of a certificate, NUL and a random
	// number. No part can contain a NUL.
	ReplayKey string
	// ExpiresAt is the end of the credential, skew included: from then on it is
	// refused by itself, and its replay key may be forgotten. The key of a
	// certificate is never seen again, and is kept for a minute.
	ExpiresAt time.Time
	// NotAfter, if not zero, is when a session opened for the credential ends at
	// the latest: the end of a client certificate.
	NotAfter time.Time
}
