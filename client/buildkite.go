package client

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// Buildkite returns the credential source of a Buildkite job. Its agent hands out
// tokens by its own command,
//
//	buildkite-agent oidc request-token --audience AUDIENCE --claim organization_id --claim pipeline_id
//
// which must be on the PATH, as it is in every job. The two claims are not in a token
// unless asked for, and are what a server tells organisations and pipelines apart by:
// their names can be taken by others.
func Buildkite() CredentialSource { return &buildkite{command: "buildkite-agent"} }

type buildkite struct{ command string }

func (b *buildkite) Credential(ctx context.Context, audience string) (*assayv1.ExchangeRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.command, "oidc", "request-token", "--audience", audience,
		"--claim", "organization_id", "--claim", "pipeline_id")
	out := &boundedBuffer{limit: maxTokenAnswer, full: cancel}
	cmd.Stdout = out
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe open
	switch err := cmd.Run(); {
	case out.overflown:
		return nil, newError(ErrUnavailable, CodeCredentialUnavailable, "buildkite-agent printed more than %d bytes", out.limit)
	case err != nil:
		return nil, b.failed(ctx, err)
	}
	token := strings.TrimSpace(out.buf.String())
	if err := checkTokenShape(token); err != nil {
		return nil, newError(ErrUnavailable, CodeCredentialUnavailable, "buildkite-agent printed %w", err)
	}
	if err := checkTokenAudience(token, audience); err != nil {
		return nil, err
	}
	return &assayv1.ExchangeRequest{Credential: &assayv1.ExchangeRequest_OidcToken{OidcToken: token}}, nil
}

// failed leaves out what the agent printed: it may hold what the agent was given.
func (b *buildkite) failed(ctx context.Context, err error) error {
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return newError(ErrUnavailable, CodeCredentialUnavailable, "buildkite-agent oidc request-token: %w", ctx.Err())
	case errors.As(err, &exit):
		return newError(ErrUnauthenticated, CodeCredentialRefused, "buildkite-agent oidc request-token exited with code %d", exit.ExitCode())
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, exec.ErrDot):
		return newError(ErrUnauthenticated, CodeCredentialMissing, "this is a Buildkite job, and buildkite-agent is not on its PATH")
	}
	return newError(ErrUnavailable, CodeCredentialUnavailable, "buildkite-agent oidc request-token: %w", err)
}

// boundedBuffer calls full for a writer that does not stop, and keeps no more. The
// buffer is not embedded: io.Copy would find its ReadFrom and go round Write.
type boundedBuffer struct {
	buf       bytes.Buffer
	limit     int
	full      func()
	overflown bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.overflown = b.overflown || b.buf.Len()+len(p) > b.limit; b.overflown {
		b.full()
		return 0, errors.New("too much output")
	}
	return b.buf.Write(p)
}
