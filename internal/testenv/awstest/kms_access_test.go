package awstest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// signDigest signs with a P-256 key.
func signDigest(ctx context.Context, c *kms.Client, key string, tokens ...string) (*kms.SignOutput, error) {
	return c.Sign(ctx, &kms.SignInput{KeyId: aws.String(key), Message: digestOf(nil), MessageType: "DIGEST", SigningAlgorithm: "ECDSA_SHA_256", GrantTokens: tokens})
}

// TestKMSAccess asks for a key by every name, as principals of every kind.
func TestKMSAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, away, china := w.Account(testAccount), w.Account(otherAccount), w.AccountIn("aws-cn", "777788889999")
	k := home.Key(testRegion, "ECC_NIST_P256")
	home.Alias(testRegion, "alias/release", k)
	aliasARN := home.arn("kms", testRegion, "alias/release")
	closed := home.Key(testRegion, "ECC_NIST_P256", PolicyOnly())
	multi := home.Key(testRegion, "ECC_NIST_P256", MultiRegion())
	replica := multi.Replicate("us-west-2")
	const nowhere = "1234abcd-12ab-34cd-56ef-1234567890ab"

	all := home.Role("all").Allow("*").Session("s")
	nobody := home.Role("nobody").Session("s")
	only := home.Role("only").AllowOn("kms:Sign", k.ARN()).Session("s")
	forbidden := home.Role("forbidden").Allow("*").Deny("kms:Sign")
	named := home.Role("named", Path("/ci/"))
	closed.AllowPolicy(named.ARN(), "kms:Sign").AllowPolicy(forbidden.ARN(), "kms:*").AllowPolicy(home.Role("session").SessionARN("one"), "kms:*")
	delegated := home.Key(testRegion, "ECC_NIST_P256", PolicyOnly()).AllowPolicy(testAccount, "kms:Sign")

	foreign := home.Key(testRegion, "ECC_NIST_P256").AllowPolicy(away.arn("iam", "", "root"), "kms:Sign")
	home.Alias(testRegion, "alias/foreign", foreign)
	personal := home.Key(testRegion, "ECC_NIST_P256").AllowPolicy(away.Role("guest").ARN(), "kms:sign*")
	guest := away.Role("guest").AllowOn("kms:Sign", foreign.ARN(), personal.ARN(), k.ARN()).Session("s")
	idle := away.Role("idle").Session("s")
	other := away.Role("other").Allow("kms:*").Session("s")

	const denied, missing = "AccessDeniedException", "NotFoundException"
	for _, tt := range []struct {
		name   string
		creds  aws.Credentials
		region string
		key    string
		code   string
	}{
		{"id", only, testRegion, k.ID(), ""},
		{"key ARN", only, testRegion, k.ARN(), ""},
		{"alias", only, testRegion, "alias/release", ""},
		{"alias ARN", only, testRegion, aliasARN, ""},
		{"another key", only, testRegion, closed.ARN(), denied},
		{"no permission", nobody, testRegion, k.ID(), denied},
		{"no permission and no key", nobody, testRegion, nowhere, denied},
		{"no key", all, testRegion, nowhere, missing},
		{"no alias", all, testRegion, "alias/none", missing},
		{"id in another region", all, "us-west-2", k.ID(), missing},
		{"ARN of another region", all, "us-west-2", k.ARN(), missing},
		{"alias ARN of another region", all, "us-west-2", aliasARN, missing},
		{"ARN of another partition", all, testRegion, strings.Replace(k.ARN(), "arn:aws:", "arn:aws-cn:", 1), missing},
		{"ARN of another service", all, testRegion, strings.Replace(k.ARN(), ":kms:", ":s3:", 1), missing},
		{"ARN of no key", all, testRegion, k.ARN() + "0", missing},
		{"ARN of nothing", all, testRegion, "arn:aws:kms", missing},
		{"id in capitals", all, testRegion, strings.ToUpper(nowhere), missing},
		{"multi-region", all, testRegion, multi.ID(), ""},
		{"replica", all, "us-west-2", multi.ID(), ""},
		{"replica by its ARN", all, "us-west-2", replica.ARN(), ""},
		{"primary by its ARN elsewhere", all, "us-west-2", multi.ARN(), missing},
		{"root user", home.Root(), testRegion, k.ID(), ""},
		{"user", home.User("alice"), testRegion, k.ID(), denied},

		{"key policy without IAM", all, testRegion, closed.ID(), denied},
		{"root user without IAM", home.Root(), testRegion, closed.ID(), denied},
		{"named in the key policy", named.Session("s"), testRegion, closed.ID(), ""},
		{"session named in the key policy", home.Role("session").Session("one"), testRegion, closed.ID(), ""},
		{"another session", home.Role("session").Session("two"), testRegion, closed.ID(), denied},
		{"named and forbidden", forbidden.Session("s"), testRegion, closed.ID(), denied},
		{"account named in the key policy", all, testRegion, delegated.ID(), ""},
		{"account named, nothing in IAM", nobody, testRegion, delegated.ID(), denied},

		{"cross-account", guest, testRegion, foreign.ARN(), ""},
		{"cross-account by alias ARN", guest, testRegion, home.arn("kms", testRegion, "alias/foreign"), ""},
		{"cross-account by id", guest, testRegion, foreign.ID(), denied},
		{"cross-account, role named", guest, testRegion, personal.ARN(), ""},
		{"cross-account, another role named", other, testRegion, personal.ARN(), denied},
		{"cross-account without IAM", idle, testRegion, foreign.ARN(), denied},
		{"cross-account without key policy", guest, testRegion, k.ARN(), denied},
		{"cross-account, no key", other, testRegion, home.arn("kms", testRegion, "key/"+nowhere), denied},
		{"cross-account, no alias", other, testRegion, home.arn("kms", testRegion, "alias/none"), denied},
		{"another partition", china.Role("all").Allow("*").Session("s"), "cn-north-1", k.ARN(), missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := signDigest(t.Context(), kmsClient(w, tt.creds, tt.region), tt.key)
			switch {
			case tt.code != "":
				wantCode(t, err, tt.code)
			case err != nil:
				t.Error(err)
			case !strings.HasPrefix(aws.ToString(out.KeyId), "arn:aws:kms:"+tt.region+":"+testAccount+":key/"):
				t.Errorf("signed with %s", aws.ToString(out.KeyId))
			}
		})
	}
	if !replica.Public().(*ecdsa.PublicKey).Equal(multi.Public()) || replica.ARN() == multi.ARN() {
		t.Error("a replica is the same key with another ARN")
	}
	out, err := kmsClient(w, all, "us-west-2").DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String(multi.ID())})
	if err != nil {
		t.Fatal(err)
	}
	region := out.KeyMetadata.MultiRegionConfiguration
	want(t, "kind", region.MultiRegionKeyType, types.MultiRegionKeyTypeReplica)
	want(t, "primary", aws.ToString(region.PrimaryKey.Arn), multi.ARN())
	want(t, "replica", aws.ToString(region.ReplicaKeys[0].Arn), replica.ARN())
}

