package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/assay-build/assay/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes, frozen.
const (
	exitDone      = 0
	exitDenied    = 1
	exitUsage     = 2
	exitUndecided = 3
)

// errDenied ends a verify that was answered with a denial. The answer itself
// has been printed already.
var errDenied = errors.New("denied")

// usageError is wrong use of the command line, with what to do instead.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

func usage(text, hint string) error { return &usageError{text, hint} }

// commandError marks an error as coming from a command's own work, so that what
// is left over are cobra's complaints about the command line.
type commandError struct{ error }

func (e commandError) Unwrap() error { return e.error }

// runs wraps a command's function so that its errors are told from cobra's.
func runs(fn func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := fn(cmd, args); err != nil {
			return commandError{err}
		}
		return nil
	}
}

// exitCode maps an error to the frozen table. What it does not know is
// undecided, never done.
func exitCode(err error) int {
	var ours commandError
	var wrongUse *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errDenied), errors.Is(err, client.ErrDenied):
		return exitDenied
	case errors.As(err, &wrongUse), errors.Is(err, client.ErrInvalid), errors.Is(err, client.ErrNotFound),
		errors.Is(err, &client.Error{Code: client.CodeCredentialMissing}), errors.Is(err, &client.Error{Code: client.CodeLoginExpired}):
		return exitUsage
	case errors.As(err, &ours), errors.Is(err, context.Canceled):
		return exitUndecided
	}
	return exitUsage // cobra: an unknown command or flag, or too many arguments.
}

// report prints one line, and a second where there is something to advise.
func (a *app) report(err error) {
	if err == nil || errors.Is(err, errDenied) {
		return
	}
	if errors.Is(err, context.Canceled) {
		a.message("interrupted")
		return
	}
	a.message("%s", err)
	if hint := hintFor(err); hint != "" {
		a.message("hint: %s", hint)
	}
}

// message prints one line to stderr.
func (a *app) message(format string, args ...any) {
	fmt.Fprintf(a.stderr, "assay: %s\n", clean(fmt.Sprintf(format, args...)))
}

// hintFor says what to do about an error, where that is known.
func hintFor(err error) string {
	var wrongUse *usageError
	if errors.As(err, &wrongUse) {
		return wrongUse.hint
	}
	var e *client.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Code {
	case client.CodeServerInvalid:
		return "set ASSAY_SERVER or pass --server https://HOST[:PORT]"
	case client.CodePlaintextRefused:
		return "use https://; or --allow-plaintext where the way to the server is safe by other means"
	case client.CodeCredentialMissing:
		if !strings.Contains(e.Message, "GitHub") {
			return "" // it says what is missing
		}
		return "on GitHub Actions give the job `permissions: id-token: write` and `contents: read`; as a person, assay login"
	case client.CodeCredentialRefused:
		if !strings.Contains(e.Message, "GitHub") {
			return ""
		}
		return "GitHub's token endpoint serves only the running job, and only with `permissions: id-token: write`"
	case client.CodeCredentialAudience:
		return "have the platform make the token out to the origin of the --server URL"
	case "TOKEN_REPLAYED":
		return "a token opens one session: run assay login first, and the other commands with ASSAY_CREDENTIAL=login"
	case client.CodeLoginExpired, client.CodeLoginServerMismatch:
		return "run assay login"
	case client.CodeLoginFileInvalid:
		return "run assay logout and then assay login"
	case client.CodeLoginConfigInvalid:
		return "--issuer is the https URL of the identity provider, --client-id what Assay is registered as there"
	case client.CodeLoginStateMismatch, client.CodeLoginIssuerMismatch, client.CodeLoginNonceMismatch:
		return "start again, and follow only the address that assay prints"
	case client.CodeLoginUnavailable:
		return "is the identity provider reachable from here, and is this its URL?"
	case client.CodeLoginUnsupported, client.CodeLoginAnswerInvalid, client.CodeLoginTokenInvalid, client.CodeLoginDenied:
		return "the identity provider's administrator knows how Assay is registered there"
	case "TOKEN_AUDIENCE_MISMATCH":
		return "the token is made out to the --server URL; use the URL the server knows itself by"
	case client.CodeSBOMNotFound:
		return "an artifact has an SBOM where its bytes were uploaded or fetched, or where somebody attached one; what was attested by digest alone has none"
	case "SUBJECT_UNKNOWN":
		return "assay attest it first"
	case "CALLER_NOT_ALLOWED":
		return "the server's operator lists who may open a session under identity.issuers"
	}
	switch {
	case errors.Is(err, client.ErrDishonest):
		return "do nothing this server says until its operator has explained the answer"
	case errors.Is(err, context.DeadlineExceeded):
		return "--timeout allows more time"
	case errors.Is(err, client.ErrUnavailable):
		return "is the server running, and is this its URL?"
	}
	return ""
}

// onlyOnce makes a second occurrence of a flag an error: the last one would win
// silently, and it may come from a file name.
func onlyOnce(root *cobra.Command) {
	wrap := func(f *pflag.Flag) {
		if _, isList := f.Value.(pflag.SliceValue); !isList {
			f.Value = &once{Value: f.Value}
		}
	}
	root.PersistentFlags().VisitAll(wrap)
	var below func(*cobra.Command)
	below = func(parent *cobra.Command) {
		for _, cmd := range parent.Commands() {
			cmd.Flags().VisitAll(wrap)
			below(cmd)
		}
	}
	below(root)
}

type once struct {
	pflag.Value
	set bool
}

func (o *once) Set(s string) error {
	if o.set {
		return errors.New("given twice")
	}
	o.set = true
	return o.Value.Set(s)
}
