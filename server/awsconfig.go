package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/identity"
	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
)

// AWSConf says which AWS accounts may call, and how their builds are read.
type AWSConf struct {
	// Accounts are the accounts whose roles and builds are believed. With none,
	// STS proofs and AttestBuild are refused.
	Accounts []AWSAccountConf `yaml:"accounts"`
	// CodeBuildSessionName is what CodeBuild calls the role session of a build, with
	// {uuid} for the build's; "AWSCodeBuild-{uuid}" if empty. AWS does not document
	// it: should it change one day, this is where to follow.
	CodeBuildSessionName string `yaml:"codebuild_session_name"`
	// PlaintextVariables are the environment variables of builds whose values may
	// stand in provenance. All others are there by name only.
	PlaintextVariables []string `yaml:"plaintext_variables"`
	// TrustPolicyTTL is how long what was read of a role's trust policy is
	// believed; 5m if zero, 15m at most.
	TrustPolicyTTL time.Duration `yaml:"trust_policy_ttl"`
	// MaxConcurrentProofs bounds the questions to STS at one time; 32 if zero.
	MaxConcurrentProofs int `yaml:"max_concurrent_proofs"`
}

// AWSAccountConf is one account.
type AWSAccountConf struct {
	// ID is the account's twelve digits, in quotes.
	ID string `yaml:"id"`
	// Partition is aws if empty; aws-cn, aws-us-gov, aws-eusc.
	Partition string `yaml:"partition"`
	// Regions whose builds are read and whose STS is asked.
	Regions []string `yaml:"regions"`
	// ReaderRoleARN is the role in that account that the service assumes to read
	// builds and what they made. Required where CodeBuildProjects is set.
	ReaderRoleARN string `yaml:"reader_role_arn"`
	// ExternalID goes with it: without one, whoever can name the role could have the
	// service read for them.
	ExternalID string `yaml:"external_id"`
	// CodeBuildProjects are the projects whose builds may attest, by exact name, or
	// the one entry "*" for all of the account.
	CodeBuildProjects []string `yaml:"codebuild_projects"`
	// AllowedRoles are the names of roles that may open a session as a role: for
	// deploy stages and Lambdas, not for builds.
	AllowedRoles []string `yaml:"allowed_roles"`
}

// CertificateAuthorityConf is an authority whose client certificates are credentials.
type CertificateAuthorityConf struct {
	// Name tells authorities apart; it is part of the callers' issuer.
	Name string `yaml:"name"`
	// CAFile holds its roots, PEM.
	CAFile string `yaml:"ca_file"`
	// TrustDomain is the SPIFFE trust domain whose ids are accepted, if any.
	TrustDomain string `yaml:"trust_domain"`
	// AllowedURIs and AllowedDNS are the names that may call, exactly.
	AllowedURIs []string `yaml:"allowed_uris"`
	AllowedDNS  []string `yaml:"allowed_dns"`
}

func (c *AWSConf) check() error {
	if c.TrustPolicyTTL < 0 || c.TrustPolicyTTL > codebuild.MaxTrustTTL {
		return configError("aws.trust_policy_ttl", "is %s; at most %s", c.TrustPolicyTTL, codebuild.MaxTrustTTL)
	}
	for i, a := range c.Accounts {
		at := fmt.Sprintf("aws.accounts[%d]", i)
		if len(a.CodeBuildProjects) > 0 && (a.ReaderRoleARN == "" || a.ExternalID == "") {
			return configError(at, "codebuild_projects needs reader_role_arn and external_id, to read the builds with")
		}
		if len(a.CodeBuildProjects) == 0 && len(a.AllowedRoles) == 0 {
			return configError(at, "names neither codebuild_projects nor allowed_roles: nobody of the account could call")
		}
	}
	return nil
}

