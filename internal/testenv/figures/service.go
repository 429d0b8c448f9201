package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/assay-build/assay/client"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// sandbox is a running assay-dev with a raw connection to it: the figures are
// the service's, not those of the client library.
type sandbox struct {
	cmd    *exec.Cmd
	env    map[string]string
	conn   *grpc.ClientConn
	ctx    context.Context // carries the session
	client *client.Client
}

func (c *config) start(ctx context.Context, data string, flags ...string) (*sandbox, error) {
	s := &sandbox{cmd: exec.CommandContext(ctx, filepath.Join(c.bin, "assay-dev"), append([]string{"--data", data, "--listen", "127.0.0.1:0"}, flags...)...), env: make(map[string]string)}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(out)
	if _, err := r.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("assay-dev: %w", err)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	env, err := os.ReadFile(filepath.Join(data, "dev.env"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(env)) {
		if k, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
			s.env[k] = strings.Trim(v, "'")
		}
	}
	return s, s.connect(ctx)
}

func (s *sandbox) connect(ctx context.Context) error {
	server := s.env["ASSAY_SERVER"]
	source := client.GitHubActions(func(k string) (string, bool) { v, ok := s.env[k]; return v, ok })
	var err error
	if s.client, err = client.Dial(ctx, client.Config{Server: server, Credential: source}); err != nil {
		return err
	}
	s.conn, err = grpc.NewClient("passthrough:"+strings.TrimPrefix(server, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	req, err := source.Credential(ctx, server)
	if err != nil {
		return err
	}
	resp, err := assayv1.NewIdentityServiceClient(s.conn).Exchange(ctx, req)
	if err != nil {
		return err
	}
	s.ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+resp.GetSessionToken())
	return nil
}

func (s *sandbox) stop() {
	_ = s.client.Close()
	_ = s.conn.Close()
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait()
}

// peakMiB is the most memory the service has had resident.
func (s *sandbox) peakMiB() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmHWM")
}

func (c *config) service(ctx context.Context, data string, l *limits) error {
	s, err := c.start(ctx, data)
	if err != nil {
		return err
	}
	defer s.stop()
	known, err := c.attests(s, l)
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	if err := c.verifies(s, l, known); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := c.exchanges(ctx, s, l); err != nil {
		return fmt.Errorf("exchange: %w", err)
	}
	// A process of its own, so that its memory is the upload's.
	u, err := c.start(ctx, data+"-upload")
	if err != nil {
		return err
	}
	defer u.stop()
	if err := c.uploads(ctx, u, l, data+"-artifact"); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	return nil
}

// digestOf makes the digest of artifact number n; no two runs share one.
func digestOf(salt [16]byte, n uint64) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(salt[:], n))
	return hex.EncodeToString(sum[:])
}

func (c *config) attests(s *sandbox, l *limits) (known []string, err error) {
	call, digest, count := attestCalls(s)
	alone, err := c.median(s.ctx, 1, call)
	if err != nil {
		return nil, err
	}
	many, err := c.median(s.ctx, 64, call)
	if err != nil {
		return nil, err
	}
	row("attest by digest, alone, p50", ms(alone.p50), "< 15 ms", fmt.Sprintf("%.0f flushes", float64(alone.p50)/float64(l.flush)))
	row("attest by digest, 64 in flight", rate(many), "≥ 5000/s", fmt.Sprintf("%.1f%% of gRPC echo; p50 %s p99 %s; %.1f signatures' time each on 2 processors",
		100*many.perSecond/l.echo64.perSecond, ms(many.p50), ms(many.p99), 2*float64(time.Second)/many.perSecond/float64(l.sign)))
	for i := uint64(1); i <= min(count(), 1000); i++ {
		known = append(known, digest(i))
	}
	return known, nil
}

func (c *config) verifies(s *sandbox, l *limits, known []string) error {
	verification := assayv1.NewVerificationServiceClient(s.conn)
	ask := func(ctx context.Context, digest string) error {
		r, err := verification.Verify(ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{
			{Name: "app", Digest: map[string]string{"sha256": digest}},
		}})
		if err == nil && r.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_PASSED {
			err = fmt.Errorf("denied: %s", r.GetDecisions()[0].GetReason())
		}
		return err
	}
	for _, d := range known {
		if err := ask(s.ctx, d); err != nil {
			return err
		}
	}
	var next [64]int
	warm, err := c.median(s.ctx, 64, func(ctx context.Context, w int) error {
		next[w] += 7
		return ask(ctx, known[(w*31+next[w])%len(known)])
	})
	if err != nil {
		return err
	}
	row("Verify, warm, 64 in flight", rate(warm), "≥ 20000/s", fmt.Sprintf("%.0f%% of gRPC echo", 100*warm.perSecond/l.echo64.perSecond))
	row("Verify, warm, 64 in flight, p99", ms(warm.p99), "< 5 ms", fmt.Sprintf("%.1f× gRPC echo; p50 %s", float64(warm.p99)/float64(l.echo64.p99), ms(warm.p50)))
	return nil
}

func (c *config) uploads(ctx context.Context, s *sandbox, l *limits, path string) error {
	if err := writeRandom(path, c.upload); err != nil {
		return err
	}
	defer os.Remove(path)
	var took []time.Duration
	for i := range min(c.runs, 3) {
		name := fmt.Sprintf("artifact-%d", i)
		start := time.Now()
		if _, err := s.client.Attest(ctx, []client.Artifact{{Name: name, Path: path}}, nil); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	peak, err := s.peakMiB()
	if err != nil {
		return err
	}
	slices.Sort(took)
	gbs := float64(c.upload) / took[len(took)/2].Seconds() / 1e9
	// Client and service hash the bytes three times between them on the machine's two processors.
	bound := 2 / (2/l.sha256 + 1/l.sha512) / 1e9
	row(fmt.Sprintf("upload, %.1f GiB, client hashing too", float64(c.upload)/(1<<30)), fmt.Sprintf("%.2f GB/s", gbs), "≥ 0.8 GB/s",
		fmt.Sprintf("%.0f%% of hashing alone (%.2f GB/s: SHA-256 twice, SHA-512 once, 2 processors)", 100*gbs/bound, bound))
	row("service memory after it, peak", fmt.Sprintf("%.0f MiB", peak), "< 256 MiB", "")
	return nil
}

func writeRandom(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 8<<20)
	_, _ = rand.Read(block)
	for left := size; left > 0; left -= int64(len(block)) {
		binary.BigEndian.PutUint64(block, uint64(left))
		if _, err := f.Write(block[:min(left, int64(len(block)))]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
