package client

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// CodeCredentialUnknown: ASSAY_CREDENTIAL names no kind of credential.
const CodeCredentialUnknown = "CREDENTIAL_UNKNOWN"

// envCredential chooses the kind of credential, where an environment has several
// or the one it has is not the one that is meant.
const envCredential = "ASSAY_CREDENTIAL"

// envBuildTag is the key of the request tag that names a CodeBuild build in a web
// identity token, where the organisation pins one.
const envBuildTag = "ASSAY_AWS_BUILD_TAG"

// Detected is how an environment can prove who it is.
type Detected struct {
	// Kind is its name, as in ASSAY_CREDENTIAL.
	Kind   string
	Source CredentialSource
}

// Detect finds the credential of an environment; lookup reads it, as os.LookupEnv
// does. ASSAY_CREDENTIAL names the kind, and then no other is considered:
//
//	github            the OIDC token of a GitHub Actions job
//	codebuild         an AWS CodeBuild build: a signed proof of the role it runs as
//	gitlab            the id_token of a GitLab job, in ASSAY_ID_TOKEN
//	buildkite         the OIDC token that buildkite-agent hands out
//	token             any OIDC token: ASSAY_ID_TOKEN, or in the file ASSAY_ID_TOKEN_FILE
//	certificate       a TLS client certificate: ASSAY_CLIENT_CERT and ASSAY_CLIENT_KEY
//	login             a saved login of a person, or of an earlier step
//	aws               an AWS role, by a signed proof
//	aws-web-identity  an AWS role, by a token of sts:GetWebIdentityToken
//
// Without it the first kind in this order that the environment shows signs of is
// taken, and it alone: a job whose platform then gives no token fails, and is not
// tried as something else. The last two are never guessed: that a process has AWS
// credentials does not mean that it wants to be known by them. A CodeBuild project
// that serves as a GitHub runner shows signs of both, and is a GitHub job.
func Detect(lookup func(string) (string, bool)) (*Detected, error) {
	all := credentialKinds(lookup)
	if want := environment(lookup)(envCredential); want != "" {
		names := make([]string, len(all))
		for i, k := range all {
			if names[i] = k.name; k.name != want {
				continue
			}
			source, err := k.open()
			if err != nil {
				return nil, err
			}
			return &Detected{k.name, source}, nil
		}
		return nil, badInput(CodeCredentialUnknown, "%s is %.40q, want one of %s", envCredential, want, strings.Join(names, ", "))
	}
	var looked []string
	for _, k := range all {
		if k.found == nil {
			continue
		}
		if k.found() {
			source, err := k.open()
			if err != nil {
				return nil, err
			}
			return &Detected{k.name, source}, nil
		}
		looked = append(looked, k.sign)
	}
	return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "no credential in this environment; looked for %s", strings.Join(looked, ", "))
}

// credentialKind is one way to prove who one is.
type credentialKind struct {
	name string
	// sign says by what it is found, for people.
	sign string
	// found reports whether the environment shows the sign; nil where it is never guessed.
	found func() bool
	open  func() (CredentialSource, error)
}

// credentialKinds lists them in the order in which they are looked for.
func credentialKinds(lookup func(string) (string, bool)) []credentialKind {
	env := environment(lookup)
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return env(name) != "" })
	}
	aws := AWSOptions{BuildTag: env(envBuildTag)}
	always := func(source CredentialSource) func() (CredentialSource, error) {
		return func() (CredentialSource, error) { return source, nil }
	}
	return []credentialKind{
		{
			name: "github", sign: fmt.Sprintf("a GitHub Actions job (GITHUB_ACTIONS, %s)", envRequestURL),
			found: func() bool { return env("GITHUB_ACTIONS") == "true" || has(envRequestURL) },
			open:  always(GitHubActions(lookup)),
		},
		{
			name: "codebuild", sign: fmt.Sprintf("an AWS CodeBuild job (%s)", envBuildARN),
			found: func() bool { return has(envBuildARN) },
			open:  always(CodeBuild(lookup)),
		},
		{
			name: "gitlab", sign: fmt.Sprintf("a GitLab job's id_token (GITLAB_CI, %s)", envIDToken),
			found: func() bool { return env("GITLAB_CI") == "true" && has(envIDToken) },
			open:  always(IDToken(lookup)),
		},
		{
			name: "buildkite", sign: "a Buildkite job (BUILDKITE)",
			found: func() bool { return env("BUILDKITE") == "true" },
			open:  always(Buildkite()),
		},
		{
			name: "token", sign: fmt.Sprintf("a token (%s, %s)", envIDToken, envIDTokenFile),
			found: func() bool { return has(envIDToken, envIDTokenFile) },
			open:  always(IDToken(lookup)),
		},
		{
			name: "certificate", sign: fmt.Sprintf("a client certificate (%s, %s)", envClientCert, envClientKey),
			found: func() bool { return has(envClientCert, envClientKey) },
			open:  always(ClientCertificate(env(envClientCert), env(envClientKey))),
		},
		{
			name: "login", sign: "a saved login (assay login)",
			found: func() bool {
				path, err := LoginFile(lookup)
				if err != nil {
					return false
				}
				_, err = os.Lstat(path)
				return err == nil
			},
			open: func() (CredentialSource, error) {
				path, err := LoginFile(lookup)
				if err != nil {
					return nil, err
				}
				return SavedLogin(path), nil
			},
		},
		{name: "aws", open: always(AWS(lookup, aws))},
		{name: "aws-web-identity", open: always(AWSWebIdentity(lookup, aws))},
	}
}
