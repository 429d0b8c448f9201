package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/awskms"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/tufrepo"
	"github.com/assay-build/assay/server"
)

// tufLab is a data directory with a keyset, as a service leaves it.
type tufLab struct {
	t         *testing.T
	dir, data string
}

func newTUFLab(t *testing.T) *tufLab {
	t.Helper()
	l := &tufLab{t: t, dir: t.TempDir()}
	l.data = filepath.Join(l.dir, "data")
	if err := os.MkdirAll(l.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := signing.OpenKeyset(t.Context(), filepath.Join(l.data, "keys"), signing.Config{Host: "assay.test", Now: time.Now, Create: true}); err != nil {
		t.Fatal(err)
	}
	return l
}

// run runs assayd tuf and returns its exit code and all that it said. DATA and KEY: stand
// for the data directory and a key file beside it.
func (l *tufLab) run(line string) (int, string) {
	l.t.Helper()
	var out bytes.Buffer
	line = strings.ReplaceAll(strings.ReplaceAll(line, "DATA", "--data "+l.data), "KEY:", "file://"+l.dir+"/")
	code := run(l.t.Context(), append([]string{"tuf"}, strings.Fields(strings.ReplaceAll(line, "DIR", l.dir))...), &out, &out, func(*slog.Logger) {})
	return code, out.String()
}

func (l *tufLab) want(line string, code int, text string) {
	l.t.Helper()
	if got, out := l.run(line); got != code || !strings.Contains(out, text) {
		l.t.Fatalf("assayd tuf %s: exit %d, want %d with %q:\n%s", line, got, code, text, out)
	}
}

// files counts what is in a directory.
func (l *tufLab) files(dir string) (n int) {
	l.t.Helper()
	if err := filepath.WalkDir(dir, func(string, os.DirEntry, error) error { n++; return nil }); err != nil {
		l.t.Fatal(err)
	}
	return n
}

func TestTUF(t *testing.T) {
	l := newTUFLab(t)
	before := l.files(l.dir)
	l.want("status DATA", exitError, "TUF_NOT_INITIALIZED")
	l.want("init DATA --dry-run", exitOK, "Nothing was written")
	if l.files(l.dir) != before {
		t.Error("a dry run wrote something")
	}
	l.want("init DATA --root-key KEY:root.pem --targets-key KEY:targets.pem", exitOK, "1.root.json")
	for _, key := range []string{"root.pem", "targets.pem"} {
		if info, err := os.Stat(filepath.Join(l.dir, key)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", key, info, err)
		}
	}
	l.want("init DATA", exitError, "TUF_EXISTS")
	l.want("status DATA", exitOK, "timestamp")
	l.want("status DATA --format json", exitOK, `"role": "root"`)
	l.want("publish DATA --targets-key KEY:targets.pem", exitOK, "Nothing has changed")

	if code := run(t.Context(), []string{"keys", "rotate", "attestation", "--data", l.data}, &bytes.Buffer{}, &bytes.Buffer{}, func(*slog.Logger) {}); code != exitOK {
		t.Fatal("keys rotate")
	}
	before = l.files(l.data)
	l.want("publish DATA --targets-key KEY:targets.pem --dry-run", exitOK, "another trusted root or other keys")
	if l.files(l.data) != before {
		t.Error("a dry run wrote something")
	}
	l.want("publish DATA --targets-key KEY:root.pem", exitError, "TUF_KEY_MISMATCH")
	l.want("publish DATA --targets-key KEY:targets.pem", exitOK, "targets version 2")

	l.want("rotate-root DATA --root-key KEY:root.pem --dry-run", exitOK, "Nothing was written")
	l.want("rotate-root DATA --root-key KEY:root.pem", exitOK, "2.root.json")
	l.want("rotate-root DATA --root-key KEY:targets.pem", exitError, "TUF_THRESHOLD")
	l.want("rotate-root DATA --root-key KEY:root.pem --new-root-key KEY:root2.pem --new-targets-key KEY:targets2.pem", exitOK, "3.root.json")
	l.want("publish DATA --targets-key KEY:targets.pem", exitOK, "Nothing has changed")
	l.want("rotate-root DATA --root-key KEY:root.pem", exitError, "TUF_THRESHOLD")
	l.want("status DATA", exitOK, "root       3")
}

// TestTUFPublishOvertaken: while the keys are being published somebody revokes one, and
// publishes that: it is not taken back.
func TestTUFPublishOvertaken(t *testing.T) {
	l := newTUFLab(t)
	l.want("init DATA --root-key KEY:root.pem --targets-key KEY:targets.pem", exitOK, "1.root.json")
	publish := func(files func(context.Context, *server.Config) (map[string][]byte, error)) error {
		cmd := newTUF(io.Discard, io.Discard, server.KeyOpeners, files)
		cmd.SetArgs([]string{"publish", "--data", l.data, "--targets-key", "file://" + filepath.Join(l.dir, "targets.pem")})
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		return cmd.ExecuteContext(t.Context())
	}
	revoked := make(chan error, 1)
	err := publish(func(ctx context.Context, cfg *server.Config) (map[string][]byte, error) {
		files, err := server.TrustFiles(ctx, cfg)
		if err != nil {
			return nil, err
		}
		host, entries, err := signing.Describe(filepath.Join(l.data, "keys"))
		if err != nil {
			return nil, err
		}
		plan, err := signing.Plan(ctx, filepath.Join(l.data, "keys"), signing.Config{Host: host, Now: time.Now},
			signing.RevokeKey{KeyID: entries[0].KeyID, Reason: signing.ReasonUnspecified, Rotate: true})
		if err == nil {
			err = plan.Apply(ctx)
		}
		if err != nil {
			return nil, err
		}
		go func() { revoked <- publish(server.TrustFiles) }()
		select { // it is quicker, unless it has to wait for us
		case err := <-revoked:
			revoked <- err
		case <-time.After(300 * time.Millisecond):
		}
		return files, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	repo, err := tufrepo.Open(tufrepo.Config{Dir: filepath.Join(l.data, "tuf")})
	if err != nil {
		t.Fatal(err)
	}
	if keys := repo.File("keys.json"); !bytes.Contains(keys, []byte(`"state":"revoked"`)) {
		t.Errorf("published are the keys of before the revocation: %s", keys)
	}
}

// TestTUFCeremony has two owners of root keys who do not meet.
func TestTUFCeremony(t *testing.T) {
	l := newTUFLab(t)
	absent, err := signing.OpenFile(filepath.Join(l.dir, "absent.pem"), true)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(absent.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "absent.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l.want("init DATA --root-key KEY:one.pem --root-public-key DIR/absent.pub --root-threshold 2 --targets-key KEY:targets.pem", exitError, "TUF_THRESHOLD")
	l.want("init DATA --root-key KEY:one.pem --root-public-key DIR/absent.pub --targets-key KEY:targets.pem", exitOK, "1.root.json")
	l.want("rotate-root DATA --root-key KEY:one.pem --root-threshold 2 --draft DIR/draft.json", exitOK, "root 2 until")
	l.want("rotate-root DATA --root-threshold 2 --draft DIR/draft.json", exitError, "exists")
	l.want("install-root DATA --draft DIR/draft.json", exitError, "TUF_THRESHOLD")
	l.want("sign-root --draft DIR/draft.json", exitOK, "by 2 of")
	l.want("sign-root --draft DIR/draft.json --root-key KEY:absent.pem", exitOK, "Signed so far by")
	l.want("install-root DATA --draft DIR/draft.json --dry-run", exitOK, "Nothing was written")
	l.want("install-root DATA --draft DIR/draft.json", exitOK, "2.root.json")
	l.want("install-root DATA --draft DIR/draft.json", exitError, "TUF_ROOT_INVALID")
	l.want("status DATA", exitOK, "2 of")
}

func TestTUFMisuse(t *testing.T) {
	l := newTUFLab(t)
	if err := os.WriteFile(filepath.Join(l.dir, "junk"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, c := range map[string]struct {
		code int
		text string
	}{
		"":                  {exitUsage, "say what to do"},
		"innit":             {exitUsage, "unknown command"},
		"init":              {exitUsage, "--data DIR"},
		"init DATA now":     {exitUsage, "takes no arguments"},
		"publish DATA":      {exitUsage, "--targets-key"},
		"rotate-root DATA":  {exitUsage, "--root-key"},
		"install-root DATA": {exitUsage, "--draft"},
		"sign-root --draft DIR/none --root-key KEY:x":       {exitUsage, "no such file"},
		"sign-root --draft DIR/junk":                        {exitError, "TUF_ROOT_INVALID"},
		"status DATA --format xml":                          {exitUsage, "table or json"},
		"init DATA --root-public-key DIR/junk":              {exitUsage, "PUBLIC KEY"},
		"init DATA --root-key relative.pem":                 {exitError, "KEY_SCHEME_UNSUPPORTED"},
		"init DATA --root-key file:relative.pem":            {exitError, "KEY_REF_INVALID"},
		"init DATA --root-key KEY:x.pem --root-threshold 2": {exitError, "TUF_THRESHOLD"},
		"publish DATA --targets-key KEY:none.pem":           {exitError, "KEY_MISSING"},
	} {
		l.want(line, c.code, c.text)
	}
	if _, err := os.Stat(filepath.Join(l.data, "tuf")); err == nil {
		t.Error("a repository was begun")
	}
}

// TestTUFKMS has the keys of root and targets in KMS, the latter behind an alias.
func TestTUFKMS(t *testing.T) {
	l := newTUFLab(t)
	world, err := awstest.New(awstest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	account := world.Account("111122223333")
	root := account.Key("eu-west-1", awstest.KeySpec("ECC_NIST_P256"))
	targets := account.Key("eu-west-1", awstest.KeySpec("ECC_NIST_P256"))
	account.Alias("eu-west-1", "alias/tuf-targets", targets)
	large := account.Key("eu-west-1", awstest.KeySpec("ECC_NIST_P384"))
	role := account.Role("assay").Allow("kms:Sign", "kms:GetPublicKey", "kms:DescribeKey")
	service, err := awskms.New(awskms.Config{AWS: world.AWSConfig(role.Session("assayd"), "eu-west-1"), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	openers := func(*server.Config) signing.Openers {
		return signing.Openers{
			KMS: func(arn string, public crypto.PublicKey) (signing.Signer, error) { return service.Open(arn, public) },
			Resolve: func(ctx context.Context, ref string) (signing.Resolved, error) {
				r, err := service.Resolve(ctx, ref)
				return signing.Resolved{ARN: r.ARN, Alias: r.Alias, SPKI: r.SPKI}, err
			},
		}
	}
	tuf := func(args ...string) error {
		cmd := newTUF(io.Discard, io.Discard, openers, server.TrustFiles)
		cmd.SetArgs(append(args, "--data", l.data))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		return cmd.ExecuteContext(t.Context())
	}
	if err := tuf("init", "--root-key", "awskms:///"+large.ARN(), "--targets-key", "awskms:///alias/tuf-targets"); refusal.CodeOf(err) != tufrepo.CodeKeyUnsupported {
		t.Errorf("a P-384 root key: %v", err)
	}
	if err := tuf("init", "--root-key", "awskms:///"+root.ARN(), "--targets-key", "awskms:///alias/tuf-targets"); err != nil {
		t.Fatal(err)
	}
	if err := tuf("publish", "--targets-key", "awskms:///"+targets.ARN()); err != nil {
		t.Error(err)
	}
	if err := tuf("rotate-root", "--root-key", "awskms:///"+root.ARN()); err != nil {
		t.Error(err)
	}
}
