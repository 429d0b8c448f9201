package stsproof

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// TestEndpointAgreesWithSDK: for regions of every partition, the host is the one
// that the AWS SDK would call.
func TestEndpointAgreesWithSDK(t *testing.T) {
	t.Parallel()
	resolver := sts.NewDefaultEndpointResolverV2()
	regions := map[string]string{
		"us-east-1": "aws", "us-west-2": "aws", "eu-west-1": "aws", "eu-central-2": "aws", "ap-southeast-7": "aws", "ap-northeast-3": "aws",
		"sa-east-1": "aws", "ca-west-1": "aws", "me-south-1": "aws", "af-south-1": "aws", "il-central-1": "aws", "mx-central-1": "aws",
		"cn-north-1": "aws-cn", "cn-northwest-1": "aws-cn", "us-gov-east-1": "aws-us-gov", "us-gov-west-1": "aws-us-gov",
		"eusc-de-east-1": "aws-eusc", "us-iso-east-1": "aws-iso", "us-iso-west-1": "aws-iso", "us-isob-east-1": "aws-iso-b",
		"eu-isoe-west-1": "aws-iso-e", "us-isof-south-1": "aws-iso-f", "us-isof-east-1": "aws-iso-f",
	}
	seen := make(map[string]bool)
	for region, partition := range regions {
		want, err := resolver.ResolveEndpoint(context.Background(), sts.EndpointParameters{
			Region: aws.String(region), UseDualStack: aws.Bool(false), UseFIPS: aws.Bool(false), UseGlobalEndpoint: aws.Bool(false),
		})
		if err != nil {
			t.Fatal(err)
		}
		host, got, ok := Endpoint(region)
		if !ok || host != want.URI.Host || got != partition {
			t.Errorf("%s: host %q in %q (%t); the SDK says %q, of %s", region, host, got, ok, want.URI.Host, partition)
		}
		seen[got] = true
	}
	for _, p := range partitions {
		if !seen[p.id] {
			t.Errorf("no region of partition %s is tried", p.id)
		}
	}
}

func TestEndpointRefuses(t *testing.T) {
	t.Parallel()
	for _, region := range []string{
		"", "aws-global", "us-east", "us-east-0", "us-east-01", "us-east-1.", "us-east-1a", "US-EAST-1", "us-east-1\n", " us-east-1",
		"us_east_1", "us-east-1/", "us-east-1.evil.example", "evil", "us--1", "us-e_st-1", "us-gov-1x", "eusc-fr-east-1", "eu-еast-1",
		"sts.us-east-1", "us-east-100", "..", "us-east-1#", "us-east-1?x=", "us-east-1:443",
	} {
		if host, _, ok := Endpoint(region); ok {
			t.Errorf("region %q gives host %q", region, host)
		}
	}
}
