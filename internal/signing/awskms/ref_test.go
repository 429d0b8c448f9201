package awskms

import (
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	testUUID = "1234abcd-12ab-34cd-56ef-1234567890ab"
	testMRK  = "mrk-1234abcd12ab34cd56ef1234567890ab"
)

func wantCode(tb testing.TB, err error, want refusal.Code) {
	tb.Helper()
	if got := refusal.CodeOf(err); got != want || (err != nil) != (want != "") {
		tb.Errorf("got %v; want code %q", err, want)
	}
}

// regions has one region of every partition.
var regions = map[string]string{
	"aws": "eu-west-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1", "aws-eusc": "eusc-de-east-1",
	"aws-iso": "us-iso-east-1", "aws-iso-b": "us-isob-east-1", "aws-iso-e": "eu-isoe-west-1", "aws-iso-f": "us-isof-south-1",
}

func TestParseRef(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]Ref{
		testUUID:                  {Key: testUUID},
		testMRK:                   {Key: testMRK},
		"alias/assay/Log_1-x":     {Alias: "alias/assay/Log_1-x"},
		"alias/aws/signing":       {Alias: "alias/aws/signing"},
		"alias/" + long('a', 250): {Alias: "alias/" + long('a', 250)},
	} {
		got, err := ParseRef("awskms:///" + id)
		if err != nil || got != want || got.ID() != id {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for partition, region := range regions {
		for _, last := range []string{"key/" + testUUID, "key/" + testMRK, "alias/assay"} {
			ref := "awskms:///arn:" + partition + ":kms:" + region + ":111122223333:" + last
			got, err := ParseRef(ref)
			if err != nil || got.Partition != partition || got.Region != region || got.Account != "111122223333" || got.String() != ref {
				t.Errorf("%s: %+v, %v", ref, got, err)
			}
		}
	}
}

func long(r rune, n int) string { return strings.Repeat(string(r), n) }

func TestParseRefRefuses(t *testing.T) {
	t.Parallel()
	arn := "arn:aws:kms:eu-west-1:111122223333:"
	for name, ref := range map[string]string{
		"nothing":                   "",
		"no scheme":                 testUUID,
		"another scheme":            "gcpkms:///" + testUUID,
		"scheme in capitals":        "AWSKMS:///" + testUUID,
		"two slashes":               "awskms://" + testUUID,
		"no id":                     "awskms:///",
		"a host":                    "awskms://localhost:4566/" + testUUID,
		"a host before an alias":    "awskms://kms.example.com/alias/assay",
		"four slashes":              "awskms:////" + testUUID,
		"capitals":                  "awskms:///" + strings.ToUpper(testUUID),
		"a short id":                "awskms:///" + testUUID[1:],
		"mrk with dashes":           "awskms:///mrk-" + testUUID,
		"a query":                   "awskms:///" + testUUID + "?region=us-east-1",
		"a fragment":                "awskms:///" + testUUID + "#1",
		"a line break":              "awskms:///" + testUUID + "\n",
		"a space":                   "awskms:/// " + testUUID,
		"an escape":                 "awskms:///alias%2Fassay",
		"a key word without ARN":    "awskms:///key/" + testUUID,
		"an empty alias":            "awskms:///alias/",
		"an alias with a colon":     "awskms:///alias/a:b",
		"an alias too long":         "awskms:///alias/" + long('a', 251),
		"very long":                 "awskms:///alias/" + long('a', 1<<16),
		"an ARN without key word":   "awskms:///" + arn + testUUID,
		"an ARN of nothing":         "awskms:///" + arn,
		"an ARN of another service": "awskms:///arn:aws:s3:eu-west-1:111122223333:key/" + testUUID,
		"an unknown partition":      "awskms:///arn:aws-moon:kms:eu-west-1:111122223333:key/" + testUUID,
		"another partition":         "awskms:///arn:aws-cn:kms:eu-west-1:111122223333:key/" + testUUID,
		"a region of another one":   "awskms:///arn:aws:kms:eusc-de-east-1:111122223333:key/" + testUUID,
		"no region":                 "awskms:///arn:aws:kms::111122223333:key/" + testUUID,
		"a region that is a host":   "awskms:///arn:aws:kms:evil.example.com/:111122223333:key/" + testUUID,
		"an account too short":      "awskms:///arn:aws:kms:eu-west-1:11112222333:key/" + testUUID,
		"no account":                "awskms:///arn:aws:kms:eu-west-1::key/" + testUUID,
	} {
		if r, err := ParseRef(ref); refusal.CodeOf(err) != CodeKeyRefInvalid || r != (Ref{}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	_, err := ParseRef("awskms://localhost:4566/" + testUUID)
	if !strings.Contains(err.Error(), "endpoints are configured") {
		t.Errorf("no hint what to do instead: %v", err)
	}
}

func FuzzParseRef(f *testing.F) {
	for partition, region := range regions {
		f.Add("awskms:///arn:" + partition + ":kms:" + region + ":111122223333:key/" + testUUID)
		f.Add("awskms:///arn:" + partition + ":kms:" + region + ":111122223333:alias/a")
	}
	for _, ref := range []string{"awskms:///" + testUUID, "awskms:///" + testMRK, "awskms:///alias/a/b", "awskms://host/alias/a", "awskms:///key/" + testUUID} {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		r, err := ParseRef(ref)
		if err != nil {
			wantCode(t, err, CodeKeyRefInvalid)
			return
		}
		if r.String() != ref {
			t.Fatalf("%q is read as %+v, which is written %q", ref, r, r)
		}
		if (r.Key == "") == (r.Alias == "") || (r.Region == "") != (r.Account == "") || (r.Region == "") != (r.Partition == "") {
			t.Fatalf("%q is read as %+v", ref, r)
		}
		if strings.ContainsAny(r.ID(), " \n?#%@") || len(ref) > maxRefBytes {
			t.Fatalf("%q was read", ref)
		}
		arn, err := parseARN(r.ID())
		if is := r.Key != "" && r.Region != ""; is != (err == nil) || is && arn != r {
			t.Fatalf("%q as an ARN: %+v, %v", r.ID(), arn, err)
		}
	})
}
