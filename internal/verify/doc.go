// Package verify turns bytes into evidence, or refuses with a code.
//
// A Sigstore bundle, a trust root and what the caller expects go in. Out comes an
// [Evidence], which says what was proved, or a refusal whose code names the one
// check that failed. There is no third result: no warning, no partial success and
// no boolean. The zero Evidence is invalid, its fields cannot be set from outside,
// and package policy judges nothing else, so unverified data cannot reach a
// decision.
//
// The package does no I/O and has no clock. Time comes only from what a trusted
// party signed: an RFC 3161 timestamp or a log's signed entry timestamp.
//
// # Two entrances, one result
//
// [Verifier.Verify] takes bundles of any Sigstore instance: versions 0.1 to 0.3,
// signed with a certificate or a managed key, over an envelope or over an
// artifact, logged in Rekor 1 or Rekor 2. It checks in this order
//
//	JSON       one strict reading: no duplicate, case-variant or unknown names
//	version    a media type we know
//	material   a certificate or a key, and the kind that is expected
//	content    exactly one signature
//	signature  over the envelope (or artifact), by that certificate or key
//	log entry  names this signature, this digest and this key
//	proof      leaf hash to root hash to a checkpoint signed by a known log
//	promise    the signed entry timestamp, where there is one
//	time       each timestamp is over this signature, by a known authority
//	signer     certificate chain and SCT, or key window, at every trusted time
//	identity   subject alternative name and issuer, matched whole
//	presence   at least one trusted time and one log entry were found
//	statement  a known payload type, one strict reading, the expected subject
//	judge      sigstore-go, from the raw bytes, must accept too
//
// and whatever is present must verify: a bad second timestamp is not ignored
// because the first was good. The thresholds are constants and they are one.
//
// [Verifier.VerifyOwn] takes bundles that this instance made itself, which have
// one shape. It makes every check of the other path with two or three signature
// verifications instead of five to seven, because checkpoints are shared by a batch
// of entries and the timestamp authority's chain does not change. Whatever it
// accepts, sigstore-go accepts; a test over every single-byte change of a bundle
// holds the two together.
//
// A bundle of ours is signed by a key that the Root names, ECDSA P-256 or P-384 or RSA
// with PSS, or by the key of a certificate. A certificate costs two verifications more,
// its issuer's signature and its SCT; that the issuer's own certificate is good is found
// out once for each Root. Of our own certificates more is wanted than sigstore-go wants:
// exactly one name, a provider, the one purpose of signing code, and no SCT that does
// not verify.
//
// A [Detached] co-signature is made with ML-DSA-65 over what the bundle's signature is
// over. It is kept beside the bundle, because a bundle has room for one signature, and
// is verified with it.
//
// # Windows
//
// Keys, certificates, authorities and logs count in a window, and both of its ends are
// inside. Every trusted time of a bundle must be in the window of its signer and of all
// above it. A log's window is asked for the times that the log signs itself: that of a
// promise, which only rekor-v1 entries have, and that of an SCT. A checkpoint has no
// time, so a rekor-v2 entry in the tree of a key that was retired, or of a log shard
// that was closed, stands for as long as the Root lists it.
//
// # Example
//
//	root, err := verify.NewRoot(trustedRootJSON, verify.PublicKey{PEM: attestationKey})
//	v := verify.New(root)
//	ev, err := v.Verify(bundle, verify.Expectation{
//		Artifact: []verify.Digest{{Algorithm: "sha256", Hex: "5f70bf18…"}},
//		Identity: &verify.Identity{
//			SAN:    "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1",
//			Issuer: "https://token.actions.githubusercontent.com",
//		},
//	})
//	if err != nil {
//		return refusal.CodeOf(err) // for example LOG_ENTRY_MISMATCH
//	}
//	fmt.Println(ev.Identity(), ev.SigningTime())
package verify
