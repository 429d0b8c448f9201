package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tufrepo"
	"github.com/assay-build/assay/server"
	"github.com/spf13/cobra"
)

// tufCommand is what the subcommands of `assayd tuf` share.
type tufCommand struct {
	out, errs io.Writer
	openers   func(*server.Config) signing.Openers
	// files makes the target files out of the keyset.
	files func(context.Context, *server.Config) (map[string][]byte, error)
	now   func() time.Time

	config, data string
	dryRun       bool
}

// newTUF is `assayd tuf`: the repository that tells verifiers which keys to believe.
// Everything is done while the service runs, which takes notice within a minute.
func newTUF(out, errs io.Writer, openers func(*server.Config) signing.Openers, files func(context.Context, *server.Config) (map[string][]byte, error)) *cobra.Command {
	t := &tufCommand{out: out, errs: errs, openers: openers, files: files, now: time.Now}
	cmd := &cobra.Command{
		Use:   "tuf",
		Short: "Publish the keys of a data directory to verifiers, by The Update Framework",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command tuf %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: say what to do: assayd tuf init, publish, rotate-root, sign-root, install-root or status", errUsage)
		},
	}
	fl := cmd.PersistentFlags()
	fl.StringVar(&t.config, "config", "", "YAML configuration `file` of the service")
	fl.StringVar(&t.data, "data", "", "data `directory` of the service")
	cmd.AddCommand(t.init(), t.publish(), t.rotateRoot(), t.signRoot(), t.installRoot(), t.status())
	return cmd
}

func (t *tufCommand) init() *cobra.Command {
	var rootKeys, publics []string
	var targetsKey string
	var threshold int
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Begin the repository",
		Long: `Begin the repository with the present keys. The keys of root and targets are named
by references: file:///absolute/path, made where there is none, or awskms:///KEY; all
are ECDSA P-256. By default they are tuf-root.pem and tuf-targets.pem in the data
directory: move at least the first to a place where nobody gets at it with the service.`,
		Args: noArgs,
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&rootKeys, "root-key", nil, "`reference` of a root key that signs; may be repeated")
	fl.StringArrayVar(&publics, "root-public-key", nil, "PEM `file` of a root key whose owner is not here; may be repeated")
	fl.IntVar(&threshold, "root-threshold", 1, "how many root keys have to sign")
	fl.StringVar(&targetsKey, "targets-key", "", "`reference` of the key that signs what is published")
	t.dryRunFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := t.load()
		if err != nil {
			return err
		}
		if len(rootKeys) == 0 {
			rootKeys = []string{"file://" + filepath.Join(cfg.Data, "tuf-root.pem")}
		}
		if targetsKey == "" {
			targetsKey = "file://" + filepath.Join(cfg.Data, "tuf-targets.pem")
		}
		// Everything that can be wrong is found before the first key is made.
		files, err := t.files(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(tufDir(cfg), "1.root.json")); err == nil {
			return refusal.New(tufrepo.CodeExists, "%s is a TUF repository already", tufDir(cfg))
		}
		o := tufrepo.InitOptions{RootThreshold: threshold, Files: files, Now: t.now}
		if o.RootKeys, err = publicKeyFiles(publics); err != nil {
			return err
		}
		if t.dryRun {
			return t.said("a repository in %s, with %d of the keys of %s as root and that of %s for targets", tufDir(cfg), threshold, strings.Join(append(rootKeys, publics...), ", "), targetsKey)
		}
		if o.RootSigners, err = t.signers(cmd.Context(), cfg, rootKeys, true); err != nil {
			return err
		}
		if o.Targets, err = t.signer(cmd.Context(), cfg, targetsKey, true); err != nil {
			return err
		}
		if err := tufrepo.Init(cmd.Context(), tufDir(cfg), o); err != nil {
			return err
		}
		return t.tellRoot(cfg, "The service serves it within a minute. Give verifiers this file, by a way that nobody can meddle with:")
	}
	return cmd
}

