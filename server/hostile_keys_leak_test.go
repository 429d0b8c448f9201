package server_test

import (
	"context"
	"crypto/ecdsa"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	mldsax509 "filippo.io/mldsa/x509"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv/awstest"
	"github.com/assay-build/assay/internal/tufrepo"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/aws/aws-sdk-go-v2/aws"
)

// private adds what is secret of every key file below a directory: each line of its PEM,
// and the scalar or seed in every form in which it might be printed.
func (s secrets) private(t *testing.T, dir string) (files int) {
	t.Helper()
	numbers := secrets{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "PRIVATE KEY" {
			return nil
		}
		files++
		name := strings.TrimPrefix(path, dir)
		for i, line := range strings.Split(string(text), "\n") {
			// The last line of a P-256 key is of its public half.
			if !strings.HasPrefix(line, "-") && len(line) >= 16 && (i < 3 || len(text) < 200) {
				s[fmt.Sprintf("%s, line %d", name, i)] = []byte(line)
			}
		}
		key, err := mldsax509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return err
		}
		switch key := key.(type) {
		case *ecdsa.PrivateKey:
			scalar, err := key.Bytes()
			if err != nil {
				return err
			}
			numbers[name+", scalar"] = scalar
			s[name+", scalar in decimal"] = []byte(key.D.String()) //nolint:staticcheck // how a careless print shows it
		case *mldsa.PrivateKey:
			numbers[name+", seed"] = key.Bytes()
		default:
			t.Errorf("%s holds a %T", name, key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range numbers.encoded() {
		s[name] = secret
		if strings.HasSuffix(name, " in hex") {
			s[name+", in capitals"] = []byte(strings.ToUpper(string(secret)))
		}
	}
	return files
}

// TestPrivateKeysStayIn: with keys in files for every role and tier, in both modes, nothing
// that the service says or writes anywhere holds any of a private key, nor of its
// credentials at AWS.
func TestPrivateKeysStayIn(t *testing.T) {
	t.Parallel()
	for mode, edit := range map[string]func(*server.Config){"key": func(*server.Config) {}, "certificate": shortCertificates} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			cloud := newAWS(t, w)
			hidden, out := secrets{}, &heard{}
			all := func(c *server.Config) {
				withKMS(cloud)(c)
				edit(c)
				c.AWSClients.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					creds := cloud.Service.Session("assayd")
					out.mu.Lock()
					defer out.mu.Unlock()
					return hidden.credentials(fmt.Sprint("the service's ", len(hidden)), creds), nil
				})
			}
			w.start(t, all).stop()
			changes := []signing.Change{signing.AddKey{Role: signing.RoleCoSignature}, signing.AddKey{Role: signing.RoleAttestation, Next: true}}
			for _, tier := range []signing.Tier{signing.TierBuild, signing.TierRole, signing.TierClaimed} {
				changes = append(changes, signing.AddKey{Role: signing.RoleAttestation, Tier: tier})
				if mode == "certificate" {
					changes = append(changes, signing.AddKey{Role: signing.RoleCA, Tier: tier})
				}
			}
			w.rekey(t, all, changes...)
			distributed(t, w, all)
			if n := hidden.private(t, w.data); n < 10 {
				t.Fatalf("%d key files; the test tests nothing", n)
			}

			l := w.start(t, all).login(t)
			up := l.upload(t, l.ctx, "up", "up")
			out.message(up)
			out.message(l.digests(t, l.ctx, subject("app", "app")))
			out.message(l.decide(t, "dev", subject("up", "up"), "ALLOWED"))
			out.message(l.decide(t, "prod", subject("nobody", "nobody"), "NO_ATTESTATION"))
			// Everything that changes keys, while it serves.
			w.rekey(t, all, signing.RotateKey{Role: signing.RoleAttestation}, signing.RotateKey{Role: signing.RoleCoSignature},
				signing.RevokeKey{KeyID: w.coKey(t).KeyID, Reason: "keyCompromise", Rotate: true}, signing.RotateKey{Role: signing.RoleTimestamp})
			hidden.private(t, w.data)
			out.message(l.digests(t, l.ctx, subject("app", "app 2")))
			audit := assayv1.NewAuditServiceClient(l.conn)
			list, err := audit.ListAttestations(l.ctx, &assayv1.ListAttestationsRequest{IncludeBundles: true})
			if err != nil {
				t.Fatal(err)
			}
			out.message(list)
			trusted, err := audit.GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{})
			if err != nil {
				t.Fatal(err)
			}
			out.message(trusted)
			out.say(string(trusted.GetTrustedRoot()))

			// A key in KMS, and errors of it that say too much.
			key := cloud.KMSKey("ECC_NIST_P256")
			role := signing.RoleAttestation
			if mode == "certificate" {
				role = signing.RoleCA
			}
			w.rekey(t, all, signing.RotateKey{Role: role, Tier: signing.TierClaimed, Ref: "awskms:///" + key.ARN()})
			for i, f := range []awstest.Fault{
				{Status: 500, Code: "KMSInternalException", Message: "x"}, {Status: 400, Code: "AccessDeniedException", Message: "x"},
				{Status: 307, Redirect: "https://evil.example/"}, {CloseConnection: true}, {Body: []byte("{}")}, {Status: 400, Code: "InvalidSignatureException", Message: "x"},
			} {
				f.Service = "kms"
				cloud.World.Fail(f)
				w.advance(2 * time.Second)
				_, err := l.tryDigests(subject("no", fmt.Sprint(i)))
				if err == nil {
					t.Error("attested")
				}
				out.say(fmt.Sprintf("%v %+v", err, err))
				cloud.World.Heal()
			}
			w.advance(2 * time.Second)
			// Key files that are damaged, or not only ours.
			spoilt(t, l, out, hidden)

			for _, path := range []string{"/metrics", "/trusted_root.json", "/log/checkpoint", "/tuf/1.root.json", "/tuf/timestamp.json", "/readyz"} {
				code, body := httpGet(t, l.Server+path)
				if code != http.StatusOK {
					t.Errorf("%s: %d", path, code)
				}
				out.say(body)
			}
			for _, path := range []string{"/tuf/keys/", "/tuf/keys/snapshot.pem", "/tuf/../keys/log.pem", "/log/../keys/log.pem", "/tuf/keys%2fsnapshot.pem"} {
				code, body := httpGet(t, l.Server+path)
				if code == http.StatusOK {
					t.Errorf("%s is served", path)
				}
				out.say(body)
			}
			for _, e := range l.logEntries(t, 1) {
				out.say(string(e))
			}
			l.stop()
			if _, all, err := signing.Describe(filepath.Join(w.data, "keys")); err == nil {
				out.say(fmt.Sprintf("%v %+v %#v", all, all, all))
			}
			if !testing.Short() {
				out.say(listed(t, w))
			}
			for i, text := range out.texts {
				hidden.absent(t, fmt.Sprint("what was said, ", i), []byte(text))
			}
			hidden.absent(t, "the log", []byte(l.logs.String()))
			if len(out.texts) < 20 || !strings.Contains(l.logs.String(), "KMS_ACCESS_DENIED") {
				t.Error("the test tests nothing")
			}
		})
	}
}

