package main

import (
	"maps"
	"slices"
)

// provenance is what show reads from an SLSA v1 predicate, of any of Assay's build
// types. All of it is shown as signed, whatever the server's index says.
type provenance struct {
	BuildDefinition struct {
		BuildType            string             `json:"buildType"`
		ExternalParameters   externalParameters `json:"externalParameters"`
		InternalParameters   internalParameters `json:"internalParameters"`
		ResolvedDependencies []struct {
			URI    string            `json:"uri"`
			Digest map[string]string `json:"digest"`
		} `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder  struct{ ID string } `json:"builder"`
		Metadata struct {
			InvocationID string `json:"invocationId"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

type externalParameters struct {
	// GitHub Actions.
	Workflow struct {
		Ref        string `json:"ref"`
		Repository string `json:"repository"`
		Path       string `json:"path"`
	} `json:"workflow"`
	// AWS CodeBuild.
	Project struct {
		ARN string `json:"arn"`
	} `json:"project"`
	Buildspec struct {
		Location string `json:"location"`
	} `json:"buildspec"`
	Environment struct {
		Image          string `json:"image"`
		PrivilegedMode bool   `json:"privilegedMode"`
	} `json:"environment"`
	Overrides []struct {
		Field string `json:"field"`
	} `json:"overrides"`
	// Other CI systems.
	BuildConfig struct {
		URI string `json:"uri"`
	} `json:"buildConfig"`
}

type internalParameters struct {
	CodeBuild struct {
		Initiator   string `json:"initiator"`
		ServiceRole string `json:"serviceRole"`
	} `json:"codebuild"`
	CI struct {
		Platform string `json:"platform"`
		Event    string `json:"event"`
		Runner   string `json:"runner"`
		Proposed bool   `json:"proposed"`
	} `json:"ci"`
	Principal struct {
		Kind    string `json:"kind"`
		Subject string `json:"subject"`
		RoleARN string `json:"roleArn"`
	} `json:"principal"`
	Assay struct {
		Downgrades []string `json:"downgrades"`
	} `json:"assay"`
}

// rows shows where the artifacts come from, and how they were made.
func (p *provenance) rows(t *table) {
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		if commit := d.Digest["gitCommit"]; commit != "" {
			t.row("source", clean(d.URI))
			t.row("commit", clean(commit))
			continue
		}
		for _, algorithm := range slices.Sorted(maps.Keys(d.Digest)) {
			t.row("dependency", clean(d.URI+" "+algorithm+":"+d.Digest[algorithm]))
		}
	}
	external, internal := &p.BuildDefinition.ExternalParameters, &p.BuildDefinition.InternalParameters
	if w := external.Workflow; w.Path != "" {
		t.row("workflow", clean(w.Repository+"/"+w.Path+"@"+w.Ref))
	}
	codeBuildProvenance(t, external, internal)
	t.row("build config", clean(external.BuildConfig.URI))
	t.row("platform", clean(internal.CI.Platform))
	t.row("event", clean(internal.CI.Event))
	t.row("runner", clean(internal.CI.Runner))
	t.row("pull request", pullRequest(internal.CI.Proposed, ""))
	t.row("principal", clean(internal.Principal.Kind))
	t.row("role", clean(internal.Principal.RoleARN))
	t.row("subject", clean(internal.Principal.Subject))
	t.row("run", clean(p.RunDetails.Metadata.InvocationID))
}

func codeBuildProvenance(t *table, external *externalParameters, internal *internalParameters) {
	t.row("project", clean(external.Project.ARN))
	t.row("buildspec", clean(external.Buildspec.Location))
	t.row("image", clean(external.Environment.Image))
	if external.Environment.PrivilegedMode {
		t.row("privileged", "yes")
	}
	fields := make([]string, len(external.Overrides))
	for i, o := range external.Overrides {
		fields[i] = o.Field
	}
	t.row("overrides", joined(fields))
	t.row("initiator", clean(internal.CodeBuild.Initiator))
	t.row("service role", clean(internal.CodeBuild.ServiceRole))
}
