package awskms

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"filippo.io/mldsa"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

// BenchmarkSign signs against a KMS that takes a while, as that of a region does.
// With C calls at one time and 10 ms each, there can be C × 100 signatures a second;
// TLS and the stand-in's own work are on the same processors.
func BenchmarkSign(b *testing.B) {
	for _, latency := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond} {
		for _, callers := range []int{1, 64, 128} {
			b.Run(fmt.Sprintf("latency=%s/callers=%d", latency, callers), func(b *testing.B) {
				e := newEnv(b)
				_, k := e.key(b, "ECC_NIST_P256")
				e.world.Latency("kms", "Sign", latency)
				sum := sha256.Sum256([]byte("message"))
				// Connections are made before the clock starts.
				each(b, callers, callers, func() error { _, err := k.Sign(b.Context(), sum[:]); return err })
				b.ResetTimer()
				each(b, callers, b.N, func() error { _, err := k.Sign(b.Context(), sum[:]); return err })
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
			})
		}
	}
}

// each calls f n times from so many goroutines.
func each(b *testing.B, callers, n int, f func() error) {
	turns := make(chan struct{})
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range turns {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range n {
		turns <- struct{}{}
	}
	close(turns)
	all.Wait()
}

// BenchmarkCheck is what it costs not to believe KMS.
func BenchmarkCheck(b *testing.B) {
	e := newEnv(b)
	sum := sha256.Sum256([]byte("message"))
	for _, spec := range []awstest.KeySpec{"ECC_NIST_P256", "RSA_2048"} {
		b.Run(string(spec), func(b *testing.B) {
			_, k := e.key(b, spec)
			sig, err := k.Sign(b.Context(), sum[:])
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if !attest.VerifySignature(k.Public(), sum[:], sig) {
					b.Fatal("not a signature")
				}
			}
		})
	}
	b.Run("ML_DSA_65", func(b *testing.B) {
		at := e.account.Key(testRegion, "ML_DSA_65")
		k, err := e.kms.OpenMLDSA(at.ARN(), at.Public().(*mldsa.PublicKey))
		if err != nil {
			b.Fatal(err)
		}
		sig, err := k.SignMessage(b.Context(), sum[:])
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if mldsa.Verify(k.PublicKey(), sum[:], sig, nil) != nil {
				b.Fatal("not a signature")
			}
		}
	})
}
