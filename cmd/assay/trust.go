package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/spf13/cobra"
)

// maxRootFile is above any root.json.
const maxRootFile = 512_000

func (a *app) trustCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Follow the server's keys from a root that came another way",
		Long: `Follow the keys of a server by The Update Framework. It starts from a root.json
that came from the server's operator by a way that nobody could meddle with; from
then on neither the server nor who stands between can add a key, bring back a revoked
one, or hide a change for long. What is kept is in $XDG_STATE_HOME/assay/trust.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usage("say what to do", "assay trust init, update or show")
		},
	}
	cmd.AddCommand(a.trustInitCommand(), a.trustUpdateCommand(), a.trustShowCommand())
	return cmd
}

func (a *app) trustInitCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "Begin with a root.json, in place of what is kept",
		Example: "  assay trust init --root root.json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&path, "root", "", "root.json from the server's operator; required")
	return a.trusting(cmd, func(ctx context.Context, s *client.TrustStore) (*client.TrustState, error) {
		if path == "" {
			return nil, usage("--root is missing", "ask the server's operator for root.json; a root from the server itself would prove nothing")
		}
		root, err := readRoot(path)
		if err != nil {
			return nil, err
		}
		return s.Init(ctx, root)
	})
}

func (a *app) trustUpdateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "update", Short: "Ask the server what is new", Args: cobra.NoArgs}
	return a.trusting(cmd, func(ctx context.Context, s *client.TrustStore) (*client.TrustState, error) { return s.Update(ctx) })
}

func (a *app) trustShowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Show what is kept, verified again, without asking the server", Args: cobra.NoArgs}
	return a.trusting(cmd, func(_ context.Context, s *client.TrustStore) (*client.TrustState, error) { return s.Load() })
}

// trusting makes cmd a command that prints the state which fn gets to.
func (a *app) trusting(cmd *cobra.Command, fn func(context.Context, *client.TrustStore) (*client.TrustState, error)) *cobra.Command {
	format := formatFlag(cmd, "text", "json")
	cmd.RunE = runs(func(cmd *cobra.Command, _ []string) error {
		if err := format.check(); err != nil {
			return err
		}
		s, err := a.trustStore()
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if a.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, a.timeout)
			defer cancel()
		}
		state, err := fn(ctx, s)
		if err != nil {
			return err
		}
		return a.printTrust(state, format.value)
	})
	return cmd
}

// trustStore is where the trust in --server is kept.
func (a *app) trustStore() (*client.TrustStore, error) {
	if a.server == "" {
		return nil, usage("no server given", "set ASSAY_SERVER or pass --server https://HOST")
	}
	if a.timeout < 0 {
		return nil, usage("--timeout must be positive", "")
	}
	dir, err := client.TrustDir(a.lookup)
	if err != nil {
		return nil, err
	}
	return client.OpenTrustStore(client.TrustConfig{
		Server: a.server, AllowPlaintext: a.allowPlaintext, CAFile: a.caFile, UserAgent: userAgent(), Dir: dir, Now: a.now,
	})
}

// trustIfAny is trustStore for commands that go without: Dial says what is wrong with the
// server, and without a home directory nothing can have been kept.
func (a *app) trustIfAny() *client.TrustStore {
	s, err := a.trustStore()
	if err != nil {
		return nil
	}
	return s
}

func readRoot(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("--root: "+err.Error(), "")
	}
	defer f.Close()
	// One byte more, so that what is too large is refused and not cut.
	data, err := io.ReadAll(io.LimitReader(f, maxRootFile+1))
	if err != nil {
		return nil, usage("--root: "+err.Error(), "")
	}
	return data, nil
}

// trustJSON is --format json of the trust commands.
type trustJSON struct {
	Roles []trustRoleJSON `json:"roles"`
}

type trustRoleJSON struct {
	Role       string `json:"role"`
	Version    int64  `json:"version"`
	ExpireTime string `json:"expire_time"`
}

func (a *app) printTrust(s *client.TrustState, format string) error {
	out := trustJSON{Roles: []trustRoleJSON{}}
	for _, r := range s.Roles {
		out.Roles = append(out.Roles, trustRoleJSON{r.Role, r.Version, r.Expires.UTC().Format(time.RFC3339)})
	}
	if format == "json" {
		return a.printJSON(out)
	}
	for _, r := range out.Roles {
		a.print("%-10s %4d  until %s\n", r.Role, r.Version, r.ExpireTime)
	}
	return nil
}
