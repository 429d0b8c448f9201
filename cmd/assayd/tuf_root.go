package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/durable"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tufrepo"
	"github.com/assay-build/assay/server"
	"github.com/spf13/cobra"
)

// maxDraft is above any root.
const maxDraft = 512_000

func (t *tufCommand) rotateRoot() *cobra.Command {
	var rootKeys, newKeys, publics []string
	var threshold int
	var targetsKey, newTargetsKey, draftFile string
	var keepOnline bool
	cmd := &cobra.Command{
		Use:   "rotate-root",
		Short: "Sign the next root: for another year, with other keys, or both",
		Long: `Sign the next root. Without --new-root-key and --new-targets-key all keys but those
of snapshot and timestamp stay; these are made anew, which also undoes what a thief of
them has done to verifiers.

Owners of root keys who are not here sign a draft: --draft FILE writes it with the
signatures of those who are, each of the others adds theirs with assayd tuf sign-root
where their key is, and assayd tuf install-root puts it in force.`,
		Args: noArgs,
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&rootKeys, "root-key", nil, "`reference` of a present root key that signs; may be repeated")
	fl.StringArrayVar(&newKeys, "new-root-key", nil, "`reference` of a key that is a root key from now on, in place of the present ones; may be repeated")
	fl.StringArrayVar(&publics, "new-root-public-key", nil, "PEM `file` of a new root key whose owner is not here; may be repeated")
	fl.IntVar(&threshold, "root-threshold", 0, "how many root keys have to sign from now on (default: as many as now)")
	fl.StringVar(&targetsKey, "targets-key", "", "`reference` of the present key that signs what is published")
	fl.StringVar(&newTargetsKey, "new-targets-key", "", "`reference` of the key that signs what is published from now on")
	fl.BoolVar(&keepOnline, "keep-online-keys", false, "leave the keys of snapshot and timestamp")
	fl.StringVar(&draftFile, "draft", "", "write the root to this `file` for others to sign, and do not install it")
	t.dryRunFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		cfg, err := t.load()
		if err != nil {
			return err
		}
		if len(rootKeys)+len(newKeys) == 0 && draftFile == "" {
			return fmt.Errorf("%w: give --root-key REF, or --draft FILE for others to sign", errUsage)
		}
		if t.dryRun {
			return t.said("the next root in %s, signed by %s", tufDir(cfg), strings.Join(append(rootKeys, newKeys...), ", "))
		}
		c := tufrepo.RootChange{Threshold: threshold, KeepOnline: keepOnline, Now: t.now}
		signers, err := t.signers(ctx, cfg, rootKeys, false)
		if err != nil {
			return err
		}
		added, err := t.signers(ctx, cfg, newKeys, true)
		if err != nil {
			return err
		}
		if c.Keys, err = publicKeyFiles(publics); err != nil {
			return err
		}
		for _, s := range added {
			c.Keys = append(c.Keys, s.Public())
		}
		rc := tufrepo.Config{Dir: tufDir(cfg), Now: t.now, Logger: cfg.Logger}
		if newTargetsKey != "" {
			if rc.TargetsSigner, err = t.signer(ctx, cfg, newTargetsKey, true); err != nil {
				return err
			}
			c.Targets = rc.TargetsSigner.Public()
		} else if targetsKey != "" {
			if rc.TargetsSigner, err = t.signer(ctx, cfg, targetsKey, false); err != nil {
				return err
			}
		}
		signers = append(signers, added...)
		if draftFile != "" {
			return t.draft(ctx, cfg, c, signers, draftFile)
		}
		if err := tufrepo.RotateRoot(ctx, rc, c, signers...); err != nil {
			return err
		}
		return t.tellRoot(cfg, "The next root is in force. Verifiers follow by themselves; new ones start from:")
	}
	return cmd
}

