package stsproof

import "regexp"

// partitions is the table of AWS partitions, as the AWS SDK has it. The grammar is
// narrower than the SDK's, which lets any word of letters, digits and underscores
// into a host name.
var partitions = [...]struct {
	id     string
	suffix string
	region *regexp.Regexp
}{
	{"aws", "amazonaws.com", regexp.MustCompile(`^(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-cn", "amazonaws.com.cn", regexp.MustCompile(`^cn-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-us-gov", "amazonaws.com", regexp.MustCompile(`^us-gov-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-eusc", "amazonaws.eu", regexp.MustCompile(`^eusc-de-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-iso", "c2s.ic.gov", regexp.MustCompile(`^us-iso-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-iso-b", "sc2s.sgov.gov", regexp.MustCompile(`^us-isob-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-iso-e", "cloud.adc-e.uk", regexp.MustCompile(`^eu-isoe-[a-z]{4,12}-[1-9][0-9]?$`)},
	{"aws-iso-f", "csp.hci.ic.gov", regexp.MustCompile(`^us-isof-[a-z]{4,12}-[1-9][0-9]?$`)},
}

// Endpoint returns the host of STS in a region, and the region's partition. ok is
// false for anything that is not written like a region: no other text gets into a
// host name. That a region of this form exists is not known here; of a name that
// does not, the host does not resolve, since AWS owns the domain.
func Endpoint(region string) (host, partition string, ok bool) {
	for _, p := range partitions {
		if p.region.MatchString(region) {
			return "sts." + region + "." + p.suffix, p.id, true
		}
	}
	return "", "", false
}
