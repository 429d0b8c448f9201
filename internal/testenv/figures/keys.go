package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// kmsLatency is how long the stand-in of AWS KMS takes; the real one is in this range
// within a region.
const kmsLatency = 10 * time.Millisecond

// keys measures what signs otherwise than a key in a file: certificates, and a key in
// KMS. The stand-in of KMS runs inside the service's process, and takes its share of the
// processors: TLS, SigV4 and JSON on both sides.
func (c *config) keys(ctx context.Context, data string, l *limits) error {
	s, err := c.start(ctx, data+"-certificate", "--mode", "certificate", "--signer", "kms", "--kms-latency", kmsLatency.String())
	if err != nil {
		return err
	}
	defer s.stop()
	call, _, count := attestCalls(s)
	if err := call(s.ctx, 0); err != nil { // makes the intermediate
		return err
	}
	before, err := s.kmsSignatures(ctx)
	if err != nil {
		return err
	}
	many, err := c.median(s.ctx, 64, call)
	if err != nil {
		return err
	}
	after, err := s.kmsSignatures(ctx)
	if err != nil {
		return err
	}
	row("attest, certificate mode, 64 in flight", rate(many), "≥ 3000/s", fmt.Sprintf("%.1f%% of gRPC echo; p50 %s p99 %s; %.1f signatures' time each on 2 processors",
		100*many.perSecond/l.echo64.perSecond, ms(many.p50), ms(many.p99), 2*float64(time.Second)/many.perSecond/float64(l.sign)))
	row("KMS calls for each, certificate mode", fmt.Sprintf("%.4f", (after-before)/float64(count()-1)), "0", fmt.Sprintf("%.0f calls for %d attestations", after-before, count()-1))
	return c.keysKMS(ctx, data, l)
}

// keysKMS measures attests that each wait for KMS: as long as processors are free, n in
// flight are n times as many as one, or something is held across the call.
func (c *config) keysKMS(ctx context.Context, data string, _ *limits) error {
	s, err := c.start(ctx, data+"-kms", "--signer", "kms", "--kms-latency", kmsLatency.String())
	if err != nil {
		return err
	}
	defer s.stop()
	call, _, _ := attestCalls(s)
	alone, err := c.median(s.ctx, 1, call)
	if err != nil {
		return err
	}
	row("attest, key in a KMS of 10 ms, alone, p50", ms(alone.p50), "", fmt.Sprintf("%s beside KMS", ms(alone.p50-kmsLatency)))
	for _, n := range []int{8, 32, 64} {
		many, err := c.median(s.ctx, n, call)
		if err != nil {
			return err
		}
		row(fmt.Sprintf("attest, key in a KMS of 10 ms, %d in flight", n), rate(many), "", fmt.Sprintf("%.0f%% of %d times alone; p50 %s", 100*many.perSecond/(float64(n)*alone.perSecond), n, ms(many.p50)))
	}
	return nil
}

// attestCalls attests a new digest with each call, tells the digest of each and counts
// them.
func attestCalls(s *sandbox) (call func(ctx context.Context, _ int) error, digest func(n uint64) string, count func() uint64) {
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	var n atomic.Uint64
	attestation := assayv1.NewAttestationServiceClient(s.conn)
	return func(ctx context.Context, _ int) error {
		_, err := attestation.AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: []*assayv1.Subject{
			{Name: "app", Digest: map[string]string{"sha256": digestOf(salt, n.Add(1))}},
		}})
		return err
	}, func(n uint64) string { return digestOf(salt, n) }, n.Load
}

// kmsSignatures reads how many signatures KMS was asked for.
func (s *sandbox) kmsSignatures(ctx context.Context) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.env["ASSAY_SERVER"]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	total, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "assay_kms_signatures_total{") {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			return 0, err
		}
		total, found = total+v, true
	}
	if !found {
		return 0, errors.New("the service tells no assay_kms_signatures_total")
	}
	return total, nil
}
