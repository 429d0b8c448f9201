package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// scanner looks into artifacts, and into documents that claim to say what is in one.
// sandbox.Sandbox is one: each file is read by a process of its own, which can be
// killed and can reach nothing. A scan that went over a limit is an inventory that says
// so; an error is a fault of the service, or a document that is refused.
type scanner interface {
	Scan(ctx context.Context, path, name string) (*sbom.Inventory, error)
	Check(ctx context.Context, path string, want check.Want) (*sbom.Inventory, *check.Report, error)
}

const (
	// scanWindow is how many artifacts of one upload are looked into while it goes on;
	// beyond it the upload waits, so that what it keeps on disk is bounded.
	scanWindow = 4
	// maxScansWaiting is how many artifacts of one tenant may wait to be looked into,
	// and maxScanWait for how long one does.
	maxScansWaiting, maxScanWait = 256, 15 * time.Minute
	// maxUploadComponents and maxUploadDocuments bound the SBOMs of one upload, in
	// components and in bytes.
	maxUploadComponents, maxUploadDocuments = 400_000, 200 << 20
)

const (
	// scanMemory is what SBOMs may take of this process, all together: those that are
	// being written after a scan, or attached, or sealed. uncounted is up to which size
	// one does not count.
	scanMemory, uncounted = 384 << 20, 64 << 10
	// maxMemoryWait is for how long one waits for a part of it.
	maxMemoryWait = 5 * time.Minute
	// An answer of the scanning process becomes an inventory and a document, which take
	// encodeFactor times its bytes, or, of a document that is checked, an inventory
	// alone: decodeFactor. To sign, log and store a document takes sealFactor times its
	// bytes, its rows in the index included.
	encodeFactor, decodeFactor, sealFactor = 9, 3, 7
)

// scanService looks into what is uploaded, and makes documents of what it finds.
type scanService struct {
	scanner scanner
	// scanning and checking are the places that the scanner has. A scan may take
	// minutes, and whoever attaches a document does not wait for one.
	scanning, checking *fair
	// memory is bytes of scanMemory.
	memory  *fair
	spool   *spool
	tool    sbom.Tool
	metrics *metrics
}

func newScanService(s scanner, workers int, sp *spool, tool sbom.Tool, m *metrics) *scanService {
	return &scanService{
		scanner:  s,
		scanning: newFair(int64(workers), maxScansWaiting, maxScanWait, sandbox.CodeScannerBusy, "artifacts wait to be looked into"),
		checking: newFair(int64(documentPlaces(workers)), maxScansWaiting, maxScanWait, sandbox.CodeScannerBusy, "documents wait to be checked"),
		memory:   newFair(scanMemory, 1<<20, maxMemoryWait, CodeOverloaded, "large SBOMs take all the memory that they may"),
		spool:    sp, tool: tool, metrics: m,
	}
}

// documentPlaces is how many documents are checked beside so many scans.
func documentPlaces(workers int) int { return max(1, workers/4) }

func (s *scanService) reserve(of party) *reservation { return &reservation{memory: s.memory, of: of} }

// scans are those of one upload. Its methods but abandon belong to one goroutine.
type scans struct {
	service *scanService
	of      party
	dir     string // of the spool
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{}
	workers sync.WaitGroup

	mu      sync.Mutex
	found   []*scanned
	settled int // how many of them, from the first, are as they remain
	holds   amount
	most    amount // that they may hold
	err     error  // the first one
}

// amount is of documents: their components, and their bytes.
type amount struct {
	components int
	bytes      int64
}

// scanned is an artifact and what is in it. The document is on disk: an upload may have
// a thousand artifacts, and each document has tens of megabytes if its artifact is made
// for that.
type scanned struct {
	subject store.Subject
	file    string // of the document
	amount
	// outline is the inventory without its components, until it is known that they fit.
	outline *sbom.Inventory
	summary *assayv1.SBOMSummary // without the attestation
}

// begin starts an upload, whose directory of the spool dir is.
func (s *scanService) begin(ctx context.Context, of party, dir string) *scans {
	own, cancel := context.WithCancel(ctx)
	return &scans{
		service: s, of: of, dir: dir, ctx: own, cancel: cancel, slots: make(chan struct{}, scanWindow),
		most: amount{maxUploadComponents, maxUploadDocuments},
	}
}

// add begins to look into the file, which it removes when it has. It returns as soon as
// there is a place for it.
func (s *scans) add(ctx context.Context, file string, subject store.Subject) error {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	one := &scanned{subject: subject, file: filepath.Join(s.dir, filepath.Base(file)+".sbom")}
	s.mu.Lock()
	s.found = append(s.found, one)
	err := s.err
	s.mu.Unlock()
	if err != nil {
		<-s.slots
		return err
	}
	s.workers.Go(func() {
		defer func() { <-s.slots }()
		err := s.scan(file, one)
		if err == nil {
			return
		}
		s.mu.Lock()
		if s.err == nil {
			s.err = err
		}
		s.mu.Unlock()
		s.cancel()
	})
	return nil
}

// wait returns what was found, in the order in which it was added.
func (s *scans) wait() ([]*scanned, error) {
	s.workers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.found, s.err
}

// abandon ends what is still under way, and waits for that: the files are removed
// after it.
func (s *scans) abandon() {
	s.cancel()
	s.workers.Wait()
}

