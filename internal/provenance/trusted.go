package provenance

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// defaultServer is where a trusted workflow lies unless its Server says otherwise.
const defaultServer = "https://github.com"

// TrustedWorkflow is a reusable workflow, at a commit, whose GitHub-hosted jobs
// count as Build L3. To list one states what this service cannot see and SLSA
// asks for; docs/slsa.md says how to review it:
//
//   - the job that may ask for the token runs nothing the tenant wrote, so that
//     no step of the build can speak for it;
//   - nothing its caller passes (inputs, variables, secrets, outputs of other
//     jobs) changes the artifact, for the token tells none of it.
type TrustedWorkflow struct {
	// Server is the ServerURL of the issuer; https://github.com if empty.
	Server string
	// Workflow is "owner/name/.github/workflows/file.yml", as in the claim
	// job_workflow_ref. Required.
	Workflow string
	// Ref is the exact ref after the "@" there, "refs/tags/v2" for example, or the
	// commit where callers name that. Empty for any.
	Ref string
	// SHA is the exact job_workflow_sha. Required: a tag or branch can be moved to
	// what nobody reviewed, and a name can be given up and taken by somebody else.
	SHA string
}

var workflowName = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+/\.github/workflows/[^/\s]+\.ya?ml$`)

func (t *TrustedWorkflow) check(index int) error {
	field := fmt.Sprintf("trusted_workflows[%d].", index)
	if t.Server != "" {
		u, err := url.Parse(t.Server)
		if err != nil || u.Scheme != "https" || u.Host == "" || t.Server != "https://"+u.Host {
			return refusal.New(CodeConfigInvalid, "the server %.200q is not https://HOST", t.Server).InField(field + "server")
		}
	}
	if !workflowName.MatchString(t.Workflow) {
		return refusal.New(CodeConfigInvalid, "the workflow %.200q is not OWNER/NAME/.github/workflows/FILE.yml", t.Workflow).InField(field + "workflow")
	}
	if t.Ref != "" && t.Ref != t.SHA && !strings.HasPrefix(t.Ref, "refs/") {
		return refusal.New(CodeConfigInvalid, "the ref %.200q is neither refs/… nor the commit", t.Ref).InField(field + "ref")
	}
	if attest.CheckDigest("gitCommit", t.SHA) != nil {
		return refusal.New(CodeConfigInvalid, "the commit %.100q is not a full git commit in lower-case hex", t.SHA).InField(field + "sha")
	}
	return nil
}

// trusted reports whether a GitHub-hosted job is defined by a workflow of the list.
func (w *Writer) trusted(g *identity.GitHubActions) bool {
	for i := range w.workflows {
		if w.workflows[i].defines(g) {
			return true
		}
	}
	return false
}

func (t *TrustedWorkflow) defines(g *identity.GitHubActions) bool {
	server := t.Server
	if server == "" {
		server = defaultServer
	}
	ref, ours := strings.CutPrefix(g.JobWorkflowRef, t.Workflow+"@")
	// A workflow file lies directly in its folder, so that what follows the name
	// and "@refs/" can be no longer file name that starts with ours.
	if !ours || !strings.HasPrefix(ref, "refs/") && ref != t.SHA {
		return false
	}
	return g.ServerURL == server && g.JobWorkflowSHA == t.SHA && (t.Ref == "" || ref == t.Ref) && !t.within(g.Repository)
}

// within reports whether the workflow lies in the repository that is built. Who
// may write there could change both in one step, so it is then no builder apart.
func (t *TrustedWorkflow) within(repository string) bool {
	owner, rest, _ := strings.Cut(t.Workflow, "/")
	name, _, _ := strings.Cut(rest, "/")
	// GitHub does not tell repository names apart by case.
	return strings.EqualFold(owner+"/"+name, repository)
}
