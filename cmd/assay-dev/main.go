// Command assay-dev is a sandbox: a real Assay server on loopback, an OIDC issuer
// that answers as GitHub's does and a stand-in for AWS, so that everything can be
// tried on one machine without an account anywhere.
//
//	assay-dev --data /tmp/assay &
//	. /tmp/assay/dev.env
//	assay attest ./app && assay verify ./app --env dev
//
// dev.env is the environment of a GitHub Actions job, codebuild.env that of a
// running build of AWS CodeBuild. There ASSAY_DEV_FINISHED_BUILD names a build that has ended:
//
//	. /tmp/assay/codebuild.env
//	assay attest ./app; assay attest-build "$ASSAY_DEV_FINISHED_BUILD"
//
// It is a program of its own so that nothing of it is in assayd. What it attests
// carries builder …/builders/dev and SLSA level 0.
//
// Exit codes: 0 after a clean stop, 2 for wrong use, 3 where it could not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/server"
	"k8s.io/klog/v2"
)

func main() {
	if code, ok := sandbox.Child(os.Args); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("assay-dev", flag.ContinueOnError)
	fs.SetOutput(stderr)
	data := fs.String("data", "", "`directory` for keys, database, log and dev.env (required)")
	listen := fs.String("listen", "127.0.0.1:8780", "loopback `host:port`")
	var o options
	fs.StringVar(&o.format, "entry-format", "rekor-v1", "log entries: rekor-v1 or rekor-v2")
	fs.StringVar(&o.signer, "signer", "file", "where the signing key is: file, or kms for the stand-in of AWS KMS")
	fs.StringVar(&o.mode, "mode", server.KeysModeKey, "key: one key signs; certificate: each attestation has a certificate")
	fs.DurationVar(&o.latency, "kms-latency", 0, "how long the stand-in of AWS KMS takes to sign")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if *data == "" || fs.NArg() > 0 {
		fmt.Fprintln(stderr, "assay-dev: usage: assay-dev --data DIR [--listen 127.0.0.1:8780]")
		return 2
	}
	if o.signer != "file" && o.signer != "kms" {
		fmt.Fprintf(stderr, "assay-dev: --signer %q: file or kms\n", o.signer)
		return 2
	}
	err := serve(ctx, *data, *listen, o, stdout, stderr)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "assay-dev: %v\n", err)
	switch refusal.CodeOf(err) {
	case testenv.CodeNotLoopback, server.CodeConfigInvalid:
		return 2
	}
	return 3
}

// options are what of a sandbox can be chosen.
type options struct {
	format, signer, mode string
	latency              time.Duration
}

func serve(ctx context.Context, data, listen string, o options, stdout, stderr io.Writer) error {
	cfg := server.Config{
		Data:   data,
		Log:    server.LogConfig{EntryFormat: o.format},
		Keys:   server.KeysConf{Mode: o.mode},
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	klog.SetSlogLogger(cfg.Logger) // Tessera logs through klog
	// The public name of a sandbox stays the same when its port changes, since
	// the log is bound to the host name only.
	s, err := testenv.NewSandbox(ctx, listen, cfg, nil)
	if err != nil {
		return err
	}
	if o.signer == "kms" {
		if _, err := s.UseKMS(ctx, "ECC_NIST_P256"); err != nil {
			return err
		}
		s.AWS.World.Latency("kms", "Sign", o.latency)
	}
	// Written after the ports are bound and before anything is served: whoever
	// waits for dev.env, the last one, finds a server that accepts connections.
	finished := s.AWS.FinishedBuild(map[string][]byte{"app": []byte("an application\n")})
	codebuild := s.AWS.EnvFile(s.URL(), s.AWS.RunningBuild()) + fmt.Sprintf("export ASSAY_DEV_FINISHED_BUILD='%s'\n", finished.ARN)
	if err := writeFile(filepath.Join(data, "codebuild.env"), codebuild); err != nil {
		return err
	}
	path := filepath.Join(data, "dev.env")
	if err := writeFile(path, s.EnvFile()); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "assay-dev serves %s (sandbox: builds are SLSA level 0)\nload its environment with:  . %s\n", s.URL(), path)
	return s.Run(ctx)
}

// writeFile replaces a file at once, so that nobody reads half of it.
func writeFile(path, text string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
