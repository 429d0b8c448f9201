package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/notary"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/awskms"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/signing/mldsakey"
	"github.com/assay-build/assay/internal/tsaclient"
	"github.com/assay-build/assay/internal/verify"
)

// How attestations are signed.
const (
	KeysModeKey         = "key"
	KeysModeCertificate = "certificate"
)

// KeysConf says how attestations are signed. Which keys there are stands in the keyset,
// which `assayd keys` changes.
type KeysConf struct {
	// Mode is "key" (the default: the attestation key signs each) or "certificate" (the
	// key of the certificate authority certifies, and each attestation has a certificate
	// that names its workflow).
	Mode string `yaml:"mode"`
	// Organization is the O= of certificates; "Assay" if empty.
	Organization string `yaml:"organization"`
	// IntermediateLifetime is how long an intermediate issues, with its key in memory
	// only; 1h if zero, 5m to 720h. Verifiers need each of them in their trusted root.
	IntermediateLifetime time.Duration `yaml:"intermediate_lifetime"`
	// KMSTimeout bounds one signature of AWS KMS with its retries; 5s if zero, 30s at most.
	KMSTimeout time.Duration `yaml:"kms_timeout"`
	// KMSMaxConcurrent bounds the signatures under way at AWS KMS; 64 if zero, 1024 at most.
	KMSMaxConcurrent int `yaml:"kms_max_concurrent"`
}

// SignerConf has AWS Signer sign the envelope of each attestation once more, and says
// whose such signatures are believed.
type SignerConf struct {
	// Profile is the signing profile, signer:///NAME or signer:///ARN; nothing is
	// signed so if empty.
	Profile string `yaml:"profile"`
	// RootsFile holds the roots of AWS Signer's certificates, PEM, and ProfileVersions
	// the ARNs of the profile versions whose signatures count, exactly. Both are
	// required where Profile is set.
	RootsFile       string   `yaml:"roots_file"`
	ProfileVersions []string `yaml:"profile_versions"`
	// RevocationTTL is how long an answer of AWS Signer's about revocation is
	// believed; 30s if zero, 5m at most.
	RevocationTTL time.Duration `yaml:"revocation_ttl"`
}

// TimestampConf names a timestamp authority other than the embedded one.
type TimestampConf struct {
	// URL is where it answers RFC 3161 requests; the embedded one if empty.
	URL string `yaml:"url"`
	// ChainFile holds its certificates, leaf first and root last, PEM. Required with URL.
	// Chains of authorities that were used before may follow, or stand there alone without
	// a URL: what they dated stays evidence.
	ChainFile string `yaml:"chain_file"`
}

// TUFConf shapes how the trusted root is distributed.
type TUFConf struct {
	// TargetsKey signs what the TUF repository offers whenever the keys change, an
	// awskms:// or file:// reference. If empty, that is done with `assayd tuf publish`.
	TargetsKey string `yaml:"targets_key"`
}

func (c *Config) checkKeys() error {
	k := &c.Keys
	def(&k.Mode, KeysModeKey)
	def(&k.Organization, "Assay")
	def(&k.IntermediateLifetime, time.Hour)
	switch {
	case k.Mode != KeysModeKey && k.Mode != KeysModeCertificate:
		return configError("keys.mode", "is %q; key or certificate", k.Mode)
	case k.IntermediateLifetime < 5*time.Minute || k.IntermediateLifetime > 720*time.Hour:
		return configError("keys.intermediate_lifetime", "is %s; 5m to 720h", k.IntermediateLifetime)
	case k.KMSTimeout < 0 || k.KMSTimeout > 30*time.Second:
		return configError("keys.kms_timeout", "is %s; 0s to 30s", k.KMSTimeout)
	case k.KMSMaxConcurrent < 0 || k.KMSMaxConcurrent > 1024:
		return configError("keys.kms_max_concurrent", "is %d; 0 to 1024", k.KMSMaxConcurrent)
	case c.Signer.Profile != "" && (c.Signer.RootsFile == "" || len(c.Signer.ProfileVersions) == 0):
		return configError("signer", "profile needs roots_file and profile_versions: what is signed is verified before it leaves")
	case (c.Signer.RootsFile == "") != (len(c.Signer.ProfileVersions) == 0):
		return configError("signer", "roots_file and profile_versions go together")
	case c.Timestamp.URL != "" && c.Timestamp.ChainFile == "":
		return configError("timestamp", "url needs chain_file: what is dated is verified before it leaves")
	}
	return nil
}

// KeyOpeners opens the keys that are not files of the keyset: those of AWS KMS as the
// service's own role, which is asked for only where there are any.
func KeyOpeners(cfg *Config) signing.Openers {
	kms := untilWell(func() (*awskms.Service, error) {
		clients, err := cfg.awsClients(context.Background())
		if err != nil {
			return nil, configError("aws", "%v", err)
		}
		return awskms.New(awskms.Config{AWS: clients, Now: cfg.Now, Logger: cfg.Logger,
			MaxConcurrent: cfg.Keys.KMSMaxConcurrent, Timeout: cfg.Keys.KMSTimeout})
	})
	return signing.Openers{
		KMS: func(arn string, public crypto.PublicKey) (signing.Signer, error) {
			service, err := kms()
			if err != nil {
				return nil, err
			}
			return service.Open(arn, public)
		},
		KMSMessage: func(arn string, spki []byte) (signing.MessageSigner, error) {
			public, err := mldsakey.ParseSPKI(spki)
			if err != nil {
				return nil, err
			}
			service, err := kms()
			if err != nil {
				return nil, err
			}
			return service.OpenMLDSA(arn, public)
		},
		FileMessage: func(path string, create bool) (signing.MessageSigner, error) { return mldsakey.Open(path, create) },
		Resolve: func(ctx context.Context, ref string) (signing.Resolved, error) {
			service, err := kms()
			if err != nil {
				return signing.Resolved{}, err
			}
			r, err := service.Resolve(ctx, ref)
			return signing.Resolved{ARN: r.ARN, Alias: r.Alias, SPKI: r.SPKI}, err
		},
		NewCARoot: func(ctx context.Context, s signing.Signer, organization, host string, start time.Time) ([]byte, error) {
			return ca.NewRoot(ctx, s, organization, host, start, caYears)
		},
	}
}