func (t *tufCommand) draft(ctx context.Context, cfg *server.Config, c tufrepo.RootChange, signers []tufrepo.Signer, path string) error {
	draft, err := tufrepo.DraftRoot(ctx, tufDir(cfg), c)
	for i := 0; err == nil && i < len(signers); i++ {
		draft, err = tufrepo.AddRootSignature(ctx, draft, signers[i])
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(draft)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.tellDraft(draft, path)
}

func (t *tufCommand) signRoot() *cobra.Command {
	var draftFile string
	var rootKeys []string
	cmd := &cobra.Command{
		Use:   "sign-root",
		Short: "Add a signature to a draft of rotate-root, where the key is; no data directory is needed",
		Args:  noArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&draftFile, "draft", "", "`file` of rotate-root --draft; required")
	fl.StringArrayVar(&rootKeys, "root-key", nil, "`reference` of a key to sign with; may be repeated")
	t.dryRunFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		draft, err := readDraft(draftFile)
		if err != nil {
			return err
		}
		if len(rootKeys) == 0 || t.dryRun {
			return t.tellDraft(draft, draftFile)
		}
		// KMS needs an account, and no other part of a configuration.
		cfg := &server.Config{Now: t.now}
		if t.config != "" || t.data != "" {
			if cfg, err = t.load(); err != nil {
				return err
			}
		}
		signers, err := t.signers(cmd.Context(), cfg, rootKeys, false)
		for i := 0; err == nil && i < len(signers); i++ {
			draft, err = tufrepo.AddRootSignature(cmd.Context(), draft, signers[i])
		}
		if err != nil {
			return err
		}
		// What others have signed must not be lost to a full disk.
		if err := durable.Replace(draftFile, draft, 0o644); err != nil {
			return err
		}
		return t.tellDraft(draft, draftFile)
	}
	return cmd
}

func (t *tufCommand) installRoot() *cobra.Command {
	var draftFile, targetsKey string
	cmd := &cobra.Command{
		Use:   "install-root",
		Short: "Put a draft in force that enough owners of root keys have signed",
		Args:  noArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&draftFile, "draft", "", "`file` of rotate-root --draft; required")
	fl.StringVar(&targetsKey, "targets-key", "", "`reference` of the draft's key for targets, where it is another than now")
	t.dryRunFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := t.load()
		if err != nil {
			return err
		}
		draft, err := readDraft(draftFile)
		if err != nil {
			return err
		}
		rc := tufrepo.Config{Dir: tufDir(cfg), Now: t.now, Logger: cfg.Logger}
		if targetsKey != "" {
			if rc.TargetsSigner, err = t.signer(cmd.Context(), cfg, targetsKey, false); err != nil {
				return err
			}
		}
		if t.dryRun {
			if err := t.tellDraft(draft, draftFile); err != nil {
				return err
			}
			return t.said("it, as the root in force in %s", tufDir(cfg))
		}
		if err := tufrepo.InstallRoot(cmd.Context(), rc, draft); err != nil {
			return err
		}
		return t.tellRoot(cfg, "The root is in force. Verifiers follow by themselves; new ones start from:")
	}
	return cmd
}

// tellDraft says what the owner of a key is asked to sign.
func (t *tufCommand) tellDraft(draft []byte, path string) error {
	sum, err := tufrepo.RootSummary(draft)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "%s: root %d until %s, by %d of %s.\nSigned so far by: %s\n", path, sum.Version, sum.Expires.Format(time.RFC3339),
		sum.Threshold, shortIDs(sum.KeyIDs), dash(shortIDs(sum.Signatures)))
	return err
}

func readDraft(path string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: give --draft FILE", errUsage)
	}
	data, err := readLimited(path, maxDraft)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: --draft: %w", errUsage, err)
	}
	return data, err
}

func publicKeyFiles(paths []string) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, path := range paths {
		key, err := readPublicKey(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (t *tufCommand) signers(ctx context.Context, cfg *server.Config, refs []string, create bool) ([]tufrepo.Signer, error) {
	var signers []tufrepo.Signer
	for _, ref := range refs {
		s, err := t.signer(ctx, cfg, ref, create)
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// signer opens a key by its reference. An alias of KMS is resolved now and does not
// move under a signature.
func (t *tufCommand) signer(ctx context.Context, cfg *server.Config, ref string, create bool) (tufrepo.Signer, error) {
	if !strings.HasPrefix(ref, "awskms:") {
		return signing.Open(ctx, ref, create)
	}
	openers := t.openers(cfg)
	key, err := openers.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(key.SPKI)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return openers.KMS(key.ARN, public)
}
