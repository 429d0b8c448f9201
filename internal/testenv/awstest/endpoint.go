package awstest

import (
	"regexp"
	"strings"
)

// partition is a set of regions with one IAM, and host names of its own.
type partition struct {
	suffixes []string // of hosts: plain first, then dual-stack
	regions  *regexp.Regexp
	home     string            // the region that signs for global services
	global   map[string]string // host labels of global services → service
}

const compass = `(north|south|east|west|central|northeast|northwest|southeast|southwest)-[1-9]$`

// partitions are those of the SDK's partitions.json.
var partitions = map[string]partition{
	"aws": {[]string{"amazonaws.com", "api.aws"}, regexp.MustCompile(`^(us|eu|ap|sa|ca|me|af|il|mx)-` + compass),
		"us-east-1", map[string]string{"sts": "sts", "iam": "iam", "s3": "s3"}},
	"aws-cn": {[]string{"amazonaws.com.cn", "api.amazonwebservices.com.cn"}, regexp.MustCompile(`^cn-` + compass),
		"cn-north-1", map[string]string{"iam.cn-north-1": "iam"}},
	"aws-us-gov": {[]string{"amazonaws.com", "api.aws"}, regexp.MustCompile(`^us-gov-` + compass),
		"us-gov-west-1", map[string]string{"iam.us-gov": "iam"}},
	"aws-eusc": {[]string{"amazonaws.eu", "api.amazonwebservices.eu"}, regexp.MustCompile(`^eusc-de-` + compass),
		"eusc-de-east-1", map[string]string{"iam.eusc-de-east-1": "iam"}},
	"aws-iso": {[]string{"c2s.ic.gov"}, regexp.MustCompile(`^us-iso-` + compass),
		"us-iso-east-1", map[string]string{"iam.us-iso-east-1": "iam"}},
	"aws-iso-b": {[]string{"sc2s.sgov.gov"}, regexp.MustCompile(`^us-isob-` + compass),
		"us-isob-east-1", map[string]string{"iam.us-isob-east-1": "iam"}},
	"aws-iso-e": {[]string{"cloud.adc-e.uk"}, regexp.MustCompile(`^eu-isoe-` + compass),
		"eu-isoe-west-1", map[string]string{"iam.eu-isoe-west-1": "iam"}},
	"aws-iso-f": {[]string{"csp.hci.ic.gov"}, regexp.MustCompile(`^us-isof-` + compass),
		"us-isof-south-1", map[string]string{"iam.us-isof-south-1": "iam"}},
}

// endpoint is what a host name names.
type endpoint struct {
	partition string
	service   string // as in a credential scope; "tokens" is an issuer of web identity tokens
	region    string
	bucket    string // S3, virtual-host style
	global    bool   // a host without region: sts.amazonaws.com
	issuer    string // host of a token issuer
	data      bool   // the host of Signer that answers GetRevocationStatus
}

var tokenHost = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.tokens\.sts\.global\.api\.aws$`)

// parseHost reads a host name. A name that AWS does not have is not ok.
func parseHost(host string) (endpoint, bool) {
	host = strings.ToLower(host)
	if tokenHost.MatchString(host) {
		return endpoint{partition: "aws", service: "tokens", issuer: host}, true
	}
	for name, p := range partitions {
		for _, suffix := range p.suffixes {
			labels, ok := strings.CutSuffix(host, "."+suffix)
			if !ok {
				continue
			}
			if e, ok := p.parse(labels); ok {
				e.partition = name
				return e, true
			}
		}
	}
	return endpoint{}, false
}

// parse reads what stands before the suffix.
func (p partition) parse(labels string) (endpoint, bool) {
	if s, ok := p.global[labels]; ok {
		return endpoint{service: s, region: p.home, global: true}, true
	}
	if bucket, ok := strings.CutSuffix(labels, ".s3"); ok && p.global["s3"] != "" && bucket != "" {
		return endpoint{service: "s3", region: p.home, bucket: bucket}, true
	}
	dot := strings.LastIndexByte(labels, '.')
	if dot < 1 || !p.regions.MatchString(labels[dot+1:]) {
		return endpoint{}, false
	}
	e := endpoint{service: labels[:dot], region: labels[dot+1:]}
	e.service = strings.TrimSuffix(strings.TrimSuffix(e.service, ".dualstack"), "-fips")
	if bucket, ok := strings.CutSuffix(e.service, ".s3"); ok && bucket != "" {
		e.service, e.bucket = "s3", bucket
	}
	if e.service == "data-signer" {
		e.service, e.data = "signer", true
	}
	switch e.service {
	case "sts", "codebuild", "s3", "kms", "signer":
		return e, true
	}
	return endpoint{}, false
}