func (t *tufCommand) publish() *cobra.Command {
	var targetsKey string
	cmd := &cobra.Command{
		Use:   "publish",
		Short: "Publish the present keys, where they have changed",
		Args:  noArgs,
	}
	cmd.Flags().StringVar(&targetsKey, "targets-key", "", "`reference` of the key that signs what is published; required")
	t.dryRunFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := t.load()
		if err != nil {
			return err
		}
		if targetsKey == "" {
			return fmt.Errorf("%w: give --targets-key REF", errUsage)
		}
		rc := tufrepo.Config{Dir: tufDir(cfg), Now: t.now, Logger: cfg.Logger}
		if rc.TargetsSigner, err = t.signer(cmd.Context(), cfg, targetsKey, false); err != nil {
			return err
		}
		repo, err := tufrepo.Open(rc)
		if err != nil {
			return err
		}
		if t.dryRun {
			files, err := t.files(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if repo.Same(files) {
				return t.said("the same files; they would be signed anew if half of their life is over")
			}
			return t.said("another trusted root or other keys than are published")
		}
		// The keyset is read once nobody else can publish: who revokes and publishes now
		// must not be followed by the keys of before.
		changed, err := repo.PublishFrom(cmd.Context(), func(ctx context.Context) (map[string][]byte, error) { return t.files(ctx, cfg) })
		if err != nil {
			return err
		}
		if !changed {
			_, err = fmt.Fprintln(t.out, "Nothing has changed.")
			return err
		}
		_, err = fmt.Fprintf(t.out, "Published: targets version %d. The service serves it within a minute.\n", repo.Status().Roles[1].Version)
		return err
	}
	return cmd
}

func (t *tufCommand) status() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show versions, ends and what needs attention",
		Args:  noArgs,
	}
	cmd.Flags().StringVar(&format, "format", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if format != "table" && format != "json" {
			return fmt.Errorf("%w: --format %q: table or json", errUsage, format)
		}
		cfg, err := t.load()
		if err != nil {
			return err
		}
		repo, err := tufrepo.Open(tufrepo.Config{Dir: tufDir(cfg), Now: t.now, Logger: cfg.Logger})
		if err != nil {
			return err
		}
		st := repo.Status()
		if format == "json" {
			enc := json.NewEncoder(t.out)
			enc.SetIndent("", "  ")
			return enc.Encode(st)
		}
		w := tabwriter.NewWriter(t.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "ROLE\tVERSION\tEXPIRES\tKEYS")
		for _, r := range st.Roles {
			fmt.Fprintf(w, "%s\t%d\t%s\t%d of %s\n", r.Role, r.Version, r.Expires.Format(time.RFC3339), r.Threshold, shortIDs(r.KeyIDs))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, warning := range st.Warnings {
			fmt.Fprintln(t.out, "warning: "+warning)
		}
		return nil
	}
	return cmd
}

// load reads what the service would read.
func (t *tufCommand) load() (*server.Config, error) {
	cfg := new(server.Config)
	if t.config != "" {
		var err error
		if cfg, err = server.LoadConfig(t.config); err != nil {
			return nil, err
		}
	}
	override(&cfg.Data, t.data)
	if cfg.Data == "" {
		return nil, fmt.Errorf("%w: give --data DIR or --config FILE", errUsage)
	}
	var err error
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return nil, err
	}
	cfg.Now = t.now
	cfg.Logger = slog.New(slog.NewTextHandler(t.errs, nil))
	return cfg, nil
}

func tufDir(cfg *server.Config) string { return filepath.Join(cfg.Data, "tuf") }

func (t *tufCommand) dryRunFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.dryRun, "dry-run", false, "say what would change and write nothing")
}

// said ends a dry run.
func (t *tufCommand) said(format string, args ...any) error {
	_, err := fmt.Fprintf(t.out, "Would write: "+format+".\nNothing was written.\n", args...)
	return err
}

// tellRoot names the root in force, and the digest by which people can compare it.
func (t *tufCommand) tellRoot(cfg *server.Config, lead string) error {
	repo, err := tufrepo.Open(tufrepo.Config{Dir: tufDir(cfg), Now: t.now, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	version := repo.Status().Roles[0].Version
	_, err = fmt.Fprintf(t.out, "%s\n  %s\n  SHA-256 %x\n", lead,
		filepath.Join(tufDir(cfg), fmt.Sprintf("%d.root.json", version)), sha256.Sum256(repo.Root()))
	return err
}

func shortIDs(ids []string) string {
	short := make([]string, len(ids))
	for i, id := range ids {
		short[i] = id[:min(len(id), shownID)]
	}
	return strings.Join(short, " ")
}
