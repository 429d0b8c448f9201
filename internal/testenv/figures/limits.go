package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// limits are what this machine can do at best, now.
type limits struct {
	echo1, echo64 result
	sign          time.Duration // one ECDSA P-256 signature on one processor
	flush         time.Duration // append 4 KiB and fdatasync
	sha256        float64       // bytes per second on one processor
	sha512        float64
}

func (c *config) limits(ctx context.Context, work string) (*limits, error) {
	l := new(limits)
	var err error
	if err = c.echo(ctx, l); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(nil)
	one, err := c.median(ctx, 1, func(context.Context, int) error {
		_, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return err
	})
	if err != nil {
		return nil, err
	}
	l.sign = one.p50
	if l.flush, err = c.flush(ctx, filepath.Join(work, "flush")); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<20)
	start := time.Now()
	sha256.Sum256(buf)
	l.sha256 = float64(len(buf)) / time.Since(start).Seconds()
	start = time.Now()
	sha512.Sum512(buf)
	l.sha512 = float64(len(buf)) / time.Since(start).Seconds()
	row("limit: gRPC echo, 1 in flight", rate(l.echo1), "", "p50 "+ms(l.echo1.p50))
	row("limit: gRPC echo, 64 in flight", rate(l.echo64), "", "p99 "+ms(l.echo64.p99))
	row("limit: ECDSA P-256 sign, one processor", us(l.sign), "", fmt.Sprintf("%.0f/s", float64(time.Second)/float64(l.sign)))
	row("limit: append 4 KiB + fdatasync", us(l.flush), "", "")
	row("limit: SHA-256 / SHA-512, one processor", fmt.Sprintf("%.2f GB/s", l.sha256/1e9), "", fmt.Sprintf("%.2f GB/s", l.sha512/1e9))
	return l, nil
}

// flush is one durable append: what any acknowledged write costs at least.
func (c *config) flush(ctx context.Context, path string) (time.Duration, error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	page := make([]byte, 4096)
	r, err := c.median(ctx, 1, func(context.Context, int) error {
		if _, err := f.Write(page); err != nil {
			return err
		}
		return unix.Fdatasync(int(f.Fd()))
	})
	return r.p50, err
}

// echo measures a bare gRPC server, in a process of its own as the service is.
func (c *config) echo(ctx context.Context, l *limits) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-echo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:"+strings.TrimSpace(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := healthv1.NewHealthClient(conn)
	call := func(ctx context.Context, _ int) error {
		_, err := client.Check(ctx, &healthv1.HealthCheckRequest{})
		return err
	}
	if l.echo1, err = c.median(ctx, 1, call); err != nil {
		return err
	}
	l.echo64, err = c.median(ctx, 64, call)
	return err
}

func serveEcho(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	fmt.Println(l.Addr())
	return s.Serve(l)
}

func rate(r result) string { return fmt.Sprintf("%.0f/s", r.perSecond) }

func us(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond)) }
