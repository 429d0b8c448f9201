package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"

	"github.com/assay-build/assay/client"
	"github.com/spf13/cobra"
)

// loginFlags are those of assay login.
type loginFlags struct {
	issuer, clientID string
	scopes           []string
	device, open     bool
	port             int
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in as a person, or open one session for several commands of a CI job",
		Long: `Log in at the company's identity provider, in a browser on this machine or with
--device on another one. Without --issuer, in a CI job, open a session with the
job's own credential, for platforms whose token works once.

The session is kept in $XDG_STATE_HOME/assay/login.json for 15 minutes at most. Nothing
else is: no password, no refresh token. It is good for one server.`,
		Example: "  assay login --issuer https://sso.example.com --client-id assay-prod",
		Args:    cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.issuer, "issuer", a.env("ASSAY_LOGIN_ISSUER"), "URL of the identity provider (ASSAY_LOGIN_ISSUER)")
	flags.StringVar(&f.clientID, "client-id", a.env("ASSAY_LOGIN_CLIENT_ID"), "what this server is registered as there (ASSAY_LOGIN_CLIENT_ID)")
	flags.StringArrayVar(&f.scopes, "scope", nil, "scope to ask for instead of email and profile; may be repeated")
	flags.BoolVar(&f.device, "device", false, "log in on another machine")
	flags.BoolVar(&f.open, "open", false, "open the browser")
	flags.IntVar(&f.port, "port", 0, "port of the redirect, where the provider wants one registered (default any)")
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := format.check(); err != nil {
			return err
		}
		return a.login(cmd.Context(), &f, format.value)
	})
	return cmd
}

func (a *app) login(ctx context.Context, f *loginFlags, format string) error {
	path, err := client.LoginFile(a.lookup)
	if err != nil {
		return err
	}
	// Before anybody is sent to a browser: is there a server to log in to?
	if _, _, done, err := a.dial(ctx, nil); err != nil {
		return err
	} else {
		done()
	}
	source, err := a.loginSource(ctx, f)
	if err != nil {
		return err
	}
	ctx, c, done, err := a.dial(ctx, source)
	if err != nil {
		return err
	}
	defer done()
	session, me, err := c.OpenSession(ctx)
	if err != nil {
		return err
	}
	if err := client.SaveLogin(path, session); err != nil {
		return err
	}
	if format == "json" {
		return a.printJSON(whoamiOutput{Caller: callerOutput(me.GetCaller()), ExpireTime: stamp(me.GetExpireTime())})
	}
	a.print("logged in to %s as %s until %s\n", clean(session.Server), clean(me.GetCaller().GetDisplayName()), stamp(me.GetExpireTime()))
	return nil
}

// loginSource is the person's, where an identity provider is named, and else the
// job's.
func (a *app) loginSource(ctx context.Context, f *loginFlags) (client.CredentialSource, error) {
	if f.issuer != "" || f.clientID != "" {
		if a.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, a.timeout)
			defer cancel()
		}
		return client.Login(ctx, client.LoginConfig{
			Issuer: f.issuer, ClientID: f.clientID, Scopes: f.scopes, Device: f.device, Port: f.port, Now: a.now,
			Prompt: func(p client.LoginPrompt) { a.promptLogin(ctx, p, f.open) },
		})
	}
	if f.device || f.open || f.port != 0 || len(f.scopes) > 0 {
		return nil, usage("--issuer and --client-id are required", "they name the company's identity provider")
	}
	// A saved login is what is being made, even where the commands to come are told
	// to use it.
	found, err := client.Detect(func(name string) (string, bool) {
		if v, ok := a.lookup(name); name != "ASSAY_CREDENTIAL" || v != "login" {
			return v, ok
		}
		return "", false
	})
	if err != nil {
		return nil, err
	}
	if found.Kind == "login" {
		return nil, usage("--issuer and --client-id are required outside of a CI job", "they name the company's identity provider")
	}
	return found.Source, nil
}

func (a *app) promptLogin(ctx context.Context, p client.LoginPrompt, open bool) {
	if p.UserCode != "" {
		a.message("open this address on any machine, check that it shows this code or enter it: %s", p.UserCode)
	} else {
		a.message("open this address in a browser on this machine:")
	}
	address := p.URL
	if p.CompleteURL != "" {
		address = p.CompleteURL
	}
	fmt.Fprintf(a.stderr, "\n    %s\n\n", clean(address))
	if !open {
		return
	}
	if err := openBrowser(ctx, address); err != nil {
		a.message("cannot open a browser: %v", err)
	}
}

// openBrowser starts the desktop's own way to open an address. The client has
// checked that it is one of https, or of this machine, so it cannot be taken for an
// option or a file.
func openBrowser(ctx context.Context, address string) error {
	name, args := "xdg-open", []string{address}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", address}
	}
	// The browser may be a child of it, and is not ours to close after the login.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it may live as long as the browser
	return nil
}

func (a *app) logoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget the saved login",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = runs(func(*cobra.Command, []string) error {
		path, err := client.LoginFile(a.lookup)
		if err != nil {
			return err
		}
		was, err := client.RemoveLogin(path)
		if err == nil && !was {
			a.message("nobody was logged in")
		}
		return err
	})
	return cmd
}
