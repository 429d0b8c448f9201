package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/assay-build/assay/internal/sbom"
	isolated "github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/sbom/scan"
)

// ownScanners make SBOMs as the service does: a process for each artifact, and the
// document of what it answers.
type ownScanners struct {
	children *isolated.Sandbox
	temp     string

	mu    sync.Mutex
	usage isolated.Usage // of the last child
}

func (c *config) ownScanners(work string) (*ownScanners, error) {
	o := &ownScanners{temp: filepath.Join(work, "scan-in-process")}
	program, err := filepath.Abs(filepath.Join(c.bin, "assayd"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.temp, 0o700); err != nil {
		return nil, err
	}
	o.children, err = isolated.New(isolated.Config{
		Command: []string{program, "scan"}, TempDir: filepath.Join(work, "scan-temp"), Logger: slog.New(slog.DiscardHandler),
		Observe: func(u isolated.Usage) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.usage = u
		},
	})
	return o, err
}

func (o *ownScanners) close() { _ = o.children.Close() }

func (o *ownScanners) tools() []tool {
	return []tool{{assayTool, o.inChild}, {inProcess, o.here}}
}

func (o *ownScanners) inChild(ctx context.Context, in *scanInput) (scanned, error) {
	start := time.Now()
	inv, err := o.children.Scan(ctx, in.path, filepath.Base(in.path))
	if err != nil {
		return scanned{}, err
	}
	s, err := document(in, inv)
	s.took = time.Since(start)
	o.mu.Lock()
	defer o.mu.Unlock()
	s.cpu, s.memory = o.usage.CPU, o.usage.Memory
	return s, err
}

func (o *ownScanners) here(ctx context.Context, in *scanInput) (scanned, error) {
	runtime.GC()
	before := cpuTime()
	start := time.Now()
	f, err := os.Open(in.path)
	if err != nil {
		return scanned{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return scanned{}, err
	}
	inv, err := scan.Scan(ctx, scan.Request{Artifact: f, Size: info.Size(), Name: filepath.Base(in.path), TempDir: o.temp}, scan.DefaultLimits())
	if err != nil {
		return scanned{}, err
	}
	s, err := document(in, inv)
	s.took, s.cpu = time.Since(start), cpuTime()-before
	return s, err
}

// document makes the SBOM. The artifact's digest is known to the service from
// receiving it: it is not what is measured here.
func document(in *scanInput, inv *sbom.Inventory) (scanned, error) {
	sum := sha256.Sum256([]byte(in.name))
	_, err := sbom.Encode(sbom.Artifact{Name: filepath.Base(in.path), SHA256: hex.EncodeToString(sum[:])}, inv, sbom.Tool{Name: "assay"})
	if err == nil && in.complete && !inv.Complete() {
		err = fmt.Errorf("incomplete: %v", inv.Incomplete)
	}
	return scanned{packages: len(inv.Components)}, err
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peer is a program of others. It reads folders where Assay reads their tar, which
// spares it the reading of tars.
type peer struct {
	name    string
	program string
	args    func(in *scanInput, out string) []string
	path    string
	version string
}

var peers = []*peer{
	{name: scalibrTool, program: "scalibr", args: func(in *scanInput, out string) []string {
		from := "--root=" + in.dir
		if in.image {
			from = "--image-tarball=" + in.path
		}
		return []string{from, "--offline", "-o", "cdx-json=" + out}
	}},
	{name: syftTool, program: "syft", args: func(in *scanInput, out string) []string {
		from := "dir:" + in.dir
		switch {
		case in.image:
			from = "docker-archive:" + in.path
		case in.single:
			from = "file:" + in.path
		}
		// By itself it takes the packages of a folder from its lock alone.
		return []string{"scan", from, "-q", "-o", "cyclonedx-json=" + out, "--select-catalogers", "+javascript-package-cataloger"}
	}},
}

// find looks for the program, and says which version it is.
func (p *peer) find() (err error) {
	if p.path, err = exec.LookPath(p.program); err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(p.path)
	if err != nil {
		return err
	}
	p.version = info.Main.Version
	note("%s is %s %s", p.name, info.Main.Path, p.version)
	return nil
}

func (p *peer) tool() tool {
	return tool{p.name, func(ctx context.Context, in *scanInput) (s scanned, err error) {
		out := in.path + "." + p.name + ".json"
		defer os.Remove(out)
		if s, err = runAlone(ctx, p.path, p.args(in, out)...); err == nil {
			s.packages, err = countPackages(out)
		}
		return s, err
	}}
}

// runAlone runs a program as the child of a process that is small: what the kernel
// says of a child's memory begins at what its parent has.
func runAlone(ctx context.Context, program string, args ...string) (s scanned, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-alone", program}, args...)...)
	cmd.Env = append(os.Environ(), "SYFT_CHECK_FOR_APP_UPDATE=false")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%w: %.500s", err, problem.String())
	}
	_, err = fmt.Sscan(string(out), (*int64)(&s.took), (*int64)(&s.cpu), &s.memory)
	return s, err
}

// alone is the process that runAlone starts.
func alone(ctx context.Context, command []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	took := time.Since(start)
	memory := int64(0)
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		memory = u.Maxrss << 10
	}
	_, err := fmt.Fprintln(stdout, int64(took), int64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()), memory)
	return err
}

// countPackages counts the different package URLs of a CycloneDX document.
func countPackages(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var doc struct {
		Components []struct {
			PURL string `json:"purl"`
		} `json:"components"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return 0, err
	}
	seen := make(map[string]bool)
	for _, c := range doc.Components {
		purl, _, _ := strings.Cut(c.PURL, "?") // where it was found is no other package
		seen[purl] = purl != ""
	}
	delete(seen, "")
	return len(seen), nil
}
