package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/client"
	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/verify"
	"github.com/assay-build/assay/server"
	tessera "github.com/transparency-dev/tessera/client"
)

// TestCrash kills the service with SIGKILL while it attests, again and again,
// and demands after each restart that every acknowledged attestation is there,
// byte for byte, that it verifies and has its proof, that nothing half-done can be
// seen, and that the log is consistent with every checkpoint ever handed out.
func TestCrash(t *testing.T) {
	rounds := 3
	if v := os.Getenv("ASSAY_CRASH_ROUNDS"); v != "" {
		var err error
		if rounds, err = strconv.Atoi(v); err != nil {
			t.Fatalf("ASSAY_CRASH_ROUNDS: %v", err)
		}
	} else if testing.Short() {
		t.Skip("kills a service several times; runs without -short")
	}
	bin := filepath.Join(t.TempDir(), "assay-dev")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../cmd/assay-dev").CombinedOutput(); err != nil {
		t.Fatalf("build assay-dev: %v\n%s", err, out)
	}
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		t.Run(string(format), func(t *testing.T) {
			c := &crasher{bin: bin, data: t.TempDir(), format: format, acked: make(map[string][]byte)}
			c.run(t, (rounds+1)/2)
		})
	}
}

func (c *crasher) run(t *testing.T, rounds int) {
	for round := range rounds {
		before := len(c.acked)
		c.round(t, round)
		if t.Failed() {
			t.Fatalf("failed in round %d", round)
		}
		t.Logf("round %d: %d acknowledged, all %d there, %d summaries", round, len(c.acked)-before, len(c.acked), len(c.summaries))
	}
	if len(c.acked) < rounds || len(c.summaries) == 0 {
		t.Fatalf("only %d attestations and %d summaries were acknowledged in %d rounds: the test tests nothing", len(c.acked), len(c.summaries), rounds)
	}
	p := c.start(t)
	c.check(t, p, c.acked)
	p.kill()
}

