// Command figures measures a running sandbox and prints each figure as the
// median of several runs, beside a limit of the machine measured in the same run:
// what gRPC itself does, what an ECDSA signature costs, what a flush costs.
//
//	figures -bin bin [-runs 5] [-for 2s] [-upload 2147483648] [-rows 1000000] [-sboms 100000] [-only scan]
//
// Service and client are two processes on one machine and share its processors.
// It is not a test: machines are shared and noisy, so nothing fails on a number.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

type config struct {
	bin     string
	runs    int
	seconds time.Duration
	upload  int64
	rows    int
	sboms   int
	only    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var c config
	echo := flag.Bool("echo", false, "serve gRPC health checks on a port and print it (used by the program itself)")
	single := flag.Bool("alone", false, "run a program and print what it took (used by the program itself)")
	flag.StringVar(&c.bin, "bin", "bin", "directory with assay, assayd and assay-dev")
	flag.IntVar(&c.runs, "runs", 5, "runs of each figure; the median counts")
	flag.DurationVar(&c.seconds, "for", 2*time.Second, "length of one run")
	flag.Int64Var(&c.upload, "upload", 2<<30, "bytes of the uploaded artifact")
	flag.IntVar(&c.rows, "rows", 1_000_000, "attestations in the large store")
	flag.IntVar(&c.sboms, "sboms", 100_000, "SBOMs in the large store that is searched")
	flag.StringVar(&c.only, "only", "", "one group of figures: service, keys, decisions, lookups, scan, search or program")
	flag.Parse()
	var err error
	switch {
	case *echo:
		err = serveEcho(ctx)
	case *single && flag.NArg() > 0:
		err = alone(ctx, flag.Args(), os.Stdout, os.Stderr)
	default:
		err = c.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		stop()
		os.Exit(1)
	}
}

func (c *config) run(ctx context.Context) error {
	printMachine(ctx)
	work, err := os.MkdirTemp("", "assay-figures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	limits, err := c.limits(ctx, work)
	if err != nil {
		return err
	}
	measured := false
	for _, group := range []struct {
		name    string
		measure func() error
	}{
		// First: what this program's own scans take is less noisy before it has grown.
		{"scan", func() error { return c.scans(ctx, work, limits) }},
		{"service", func() error { return c.service(ctx, filepath.Join(work, "service"), limits) }},
		{"keys", func() error { return c.keys(ctx, filepath.Join(work, "keys"), limits) }},
		{"decisions", func() error { return c.decisions(limits) }},
		{"lookups", func() error { return c.lookups(ctx, work, limits) }},
		{"search", func() error { return c.searches(ctx, work, limits) }},
		{"program", func() error { return c.program(ctx) }},
	} {
		if c.only != "" && c.only != group.name {
			continue
		}
		measured = true
		if err := group.measure(); err != nil {
			return fmt.Errorf("%s: %w", group.name, err)
		}
	}
	if !measured {
		return fmt.Errorf("no group of figures is called %q", c.only)
	}
	return nil
}

func printMachine(ctx context.Context) {
	model := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	kernel, _ := exec.CommandContext(ctx, "uname", "-sr").Output()
	fmt.Printf("machine: %s, %d processors, %s, %s, load %s\n", model, runtime.NumCPU(),
		strings.TrimSpace(string(kernel)), runtime.Version(), strings.TrimSpace(string(load)))
	fmt.Printf("\n%-46s %14s   %-14s %s\n", "figure", "median", "goal", "against the limit of this run")
}

func row(figure, median, goal, against string) {
	fmt.Printf("%-46s %14s   %-14s %s\n", figure, median, goal, against)
}

// program measures the client's start and size.
func (c *config) program(ctx context.Context) error {
	path := filepath.Join(c.bin, "assay")
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 40 {
		start := time.Now()
		if err := exec.CommandContext(ctx, path, "version").Run(); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	var empty []time.Duration
	for range 40 {
		start := time.Now()
		if err := exec.CommandContext(ctx, "/bin/true").Run(); err != nil {
			return err
		}
		empty = append(empty, time.Since(start))
	}
	row("assay version", ms(quantile(took, .5)), "≤ 10 ms", fmt.Sprintf("%.1f× /bin/true (%s)", float64(quantile(took, .5))/float64(quantile(empty, .5)), ms(quantile(empty, .5))))
	row("assay, stripped", fmt.Sprintf("%.1f MB", float64(info.Size())/1e6), "≤ 20 MB", "")
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
