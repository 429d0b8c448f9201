// Package client talks to an Assay server: it proves which CI job it runs in,
// attests what the job built, and asks whether an artifact may be deployed.
//
//	c, err := client.Dial(ctx, client.Config{
//		Server:     "https://assay.example.com",
//		Credential: source, // from client.Detect, or of one kind: client.GitHubActions(os.LookupEnv)
//	})
//	if err != nil { … }
//	defer c.Close()
//	verdict, err := c.Verify(ctx, []client.Subject{{Name: "app", SHA256: digest}}, "prod")
//	if err != nil { … }           // nothing was decided: nothing may run
//	if !verdict.Allowed() { … }   // verdict.Decisions() say why
//
// # What the server is not believed
//
// The server is the judge of policy and nothing else. A client computes its own
// digests and compares them with each answer; a bundle must parse, carry the
// statement that its id names, and speak about exactly the subjects sent; a
// verdict must hold one decision for each subject asked, about that digest and
// that environment, without contradicting itself. Whatever fails such a check is
// an error that matches [ErrDishonest], never a pass. The zero [Verdict] is a denial.
// An SBOM has to be signed by one of the instance's keys and be in one of its logs,
// and comes out as the bytes that were signed ([Client.SBOM]).
//
// # Who gets the credential
//
// A platform token names its audience, and whoever receives it can present it to
// that audience. So the audience is the origin of the URL the user configured,
// scheme://host[:port], and nothing a server says can change it: a hostile server
// can only ever harvest tokens made out to itself. Two credentials know no such
// audience. A person's ID token names the client id that the person logged in
// with, so each deployment wants a client id of its own ([Login]). A client
// certificate proves a TLS connection and can be shown to nobody else
// ([ClientCertificate]).
//
// # Calls
//
// Every call has a deadline: the context's, or else a default. Every call may be
// repeated safely, since an attest of the same statement by the same build
// returns the first answer. So a call that failed as UNAVAILABLE, and only such a
// call, is tried again, up to five times, after a random wait within exponentially
// growing bounds ("full jitter") and no sooner than the server's RetryInfo asks.
// A session is opened with the first call that needs one, kept until shortly
// before it expires, and opened once more if the server says that it expired.
//
// A Client may be used by several goroutines at once.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// unaryTimeout and streamTimeout bound calls whose context has no deadline.
	unaryTimeout  = 60 * time.Second
	streamTimeout = time.Hour

	// maxMessageBytes bounds one answer: the largest bundle the format allows
	// (96 MiB, for an SBOM of 50 MiB) and what surrounds it.
	maxMessageBytes = 128 << 20
)

