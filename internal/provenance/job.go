package provenance

import (
	"github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// jobExternal and jobInternal are the parameters of the build type ci-job/v1.
// docs/buildtypes/ci-job-v1.md defines them.
type jobExternal struct {
	Source      jobSource  `json:"source"`
	BuildConfig *jobConfig `json:"buildConfig,omitempty"`
}

type jobSource struct {
	Repository string `json:"repository,omitempty"`
	Ref        string `json:"ref,omitempty"`
}

type jobConfig struct {
	URI    string           `json:"uri,omitempty"`
	Digest common.DigestSet `json:"digest,omitempty"`
}

type jobInternal struct {
	CI    jobParameters   `json:"ci"`
	Assay assayParameters `json:"assay"`
}

type jobParameters struct {
	Platform     string   `json:"platform"`
	Issuer       string   `json:"issuer"`
	Subject      string   `json:"subject"`
	Account      string   `json:"account,omitempty"`
	AccountID    string   `json:"accountId,omitempty"`
	RepositoryID string   `json:"repositoryId,omitempty"`
	Event        string   `json:"event,omitempty"`
	Proposed     bool     `json:"proposed,omitzero"`
	RefProtected string   `json:"refProtected,omitempty"`
	Runner       string   `json:"runner,omitempty"`
	Environment  string   `json:"environment,omitempty"`
	Properties   []string `json:"properties,omitempty"`
}

// isJob reports whether a workload is a build. A certificate's never is: it says
// who holds a key, and nothing of a run.
func isJob(c *identity.Caller) bool {
	return c.IsBuild() && c.Workload.Platform != identity.PlatformX509
}

func defineJob(c *identity.Caller, assay assayParameters) (*definition, error) {
	w := c.Workload
	for name, commit := range map[string]string{"commit": w.Commit, "build_config_digest": w.BuildConfigDigest} {
		if commit != "" && attest.CheckDigest("gitCommit", commit) != nil {
			return nil, refusal.New(CodeFactInvalid, "the %s is not a full git commit in lower-case hex", name)
		}
	}
	d := &definition{
		buildType: BuildTypeCIJob,
		internal: jobInternal{Assay: assay, CI: jobParameters{
			Platform: w.Platform, Issuer: c.Issuer, Subject: w.Subject,
			Account: w.Account, AccountID: w.AccountID, RepositoryID: w.RepositoryID,
			Event: w.Event, Proposed: w.Proposed, RefProtected: w.RefProtected,
			Runner: w.Runner, Environment: w.Environment, Properties: w.Properties,
		}},
		metadata: slsa.BuildMetadata{InvocationID: w.InvocationID}, //nolint:staticcheck // SA1019: as definition
	}
	external := jobExternal{Source: jobSource{Repository: w.Repository, Ref: w.Ref}}
	if err := d.jobSource(w); err != nil {
		return nil, err
	}
	if w.BuildConfigURI != "" {
		config := gitSource("buildConfig", w.BuildConfigURI, w.BuildConfigDigest)
		external.BuildConfig = &jobConfig{URI: config.URI, Digest: config.Digest}
		// Without its commit nothing was resolved.
		if w.BuildConfigDigest != "" {
			d.dependencies = append(d.dependencies, config)
		}
	}
	d.external = external
	return d, nil
}

// jobSource records the source. A platform may tell the commit and not of which
// repository.
func (d *definition) jobSource(w *identity.Workload) error {
	if w.Repository != "" {
		uri, err := gitURI(w.Repository, w.Ref)
		if err != nil {
			return err
		}
		d.sourceURI = uri
	}
	d.sourceCommit = w.Commit
	if d.sourceURI != "" || w.Commit != "" {
		d.dependencies = append(d.dependencies, gitSource("source", d.sourceURI, w.Commit))
	}
	return nil
}
