package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/server"
	"github.com/spf13/cobra"
)

// keysCommand is what the subcommands of `assayd keys` share.
type keysCommand struct {
	out, errs    io.Writer
	logTo        func(*slog.Logger)
	openers      func(*server.Config) signing.Openers
	config, data string
	dryRun       bool
}

// newKeys is `assayd keys`: what the keyset holds, and changes of it. All changes but
// that of the log's key are made while the service runs, which takes notice by itself.
func newKeys(out, errs io.Writer, logTo func(*slog.Logger), openers func(*server.Config) signing.Openers) *cobra.Command {
	k := &keysCommand{out: out, errs: errs, logTo: logTo, openers: openers}
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List the keys of a data directory, and change them",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command keys %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: say what to do: assayd keys list, add, rotate, retire or revoke", errUsage)
		},
	}
	fl := cmd.PersistentFlags()
	fl.StringVar(&k.config, "config", "", "YAML configuration `file` of the service")
	fl.StringVar(&k.data, "data", "", "data `directory` of the service")
	cmd.AddCommand(k.list(), k.add(), k.rotate(), k.retire(), k.revoke())
	return cmd
}

func (k *keysCommand) list() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List all keys: role, tier, state, id, validity, where they are",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("%w: --format %q: table or json", errUsage, format)
			}
			cfg, err := k.load()
			if err != nil {
				return err
			}
			host, entries, err := signing.Describe(keysDir(cfg))
			if err != nil {
				return err
			}
			if format == "json" {
				return printKeysJSON(k.out, host, entries)
			}
			return printKeys(k.out, entries)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "table or json")
	return cmd
}

func (k *keysCommand) add() *cobra.Command {
	var c signing.AddKey
	var organization string
	cmd := k.change("add ROLE", "Add a key, to be next where the role and tier have one that signs", slotArg, func(cmd *cobra.Command, args []string) (signing.Change, error) {
		c.Role = signing.Role(args[0])
		return c, nil
	}, &organization)
	fl := cmd.Flags()
	tierFlag(cmd, &c.Tier)
	fl.StringVar(&c.Ref, "ref", "file", "`reference` of the key: file (a new one is made), or awskms:///…")
	fl.BoolVar(&c.Next, "next", false, "only publish the key to verifiers, even where none signs")
	skipTrialFlag(cmd, &c.SkipTrial)
	fl.StringVar(&organization, "organization", "", "`name` in the certificates of a ca key (default: that of the configuration)")
	return cmd
}

func (k *keysCommand) rotate() *cobra.Command {
	var c signing.RotateKey
	cmd := k.change("rotate ROLE", "Have another key sign for a role and tier: the next one, or a new one", slotArg, func(cmd *cobra.Command, args []string) (signing.Change, error) {
		c.Role = signing.Role(args[0])
		return c, nil
	}, nil)
	fl := cmd.Flags()
	tierFlag(cmd, &c.Tier)
	fl.StringVar(&c.Ref, "ref", "", "`reference` of the new key: file or awskms:///… (default: the next key; else what the alias of the old one means now; else a new file)")
	fl.DurationVar(&c.Overlap, "overlap", 0, "how `long` signatures of the old key still count (default 10m; for the log 0s)")
	skipTrialFlag(cmd, &c.SkipTrial)
	return cmd
}

func (k *keysCommand) retire() *cobra.Command {
	var at string
	cmd := k.change("retire KEYID", "Have a key sign no more; what it signed up to its end stays good", keyArg, func(_ *cobra.Command, args []string) (signing.Change, error) {
		c := signing.RetireKey{KeyID: args[0]}
		var err error
		c.At, err = parseTime("at", at)
		return c, err
	}, nil)
	cmd.Flags().StringVar(&at, "at", "", "`time` after which its signatures are refused, RFC 3339 (default: in 10m)")
	return cmd
}

func (k *keysCommand) revoke() *cobra.Command {
	var c signing.RevokeKey
	var since, reason string
	cmd := k.change("revoke KEYID", "Withdraw belief in a key", keyArg, func(_ *cobra.Command, args []string) (signing.Change, error) {
		c.KeyID, c.Reason = args[0], signing.Reason(reason)
		if !slices.Contains(signing.Reasons(), c.Reason) {
			return nil, fmt.Errorf("%w: --reason %q: one of %v", errUsage, reason, signing.Reasons())
		}
		var err error
		c.Since, err = parseTime("since", since)
		return c, err
	}, nil)
	fl := cmd.Flags()
	fl.StringVar(&reason, "reason", "", "keyCompromise, superseded, cessationOfOperation or unspecified (nothing it ever signed is believed); required")
	fl.StringVar(&since, "since", "", "`time` from which the key is not believed, RFC 3339 (default: now)")
	fl.BoolVar(&c.Rotate, "rotate", false, "make a successor where the key is in use and none is next")
	skipTrialFlag(cmd, &c.SkipTrial)
	return cmd
}

// change is the frame of a command that changes the keyset.
func (k *keysCommand) change(use, short string, args cobra.PositionalArgs, make func(*cobra.Command, []string) (signing.Change, error), organization *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := make(cmd, args)
			if err != nil {
				return err
			}
			cfg, err := k.load()
			if err != nil {
				return err
			}
			override(&cfg.Keys.Organization, deref(organization))
			return k.run(cmd.Context(), cfg, change)
		},
	}
	cmd.Flags().BoolVar(&k.dryRun, "dry-run", false, "say what would change and write nothing")
	return cmd
}