// TestKMSGrants signs by grants, before and after they are seen.
func TestKMSGrants(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	home, away := w.Account(testAccount), w.Account(otherAccount)
	k := home.Key(testRegion, "ECC_NIST_P256")
	admin := kmsClient(w, home.Role("admin").Allow("kms:*").Session("s"), testRegion)
	app := home.Role("app")
	c := kmsClient(w, app.Session("s"), testRegion)
	w.PropagateKMS(5 * time.Minute)
	in := &kms.CreateGrantInput{KeyId: aws.String(k.ARN()), GranteePrincipal: aws.String(app.ARN()), Name: aws.String("release"),
		Operations: []types.GrantOperation{types.GrantOperationSign}}
	grant, err := admin.CreateGrant(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	again, err := admin.CreateGrant(t.Context(), in)
	if err != nil || *again.GrantId != *grant.GrantId {
		t.Errorf("the same grant by name is another one: %v", err)
	}
	_, err = signDigest(t.Context(), c, k.ARN())
	wantCode(t, err, "AccessDeniedException")
	_, err = signDigest(t.Context(), c, k.ARN(), "no token")
	wantCode(t, err, "InvalidGrantTokenException")
	if _, err := signDigest(t.Context(), c, k.ARN(), *grant.GrantToken); err != nil {
		t.Errorf("with the token: %v", err)
	}
	_, err = signDigest(t.Context(), kmsClient(w, home.Role("thief").Session("s"), testRegion), k.ARN(), *grant.GrantToken)
	wantCode(t, err, "AccessDeniedException")
	clk.add(4*time.Minute + 50*time.Second)
	_, err = signDigest(t.Context(), c, k.ARN())
	wantCode(t, err, "AccessDeniedException")
	w.PropagateKMS(0)
	_, id := k.Grant(app.ARN(), "Sign")
	if _, err := signDigest(t.Context(), c, k.ARN()); err != nil {
		t.Error(err)
	}
	_, err = c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String(k.ARN())})
	wantCode(t, err, "AccessDeniedException")
	_, err = signDigest(t.Context(), kmsClient(w, app.Deny("kms:Sign").Session("s"), testRegion), k.ARN())
	wantCode(t, err, "AccessDeniedException")

	list, err := admin.ListGrants(t.Context(), &kms.ListGrantsInput{KeyId: aws.String(k.ID()), Limit: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "truncated", list.Truncated, true)
	want(t, "operations", list.Grants[0].Operations, in.Operations)
	want(t, "name", aws.ToString(list.Grants[0].Name), "release")
	rest, err := admin.ListGrants(t.Context(), &kms.ListGrantsInput{KeyId: aws.String(k.ID()), Marker: list.NextMarker})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "second page", len(rest.Grants), 1)
	want(t, "second grant", aws.ToString(rest.Grants[0].GrantId), id)
	revoke := &kms.RevokeGrantInput{KeyId: aws.String(k.ARN()), GrantId: aws.String(id)}
	if _, err := admin.RevokeGrant(t.Context(), revoke); err != nil {
		t.Fatal(err)
	}
	_, err = admin.RevokeGrant(t.Context(), revoke)
	wantCode(t, err, "NotFoundException")

	guest := away.Role("guest")
	token, _ := k.Grant(guest.ARN(), "Sign")
	_, err = signDigest(t.Context(), kmsClient(w, guest.Session("s"), testRegion), k.ARN(), token)
	wantCode(t, err, "AccessDeniedException")
	if _, err = signDigest(t.Context(), kmsClient(w, guest.Allow("kms:Sign").Session("s"), testRegion), k.ARN(), token); err != nil {
		t.Error(err)
	}
	for name, tt := range map[string]struct {
		edit func(*kms.CreateGrantInput)
		code string
	}{
		"operation of another usage": {func(in *kms.CreateGrantInput) { in.Operations = []types.GrantOperation{"Decrypt"} }, "ValidationException"},
		"unknown operation":          {func(in *kms.CreateGrantInput) { in.Operations = []types.GrantOperation{"kms:Sign"} }, "ValidationException"},
		"no operation":               {func(in *kms.CreateGrantInput) { in.Operations = []types.GrantOperation{} }, "ValidationException"},
		"no principal":               {func(in *kms.CreateGrantInput) { in.GranteePrincipal = aws.String("app") }, "InvalidArnException"},
		"constraints": {func(in *kms.CreateGrantInput) {
			in.Constraints = &types.GrantConstraints{EncryptionContextEquals: map[string]string{"a": "b"}}
		}, "ValidationException"},
		"dry run": {func(in *kms.CreateGrantInput) { in.DryRun = aws.Bool(true) }, "DryRunOperationException"},
		"alias":   {func(in *kms.CreateGrantInput) { in.KeyId = aws.String("alias/release") }, "NotFoundException"},
	} {
		bad := *in
		tt.edit(&bad)
		_, err := admin.CreateGrant(t.Context(), &bad)
		if code := codeOf(err); code != tt.code {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
}

// codeOf is the code of an error of AWS.
func codeOf(err error) string {
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		return coded.ErrorCode()
	}
	return ""
}