// TestLogBehindDatabase: a database restored without its log, or a log lost, is
// refused. Starting a new log under the old key would fork it.
func TestLogBehindDatabase(t *testing.T) {
	data := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	cfg := server.Config{Data: data, Logger: slog.New(slog.DiscardHandler)}
	s, err := testenv.NewSandbox(ctx, "127.0.0.1:0", cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := client.Dial(ctx, client.Config{Server: s.URL(), Credential: client.GitHubActions(lookup(s.Env()))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AttestDigests(ctx, []client.Subject{{Name: "app", SHA256: okDigest}}); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(data, "log")); err != nil {
		t.Fatal(err)
	}
	_, err = testenv.NewSandbox(t.Context(), "127.0.0.1:0", cfg, nil)
	if refusal.CodeOf(err) != server.CodeLogBehind {
		t.Errorf("got %v, want LOG_BEHIND_DATABASE", err)
	}
}

func lookup(env []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, kv := range env {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
}

type crasher struct {
	bin, data string
	format    tlog.EntryFormat
	mu        sync.Mutex
	acked     map[string][]byte // attestation id → bundle, as it was answered
	summaries [][]byte          // of permissions, as they were answered
}

// proc is one life of the service.
type proc struct {
	cmd    *exec.Cmd
	client *client.Client
	server string
	stderr *bytes.Buffer
}

func (p *proc) kill() {
	_ = p.client.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (c *crasher) start(t *testing.T) *proc {
	t.Helper()
	_ = os.Remove(filepath.Join(c.data, "dev.env"))
	p := &proc{cmd: exec.Command(c.bin, "--data", c.data, "--listen", "127.0.0.1:0", "--entry-format", string(c.format)), stderr: new(bytes.Buffer)}
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !bufio.NewScanner(stdout).Scan() {
		_ = p.cmd.Wait()
		t.Fatalf("the service did not start again:\n%s", p.stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	env := loadEnv(t, filepath.Join(c.data, "dev.env"))
	p.server = env["ASSAY_SERVER"]
	p.client, err = client.Dial(t.Context(), client.Config{
		Server:     p.server,
		Credential: client.GitHubActions(func(k string) (string, bool) { v, ok := env[k]; return v, ok }),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func loadEnv(t *testing.T, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		k, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			env[k] = strings.Trim(v, "'")
		}
	}
	return env
}

// round attests from eight sides until the service is killed at a random moment,
// then looks at what the next life of it says.
func (c *crasher) round(t *testing.T, round int) {
	p := c.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	this := make(map[string][]byte)
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c.attest(ctx, p, this, fmt.Sprintf("r%d-w%d-%d", round, w, i), i%4 == 3)
			}
		})
	}
	wait, err := rand.Int(rand.Reader, big.NewInt(250))
	if err != nil {
		t.Fatal(err)
	}
	// Not before something was acknowledged: on a slow machine a round would show nothing.
	c.acknowledged(t, this)
	<-time.After(time.Duration(wait.Int64()) * time.Millisecond)
	_ = p.cmd.Process.Kill()
	cancel()
	wg.Wait()
	p.kill()

	if round%2 == 1 {
		c.killAtStart(t)
	}
	again := c.start(t)
	defer again.kill()
	c.check(t, again, this)
	for id, bundle := range this {
		c.acked[id] = bundle
	}
}

// acknowledged waits for an attestation of this round, and for some permission.
func (c *crasher) acknowledged(t *testing.T, this map[string][]byte) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); ; {
		c.mu.Lock()
		there := len(this) > 0 && len(c.summaries) > 0
		c.mu.Unlock()
		if there {
			return
		}
		select {
		case <-limit:
			t.Error("nothing was acknowledged in a minute")
			return
		case <-tick.C:
		}
	}
}

// killAtStart kills a life of the service before it can say that it serves: while
// it opens its files, or finishes what the last one began.
func (c *crasher) killAtStart(t *testing.T) {
	t.Helper()
	cmd := exec.Command(c.bin, "--data", c.data, "--listen", "127.0.0.1:0", "--entry-format", string(c.format))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait, err := rand.Int(rand.Reader, big.NewInt(60))
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Duration(wait.Int64()) * time.Millisecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// attest attests something new and asks for permission to deploy it: by digest, or
// every fourth time as an upload. What is not acknowledged is not promised.
func (c *crasher) attest(ctx context.Context, p *proc, this map[string][]byte, name string, upload bool) {
	content := make([]byte, 64)
	_, _ = rand.Read(content)
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	var result *client.Attested
	var err error
	if upload {
		result, err = p.client.Attest(ctx, []client.Artifact{{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}}}, nil)
	} else {
		result, err = p.client.AttestDigests(ctx, []client.Subject{{Name: name, SHA256: digest}})
	}
	if err != nil {
		return
	}
	c.mu.Lock()
	this[result.Attestation.GetAttestationId()] = result.Attestation.GetBundle()
	c.mu.Unlock()
	verdict, err := p.client.Verify(ctx, []client.Subject{{Name: name, SHA256: digest}}, "dev")
	if err != nil || !verdict.Allowed() {
		return
	}
	c.mu.Lock()
	c.summaries = append(c.summaries, verdict.Decisions()[0].GetVerificationSummary())
	c.mu.Unlock()
}

func (c *crasher) check(t *testing.T, p *proc, acked map[string][]byte) {
	t.Helper()
	ctx := t.Context()
	trust, err := p.client.GetTrustedRoot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	root, err := verify.NewRoot(trust.JSON, verify.PublicKey{PEM: trust.AttestationKeysPEM})
	if err != nil {
		t.Fatal(err)
	}
	v := verify.New(root)
	seen := 0
	for a, err := range p.client.ListAttestations(ctx, client.ListOptions{IncludeBundles: true, PageSize: 1000}) {
		if err != nil {
			t.Fatal(err)
		}
		want, promised := acked[a.GetAttestationId()]
		if _, old := c.acked[a.GetAttestationId()]; old && !promised {
			continue // looked at in its own round, and once more at the end
		}
		if promised {
			seen++
			if !bytes.Equal(a.GetBundle(), want) {
				t.Errorf("attestation %s changed after it was acknowledged", a.GetAttestationId())
			}
		}
		// What nobody was promised may be there or not, but never half done.
		if _, err := v.VerifyOwn(a.GetBundle()); err != nil {
			t.Errorf("attestation %s: %v", a.GetAttestationId(), err)
		}
	}
	if seen != len(acked) {
		t.Errorf("%d of %d acknowledged attestations are there", seen, len(acked))
	}
	bundles := slices.Collect(maps.Values(acked))
	checkLog(t, p, append(bundles, c.summaries...))
}

// checkLog proves, from nothing but the published tiles, that the log still
// contains every tree that a checkpoint in one of the bundles promised.
func checkLog(t *testing.T, p *proc, bundles [][]byte) {
	t.Helper()
	type tree struct {
		size uint64
		root []byte
	}
	heads := make(map[uint64]tree)
	var newest tree
	for _, raw := range bundles {
		parts, err := attest.ParseOwnBundle(raw)
		if err != nil {
			t.Fatal(err)
		}
		cp, err := tlog.ParseCheckpoint(parts.LogEntry.Checkpoint)
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := heads[cp.Size]; ok && !bytes.Equal(h.root, cp.RootHash) {
			t.Fatalf("two roots for size %d: the log forked", cp.Size)
		}
		heads[cp.Size] = tree{cp.Size, cp.RootHash}
		if cp.Size > newest.size {
			newest = heads[cp.Size]
		}
	}
	if newest.size == 0 {
		return
	}
	base, err := url.Parse(p.server + "/log/")
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := tessera.NewHTTPFetcher(base, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	proofs, err := tessera.NewProofBuilder(t.Context(), newest.size, fetcher.ReadTile)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		hashes, err := proofs.ConsistencyProof(t.Context(), h.size, newest.size)
		if err != nil {
			t.Fatalf("consistency %d → %d: %v", h.size, newest.size, err)
		}
		if err := tlog.VerifyConsistency(h.size, newest.size, hashes, h.root, newest.root); err != nil {
			t.Errorf("the log is not consistent with the checkpoint of size %d: %v", h.size, err)
		}
	}
}
