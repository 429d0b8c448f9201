// Package testenv runs a real Assay server in a directory, on loopback, with an
// OIDC issuer beside it that answers as GitHub's does, and a stand-in for AWS. Tests and the program
// assay-dev use it; assay and assayd never import it.
//
// What such a server attests carries builder …/builders/dev and SLSA level 0.
//
//	env := testenv.New(t)                // server, issuer and a client's environment
//	c, err := client.Dial(ctx, client.Config{Server: env.Server, …})
package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/oidctest"
	"github.com/assay-build/assay/server"
	"golang.org/x/sync/errgroup"
)

// CodeNotLoopback refuses to put a sandbox where others can reach it.
const CodeNotLoopback refusal.Code = "NOT_LOOPBACK"

// Sandbox is a server and its issuer. It serves until the context of Run ends.
type Sandbox struct {
	Server *server.Server
	Issuer *oidctest.Issuer
	AWS    *AWS

	cfg        server.Config
	issuerHTTP *http.Server
	issuerL    net.Listener
}

// NewSandbox opens a server under cfg.Data and binds it to listen, which must be
// on loopback. The issuer gets a port of its own. Edit runs on the finished
// configuration, before the server is made; it may be nil.
func NewSandbox(ctx context.Context, listen string, cfg server.Config, edit func(*server.Config)) (*Sandbox, error) {
	l, err := listenLoopback(ctx, listen)
	if err != nil {
		return nil, err
	}
	issuerL, err := listenLoopback(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	issuer, err := oidctest.New(oidctest.Config{BaseURL: "http://" + issuerL.Addr().String(), Now: cfg.Now})
	if err != nil {
		return nil, errors.Join(err, l.Close(), issuerL.Close())
	}
	owner, err := strconv.ParseInt(fmt.Sprint(issuer.Job()["repository_owner_id"]), 10, 64)
	if err != nil {
		return nil, errors.Join(err, l.Close(), issuerL.Close())
	}
	cfg.Listener = l
	cfg.AllowSandboxIssuers = true
	cfg.Identity.Issuers = append(cfg.Identity.Issuers, server.IssuerConf{
		URL: issuer.URL(), Type: "github-actions", Sandbox: true,
		AllowedOwnerIDs: []int64{owner},
	})
	standin, err := NewAWS(cfg.Now)
	if err != nil {
		return nil, errors.Join(err, l.Close(), issuerL.Close())
	}
	standin.Configure(&cfg)
	cfg.SandboxAWS = true
	if edit != nil {
		edit(&cfg)
	}
	s, err := server.New(ctx, cfg)
	if err != nil {
		standin.Close()
		return nil, errors.Join(err, l.Close(), issuerL.Close())
	}
	return &Sandbox{
		Server: s, Issuer: issuer, AWS: standin, cfg: cfg, issuerL: issuerL,
		issuerHTTP: &http.Server{Handler: issuer.Handler(), ReadHeaderTimeout: 5 * time.Second},
	}, nil
}

// listenLoopback refuses any address that is not on this machine only: the
// issuer of a sandbox hands a token to whoever asks.
func listenLoopback(ctx context.Context, addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, refusal.New(CodeNotLoopback, "listen address %q: %w", addr, err)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, refusal.New(CodeNotLoopback, "a sandbox hands tokens to anybody who asks, so it listens on loopback only, not on %q", addr)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// Run serves until ctx ends.
func (s *Sandbox) Run(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := s.issuerHTTP.Serve(s.issuerL); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { return s.Server.Serve(gctx) })
	group.Go(func() error {
		<-gctx.Done()
		s.AWS.Close()
		return s.issuerHTTP.Close()
	})
	return group.Wait()
}

// URL is what goes into ASSAY_SERVER.
func (s *Sandbox) URL() string { return s.Server.Instance() }

// Env is the environment of a GitHub Actions job that uses this server.
func (s *Sandbox) Env() []string {
	return append([]string{"ASSAY_SERVER=" + s.URL()}, s.Issuer.Env()...)
}

// EnvFile is Env as a shell script that exports it.
func (s *Sandbox) EnvFile() string {
	var b strings.Builder
	b.WriteString("# Load with: . dev.env\n# A job of the sandbox. What it attests is SLSA level 0 and says so.\n")
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "export %s='%s'\n", k, strings.ReplaceAll(v, "'", `'\''`))
	}
	return b.String()
}
