// Command assayd is the Assay service.
//
//	assayd serve --data /var/lib/assay
//	assayd serve --config /etc/assay.yaml
//
// Exit codes: 0 after a clean stop; 2 for wrong use or a bad configuration; 3
// where the service could not start or had to stop.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/version"
	"github.com/assay-build/assay/server"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

const (
	exitOK    = 0
	exitUsage = 2
	exitError = 3
)

func main() {
	// First: a scanning process is started for each artifact, and needs nothing of the rest.
	if code, ok := sandbox.Child(os.Args); ok {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, klog.SetSlogLogger)
	stop()
	os.Exit(code)
}

// errUsage marks errors that the person at the keyboard can mend.
var errUsage = errors.New("usage")

// run is the program. What the log library says is led to logTo: klog has one logger for a
// whole process, which must not change once something logs.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, logTo func(*slog.Logger)) int {
	root := newRoot(stdout, stderr, logTo)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage), errors.Is(err, server.ErrConfig):
		fmt.Fprintf(stderr, "assayd: %v\nhint: assayd serve --help lists the flags; docs/configuration.md the keys\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "assayd: %v\n", err)
	return exitError
}

func newRoot(stdout, stderr io.Writer, logTo func(*slog.Logger)) *cobra.Command {
	root := &cobra.Command{
		Use:           "assayd",
		Short:         "The Assay service: attests builds and gates deploys",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%w: say what to do: assayd serve or assayd version", errUsage)
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddCommand(newScan())
	root.AddCommand(newKeys(stdout, stderr, logTo, server.KeyOpeners))
	root.AddCommand(newTUF(stdout, stderr, server.KeyOpeners, server.TrustFiles))
	root.AddCommand(newServe(stderr, logTo), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(stdout, "assayd "+version.String())
			return err
		},
	})
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no arguments, got %q", errUsage, cmd.Name(), args)
	}
	return nil
}

// serveFlags override the file; docs/configuration.md names the key of each.
type serveFlags struct {
	config, data, listen, instance, logFormat, logLevel string
	allowPlaintext                                      bool
}

func newServe(stderr io.Writer, logTo func(*slog.Logger)) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve gRPC and HTTP on one port",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.load(stderr)
			if err != nil {
				return err
			}
			logTo(cfg.Logger) // Tessera's, which would go to standard error in a form of its own
			s, err := server.New(cmd.Context(), *cfg)
			if err != nil {
				return err
			}
			return s.Serve(cmd.Context())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "YAML configuration `file`")
	fl.StringVar(&f.data, "data", "", "data `directory`; all that is needed to start")
	fl.StringVar(&f.listen, "listen", "", "`host:port` for gRPC and HTTP (default 127.0.0.1:8780)")
	fl.StringVar(&f.instance, "instance", "", "public `URL` of this deployment")
	fl.BoolVar(&f.allowPlaintext, "allow-plaintext", false, "serve without TLS beyond loopback")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (f *serveFlags) load(stderr io.Writer) (*server.Config, error) {
	cfg := new(server.Config)
	if f.config != "" {
		var err error
		if cfg, err = server.LoadConfig(f.config); err != nil {
			return nil, err
		}
	}
	override(&cfg.Data, f.data)
	override(&cfg.Listen, f.listen)
	override(&cfg.Instance, f.instance)
	cfg.AllowPlaintext = cfg.AllowPlaintext || f.allowPlaintext
	if cfg.Data == "" {
		return nil, fmt.Errorf("%w: give --data DIR or --config FILE", errUsage)
	}
	var err error
	cfg.Logger, err = newLogger(stderr, f.logFormat, f.logLevel)
	return cfg, err
}

func override(p *string, v string) {
	if v != "" {
		*p = v
	}
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("%w: --log-level %q: debug, info, warn or error", errUsage, level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("%w: --log-format %q: text or json", errUsage, format)
}
