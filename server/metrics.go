package server

import (
	"context"
	"crypto"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/signing"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"
)

// metrics are the service's own; no label takes a value that a client chooses.
type metrics struct {
	requests     *prometheus.CounterVec   // by method and gRPC code
	seconds      *prometheus.HistogramVec // by method
	panics       prometheus.Counter
	attestations prometheus.Counter
	subjects     prometheus.Counter
	received     prometheus.Counter     // artifact bytes
	decisions    *prometheus.CounterVec // by result and reason
	access       *prometheus.CounterVec // by action and reason
	recovered    prometheus.Counter     // attestations finished after a crash or a failure
	pending      prometheus.Gauge       // attestations that could not be finished
	scans        *prometheus.CounterVec // by result
	scanSeconds  prometheus.Histogram
	kms          *prometheus.CounterVec // by result
	behind       prometheus.Gauge
}

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_rpc_requests_total", Help: "RPCs answered, by method and gRPC status code.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "assay_rpc_duration_seconds", Help: "Time from request to answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30, 300},
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_panics_total", Help: "Handlers that panicked and answered INTERNAL.",
		}),
		attestations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_attestations_total", Help: "Attestations signed, logged and stored.",
		}),
		subjects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_subjects_total", Help: "Subjects of those attestations.",
		}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_artifact_bytes_total", Help: "Artifact bytes received and hashed.",
		}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_decisions_total", Help: "Deploy decisions, by result and reason.",
		}, []string{"result", "reason"}),
		access: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_access_decisions_total", Help: "Answers of the access policy, by action and reason.",
		}, []string{"action", "reason"}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_recovered_attestations_total", Help: "Attestations that a crash or a failure interrupted and that were finished later.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "assay_pending_attestations", Help: "Attestations that were begun and could not be finished; each is tried again every minute.",
		}),
		scans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_scans_total", Help: "Artifacts that were looked into, by whether the SBOM is complete.",
		}, []string{"result"}),
		scanSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "assay_scan_duration_seconds", Help: "Time that looking into one artifact took, waiting for a place included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300},
		}),
	}
	m.kms = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "assay_kms_signatures_total", Help: "Signatures that AWS KMS was asked for, by result: ok, or the code of the refusal.",
	}, []string{"result"})
	m.behind = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "assay_trust_repository_behind", Help: "1 while the TUF repository does not offer the keys of now.",
	})
	reg.MustRegister(m.kms, m.behind, m.requests, m.seconds, m.panics, m.attestations, m.subjects, m.received, m.decisions, m.access, m.recovered, m.pending, m.scans, m.scanSeconds,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(method string, code codes.Code, took time.Duration) {
	m.requests.WithLabelValues(method, code.String()).Inc()
	m.seconds.WithLabelValues(method).Observe(took.Seconds())
}

// trustBehind says whether verifiers can hear of the keys of now.
func (m *metrics) trustBehind(behind bool) {
	if behind {
		m.behind.Set(1)
	} else {
		m.behind.Set(0)
	}
}

// counting counts what keys in AWS KMS are asked for.
func (m *metrics) counting(o signing.Openers) signing.Openers {
	open := o.KMS
	o.KMS = func(arn string, public crypto.PublicKey) (signing.Signer, error) {
		s, err := open(arn, public)
		if err != nil {
			return nil, err
		}
		return countedSigner{s, m.kms}, nil
	}
	return o
}

type countedSigner struct {
	signing.Signer
	signatures *prometheus.CounterVec
}

// Sign implements signing.Signer.
func (c countedSigner) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	sig, err := c.Signer.Sign(ctx, digest)
	result := "ok"
	if err != nil {
		if result = string(refusal.CodeOf(err)); result == "" {
			result = "abandoned"
		}
	}
	c.signatures.WithLabelValues(result).Inc()
	return sig, err
}

// scanned counts a scan by what came of it.
func (m *metrics) scanned(inv *sbom.Inventory, took time.Duration) {
	result := "complete"
	if !inv.Complete() {
		result = "incomplete"
	}
	m.scans.WithLabelValues(result).Inc()
	m.scanSeconds.Observe(took.Seconds())
}