// run plans a change, says what it means, and makes it. The log's key changes only
// while nobody has the log open.
func (k *keysCommand) run(ctx context.Context, cfg *server.Config, change signing.Change) error {
	dir := keysDir(cfg)
	config, err := k.signingConfig(cfg, dir)
	if err != nil {
		return err
	}
	plan, err := signing.Plan(ctx, dir, config, change)
	if err != nil {
		return err
	}
	for _, effect := range plan.Effects() {
		fmt.Fprintln(k.out, "- "+effect)
	}
	if k.dryRun {
		_, err := fmt.Fprintln(k.out, "Nothing was written.")
		return err
	}
	if folder := plan.LogFolder(); folder != "" {
		release, err := k.retireLog(ctx, cfg, config, folder, change)
		if err != nil {
			return err
		}
		defer release()
	}
	if err := plan.Apply(ctx); err != nil {
		return err
	}
	if e := plan.NewKey(); e != nil {
		fmt.Fprintf(k.out, "Done: %s key %s is %s, at %s.\n", e.Role, e.KeyID, e.State, e.Ref)
		return nil
	}
	_, err = fmt.Fprintln(k.out, "Done.")
	return err
}

// defaultOrganization is what certificates name where nobody said otherwise.
const defaultOrganization = "Assay"

// signingConfig is how the keyset is changed. A further ca key is of the organization
// of the one before, unless the configuration names another.
func (k *keysCommand) signingConfig(cfg *server.Config, dir string) (signing.Config, error) {
	organization := cfg.Keys.Organization
	if organization == "" {
		_, entries, err := signing.Describe(dir)
		if err != nil {
			return signing.Config{}, err
		}
		if !slices.ContainsFunc(entries, func(e signing.KeyEntry) bool { return e.Role == signing.RoleCA }) {
			organization = defaultOrganization
		}
	}
	return signing.Config{
		Now: cfg.Now, Openers: k.openers(cfg),
		CA: signing.CAConfig{Organization: organization},
	}, nil
}

// load reads what the service would read.
func (k *keysCommand) load() (*server.Config, error) {
	cfg := new(server.Config)
	if k.config != "" {
		var err error
		if cfg, err = server.LoadConfig(k.config); err != nil {
			return nil, err
		}
	}
	override(&cfg.Data, k.data)
	if cfg.Data == "" {
		return nil, fmt.Errorf("%w: give --data DIR or --config FILE", errUsage)
	}
	var err error
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return nil, err
	}
	cfg.Now = time.Now
	cfg.Logger = slog.New(slog.NewTextHandler(k.errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return cfg, nil
}

func keysDir(cfg *server.Config) string { return filepath.Join(cfg.Data, "keys") }

func slotArg(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: keys %s takes one role: one of %v", errUsage, cmd.Name(), signing.Roles())
	}
	if !slices.Contains(signing.Roles(), signing.Role(args[0])) {
		return fmt.Errorf("%w: role %q: one of %v", errUsage, args[0], signing.Roles())
	}
	return nil
}

func keyArg(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: keys %s takes the id of one key, or its first 8 characters; assayd keys list shows them", errUsage, cmd.Name())
	}
	return nil
}

func tierFlag(cmd *cobra.Command, tier *signing.Tier) {
	cmd.Flags().StringVar((*string)(tier), "tier", "", "build, role or claimed, for an attestation or ca key of that tier alone")
}

func skipTrialFlag(cmd *cobra.Command, skip *bool) {
	cmd.Flags().BoolVar(skip, "skip-trial", false, "do not have a key in AWS KMS sign once, for an operator who may not")
}

// parseTime reads a flag that may be empty.
func parseTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%w: --%s %q: a time as %s", errUsage, name, text, time.RFC3339)
	}
	return t, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// shownID is as much of a key id as a table needs.
const shownID = 12

func printKeys(out io.Writer, entries []signing.KeyEntry) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ROLE\tTIER\tSTATE\tKEY\tFROM\tTO\tREF")
	for _, e := range entries {
		state := string(e.State)
		if e.Revoked != nil {
			state += " (" + string(e.Revoked.Reason) + " " + e.Revoked.Since.Format(time.RFC3339) + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Role, dash(string(e.Tier)), state, e.KeyID[:shownID],
			e.NotBefore.Format(time.RFC3339), dash(shownTime(e.NotAfter)), dash(e.Ref))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func shownTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// listedKey is one key of `assayd keys list --format json`.
type listedKey struct {
	Role      signing.Role        `json:"role"`
	Tier      signing.Tier        `json:"tier,omitempty"`
	State     signing.State       `json:"state"`
	KeyID     string              `json:"keyId"`
	NotBefore time.Time           `json:"notBefore"`
	NotAfter  time.Time           `json:"notAfter,omitzero"`
	Revoked   *signing.Revocation `json:"revoked,omitempty"`
	Ref       string              `json:"ref,omitempty"`
	Alias     string              `json:"alias,omitempty"`
	Shard     string              `json:"shard,omitempty"`
	PublicKey string              `json:"publicKey"` // PEM
}

func printKeysJSON(out io.Writer, host string, entries []signing.KeyEntry) error {
	list := struct {
		Host string      `json:"host"`
		Keys []listedKey `json:"keys"`
	}{Host: host}
	for _, e := range entries {
		list.Keys = append(list.Keys, listedKey{
			Role: e.Role, Tier: e.Tier, State: e.State, KeyID: e.KeyID, NotBefore: e.NotBefore, NotAfter: e.NotAfter,
			Revoked: e.Revoked, Ref: e.Ref, Alias: e.Alias, Shard: e.Shard, PublicKey: string(e.PEM()),
		})
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(list)
}
