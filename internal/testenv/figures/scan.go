package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// scanned is one scan by one tool.
type scanned struct {
	took, cpu time.Duration
	memory    int64 // the most that was resident, 0 where it was not measured
	packages  int   // different package URLs
}

// scans measures how long it takes to make an SBOM, beside other programs that do. They
// take turns, so that whatever else the machine does slows each of them.
func (c *config) scans(ctx context.Context, work string, l *limits) error {
	ours, err := c.ownScanners(work)
	if err != nil {
		return err
	}
	defer ours.close()
	if err := c.scanStart(ctx, work, ours); err != nil {
		return err
	}
	tools := ours.tools()
	for _, t := range peers {
		if err := t.find(); err != nil {
			note("the program %s is left out: %v", t.name, err)
			continue
		}
		tools = append(tools, t.tool())
	}
	for _, input := range c.scanInputs(ctx, filepath.Join(work, "scan"), l) {
		if err := c.compare(ctx, input, tools); err != nil {
			return fmt.Errorf("%s: %w", input.name, err)
		}
	}
	return nil
}

// scanStart measures a scan with nothing to scan.
func (c *config) scanStart(ctx context.Context, work string, ours *ownScanners) error {
	path := filepath.Join(work, "notes.txt")
	if err := os.WriteFile(path, []byte(strings.Repeat("nothing that anybody knows\n", 38)), 0o600); err != nil {
		return err
	}
	r, err := c.median(ctx, 1, func(ctx context.Context, _ int) error {
		_, err := ours.inChild(ctx, &scanInput{path: path})
		return err
	})
	if err != nil {
		return err
	}
	row("scan of 1 KiB of text: process and all", ms(r.p50), "≤ 25 ms", "p99 "+ms(r.p99))
	return nil
}

// tool makes the SBOM of an input.
type tool struct {
	name string
	scan func(ctx context.Context, in *scanInput) (scanned, error)
}

// compare runs every tool on one input and prints what came of it.
func (c *config) compare(ctx context.Context, in *scanInput, tools []tool) error {
	runs := make([][]scanned, len(tools))
	failed := make([]error, len(tools))
	for i := range c.runs + 1 {
		for j, t := range tools {
			if failed[j] != nil {
				continue
			}
			s, err := t.scan(ctx, in)
			if failed[j] = err; err == nil && i > 0 { // the first one only fills the page cache
				runs[j] = append(runs[j], s)
			}
		}
	}
	if failed[0] != nil {
		return failed[0]
	}
	all := make(map[string]scanned, len(tools))
	for j, t := range tools {
		if failed[j] == nil {
			all[t.name] = middleScan(runs[j])
		}
	}
	for j, t := range tools {
		if failed[j] != nil {
			note("%s: %s failed: %v", in.name, t.name, failed[j])
			continue
		}
		in.row(t.name, all)
	}
	return nil
}

// middleScan is the scan with the median time, with the most memory of all.
func middleScan(runs []scanned) scanned {
	slices.SortFunc(runs, func(a, b scanned) int { return cmp.Compare(a.took, b.took) })
	m := runs[len(runs)/2]
	for _, s := range runs {
		m.memory = max(m.memory, s.memory)
	}
	return m
}

const (
	assayTool   = "assay"
	inProcess   = "assay, in process"
	scalibrTool = "osv-scalibr"
	syftTool    = "syft"
)

// row prints one tool's figure, with what the goals compare.
func (in *scanInput) row(name string, all map[string]scanned) {
	s, ours := all[name], all[assayTool]
	goal, against := "", fmt.Sprintf("%d packages, %s CPU", s.packages, ms(s.cpu))
	if s.memory > 0 {
		against += fmt.Sprintf(", %d MiB", s.memory>>20)
	}
	peer, measured := all[scalibrTool]
	switch name {
	case assayTool:
		if measured {
			goal, against = "≤ 1.5 scalibr", fmt.Sprintf("%.2f× osv-scalibr; ", ratio(ours.took, peer.took))+against
		}
		if in.limit > 0 {
			against = fmt.Sprintf("%.2f× %s (%s); ", ratio(ours.took, in.limit), in.limitName, ms(in.limit)) + against
		}
	case syftTool:
		goal, against = "≥ 10 assay", fmt.Sprintf("%.1f× assay; ", ratio(s.took, ours.took))+against
	}
	row(in.name+": "+name, ms(s.took), goal, against)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// note says what is missing, and why.
func note(format string, args ...any) { fmt.Printf("(%s)\n", fmt.Sprintf(format, args...)) }

// unpacking is how long inflating and hashing a layer takes, which nobody who looks
// into it can do without.
func (c *config) unpacking(path string, l *limits) (time.Duration, error) {
	var runs []result
	for range c.runs {
		start := time.Now()
		n, err := inflate(path)
		if err != nil {
			return 0, err
		}
		took := time.Since(start) + time.Duration(float64(n)/l.sha256*float64(time.Second))
		runs = append(runs, result{perSecond: float64(time.Second) / float64(took), p50: took})
	}
	return middle(runs).p50, nil
}

func inflate(path string) (packed int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	r, err := gzip.NewReader(f)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, r)
	return info.Size(), errors.Join(err, r.Close())
}
