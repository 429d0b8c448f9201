// Command assay attests what a CI job built and asks whether an artifact may be
// deployed.
//
//	assay attest dist/* --bundle-dir dist      in a CI job
//	assay attest-build ARN                     after a build of AWS CodeBuild
//	assay verify --env prod dist/app           in a deploy stage
//	assay login; assay list; assay show ID     for an auditor
//	assay sbom dist/app                        what is inside
//	assay search component pkg:npm/lodash      and where else that is
//
// The server comes from --server or ASSAY_SERVER. docs/cli.md lists commands,
// variables and the exit codes, which are frozen:
//
//	0  allowed, or done
//	1  denied
//	2  wrong use, or bad input
//	3  could not decide: server, network or something they depend on
//
// It never exits 0 unless something was positively checked. Hence some severity
// that a reader might wonder about: an answer that could not be written is a 3,
// so is a panic (which the runtime would make a 2), a flag given twice is
// refused, and --help is a 2 next to anything else: file names come in through
// globs, and a file named --help must not turn a verify into a success.
//
// Results go to standard output, everything else to standard error, each message
// one line that begins with "assay: ". Text that comes from outside is stripped
// of characters that could move the cursor or reorder what is read.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/spf13/cobra"
)

// version is set with -ldflags "-X main.version=v1.2.3" by release builds.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the call under way, the second the process.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// app is one run of the program.
type app struct {
	lookup func(string) (string, bool)
	stdout io.Writer
	stderr io.Writer
	// out collects what goes to stdout, so that it is written at once and a
	// failure to write is noticed before the exit code says that all is well.
	out bytes.Buffer
	now func() time.Time

	server         string
	caFile         string
	allowPlaintext bool
	timeout        time.Duration

	// helped names the command whose help was shown, nil if none was.
	helped *cobra.Command
}

// run is the program without the process around it. Nothing reads stdin yet; it
// is here so that nothing reaches for os.Stdin.
func run(ctx context.Context, args []string, lookup func(string) (string, bool), _ io.Reader, stdout, stderr io.Writer) (code int) {
	a := &app{lookup: lookup, stdout: stdout, stderr: stderr, now: time.Now}
	defer func() {
		if p := recover(); p != nil {
			a.message("internal error: %v", p)
			code = exitUndecided
		}
	}()
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(&a.out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil && a.helped != nil {
		err = a.checkHelp(args)
	}
	if _, werr := stdout.Write(a.out.Bytes()); werr != nil && exitCode(err) != exitDenied {
		err = commandError{fmt.Errorf("write the answer: %w", werr)}
	}
	a.report(err)
	return exitCode(err)
}

// checkHelp lets only a plain request for help succeed.
func (a *app) checkHelp(args []string) error {
	words := len(strings.Fields(a.helped.CommandPath())) - 1
	switch {
	case len(args) == words+1:
		return nil
	case len(args) <= words:
		return usage("a command is missing", "")
	}
	return usage("--help stands alone", "put -- before file names that begin with a dash")
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:               "assay",
		Short:             "Attest builds and verify artifacts with an Assay server",
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.server, "server", a.env("ASSAY_SERVER"), "server URL, https://HOST[:PORT] (ASSAY_SERVER)")
	flags.StringVar(&a.caFile, "ca-file", a.env("ASSAY_CA_FILE"), "PEM certificates to trust instead of the system's (ASSAY_CA_FILE)")
	flags.BoolVar(&a.allowPlaintext, "allow-plaintext", false, "permit http:// to another machine")
	flags.DurationVar(&a.timeout, "timeout", 0, "give up after this long (default 1m; attest and attach 1h, attest-build 30m, sbom and login 10m)")
	root.AddCommand(a.attestCommand(), a.attestBuildCommand(), a.verifyCommand(), a.listCommand(), a.showCommand(),
		a.sbomCommand(), a.searchCommand(), a.attachCommand(),
		a.trustedRootCommand(), a.trustCommand(), a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.versionCommand())
	root.SetHelpCommand(helpCommand(root))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(err.Error(), "see: "+cmd.CommandPath()+" --help")
	})
	showHelp := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		a.helped = cmd
		showHelp(cmd, args)
	})
	onlyOnce(root)
	return root
}

func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Show help",
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usage("no such command", "see: assay --help")
			}
			return cmd.Help()
		},
	}
}

func (a *app) env(name string) string {
	v, _ := a.lookup(name)
	return v
}

// connect returns a client with the credential of this environment, and a context
// that ends with --timeout. The caller calls done.
func (a *app) connect(ctx context.Context) (_ context.Context, c *client.Client, done func(), err error) {
	found, err := client.Detect(a.lookup)
	if err != nil {
		return a.dial(ctx, undetected{err})
	}
	return a.dial(ctx, found.Source)
}

// undetected is the credential of an environment that has none. It says so when
// one is needed, after everything else that is wrong with the command.
type undetected struct{ err error }

func (u undetected) Credential(context.Context, string) (*assayv1.ExchangeRequest, error) {
	return nil, u.err
}

// dial is connect with a credential of the caller's choice, or none.
func (a *app) dial(ctx context.Context, source client.CredentialSource) (_ context.Context, c *client.Client, done func(), err error) {
	if a.server == "" {
		return nil, nil, nil, usage("no server given", "set ASSAY_SERVER or pass --server https://HOST")
	}
	if a.timeout < 0 {
		return nil, nil, nil, usage("--timeout must be positive", "")
	}
	c, err = client.Dial(ctx, client.Config{
		Server:         a.server,
		Credential:     source,
		AllowPlaintext: a.allowPlaintext,
		CAFile:         a.caFile,
		Trust:          a.trustIfAny(),
		UserAgent:      userAgent(),
	})
	if err != nil {
		return nil, nil, nil, err
	}
	cancel := context.CancelFunc(func() {})
	if a.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
	}
	return ctx, c, func() {
		cancel()
		_ = c.Close() // The answer is in; what a closing connection says changes nothing.
	}, nil
}