// Config says which server to talk to, and as whom.
type Config struct {
	// Server is https://HOST[:PORT] or, for a server on this machine,
	// http://HOST:PORT. Required. It may not carry a path.
	Server string
	// Audience is what the platform token is made out to; the origin of Server
	// if empty. Set it only where the server is reached under another name than
	// its own. Never set it from anything a server said.
	Audience string
	// Credential proves who the caller is; Detect finds the one of an environment.
	// Without one only GetTrustedRoot works.
	Credential CredentialSource
	// AllowPlaintext permits http:// to a host that is not this machine. Tokens
	// and artifacts then travel readable and changeable by everybody on the way.
	AllowPlaintext bool
	// CAFile holds the PEM certificates to trust instead of the system's.
	CAFile string
	// Trust follows the server's keys. Where it has been initialized, what the server
	// signed is verified with what it has verified, and not with what the server says.
	Trust *TrustStore
	// UserAgent goes in front of grpc-go's own.
	UserAgent string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Client is a connection to one server.
type Client struct {
	conn     *grpc.ClientConn
	endpoint *endpoint
	retry    retrier
	sessions *sessions
	trust    *TrustStore

	attestation  assayv1.AttestationServiceClient
	verification assayv1.VerificationServiceClient
	audit        assayv1.AuditServiceClient
	identity     assayv1.IdentityServiceClient
}

// Dial checks the configuration and prepares a connection. It does not wait for
// the server: the first call does.
func Dial(_ context.Context, cfg Config) (*Client, error) {
	ep, err := parseServer(cfg.Server, cfg.AllowPlaintext)
	if err != nil {
		return nil, err
	}
	if cfg.Trust != nil && cfg.Trust.endpoint.origin != ep.origin {
		return nil, badInput(CodeServerInvalid, "the trust is in %s, the server is %s", cfg.Trust.endpoint.origin, ep.origin)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Audience == "" {
		cfg.Audience = ep.origin
	}
	transport, err := transportCredentials(ep, cfg.CAFile, cfg.Credential)
	if err != nil {
		return nil, err
	}
	session, err := openSession(cfg.Credential, ep.origin, cfg.Now())
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(ep.target,
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent(cfg.UserAgent),
		// Retries are this package's own business: gRPC's would repeat an
		// upload from its buffer, or not at all beyond 256 KiB.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		// Two chunks and their frames: fewer, larger writes.
		grpc.WithWriteBufferSize(256<<10),
		// Reconnect within the waits of our own retries.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.5, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		// Find out within a minute that a peer is gone, rather than at the deadline.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
	)
	if err != nil {
		return nil, badInput(CodeServerInvalid, "server %q: %v", cfg.Server, err)
	}
	c := &Client{
		conn:         conn,
		endpoint:     ep,
		retry:        newRetrier(cfg.Now),
		trust:        cfg.Trust,
		attestation:  assayv1.NewAttestationServiceClient(conn),
		verification: assayv1.NewVerificationServiceClient(conn),
		audit:        assayv1.NewAuditServiceClient(conn),
		identity:     assayv1.NewIdentityServiceClient(conn),
	}
	c.sessions = newSessions(c.identity, cfg.Credential, cfg.Audience, cfg.Now)
	c.sessions.resume(session)
	return c, nil
}

// Close ends the connection. Calls under way fail.
func (c *Client) Close() error { return c.conn.Close() }

// Server returns the origin of the server, scheme://host[:port].
func (c *Client) Server() string { return c.endpoint.origin }

func transportCredentials(ep *endpoint, caFile string, source CredentialSource) (credentials.TransportCredentials, error) {
	proof, certified := source.(certified)
	if ep.plaintext {
		if certified {
			return nil, badInput(CodeCertificateInvalid, "server %s is plaintext: a client certificate proves a TLS connection", ep.origin)
		}
		if caFile != "" {
			return nil, badInput(CodeServerInvalid, "server %s is plaintext: a CA file has no meaning", ep.origin)
		}
		return insecure.NewCredentials(), nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, badInput(CodeCAFileInvalid, "CA file: %v", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, badInput(CodeCAFileInvalid, "CA file %s holds no PEM certificate", caFile)
		}
	}
	if certified {
		// Now, so that a certificate which cannot be read is not taken for a server
		// that is away.
		if _, err := proof.certificate(); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return proof.certificate() }
	}
	return credentials.NewTLS(cfg), nil
}

// authenticated runs fn with a session, retrying as the package comment says.
// fn is called once per attempt, with a context that carries the session token.
func (c *Client) authenticated(ctx context.Context, timeout time.Duration, fn func(context.Context) error) error {
	ctx, cancel := withDeadline(ctx, timeout)
	defer cancel()
	reopened := false
	return c.retry.do(ctx, func(ctx context.Context) error {
		for {
			token, err := c.sessions.token(ctx)
			if err != nil {
				return fmt.Errorf("open session: %w", err)
			}
			err = fromStatus(fn(withToken(ctx, token)))
			// Once only: a server whose sessions are born expired must not
			// draw one platform token after the other out of the runner.
			if reopened || !errors.Is(err, &Error{Code: codeSessionExpired}) {
				return err
			}
			reopened = true
			c.sessions.drop(token)
		}
	})
}

// anonymous runs fn without a session, retrying as the package comment says.
func (c *Client) anonymous(ctx context.Context, timeout time.Duration, fn func(context.Context) error) error {
	ctx, cancel := withDeadline(ctx, timeout)
	defer cancel()
	return c.retry.do(ctx, func(ctx context.Context) error { return fromStatus(fn(ctx)) })
}

func withDeadline(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}
