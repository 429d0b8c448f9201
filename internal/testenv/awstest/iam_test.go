package awstest

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

func iamClient(w *World, creds aws.Credentials, region string) *iam.Client {
	return iam.NewFromConfig(once(w.AWSConfig(creds, region)))
}

// TestGetRole reads a role as IAM tells it, with its trust policy byte for byte.
func TestGetRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	const policy = "{\"Version\": \"2012-10-17\",\n \"Statement\": [{\"Effect\":\"Allow\",\"Principal\":{\"Service\":\"codebuild.amazonaws.com\"},\"Action\":\"sts:AssumeRole\", \"Sid\": \"a b+c/%é\"}]}"
	role := acct.Role("app", Path("/service-role/"), TrustPolicy(policy), MaxSession(4*time.Hour))
	reader := acct.Role("reader").AllowOn("iam:GetRole", "arn:aws:iam::111122223333:role/service-role/*", "arn:aws:iam::111122223333:role/ab?ent")
	client := iamClient(w, reader.Session("assay"), testRegion)

	out, err := client.GetRole(context.Background(), &iam.GetRoleInput{RoleName: aws.String("app")})
	if err != nil {
		t.Fatal(err)
	}
	raw := aws.ToString(out.Role.AssumeRolePolicyDocument)
	if got, err := url.PathUnescape(raw); err != nil || got != policy || raw == policy {
		t.Errorf("policy %q, want %q encoded: %v", raw, policy, err)
	}
	if r := out.Role; aws.ToString(r.Arn) != role.ARN() || aws.ToString(r.RoleId) != role.UniqueID() ||
		aws.ToString(r.Path) != "/service-role/" || aws.ToString(r.RoleName) != "app" ||
		aws.ToInt32(r.MaxSessionDuration) != 4*3600 || time.Since(aws.ToTime(r.CreateDate)) > time.Minute {
		t.Errorf("role %+v", r)
	}
	for _, tt := range []struct {
		name, role, code string
		client           *iam.Client
	}{
		{"absent", "absent", "NoSuchEntity", client},
		{"not on the list", "reader", "AccessDenied", client},
		{"nothing allowed", "app", "AccessDenied", iamClient(w, role.Session("s1"), testRegion)},
		{"another account", "app", "NoSuchEntity", iamClient(w, w.Account(otherAccount).Role("admin").Allow("*").Session("s"), testRegion)},
		{"denied", "app", "AccessDenied", iamClient(w, acct.Role("denied").Allow("*").Deny("iam:Get*").Session("s"), testRegion)},
		{"a path", "service-role/app", "ValidationError", client},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.client.GetRole(context.Background(), &iam.GetRoleInput{RoleName: aws.String(tt.role)})
			wantCode(t, err, tt.code)
		})
	}
}

// TestIAMHosts asks the IAM of each partition that the SDK resolves.
func TestIAMHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, tt := range []struct{ partition, region string }{
		{"aws", "eu-west-1"}, {"aws-cn", "cn-northwest-1"}, {"aws-us-gov", "us-gov-east-1"}, {"aws-eusc", "eusc-de-east-1"},
		{"aws-iso", "us-iso-west-1"}, {"aws-iso-b", "us-isob-east-1"}, {"aws-iso-e", "eu-isoe-west-1"}, {"aws-iso-f", "us-isof-south-1"},
	} {
		acct := w.AccountIn(tt.partition, "10000000000"+string(rune('0'+i)))
		role := acct.Role("reader").Allow("iam:GetRole")
		creds := role.Session("assay")
		out, err := iamClient(w, creds, tt.region).GetRole(context.Background(), &iam.GetRoleInput{RoleName: aws.String("reader")})
		if err != nil {
			t.Errorf("%s: %v", tt.partition, err)
			continue
		}
		if got := aws.ToString(out.Role.Arn); got != role.ARN() {
			t.Errorf("%s: %s", tt.partition, got)
		}
		if _, err := stsClient(w, creds, tt.region).GetCallerIdentity(context.Background(), nil); err != nil {
			t.Errorf("%s: %v", tt.partition, err)
		}
	}
}

func TestLike(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"*", "x", true}, {"", "", true}, {"", "x", false}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false},
		{"a*", "a", true}, {"a*c", "abc", true}, {"a*c", "abd", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"?", "", false},
		{"*b*b", "abb", true}, {"*b*b", "ab", false}, {"a*b?d*", "axxbcdyy", true}, {"s3:Get*", "s3:PutObject", false},
	} {
		if got := like(tt.pattern, tt.text); got != tt.want {
			t.Errorf("like(%q, %q) = %v", tt.pattern, tt.text, got)
		}
	}
}
