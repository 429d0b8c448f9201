package server

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/policy"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// slowSealer is a sealer whose log takes its time, with every signer well.
func slowSealer(t *testing.T, mode string, slow time.Duration) *sealer {
	t.Helper()
	dir := t.TempDir()
	cfg := &Config{Now: time.Now, Instance: "https://assay.test", Keys: KeysConf{Mode: mode, Organization: "Acme"}}
	keyset := signing.Config{Host: "assay.test", Now: time.Now, Create: true, Openers: KeyOpeners(cfg), CA: signing.CAConfig{Organization: "Acme"}}
	set, err := signing.OpenKeyset(t.Context(), filepath.Join(dir, "keys"), keyset)
	if err != nil {
		t.Fatal(err)
	}
	ring := &keyring{cfg: cfg, logger: slog.New(slog.DiscardHandler), issuers: make(map[string]*ca.Authority)}
	if err := ring.adopt(set); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "assay.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	log, err := posix.Open(t.Context(), posix.Config{Dir: filepath.Join(dir, "log"), Host: "assay.test", Signer: set.LogSigner(), BatchMaxAge: slow, CheckpointInterval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close(context.Background()) })
	return newSealer(ring, "https://assay.test", nil, log, st, time.Now, slog.New(slog.DiscardHandler))
}

// TestSlowLog: the log is waited for for longer than signers are. A permission that it
// took late is registered; where the caller's time was over first there is none.
func TestSlowLog(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		mode           string
		allowed        bool
		slow, patience time.Duration
		registered     bool
	}{
		"a permission":                         {KeysModeKey, true, summaryTimeout + 300*time.Millisecond, finishTimeout, true},
		"a permission, given up":               {KeysModeKey, true, summaryTimeout + 900*time.Millisecond, summaryTimeout + 300*time.Millisecond, false},
		"a permission, certificates, given up": {KeysModeCertificate, true, summaryTimeout + 900*time.Millisecond, summaryTimeout + 300*time.Millisecond, false},
		"a denial's certificate":               {KeysModeCertificate, false, summaryTimeout + 300*time.Millisecond, finishTimeout, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && (tt.mode == KeysModeCertificate || tt.patience < finishTimeout) {
				t.Skip("waits for four seconds")
			}
			s := slowSealer(t, tt.mode, tt.slow)
			k, err := s.ring.now(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
			defer cancel()
			g := &gate{sealer: s, logger: slog.New(slog.DiscardHandler)}
			bundle, head, missing, err := g.signSummary(ctx, &judgement{Decision: policy.Decision{Allowed: tt.allowed}, keys: k}, &attest.Statement{
				Type: attest.StatementTypeV1, PredicateType: attest.PredicateVSA, Predicate: []byte(`{}`),
				Subjects: []attest.Subject{{Name: "app", Digest: map[string]string{"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}},
			})
			if missing != "" {
				t.Errorf("it goes out without a summary, for %s", missing)
			}
			if tt.patience < finishTimeout {
				if err == nil || bundle != nil || head != nil {
					t.Errorf("%d bytes, head %v, %v; want an error", len(bundle), head, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			parts, err := attest.ParseOwnBundle(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if parts.LogEntry.Present() != tt.registered || (head != nil) != tt.registered {
				t.Errorf("registered: %t, head %v", parts.LogEntry.Present(), head)
			}
			if s.log.Size() != 1 { // of the summary, or of the certificate
				t.Errorf("%d entries", s.log.Size())
			}
		})
	}
}
