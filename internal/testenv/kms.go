package testenv

import (
	"context"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/server"
)

// KMSKey makes a key in the stand-in's KMS that the service may sign with.
func (a *AWS) KMSKey(spec string) *awstest.KMSKey {
	key := a.World.Account(ServiceAccount).Key(AWSRegion, awstest.KeySpec(spec))
	for _, action := range []string{"kms:Sign", "kms:GetPublicKey", "kms:DescribeKey"} {
		a.Service.AllowOn(action, key.ARN())
	}
	return key
}

// Change makes a change to the keyset of a sandbox, as `assayd keys` would. The service
// follows by its next call.
func (s *Sandbox) Change(ctx context.Context, change signing.Change) error {
	cfg := signing.Config{Now: s.cfg.Now, Openers: server.KeyOpeners(&s.cfg)}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if s.cfg.Keys.Mode == server.KeysModeCertificate {
		cfg.CA.Organization = "Assay"
	}
	plan, err := signing.Plan(ctx, s.cfg.Data+"/keys", cfg, change)
	if err != nil {
		return err
	}
	return plan.Apply(ctx)
}

// UseKMS has a key of the stand-in's KMS sign in the place of the one in a file: the
// attestation key, or in certificate mode that of the certificate authority.
func (s *Sandbox) UseKMS(ctx context.Context, spec string) (*awstest.KMSKey, error) {
	key := s.AWS.KMSKey(spec)
	role := signing.RoleAttestation
	if s.cfg.Keys.Mode == server.KeysModeCertificate {
		role = signing.RoleCA
	}
	return key, s.Change(ctx, signing.RotateKey{Role: role, Ref: "awskms:///" + key.ARN()})
}