// scan looks into one artifact and puts the document of what it finds on disk. It has a
// place until it has: what becomes of an answer too small to be counted takes memory too.
func (s *scans) scan(file string, one *scanned) error {
	began := time.Now()
	release, err := s.service.scanning.acquire(s.ctx, s.of, 1)
	if err != nil {
		return err
	}
	defer release()
	memory := s.service.reserve(s.of)
	defer memory.drop()
	ctx := sandbox.WithRoom(s.ctx, func(ctx context.Context, answer int64) error { return memory.take(ctx, encodeFactor*answer) })
	inv, err := s.service.scanner.Scan(ctx, file, path.Base(one.subject.Name))
	if err != nil {
		if s.ctx.Err() != nil && refusal.CodeOf(err) == "" {
			return s.ctx.Err()
		}
		return err
	}
	s.service.metrics.scanned(inv, time.Since(began))
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	outline := outlineOf(inv)
	if len(inv.Components) > s.left() {
		inv = outline // whatever those before it come to
	}
	if err := s.service.write(one, inv); err != nil {
		return err
	}
	return s.settle(one, outline)
}

// outlineOf is what is left of an inventory whose components are too many.
func outlineOf(inv *sbom.Inventory) *sbom.Inventory {
	out := &sbom.Inventory{Format: inv.Format, Files: inv.Files, Bytes: inv.Bytes}
	out.Incomplete = append(out.Incomplete, sbom.Reason{Code: sbom.ReasonComponents, Detail: "the SBOMs of the artifacts that came together would be too large"})
	for _, r := range inv.Incomplete {
		out.Incomplete = append(out.Incomplete, sbom.Reason{Code: r.Code})
	}
	out.Normalize()
	return out
}

// left is how many components are left for one that is not settled, at most.
func (s *scans) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most.components - s.holds.components
}

// settle decides, in the order of the artifacts and not in that of the scans, which
// documents remain: those that fit beside the ones before them. So the same upload
// always has the same SBOMs.
func (s *scans) settle(one *scanned, outline *sbom.Inventory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.outline = outline
	for ; s.settled < len(s.found) && s.found[s.settled].outline != nil; s.settled++ {
		next := s.found[s.settled]
		if s.holds.components+next.components > s.most.components || s.holds.bytes+next.bytes > s.most.bytes {
			if err := os.Remove(next.file); err != nil {
				return spoolError(err)
			}
			if err := s.service.write(next, next.outline); err != nil {
				return err
			}
		}
		s.holds.components += next.components
		s.holds.bytes += next.bytes
		next.outline = nil
	}
	return nil
}

// write puts the document of an inventory where one says, and keeps what its summary
// needs.
func (s *scanService) write(one *scanned, inv *sbom.Inventory) error {
	document, inv, err := s.document(&one.subject, inv)
	if err != nil {
		return err
	}
	f, err := s.spool.file(filepath.Dir(one.file), filepath.Base(one.file))
	if err != nil {
		return err
	}
	_, err = f.Write(document)
	if err := errors.Join(err, f.Close()); err != nil {
		return spoolError(err)
	}
	one.amount = amount{len(inv.Components), int64(len(document))}
	one.summary = summaryOf("", one.subject, assayv1.SBOMOrigin_SBOM_ORIGIN_GENERATED, inv, inv.Format)
	return nil
}

// document is the CycloneDX document of an inventory. One that is too large to be
// signed says less: first not where things lie, then only that there was too much.
func (s *scanService) document(about *store.Subject, found *sbom.Inventory) ([]byte, *sbom.Inventory, error) {
	artifact := sbom.Artifact{Name: about.Name, SHA256: about.SHA256, SHA512: about.SHA512, Size: about.Size}
	inv := *found
	for _, less := range []func(*sbom.Inventory){
		func(*sbom.Inventory) {},
		func(inv *sbom.Inventory) {
			inv.Components = slices.Clone(inv.Components)
			for i := range inv.Components {
				inv.Components[i].Locations = nil
			}
		},
		func(inv *sbom.Inventory) {
			inv.Components, inv.Root = nil, nil
			inv.Incomplete = append([]sbom.Reason{{Code: sbom.ReasonComponents, Detail: "the document would be too large"}}, inv.Incomplete...)
			inv.Normalize()
		},
	} {
		less(&inv)
		document, err := sbom.Encode(artifact, &inv, s.tool)
		if err != nil {
			return nil, nil, err
		}
		if len(document) <= maxSBOMBytes {
			return document, &inv, nil
		}
	}
	return nil, nil, refusal.New(attest.CodeStatementTooLarge, "the SBOM of %.200q has more than %d bytes", about.Name, maxSBOMBytes)
}

// check has a document of so many bytes checked. Afterwards memory holds what its
// inventory and its sealing take.
func (s *scanService) check(ctx context.Context, memory *reservation, file string, size int64, want check.Want) (*sbom.Inventory, *check.Report, error) {
	release, err := s.checking.acquire(ctx, memory.of, 1)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	inv, report, err := s.scanner.Check(sandbox.WithRoom(ctx, func(ctx context.Context, answer int64) error {
		return memory.take(ctx, decodeFactor*answer+sealFactor*size)
	}), file, want)
	if err != nil {
		return nil, nil, err
	}
	return inv, report, memory.takeLarge(ctx, size, sealFactor*size)
}