// TestKMSFaults looks at what each dishonest answer is.
func TestKMSFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	c := signerOf(w, acct)
	k, other := acct.Key(testRegion, "ECC_NIST_P256"), acct.Key(testRegion, "ECC_NIST_P256")
	pub, otherPub := k.Public().(*ecdsa.PublicKey), other.Public().(*ecdsa.PublicKey)
	sign := func() *kms.SignOutput {
		t.Helper()
		out, err := signDigest(t.Context(), c, k.ARN())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	good := func(pub *ecdsa.PublicKey, out *kms.SignOutput) bool {
		return ecdsa.VerifyASN1(pub, digestOf(nil), out.Signature)
	}
	k.Fault(KMSFault{Action: "Sign", WrongKey: other, Times: 2})
	for range 2 {
		if out := sign(); good(pub, out) || !good(otherPub, out) || *out.KeyId != k.ARN() {
			t.Error("not signed by the other key")
		}
	}
	k.Fault(KMSFault{WrongKeyID: other.ARN(), WrongAlgorithm: "ECDSA_SHA_384", Times: 1})
	if out := sign(); !good(pub, out) || *out.KeyId != other.ARN() || out.SigningAlgorithm != "ECDSA_SHA_384" {
		t.Error("the answer is honest about key and algorithm")
	}
	for name, f := range map[string]KMSFault{"bit": {FlipBit: true}, "short": {Truncate: true}, "BER": {BER: true}} {
		f.Times = 1
		k.Fault(f)
		out := sign()
		if good(pub, out) {
			t.Errorf("%s: the signature is good", name)
		}
		if name == "BER" { // it means the same, in one byte more
			der := append([]byte{out.Signature[0], out.Signature[2]}, out.Signature[3:]...)
			var rs struct{ R, S *big.Int }
			if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 || !ecdsa.VerifyASN1(pub, digestOf(nil), der) {
				t.Errorf("the BER is of no signature: %v", err)
			}
		}
	}
	if !good(pub, sign()) {
		t.Error("a fault struck once too often")
	}
	get := func() *kms.GetPublicKeyOutput {
		t.Helper()
		out, err := c.GetPublicKey(t.Context(), &kms.GetPublicKeyInput{KeyId: aws.String(k.ID())})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	honest := get().PublicKey
	for name, f := range map[string]KMSFault{
		"key": {WrongKey: other}, "bit": {FlipBit: true}, "short": {Truncate: true}, "BER": {BER: true},
	} {
		f.Times, f.Action = 1, "GetPublicKey"
		k.Fault(f)
		spoilt := get().PublicKey
		if _, err := x509.ParsePKIXPublicKey(spoilt); bytes.Equal(spoilt, honest) || name != "key" && err == nil {
			t.Errorf("%s: the answer is honest", name)
		}
	}
	k.Fault(KMSFault{FlipBit: true})
	k.ClearFaults()
	if !good(pub, sign()) {
		t.Error("ClearFaults cleared none")
	}
}

// TestKMSOutage lets KMS fail as a service does.
func TestKMSOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	k := acct.Key(testRegion, "ECC_NIST_P256")
	c := signerOf(w, acct)
	w.Throttle("kms", "Sign", 0)
	_, err := signDigest(t.Context(), c, k.ARN())
	wantCode(t, err, "ThrottlingException")
	wantStatus(t, err, http.StatusBadRequest)
	w.Heal()
	w.Fail(Fault{Service: "kms", Action: "Sign", Times: 1, Status: 500, Code: "KMSInternalException"})
	_, err = signDigest(t.Context(), c, k.ARN())
	var internal *types.KMSInternalException
	if !errors.As(err, &internal) {
		t.Errorf("%v, want KMSInternalException", err)
	}
	w.Fail(Fault{Service: "kms", Times: 1, Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = signDigest(ctx, c, k.ARN()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want a deadline", err)
	}
	if _, err = signDigest(t.Context(), c, k.ARN()); err != nil {
		t.Error(err)
	}
}

// TestLatency makes answers slow, and counts them.
func TestLatency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	k := acct.Key(testRegion, "ECC_NIST_P256")
	c := signerOf(w, acct)
	took := func() time.Duration {
		t.Helper()
		start := time.Now()
		if _, err := signDigest(t.Context(), c, k.ARN()); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	w.Latency("kms", "", time.Hour)
	w.Latency("kms", "Sign", 30*time.Millisecond)
	if d := took(); d < 30*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
	w.Latency("kms", "Sign", 0)
	took()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(k.ID())}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want a deadline", err)
	}
	want(t, "signatures", w.Count("kms", "Sign"), 2)
	want(t, "of STS", w.Count("sts", ""), 0)
	want(t, "records", len(w.Requests("kms", "Sign")), 2)
}

// TestRecordsAreBounded records more requests than are remembered.
func TestRecordsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := &call{w: w, service: "kms", action: "Sign", r: &http.Request{URL: &url.URL{Path: "/"}}}
	const n = 3*maxRecords + 1
	for i := range n {
		c.region = []string{"first", "later"}[min(i, 1)]
		c.record(http.StatusOK, "")
	}
	got := w.Requests("kms", "Sign")
	if len(got) < maxRecords || len(got) > 2*maxRecords || got[0].Region == "first" {
		t.Errorf("%d records", len(got))
	}
	want(t, "count", w.Count("", ""), n)
}
