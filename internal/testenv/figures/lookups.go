package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/store"
	"golang.org/x/sync/errgroup"
)

// lookups measures the read behind every cold Verify, in a small and a large store.
func (c *config) lookups(ctx context.Context, work string, l *limits) error {
	var small time.Duration
	for _, n := range []int{10_000, c.rows} {
		r, err := c.lookup(ctx, filepath.Join(work, fmt.Sprintf("rows-%d", n), "assay.db"), n)
		if err != nil {
			return err
		}
		against := fmt.Sprintf("p99 %s", us(r.p99))
		if small == 0 {
			small = r.p50
		} else {
			against += fmt.Sprintf("; %.2f× the small store", float64(r.p50)/float64(small))
		}
		row(fmt.Sprintf("lookup by digest, %d attestations, p50", n), us(r.p50), "flat, < 1 ms", against)
	}
	return nil
}

func (c *config) lookup(ctx context.Context, path string, n int) (r result, err error) {
	st, err := store.Open(ctx, store.Config{Path: path})
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	if err := fill(ctx, st, salt, n); err != nil {
		return result{}, err
	}
	i := uint64(0)
	return c.median(ctx, 1, func(ctx context.Context, _ int) error {
		i += 7919
		rows, _, err := st.AttestationsBySHA256(ctx, digestOf(salt, i%uint64(n)), "", 64)
		if err == nil && len(rows) != 1 {
			err = fmt.Errorf("%d rows for one digest", len(rows))
		}
		return err
	})
}

// fill stores n attestations the way the service does, many at a time.
func fill(ctx context.Context, st *store.Store, salt [16]byte, n int) error {
	bundle := make([]byte, 4<<10) // the size of a bundle with one subject
	_, _ = rand.Read(bundle)
	bundle[0] = 0x7b // as JSON begins
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range 256 {
		group.Go(func() error {
			for {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return nil
				}
				if err := put(ctx, st, digestOf(salt, uint64(i)), i, bundle); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

func put(ctx context.Context, st *store.Store, digest string, i int64, bundle []byte) error {
	return complete(ctx, st, attestationOf(digest, i), i, bundle[:1024], bundle)
}

// attestationOf is the provenance of an artifact with that digest.
func attestationOf(digest string, i int64) *store.Attestation {
	id := sha256.Sum256(fmt.Append(nil, digest, i))
	return &store.Attestation{
		ID: hex.EncodeToString(id[:]), PredicateType: attest.PredicateSLSAProvenanceV1,
		BuilderID: "http://127.0.0.1:8780/builders/dev", BuildType: "https://actions.github.io/buildtypes/workflow/v1",
		InvocationID: fmt.Sprintf("https://github.com/octo-org/octo-app/actions/runs/%d/attempts/1", i),
		SourceURI:    "git+https://github.com/octo-org/octo-app@refs/heads/main",
		SourceCommit: "6113728f27ae82c7b1a177c8d03f9e96e0adf246", Caller: []byte(`{}`), CreatedAt: time.Now(),
		Subjects: []store.Subject{{Name: "app", SHA256: digest, Kind: 1, Origin: 1, Size: 1}},
	}
}

// complete makes an attestation durable, then visible.
func complete(ctx context.Context, st *store.Store, record *store.Attestation, i int64, envelope, bundle []byte) error {
	var rest [670]byte
	_, _ = rand.Read(rest[:])
	err := st.BeginAttestation(ctx, &store.Pending{
		ID: record.ID, Envelope: envelope, LogBody: rest[:652], LeafHash: rest[:32], Timestamp: rest[:],
		Record: record, CreatedAt: record.CreatedAt,
	})
	if err != nil {
		return err
	}
	return st.CompleteAttestation(ctx, record.ID, i, bundle, store.LogHead{})
}
