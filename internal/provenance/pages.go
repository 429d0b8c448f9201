package provenance

import "strings"

// The requirements of SLSA 1.2's Build track for a build platform, by their names
// in the specification, each with the lowest level that asks for it.
const (
	requirementExists      = "Provenance Exists"
	requirementAuthentic   = "Provenance is Authentic"
	requirementUnforgeable = "Provenance is Unforgeable"
	requirementHosted      = "Hosted"
	requirementIsolated    = "Isolated"
)

// Requirement is one requirement and how a builder stands to it.
type Requirement struct {
	Name  string
	Level int // the lowest Build level that asks for it
	Met   bool
	How   string // how it is met, or why it is not
}

// BuilderPage is what stands behind a builder.id. SLSA wants the id to resolve to
// a document that says what is trusted and what the tenant controls.
type BuilderPage struct {
	ID        string // <instance>/builders/…
	Path      string // /builders/…
	Level     int    // the best Build level
	BuildType string // "" for the sandbox, which has that of the kind it plays
	Title     string
	Why       string // why the level is what it is
	// Tenant is what the tenant, and not the platform, decides. It is on record
	// where the platform tells it, and not to be trusted beyond that.
	Tenant []string
	// Requirements are of the build platform, in the specification's order; the
	// producer's own are not for a builder to meet.
	Requirements []Requirement
}

// standing is how a builder stands to the five requirements. A text that begins
// with "No: " says why one is not met.
type standing struct {
	exists, authentic, unforgeable, hosted, isolated string
}

// What several builders have in common.
const (
	existsBySource  = "Subjects by digest; source, commit, what defines the build and the run."
	authenticToken  = "Signed with the service's key, which no build can reach, and entered into its log. Every field comes from a token that the platform signed; names of subjects, and digests marked as claimed, are the tenant's, as the specification permits."
	authenticAPI    = "Signed with the service's key, which no build can reach, and entered into its log. Every field was read from the CodeBuild API by the service."
	forgeableToken  = "No: Every step of the job can ask for the token, and so name any artifact as the job's."
	hostedNobody    = "No: Nobody vouches for the machine."
	isolatedNobody  = "No: Nobody vouches that a run leaves nothing behind for the next."
	noProcess       = "No: A digest and who vouches for it, but nothing on how the artifact was made."
	noBuildToForge  = "No: There is no build of which anything could be held to be true."
	authenticHolder = "Signed with the service's key and entered into its log; who vouches was proven."
	noBuildHosted   = "No: There is no build."
)

func pages() []BuilderPage {
	all := gitHubPages()
	all = append(all, codeBuildPages()...)
	all = append(all, ciPages()...)
	all = append(all, principalPages()...)
	return append(all, page(pathDev, "", "The sandbox",
		"a sandbox issuer, which vouches for nothing real",
		[]string{"everything"},
		standing{
			"No: The facts are invented.", "No: Nobody vouches for the facts.", "No: Anyone who can reach the sandbox can write anything.",
			"No: There need be no build.", "No: There need be no build.",
		}))
}

func gitHubPages() []BuilderPage {
	tenant := []string{
		"the workflow, its inputs, variables and secrets, and what its steps do",
		"names of repositories, owners, branches, tags and environments (their ids are GitHub's)",
		"names of the subjects, and digests that are marked as claimed",
	}
	return []BuilderPage{
		page(pathGitHubTrusted, BuildTypeGitHubActions, "GitHub Actions, GitHub-hosted runner, a reviewed reusable workflow",
			"a GitHub-hosted runner and a reusable workflow that was reviewed, at its commit",
			append(tenant[:len(tenant):len(tenant)], "what the caller passes to the reusable workflow, which must not change the artifact"),
			standing{
				existsBySource, authenticToken,
				"The job is defined by a workflow of another repository, allow-listed with its commit; its review states that no step of the tenant runs where the token can be asked for, and that nothing its caller passes changes the artifact.",
				"GitHub-hosted, by the claim runner_environment.",
				"GitHub gives each job a fresh virtual machine; the review states that the workflow restores no cache that other jobs write.",
			}),
		page(pathGitHubHosted, BuildTypeGitHubActions, "GitHub Actions, GitHub-hosted runner",
			"a GitHub-hosted runner; facts from GitHub's token, for which any step of the job can ask", tenant,
			standing{
				existsBySource, authenticToken, forgeableToken, "GitHub-hosted, by the claim runner_environment.",
				"No: GitHub gives each job a fresh virtual machine, but the workflow may restore caches that other jobs wrote.",
			}),
		page(pathGitHubSelfHosted, BuildTypeGitHubActions, "GitHub Actions, self-hosted runner",
			"a self-hosted runner, whose isolation nobody vouches for", append(tenant[:len(tenant):len(tenant)], "the runner: its machine, image and what it keeps between jobs"),
			standing{
				existsBySource, authenticToken, forgeableToken,
				"No: A self-hosted runner may be anything, a workstation included.", isolatedNobody,
			}),
	}
}

