package signing_test

import (
	"testing"
	"time"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
)

// BenchmarkThousandIntermediates is what six weeks of hourly intermediates cost where
// the keyset is opened and where the trusted root is written.
func BenchmarkThousandIntermediates(b *testing.B) {
	l := newLab(b, false)
	l.change(signing.AddKey{Role: signing.RoleCA})
	ks := l.open(signing.Config{})
	root, signer, _ := ks.CA("")
	for range 1000 {
		a, err := ca.New(ca.Config{Root: root, Signer: signer, Organization: "Example", Host: host, Now: l.now, Publish: ks.AddIntermediate, Log: ks.LogSigner()})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.Issue(b.Context(), ca.Identity{URI: "https://example.com/w", Issuer: "https://issuer.example.com"}); err != nil {
			b.Fatal(err)
		}
		l.at = l.at.Add(time.Hour)
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			l.open(signing.Config{})
		}
	})
	b.Run("trusted root", func(b *testing.B) {
		var size int
		for b.Loop() {
			text, err := ks.TrustedRoot()
			if err != nil {
				b.Fatal(err)
			}
			size = len(text)
		}
		b.ReportMetric(float64(size), "bytes")
	})
	b.Run("verifier", func(b *testing.B) {
		for b.Loop() {
			l.root(ks)
		}
	})
	b.Run("stale", func(b *testing.B) {
		for b.Loop() {
			if stale, err := ks.Stale(); err != nil || stale {
				b.Fatal(err)
			}
		}
	})
}