// awsClients loads the service's own AWS identity: the role of its task, its
// instance or its pod. It sends nothing yet.
func (c *Config) awsClients(ctx context.Context) (aws.Config, error) {
	if c.AWSClients != nil {
		return *c.AWSClients, nil
	}
	clients, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(awshttp.NewBuildableClient()))
	// AWS_ENDPOINT_URL and a profile's endpoint_url would send the role's requests,
	// and with them what is believed, to wherever they say.
	clients.BaseEndpoint, clients.ConfigSources = nil, nil
	return clients, err
}

// configureAWS makes what reads builds, and checks what proofs will be held to.
func (s *Server) configureAWS(ctx context.Context) error {
	if len(s.cfg.AWS.Accounts) == 0 {
		return nil
	}
	clients, err := s.cfg.awsClients(ctx)
	if err != nil {
		return configError("aws", "%v", err)
	}
	var projects []codebuild.Account
	for _, a := range s.cfg.AWS.Accounts {
		if len(a.CodeBuildProjects) > 0 {
			projects = append(projects, codebuild.Account{
				ID: a.ID, Partition: a.Partition, Regions: a.Regions,
				ReaderRoleARN: a.ReaderRoleARN, ExternalID: a.ExternalID, Projects: a.CodeBuildProjects,
			})
		}
	}
	if len(projects) > 0 {
		s.builds, err = codebuild.New(codebuild.Config{
			Accounts: projects, SessionName: s.cfg.AWS.CodeBuildSessionName, PlaintextVariables: s.cfg.AWS.PlaintextVariables,
			TrustTTL: s.cfg.AWS.TrustPolicyTTL, AWS: clients, Now: s.cfg.Now, Logger: s.cfg.Logger,
		})
		if err != nil {
			return err
		}
	}
	_, err = s.proofs(make([]byte, identity.SessionKeyBytes))
	return err
}

// proofs makes what believes STS proofs; nil without accounts.
func (s *Server) proofs(nonceKey []byte) (*identity.AWS, error) {
	if len(s.cfg.AWS.Accounts) == 0 {
		return nil, nil
	}
	cfg := identity.AWSConfig{
		Audience: s.cfg.Audience[0], NonceKey: nonceKey, HTTPClient: s.awsHTTPClient(),
		Now: s.cfg.Now, ClockSkew: s.cfg.Identity.ClockSkew, MaxConcurrent: s.cfg.AWS.MaxConcurrentProofs,
		Sandbox: s.cfg.SandboxAWS, Logger: s.cfg.Logger, Consumed: s.consumed,
	}
	if s.builds != nil {
		cfg.Builds = s.builds
	}
	for _, a := range s.cfg.AWS.Accounts {
		cfg.Accounts = append(cfg.Accounts, identity.AWSAccount{ID: a.ID, Partition: a.Partition, Regions: a.Regions, AllowedRoles: a.AllowedRoles})
	}
	return identity.NewAWS(cfg)
}

// awsHTTPClient carries proofs to STS; nil for the default one.
func (s *Server) awsHTTPClient() *http.Client {
	if s.cfg.AWSTransport == nil {
		return nil
	}
	return &http.Client{Transport: s.cfg.AWSTransport}
}

// certificates reads the authorities of client certificates; nil without any.
func (c *Config) certificates() (*identity.Certificates, error) {
	var authorities []identity.CertificateAuthority
	for i, ca := range c.Identity.ClientCertificates {
		at := fmt.Sprintf("identity.client_certificates[%d]", i)
		pem, err := os.ReadFile(ca.CAFile)
		if err != nil {
			return nil, configError(at+".ca_file", "%v", err)
		}
		authorities = append(authorities, identity.CertificateAuthority{
			Name: ca.Name, RootsPEM: pem, TrustDomain: ca.TrustDomain, AllowedURIs: ca.AllowedURIs, AllowedDNS: ca.AllowedDNS,
		})
	}
	if len(authorities) == 0 {
		return nil, nil
	}
	if c.TLS.CertFile == "" {
		return nil, configError("identity.client_certificates", "needs tls: without it no client shows a certificate")
	}
	return identity.NewCertificates(authorities)
}
