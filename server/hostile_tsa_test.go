package server_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/tsatest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"github.com/digitorus/timestamp"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

// authority is a timestamp authority of somebody else, on the world's clock.
func authority(t *testing.T, w *world) (*tsatest.Server, string) {
	t.Helper()
	tsa, err := tsatest.New(tsatest.Config{Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(tsa)
	t.Cleanup(srv.Close)
	return tsa, srv.URL + "/tsa"
}

// chainFile writes chains, one after the other.
func chainFile(t *testing.T, chains ...[]*x509.Certificate) string {
	t.Helper()
	var text bytes.Buffer
	for _, chain := range chains {
		for _, c := range chain {
			text.Write(tsatest.PEM(c))
		}
	}
	path := filepath.Join(t.TempDir(), "chain.pem")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func withTSA(url, chain string) func(*server.Config) {
	return func(c *server.Config) { c.Timestamp = server.TimestampConf{URL: url, ChainFile: chain} }
}

// stampedBy is the organization of who dated a bundle.
func stampedBy(t *testing.T, raw []byte) string {
	t.Helper()
	parts, err := attest.ParseOwnBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	ts, err := timestamp.ParseResponse(parts.Timestamps[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range ts.Certificates {
		if !c.IsCA {
			return c.Subject.Organization[0]
		}
	}
	return "Assay" // whose tokens bring no certificates
}

// sigstoreGo judges a bundle as a program does that has sigstore-go and what this
// service publishes: with its log entry, its timestamp and, of a certificate, its name and
// its SCT.
func (l *life) sigstoreGo(t testing.TB, raw []byte, san, issuer string) error {
	t.Helper()
	resp, err := assayv1.NewAuditServiceClient(l.conn).GetTrustedRoot(t.Context(), &assayv1.GetTrustedRootRequest{})
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromJSON(resp.GetTrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	b := new(bundle.Bundle)
	if err := b.UnmarshalJSON(raw); err != nil {
		return err
	}
	material := root.TrustedMaterialCollection{trusted}
	options := []sgverify.VerifierOption{sgverify.WithTransparencyLog(1), sgverify.WithSignedTimestamps(1)}
	var policy sgverify.PolicyOption
	if san == "" {
		keys := make(map[string]*root.ExpiringKey)
		for block, rest := pem.Decode([]byte(resp.GetAttestationKeysPem())); block != nil; block, rest = pem.Decode(rest) {
			public, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				continue // ML-DSA
			}
			v, err := signature.LoadDefaultVerifier(public)
			if err != nil {
				t.Fatal(err)
			}
			hint := b.Bundle.GetVerificationMaterial().GetPublicKey().GetHint()
			if known := keys[hint]; known == nil || sha256Hex(block.Bytes) == hint {
				keys[hint] = root.NewExpiringKey(v, time.Time{}, time.Time{})
			}
		}
		material = append(material, root.NewTrustedPublicKeyMaterialFromMapping(keys))
		policy = sgverify.WithKey()
	} else {
		options = append(options, sgverify.WithSignedCertificateTimestamps(1))
		identity, err := sgverify.NewShortCertificateIdentity(issuer, "", san, "")
		if err != nil {
			t.Fatal(err)
		}
		policy = sgverify.WithCertificateIdentity(identity)
	}
	v, err := sgverify.NewVerifier(material, options...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(b, sgverify.NewPolicy(sgverify.WithoutArtifactUnsafe(), policy))
	return err
}

// TestTSALies: an attest whose timestamp is not what was asked for is refused, whatever is
// wrong with it, and leaves nothing; what is known goes on being answered.
func TestTSALies(t *testing.T) {
	t.Parallel()
	want := map[tsatest.Fault]string{
		tsatest.TwoLeaves: "TSA_ANSWER_INVALID", tsatest.ForgedTwoLeaves: "TSA_ANSWER_INVALID",
		tsatest.OtherKey: "TIMESTAMP_SIGNATURE_INVALID", tsatest.OtherAuthority: "TIMESTAMP_UNTRUSTED", tsatest.FlippedSignature: "TIMESTAMP_SIGNATURE_INVALID",
		// Certificates of the true issuer that are not the one configured.
		tsatest.NoEKU: "", tsatest.NonCriticalEKU: "", tsatest.CodeSigningEKU: "", tsatest.ExpiredChain: "",
		tsatest.WrongImprint: "TSA_IMPRINT_MISMATCH", tsatest.OtherHash: "TSA_IMPRINT_MISMATCH",
		tsatest.WrongNonce: "TSA_NONCE_MISMATCH", tsatest.NoNonce: "TSA_NONCE_MISMATCH", tsatest.Replay: "TSA_IMPRINT_MISMATCH",
		tsatest.TimeAhead: "TSA_TIME_INVALID", tsatest.TimeBehind: "TSA_TIME_INVALID", tsatest.FractionalTime: "TSA_TIME_INVALID",
		tsatest.CriticalExtension: "TSA_ANSWER_INVALID", tsatest.Rejected: "TSA_REFUSED", tsatest.GrantedWithMods: "TSA_REFUSED", tsatest.NoToken: "TSA_ANSWER_INVALID",
		tsatest.Garbage: "TSA_ANSWER_INVALID", tsatest.BER: "TSA_ANSWER_INVALID", tsatest.TrailingBytes: "TSA_ANSWER_INVALID", tsatest.Truncated: "TSA_UNAVAILABLE",
		tsatest.Huge: "TSA_ANSWER_INVALID", tsatest.HTML: "TSA_ANSWER_INVALID", tsatest.Redirect: "TSA_ANSWER_INVALID",
		tsatest.Status500: "TSA_UNAVAILABLE", tsatest.Status429: "TSA_UNAVAILABLE", tsatest.Status403: "TSA_REFUSED",
		tsatest.Hang: "TSA_UNAVAILABLE", tsatest.Slow: "TSA_UNAVAILABLE", tsatest.Reset: "TSA_UNAVAILABLE",
	}
	for mode, edit := range map[string]func(*server.Config){"key": func(*server.Config) {}, "certificate": shortCertificates} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			tsa, url := authority(t, w)
			cloud := newAWS(t, w) // is asked nothing
			l := w.start(t, withTSA(url, chainFile(t, tsa.Chain())), edit).login(t)
			good := subject("good", "good")
			first := l.digests(t, l.ctx, good).GetAttestation()
			if by := stampedBy(t, first.GetBundle()); by != "Example Time" {
				t.Fatalf("dated by %s", by)
			}
			l.decide(t, "dev", good, "ALLOWED")
			n := 0
			for _, fault := range tsatest.Faults() {
				if slow := fault == tsatest.Hang || fault == tsatest.Slow; fault == tsatest.FreeText || slow && (testing.Short() || mode != "key") {
					continue
				}
				n++
				t.Run(fault.String(), func(t *testing.T) {
					before, decisions, asked := l.kept(t), l.count(t, "decisions"), tsa.Requests()
					tsa.Fail(fault)
					defer tsa.Fail(tsatest.None)
					_, err := l.tryDigests(subject("no", fault.String()))
					reason, known := want[fault]
					if !known {
						t.Fatal("no expectation")
					}
					if got, _ := reasonOf(err); reason == "" && strings.HasPrefix(got, "TIMESTAMP_") {
						reason = got
					}
					wantOutage(t, err, reason)
					// A new summary cannot be dated either: the decision goes without.
					missing := reason
					if fault == tsatest.Hang || fault == tsatest.Slow {
						missing = "DEADLINE_EXCEEDED" // a decision does not wait as long as the authority is given
					}
					l.unsigned(t, "dev", subject("", fault.String()), "NO_ATTESTATION", missing)
					if asked == tsa.Requests() {
						t.Error("the authority was not asked")
					}
					asked = tsa.Requests()
					l.goesOn(t, cloud, good)
					if tsa.Requests() != asked {
						t.Error("the authority was asked about what is known")
					}
					l.unchanged(t, before)
					if l.count(t, "decisions") != decisions+1 {
						t.Error("the decision was not kept")
					}
					tsa.Fail(tsatest.None)
					l.digests(t, l.ctx, subject("no", fault.String()))
				})
			}
			last := l.digests(t, l.ctx, subject("last", "last")).GetAttestation()
			entries := int64(1)
			if mode == "certificate" {
				entries = 2
			}
			// A summary, and the verifier's certificate; and each that was attested once healed.
			if got, want := last.GetLogIndex()-first.GetLogIndex(), entries+entries*int64(n+1); got != want {
				t.Errorf("%d entries in between, want %d: something that was refused is in the log", got, want)
			}
		})
	}
}

// TestTSAChainRefused: a chain that no verifier should accept timestamps under is refused
// at start, as are files that are none.
func TestTSAChainRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	tsa, url := authority(t, w)
	good := tsa.Chain()
	other, _ := authority(t, w)
	text := filepath.Join(t.TempDir(), "text.pem")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		url, chain string
		reason     refusal.Code
	}{
		"no EKU":           {url, chainFile(t, tsa.ChainFor(tsatest.NoEKU)), "TIMESTAMP_CHAIN_INVALID"},
		"not critical":     {url, chainFile(t, tsa.ChainFor(tsatest.NonCriticalEKU)), "TIMESTAMP_CHAIN_INVALID"},
		"two uses":         {url, chainFile(t, tsa.ChainFor(tsatest.CodeSigningEKU)), "TIMESTAMP_CHAIN_INVALID"},
		"no root":          {url, chainFile(t, good[:2]), server.CodeConfigInvalid},
		"root alone":       {url, chainFile(t, good[2:]), "TIMESTAMP_CHAIN_INVALID"},
		"another root":     {url, chainFile(t, []*x509.Certificate{good[0], good[1], other.Chain()[2]}), "TIMESTAMP_CHAIN_INVALID"},
		"upside down":      {url, chainFile(t, []*x509.Certificate{good[2], good[1], good[0]}), server.CodeConfigInvalid},
		"no certificates":  {url, text, server.CodeConfigInvalid},
		"no file":          {url, text + "x", server.CodeConfigInvalid},
		"no chain":         {url, "", server.CodeConfigInvalid},
		"plain http":       {"http://tsa.example.com/", chainFile(t, good), server.CodeConfigInvalid},
		"user in the url":  {strings.Replace(url, "//", "//user:secret-of-the-tsa@", 1), chainFile(t, good), server.CodeConfigInvalid},
		"query in the url": {url + "?key=secret-of-the-tsa", chainFile(t, good), server.CodeConfigInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := w.config(t, withTSA(tt.url, tt.chain), func(c *server.Config) { c.Data = t.TempDir() })
			defer cfg.Listener.Close()
			_, err := server.New(t.Context(), cfg)
			if refusal.CodeOf(err) != tt.reason {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
			if err != nil && strings.Contains(err.Error(), "secret-of-the-tsa") {
				t.Errorf("the error says the password: %v", err)
			}
		})
	}
}

// TestTSASwitched: bundles dated by one authority stay good when another takes over, and
// when that one does no longer, as long as its certificates stay configured.
func TestTSASwitched(t *testing.T) {
	t.Parallel()
	for mode, edit := range map[string]func(*server.Config){"key": func(*server.Config) {}, "certificate": shortCertificates} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			one, oneURL := authority(t, w)
			two, twoURL := authority(t, w)
			var all []*assayv1.Attestation
			san, issuer := "", ""
			if mode == "certificate" {
				san, issuer = "https://github.com/octo-org/octo-app/.github/workflows/release.yml@refs/heads/main", w.issuer.URL()
			}
			for i, tt := range []struct {
				by     string
				config func(*server.Config)
			}{
				{"Assay", func(*server.Config) {}},
				{"Example Time", withTSA(oneURL, chainFile(t, one.Chain()))},
				{"Example Time", withTSA(twoURL, chainFile(t, two.Chain(), one.Chain()))},
				{"Assay", withTSA("", chainFile(t, one.Chain(), two.Chain()))},
				{"Example Time", withTSA(oneURL, chainFile(t, one.Chain(), two.Chain()))},
			} {
				l := w.start(t, tt.config, edit).login(t)
				a := l.digests(t, l.ctx, subject("app", fmt.Sprint(i))).GetAttestation()
				if by := stampedBy(t, a.GetBundle()); by != tt.by {
					t.Errorf("%d: dated by %s, want %s", i, by, tt.by)
				}
				all = append(all, a)
				v := l.trust(t)
				for n, a := range all {
					if _, err := v.VerifyOwn(a.GetBundle()); err != nil {
						t.Errorf("life %d, bundle %d: %v", i, n, err)
					}
					if err := l.sigstoreGo(t, a.GetBundle(), san, issuer); err != nil {
						t.Errorf("life %d, bundle %d: sigstore-go: %v", i, n, err)
					}
					l.decide(t, "dev", subject("app", fmt.Sprint(n)), "ALLOWED")
				}
				l.stop()
			}
			// Without the certificates of the others, theirs is not evidence.
			l := w.start(t, edit).login(t)
			for n := range all {
				want := "STORED_EVIDENCE_INVALID"
				if slices.Contains([]int{0, 3}, n) {
					want = "ALLOWED"
				}
				l.decide(t, "dev", subject("app", fmt.Sprint(n)), want)
			}
		})
	}
}
