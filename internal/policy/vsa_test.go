package policy

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	vsa "github.com/in-toto/attestation/go/predicates/vsa/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

func vsaInput(d Decision) VSAInput {
	return VSAInput{
		Instance: instance, Environment: "prod",
		Subject:       attest.Subject{Name: "registry.example/app", Digest: map[string]string{"sha256": digestA, "sha512": strings.Repeat("d", 128)}},
		PolicyVersion: strings.Repeat("0f", 32),
		InputAttestations: []InputAttestation{
			{URI: instance + "/attestations/" + digestB, Digest: map[string]string{"sha256": digestB}},
		},
		Decision: d, TimeVerified: noon.Add(123 * time.Millisecond).In(time.FixedZone("", 3600)), Expires: noon.Add(time.Hour),
		VerifierVersion: map[string]string{"assayd": "0.1.0"},
	}
}

var passed = Decision{Allowed: true, Code: CodeAllowed, SLSABuildLevel: 2}

func TestVSAGolden(t *testing.T) {
	failed := vsaInput(Decision{Code: CodeNoAttestation})
	failed.InputAttestations, failed.VerifierVersion = nil, nil
	failed.ResourceURI = "oci://registry.example/app@sha256:" + digestA
	for file, in := range map[string]VSAInput{"passed": vsaInput(passed), "failed": failed} {
		t.Run(file, func(t *testing.T) {
			st, err := VSA(in)
			if err != nil {
				t.Fatal(err)
			}
			data, err := st.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			again, err := VSA(in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again.Predicate, st.Predicate) {
				t.Error("two summaries of one decision differ")
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, data, "", "  "); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/vsa/"+file+".json", pretty.String()+"\n")
			checkVSA(t, st, in)
		})
	}
}

// checkVSA reads the predicate with the in-toto project's own type.
func checkVSA(t *testing.T, st *attest.Statement, in VSAInput) {
	t.Helper()
	var p vsa.VerificationSummary
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(st.Predicate, &p); err != nil {
		t.Fatal(err)
	}
	result, level := "FAILED", "FAILED"
	if in.Decision.Allowed {
		result, level = "PASSED", "SLSA_BUILD_LEVEL_2"
	}
	if p.GetVerifier().GetId() != instance+"/environments/prod" || p.GetVerificationResult() != result ||
		len(p.GetVerifiedLevels()) != 1 || p.GetVerifiedLevels()[0] != level || p.GetSlsaVersion() != "1.1" ||
		p.GetPolicy().GetUri() == "" || p.GetPolicy().GetDigest()["sha256"] != in.PolicyVersion ||
		p.GetResourceUri() == "" || !p.GetTimeVerified().AsTime().Equal(noon) || len(p.GetInputAttestations()) != len(in.InputAttestations) {
		t.Errorf("the in-toto type reads %s", protojson.Format(&p))
	}
}

func TestVSARefuses(t *testing.T) {
	for name, change := range map[string]func(*VSAInput){
		"zero decision":            func(in *VSAInput) { in.Decision = Decision{} },
		"allowed with no code":     func(in *VSAInput) { in.Decision.Code = "" },
		"allowed with denial code": func(in *VSAInput) { in.Decision.Code = CodeDeniedByRule },
		"denied with ALLOWED":      func(in *VSAInput) { in.Decision.Allowed = false },
		"passed on nothing":        func(in *VSAInput) { in.InputAttestations = nil },
		"attestation, no digest":   func(in *VSAInput) { in.InputAttestations[0].Digest = nil },
		"attestation, bad digest":  func(in *VSAInput) { in.InputAttestations[0].Digest = map[string]string{"sha256": "x"} },
		"level 4":                  func(in *VSAInput) { in.Decision.SLSABuildLevel = 4 },
		"level -1":                 func(in *VSAInput) { in.Decision.SLSABuildLevel = -1 },
		"no policy":                func(in *VSAInput) { in.PolicyVersion = "" },
		"no environment":           func(in *VSAInput) { in.Environment = "" },
		"no instance":              func(in *VSAInput) { in.Instance = "" },
		"instance without a host":  func(in *VSAInput) { in.Instance = "https://" },
		"no digest":                func(in *VSAInput) { in.Subject.Digest = nil },
		"no name":                  func(in *VSAInput) { in.Subject.Name = "" },
		"no time":                  func(in *VSAInput) { in.TimeVerified = time.Time{} },
		"expired at once":          func(in *VSAInput) { in.Expires = in.TimeVerified },
		"never expires":            func(in *VSAInput) { in.Expires = time.Time{} },
	} {
		in := vsaInput(passed)
		change(&in)
		if st, err := VSA(in); refusal.CodeOf(err) != CodeVSAInvalid || st != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVSAIsBoundToItsEnvironment: what a reader compares must differ.
func TestVSAIsBoundToItsEnvironment(t *testing.T) {
	ids := map[string]bool{}
	for _, environment := range []string{"prod", "dev", "prod/dev", "prod%2Fdev", "prod?x", "../prod", "prod#"} {
		id := VerifierID(instance, environment)
		if ids[id] {
			t.Errorf("%q has the verifier.id %s of another environment", environment, id)
		}
		ids[id] = true
	}
}
