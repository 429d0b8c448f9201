// Package stsproof is how a workload on AWS proves which role session it is,
// without handing over a credential and without a stored secret: it signs one
// fixed request to AWS STS, and the service sends that request.
//
// # The request
//
// There is nothing to choose in it. In the following, and only there, stand values
// of a Proof, the service's audience and the hash over both:
//
//	POST / HTTP/1.1
//	Host: sts.REGION.SUFFIX
//	Accept: application/json
//	Content-Length: 43
//	Content-Type: application/x-www-form-urlencoded
//	X-Amz-Date: 20260304T050607Z
//	X-Amz-Security-Token: TOKEN
//	X-Assay-Audience: https://assay.example.com
//	X-Assay-Nonce: base64url(nonce)
//	X-Assay-Request-Sha256: hex(hash)
//	Authorization: AWS4-HMAC-SHA256 Credential=KEYID/20260304/REGION/sts/aws4_request,
//	  SignedHeaders=(every header above, in alphabetical order), Signature=SIGNATURE
//
//	Action=GetCallerIdentity&Version=2011-06-15
//
// where hash is the SHA-256 of
//
//	"assay sts proof v1" NUL  len(audience) audience  len(nonce) nonce  len(build id) build id
//
// each length as eight bytes, big-endian: no two different triples have the same
// encoding. So the signature says which service may use it, for which challenge,
// and for which build, and AWS checks it.
//
// # Who may say what
//
// A client sends the Proof: key id, region, date, session token, signature, nonce,
// build id. The service MUST rebuild the request from that with Request and send
// nothing else. It MUST NOT take method, URL, host, body or any header from the
// client: services that checked what clients sent, instead, were led to other
// actions, other hosts and forged answers (CVE-2020-16250, CVE-2022-2385). The host
// comes from the table of Endpoint. Every field has a fixed alphabet and length, so
// that nothing in it can end a header, a path or a credential scope.
//
// What AWS answers is the identity of whoever holds the key: no more. Audience,
// nonce and date are the service's to check before it asks.
//
//	proof, err := stsproof.Sign(ctx, creds, "eu-west-1", audience, nonce, buildID, time.Now()) // the job
//	…
//	req, err := proof.Request(ctx, audience)                                                    // the service
package stsproof