// untilWell calls make until it succeeds, and from then on returns what it made: a failure
// may be over the next time.
func untilWell[T any](make func() (T, error)) func() (T, error) {
	var mu sync.Mutex
	var made T
	done := false
	return func() (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if done {
			return made, nil
		}
		v, err := make()
		if err == nil {
			made, done = v, true
		}
		return v, err
	}
}

// caYears is how long a certificate authority lasts. What it certified is judged at the
// time of the signature, and so outlives it.
const caYears = 10

// keysetConfig is how the keyset of this configuration is opened.
func (c *Config) keysetConfig(create bool, openers signing.Openers) signing.Config {
	cfg := signing.Config{Host: c.host(), Now: c.Now, Create: create, Openers: openers}
	if c.Keys.Mode == KeysModeCertificate {
		cfg.CA = signing.CAConfig{Organization: c.Keys.Organization}
	}
	return cfg
}

// externalTSA are the authorities of others whose timestamps are believed: the one that is
// asked, if any, and those that were. A chain ends with its root.
func (c *Config) externalTSA() ([]signing.ExternalTSA, error) {
	if c.Timestamp.ChainFile == "" {
		return nil, nil
	}
	certs, err := readCertificates("timestamp.chain_file", c.Timestamp.ChainFile)
	if err != nil {
		return nil, err
	}
	var out []signing.ExternalTSA
	for len(certs) > 0 {
		root := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) })
		if root < 0 {
			return nil, configError("timestamp.chain_file", "the last %d certificates of %s are a chain without its root", len(certs), c.Timestamp.ChainFile)
		}
		out = append(out, signing.ExternalTSA{Chain: certs[:root+1]})
		certs = certs[root+1:]
	}
	out[0].URI = c.Timestamp.URL
	return out, nil
}

// timestampAuthority makes the client of an external authority; nil where the embedded
// one is used.
func (c *Config) timestampAuthority(root func() *verify.Root) (timestamper, error) {
	if c.Timestamp.URL == "" {
		return nil, nil
	}
	client, err := tsaclient.New(tsaclient.Config{
		URL: c.Timestamp.URL, HTTPClient: c.HTTPClient, Now: c.Now, Logger: c.Logger,
		Check: func(response, sig []byte) (time.Time, error) { return root().CheckTimestamp(response, sig) },
	})
	if err != nil {
		return nil, fieldError("timestamp.url", err)
	}
	return client, nil
}

// notaries makes what signs with AWS Signer and what verifies such signatures; nil where
// they are not configured.
func (c *Config) notaries(ctx context.Context) (*notary.Signer, *notary.Verifier, error) {
	if c.Signer.RootsFile == "" {
		return nil, nil, nil
	}
	roots, err := readCertificates("signer.roots_file", c.Signer.RootsFile)
	if err != nil {
		return nil, nil, err
	}
	clients, err := c.awsClients(ctx)
	if err != nil {
		return nil, nil, configError("aws", "%v", err)
	}
	revocations, err := notary.NewRevocations(clients, notary.RevocationsConfig{Now: c.Now, Logger: c.Logger})
	if err != nil {
		return nil, nil, fieldError("signer", err)
	}
	verifier, err := notary.NewVerifier(notary.Trust{Roots: roots, ProfileVersionARNs: c.Signer.ProfileVersions}, revocations,
		notary.VerifierConfig{Now: c.Now, Logger: c.Logger, RevocationTTL: c.Signer.RevocationTTL})
	if err != nil {
		return nil, nil, fieldError("signer", err)
	}
	if c.Signer.Profile == "" {
		return nil, verifier, nil
	}
	signer, err := notary.NewSigner(notary.SignerConfig{AWS: clients, Ref: c.Signer.Profile, Verifier: verifier, Now: c.Now, Logger: c.Logger})
	if err != nil {
		return nil, nil, fieldError("signer.profile", err)
	}
	return signer, verifier, nil
}

// fieldError puts a refusal of another package under the field of the configuration that
// caused it.
func fieldError(field string, err error) error {
	return refusal.New(CodeConfigInvalid, "%w", err).InField(field)
}

// readCertificates reads a PEM file of certificates and nothing else.
func readCertificates(field, path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, configError(field, "%v", err)
	}
	var out []*x509.Certificate
	for rest := text; len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, configError(field, "%s holds something else than PEM certificates", path)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, configError(field, "certificate %d of %s: %v", len(out), path, err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, configError(field, "%s holds no certificate", path)
	}
	return out, nil
}