func codeBuildPages() []BuilderPage {
	tenant := []string{
		"the project and its service role: source, buildspec, image, compute, variables, caches, file systems, a docker server, network",
		"what StartBuild overrides, each listed in externalParameters.overrides",
		"what the commands of the build do, and the names they give to artifacts",
	}
	const (
		exists = "Subjects by digest; project, source and commit, buildspec or its digest, image, variables, overrides, times."
		hosted = "CodeBuild runs it; reserved capacity counts, as dedicated infrastructure does."
	)
	return []BuilderPage{
		page(pathCodeBuildPostBuild, BuildTypeCodeBuild, "AWS CodeBuild, read after the build",
			"a finished build, read from CodeBuild and S3 by the service; the build takes no part", tenant,
			standing{
				exists,
				authenticAPI + " Subjects are the objects in S3, hashed by the service and compared with CodeBuild's own sha256.",
				"No credential that the build can reach makes the service write, and record and artifact were read after its last command. External parameters are enumerated, with the overrides.",
				hosted,
				"CodeBuild provisions a container for each build of on-demand capacity, as AWS states it. What would void that (caches, file systems, a docker server, reserved capacity, a debug session, an override to privileged mode) lowers the level.",
			}),
		page(pathCodeBuildInJob, BuildTypeCodeBuild, "AWS CodeBuild, by the job's role",
			"a running build, matched with CodeBuild's record; any step of it can use the role's credentials", append(tenant[:len(tenant):len(tenant)], "names of the subjects, and digests that are marked as claimed"),
			standing{
				exists, authenticAPI,
				"No: Every command of the build has the role's credentials, and so can name any artifact as the build's; and the record is read before the build ends.",
				hosted,
				"No: The same as after the build, but what happens between the call and the end of the build is not seen.",
			}),
	}
}

func ciPages() []BuilderPage {
	tenant := []string{
		"the pipeline, its variables, and what its steps do",
		"names of projects, branches, tags and environments",
		"names of the subjects, and digests that are marked as claimed",
	}
	onTheirMachine := append(tenant[:len(tenant):len(tenant)], "the runner: its machine, image and what it keeps between jobs")
	hosted := standing{
		existsBySource, authenticToken, forgeableToken, "The platform's own runner, by the claim runner_environment.",
		"No: The pipeline may restore caches that other jobs wrote.",
	}
	selfHosted := hosted
	selfHosted.hosted, selfHosted.isolated = hostedNobody, isolatedNobody
	const existsByPipeline = "Subjects by digest; commit, pipeline and run. The token names no repository; the pipeline does."
	kiteHosted, kiteSelfHosted := hosted, selfHosted
	kiteHosted.exists, kiteSelfHosted.exists = existsByPipeline, existsByPipeline
	return []BuilderPage{
		page(pathGitLabHosted, BuildTypeCIJob, "GitLab CI, runner of GitLab",
			"a runner that GitLab hosts; facts from GitLab's token, for which any step of the job can ask", tenant, hosted),
		page(pathGitLabSelfHosted, BuildTypeCIJob, "GitLab CI, self-hosted runner",
			"a self-hosted runner, whose isolation nobody vouches for", onTheirMachine, selfHosted),
		page(pathBuildkiteHosted, BuildTypeCIJob, "Buildkite, hosted agent",
			"an agent that Buildkite hosts; facts from Buildkite's token, for which any step of the job can ask", tenant, kiteHosted),
		page(pathBuildkiteSelfHosted, BuildTypeCIJob, "Buildkite, self-hosted agent",
			"a self-hosted agent, whose isolation nobody vouches for", onTheirMachine, kiteSelfHosted),
		page(pathWorkload, BuildTypeCIJob, "A run of another CI system, by its OIDC token",
			"facts from a token by a configured mapping; nothing is known of the machine",
			append(onTheirMachine[:len(onTheirMachine):len(onTheirMachine)], "whatever the issuer lets a workload choose in its token"), selfHosted),
	}
}

func principalPages() []BuilderPage {
	tenant := []string{"the artifact, how it was made, and every name and digest of the subjects"}
	s := standing{noProcess, authenticHolder, noBuildToForge, noBuildHosted, noBuildHosted}
	return []BuilderPage{
		page(pathAWSRole, BuildTypePrincipal, "An AWS role", "a role vouches for an artifact; source and process are not known", tenant, s),
		page(pathX509, BuildTypePrincipal, "The holder of a client certificate", "a certificate's holder vouches for an artifact; source and process are not known", tenant, s),
		page(pathWorkloadPrincipal, BuildTypePrincipal, "A workload that is no run", "a workload vouches for an artifact; source and process are not known", tenant, s),
	}
}

// page gives a builder the level that its requirements give it: the highest of
// which, and of those below which, none is missing.
func page(path, buildType, title, why string, tenant []string, s standing) BuilderPage {
	p := BuilderPage{Path: path, BuildType: buildType, Title: title, Why: why, Tenant: tenant, Level: 3}
	for _, r := range [...]Requirement{
		{Name: requirementExists, Level: 1, How: s.exists},
		{Name: requirementAuthentic, Level: 2, How: s.authentic},
		{Name: requirementUnforgeable, Level: 3, How: s.unforgeable},
		{Name: requirementHosted, Level: 2, How: s.hosted},
		{Name: requirementIsolated, Level: 3, How: s.isolated},
	} {
		how, missing := strings.CutPrefix(r.How, "No: ")
		r.How, r.Met = how, !missing
		if missing {
			p.Level = min(p.Level, r.Level-1)
		}
		p.Requirements = append(p.Requirements, r)
	}
	return p
}

// Builders returns every builder of this instance, the best first within each
// platform. It is what the pages under <instance>/builders/ and docs/slsa.md show.
func (w *Writer) Builders() []BuilderPage {
	out := pages()
	for i := range out {
		out[i].ID = w.instance + out[i].Path
	}
	return out
}

// Levels returns the best level of every builder of this instance, by id.
func (w *Writer) Levels() map[string]int {
	levels := make(map[string]int)
	for _, p := range w.Builders() {
		levels[p.ID] = p.Level
	}
	return levels
}
