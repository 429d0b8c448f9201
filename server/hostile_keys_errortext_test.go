package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
)

// TestCredentialsInErrorTexts: AWS answers a signature that does not fit with the request
// as it read it, session token and all. That goes nowhere, the log included.
func TestCredentialsInErrorTexts(t *testing.T) {
	t.Parallel()
	x := newSignerWorld(t, 0)
	creds := x.cloud.Service.Session("assayd")
	hidden := secrets{}
	hidden.credentials("service", creds)
	all := func(c *server.Config) {
		x.config()(c)
		c.AWSClients.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })
	}
	l := x.world.start(t, all, withPolicy(t, signedPolicy)).login(t)
	key := x.cloud.KMSKey("ECC_NIST_P256")
	x.rekey(t, all, signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///" + key.ARN()})
	good := subject("good", "good")
	l.digests(t, l.ctx, good)
	canonical := "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this request should have been\n'POST\n/\n\n" +
		"x-amz-security-token:" + creds.SessionToken + "\nx-amz-target:TrentService.Sign\n'"
	for _, tt := range []struct{ service, action, reason string }{
		{"kms", "Sign", "KMS_ACCESS_DENIED"}, {"signer", "SignPayload", "SIGNER_ACCESS_DENIED"}, {"signer", "GetRevocationStatus", "NOTARY_REVOCATION_UNKNOWN"},
	} {
		x.cloud.World.Fail(awstest.Fault{Service: tt.service, Action: tt.action, Status: 400, Code: "InvalidSignatureException", Message: canonical})
		x.advance(31 * time.Second)
		_, err := l.tryDigests(subject("no", tt.action))
		wantOutage(t, err, tt.reason)
		hidden.absent(t, "an error", []byte(fmt.Sprintf("%+v", err)))
		l.verify(t, "prod", good)
		x.cloud.World.Heal()
	}
	l.stop()
	hidden.absent(t, "the log", []byte(l.logs.String()))
	if !strings.Contains(l.logs.String(), "InvalidSignatureException") {
		t.Error("the log does not say what happened")
	}
}
