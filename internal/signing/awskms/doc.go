// Package awskms signs with keys that AWS KMS keeps.
//
// # References
//
// A key is named as cosign names it, and in no other spelling:
//
//	awskms:///1234abcd-12ab-34cd-56ef-1234567890ab
//	awskms:///mrk-1234abcd12ab34cd56ef1234567890ab
//	awskms:///arn:aws:kms:eu-west-1:111122223333:key/1234abcd-…
//	awskms:///alias/assay-attestation
//	awskms:///arn:aws-eusc:kms:eusc-de-east-1:111122223333:alias/assay-attestation
//
// An ARN is asked for in its own region, anything else in Config.AWS.Region. A host
// before the third slash is refused: a reference that could say where the service's
// credentials are sent would be worth more to an attacker than the key.
//
// # From reference to signature
//
// Resolve asks KMS once what a reference means and returns the ARN and the public
// key. They are the key from then on: Open asks nothing, and an alias that is
// pointed elsewhere changes no key that is open.
//
//	kms, err := awskms.New(awskms.Config{AWS: aws, Now: time.Now, Logger: logger})
//	found, err := kms.Resolve(ctx, "awskms:///alias/assay-attestation")
//	key, err := kms.Open(found.ARN, found.Public)
//	sig, err := key.Sign(ctx, digest)
//
// Keys are ECDSA P-256 and P-384 (DER signatures over SHA-256 and SHA-384), RSA of
// 2048, 3072 and 4096 bits (RSASSA-PSS, SHA-256, salt as long as the hash), and, by
// OpenMLDSA, ML-DSA-65 over whole messages of any length. No signature leaves this
// package before KMS has named the ARN and algorithm that were asked for and the
// signature has been verified under the public key.
//
// # When AWS fails
//
// Sign ends within Config.Timeout, after at most three attempts; how many attempts
// may be repeats is limited over all calls to a region. Five calls in a row that fail
// for an outage or a throttle open the key's circuit: for a second, then two, up to
// thirty, the key refuses at once, and then lets one call through to see. At most
// Config.MaxConcurrent calls are under way; more wait their turn, as long as their
// context and Config.Timeout let them.
//
// Refusals tell what to do: KMS_UNAVAILABLE, KMS_THROTTLED and KMS_CIRCUIT_OPEN pass
// by themselves; KMS_ACCESS_DENIED, KMS_KEY_UNUSABLE, KMS_KEY_NOT_FOUND,
// KMS_KEY_UNSUPPORTED and KEY_REF_INVALID wait for an operator; KMS_WRONG_KEY,
// KMS_WRONG_ALGORITHM, KMS_SIGNATURE_INVALID and KMS_ANSWER_INVALID mean that
// whatever answered is not to be believed. What AWS said is the refusal's cause and
// in the log, and never in its text: it names accounts and roles.
//
// The only place requests go is the regional host of KMS, or Config.Endpoint.
// Environment variables and profiles that would lead them elsewhere have no effect.
package awskms