// distributed gives a stopped service a TUF repository.
func distributed(t *testing.T, w *world, edit func(*server.Config)) {
	t.Helper()
	cfg, _ := w.config(t, edit)
	if err := cfg.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	root, err := signing.OpenFile(filepath.Join(t.TempDir(), "root.pem"), true)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"trusted_root.json": []byte("{}"), "keys.json": []byte("{}"), "attestation_keys.pem": []byte("x")}
	if err := tufrepo.Init(t.Context(), filepath.Join(w.data, "tuf"), tufrepo.InitOptions{
		RootSigners: []tufrepo.Signer{root}, RootThreshold: 1, Targets: root, Files: files, Now: w.now,
	}); err != nil {
		t.Fatal(err)
	}
}

// spoilt wants that a key file which others may read, or which is no key, stops the
// service from answering by it, with a code and nothing of its contents.
func spoilt(t *testing.T, l *life, out *heard, hidden secrets) {
	t.Helper()
	dir := filepath.Join(l.world.data, "keys")
	sheet := filepath.Join(dir, "keyset.json")
	again := func() { // as if a command had written it
		t.Helper()
		text, err := os.ReadFile(sheet)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sheet+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(sheet+".new", sheet); err != nil {
			t.Fatal(err)
		}
	}
	_, all, err := signing.Describe(dir)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, e := range all {
		if e.State != signing.StateActive || !strings.HasPrefix(e.Ref, "file:") {
			continue
		}
		path := filepath.Join(dir, strings.TrimPrefix(e.Ref, "file:"))
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(what, reason string) {
			t.Helper()
			tried++
			again()
			_, err := l.tryDigests(subject("spoilt", rand8(t)))
			if got, _ := reasonOf(err); got != reason {
				t.Errorf("%s %s: reload: %v, want %s", e.Role, what, err, reason)
			}
			out.say(fmt.Sprintf("%+v", err))
			_, err = assayv1.NewVerificationServiceClient(l.conn).Verify(l.ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{subject("up", "up")}})
			if got, _ := reasonOf(err); got != reason {
				t.Errorf("%s %s: verify: %v, want %s", e.Role, what, err, reason)
			}
			cfg, logs := l.world.config(t, func(c *server.Config) {
				c.Data = t.TempDir()
				if err := os.CopyFS(filepath.Join(c.Data, "keys"), os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				for _, copied := range []string{path} { // CopyFS keeps no modes
					info, err := os.Stat(copied)
					if err != nil {
						t.Fatal(err)
					}
					private(t, filepath.Join(c.Data, "keys"))
					if err := os.Chmod(filepath.Join(c.Data, "keys", filepath.Base(copied)), info.Mode()); err != nil {
						t.Fatal(err)
					}
				}
			})
			defer cfg.Listener.Close()
			_, err = server.New(t.Context(), cfg)
			if refusal.CodeOf(err) != refusal.Code(reason) {
				t.Errorf("%s %s: start: %v, want %s", e.Role, what, err, reason)
			}
			out.say(fmt.Sprint(err))
			hidden.absent(t, "the log of a start", []byte(logs.String()))
		}
		for _, mode := range []os.FileMode{0o640, 0o644, 0o604, 0o620, 0o601} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			refused(mode.String(), "KEY_FILE_MODE")
			if testing.Short() {
				break
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		for what, content := range map[string]string{
			"cut":         string(good[:len(good)/2]),
			"twice":       string(good) + string(good),
			"text before": "# the key\n" + string(good),
			"one letter":  strings.Replace(string(good), "MD", "ME", 1) + " ",
		} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			refused(what, "KEY_FILE_INVALID")
			if testing.Short() {
				break
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		again()
		l.digests(t, l.ctx, subject("mended", rand8(t)))
	}
	if tried < 5 {
		t.Errorf("%d files were spoilt", tried)
	}
}

// private makes every file of a directory readable for its owner alone.
func private(t *testing.T, dir string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
}

// listed is what `assayd keys list` says, in both formats.
func listed(t *testing.T, w *world) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "assayd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../cmd/assayd").CombinedOutput(); err != nil {
		t.Fatalf("build assayd: %v\n%s", err, out)
	}
	var all strings.Builder
	for _, format := range []string{"json", "table"} {
		out, err := exec.CommandContext(t.Context(), bin, "keys", "list", "--data", w.data, "--format", format).CombinedOutput()
		if err != nil || len(out) < 100 {
			t.Errorf("keys list: %v\n%s", err, out)
		}
		all.Write(out)
	}
	return all.String()
}
