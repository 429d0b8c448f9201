package server_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/testenv"
	"github.com/assay-build/assay/internal/testenv/awstest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestKMSSlow: a KMS that is slow and right is waited for, and an alias that leads to
// another key by now changes nothing.
func TestKMSSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withKMS(cloud)).login(t)
	key, other := cloud.KMSKey("ECC_NIST_P384"), cloud.KMSKey("ECC_NIST_P384")
	account := cloud.World.Account(testenv.ServiceAccount)
	account.Alias(testenv.AWSRegion, "alias/assay", key)
	w.rekey(t, withKMS(cloud), signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///alias/assay"})
	cloud.World.Latency("kms", "Sign", kmsPatience/8)
	first := l.digests(t, l.ctx, subject("slow", "slow")).GetAttestation()
	account.UpdateAlias(testenv.AWSRegion, "alias/assay", other)
	second := l.digests(t, l.ctx, subject("after", "after")).GetAttestation()
	v := l.trust(t)
	var keys []string
	for _, a := range []*assayv1.Attestation{first, second} {
		if _, err := v.VerifyOwn(a.GetBundle()); err != nil {
			t.Fatal(err)
		}
		parts, err := attest.ParseOwnBundle(a.GetBundle())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, parts.PublicKeyHint)
	}
	if keys[0] != keys[1] {
		t.Errorf("the alias moved and with it the key: %v", keys)
	}
}

// TestKMSCircuit: a KMS that fails again and again is left alone, is found again by the
// clock, and is never stormed.
func TestKMSCircuit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	frozen := time.Now()
	w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
	cloud := newAWS(t, w)
	l := w.start(t, withKMS(cloud)).login(t)
	key := cloud.KMSKey("ECC_NIST_P256")
	w.rekey(t, withKMS(cloud), signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///" + key.ARN()})
	good := subject("good", "good")
	l.digests(t, l.ctx, good)
	l.decide(t, "dev", good, "ALLOWED")
	cloud.World.Fail(awstest.Fault{Service: "kms", Status: 503, Code: "ServiceUnavailable"})
	before := cloud.World.Count("kms", "Sign")
	for i := range 5 {
		_, err := l.tryDigests(subject("no", fmt.Sprint("no", i)))
		wantOutage(t, err, "KMS_UNAVAILABLE")
	}
	asked := cloud.World.Count("kms", "Sign") - before
	if asked > 5*3 {
		t.Errorf("five signatures were asked for %d times", asked)
	}
	began := time.Now()
	for i := range 50 {
		_, err := l.tryDigests(subject("no", fmt.Sprint("never", i)))
		wantOutage(t, err, "KMS_CIRCUIT_OPEN")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("fifty refusals took %s", took)
	}
	if n := cloud.World.Count("kms", "Sign") - before; n != asked {
		t.Errorf("KMS was asked %d more times while the circuit was open", n-asked)
	}
	l.goesOn(t, cloud, good)
	w.advance(time.Second) // one probe, which fails: two seconds
	_, err := l.tryDigests(subject("no", "probe"))
	wantOutage(t, err, "KMS_UNAVAILABLE")
	cloud.World.Heal()
	w.advance(time.Second)
	_, err = l.tryDigests(subject("no", "early"))
	wantOutage(t, err, "KMS_CIRCUIT_OPEN")
	w.advance(time.Second)
	l.digests(t, l.ctx, subject("yes", "yes"))
	if k := l.kept(t); k.Pending != 0 || k.Attestations != 2 {
		t.Errorf("kept %+v", k)
	}
}

// TestStartWithoutKMS: a service whose keys cannot be reached starts and answers what it
// knows; in certificate mode too, where it has no intermediate then.
func TestStartWithoutKMS(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]func(*server.Config){"key": func(*server.Config) {}, "certificate": shortCertificates} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "https://assay.test")
			cloud := newAWS(t, w)
			all := func(c *server.Config) { withKMS(cloud)(c); mode(c) }
			role := signing.RoleAttestation
			if name == "certificate" {
				role = signing.RoleCA
			}
			w.start(t, all).stop()
			key := cloud.KMSKey("ECC_NIST_P256")
			w.rekey(t, all, signing.RotateKey{Role: role, Ref: "awskms:///" + key.ARN()})
			l := w.start(t, all).login(t)
			good := subject("good", "good")
			l.digests(t, l.ctx, good)
			l.decide(t, "dev", good, "ALLOWED")
			l.stop()
			cloud.World.Fail(awstest.Fault{Service: "kms", Status: 500, Code: "KMSInternalException"})
			began := time.Now()
			l = w.start(t, all)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the start took %s", took)
			}
			l.login(t)
			l.goesOn(t, cloud, good)
			_, err := l.tryDigests(subject("no", "no"))
			wantOutage(t, err, "KMS_UNAVAILABLE")
			if k := l.kept(t); k.Pending != 0 || k.Attestations != 1 {
				t.Errorf("kept %+v", k)
			}
			cloud.World.Heal()
			w.advance(2 * time.Second)
			l.digests(t, l.ctx, subject("no", "no"))
		})
	}
}

// TestKMSCertificateMode: while an intermediate can issue, nobody notices that KMS is
// away, and new decisions are made too; after that attests are refused for KMS's reason,
// and KMS is asked once a second and not once a caller.
func TestKMSCertificateMode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	frozen := time.Now()
	w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
	cloud := newAWS(t, w)
	all := func(c *server.Config) { withKMS(cloud)(c); shortCertificates(c) }
	l := w.start(t, all).login(t)
	key, other := cloud.KMSKey("ECC_NIST_P256"), cloud.KMSKey("ECC_NIST_P256")
	w.rekey(t, all, signing.RotateKey{Role: signing.RoleCA, Ref: "awskms:///" + key.ARN()})
	good := subject("good", "good")
	began := cloud.World.Count("kms", "Sign")
	l.digests(t, l.ctx, good)
	l.decide(t, "dev", good, "ALLOWED")
	if n := cloud.World.Count("kms", "Sign") - began; n != 1 {
		t.Errorf("KMS was asked %d times for one intermediate", n)
	}
	attest := func(i int) error {
		_, err := l.tryDigests(subject("more", strconv.Itoa(i)))
		return err
	}
	n := 0
	for name, tt := range kmsFaults(other) {
		if testing.Short() && n > 6 {
			break
		}
		n++
		t.Run(name, func(t *testing.T) {
			key.ClearFaults()
			key.SetState("Enabled")
			cloud.World.Heal()
			w.advance(time.Hour) // the circuit closes, the session is over, and the intermediate too
			l.login(t)
			if err := attest(10 * n); err != nil {
				t.Fatal(err)
			}
			known := subject("known", name)
			l.digests(t, l.ctx, known)
			l.decide(t, "dev", known, "ALLOWED")
			switch {
			case tt.state != "":
				key.SetState(tt.state)
			case tt.key != awstest.KMSFault{}:
				key.Fault(tt.key)
			default:
				tt.world.Service, tt.world.Action = "kms", "Sign"
				cloud.World.Fail(tt.world)
			}
			w.advance(9 * time.Minute) // the intermediate is due, and covers a leaf for one minute more
			if err := attest(10*n + 1); err != nil {
				t.Errorf("while an intermediate can issue: %v", err)
			}
			l.decide(t, "staging", known, "ALLOWED")
			w.advance(2 * time.Minute)
			before, asked := l.kept(t), cloud.World.Count("kms", "Sign")
			wantOutage(t, attest(10*n+2), tt.reason)
			settle(tt.world)
			once := cloud.World.Count("kms", "Sign") - asked
			if once < 1 || once > 3 {
				t.Errorf("KMS was asked %d times", once)
			}
			for range 10 {
				wantOutage(t, attest(10*n+2), tt.reason)
			}
			if n := cloud.World.Count("kms", "Sign") - asked; n != once {
				t.Errorf("KMS was asked %d times within a second", n)
			}
			l.unchanged(t, before)
			l.goesOn(t, cloud, known)
			cloud.World.Heal()
			key.ClearFaults()
			key.SetState("Enabled")
			w.advance(time.Second)
			if err := attest(10*n + 2); err != nil {
				t.Errorf("once KMS is well: %v", err)
			}
		})
	}
}

// TestKMSForBuildsAlone: where the keys in KMS are those of the tiers, summaries are
// signed by the key in a file, and no deploy waits for KMS.
func TestKMSForBuildsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withKMS(cloud)).login(t)
	for _, tier := range []signing.Tier{signing.TierBuild, signing.TierRole, signing.TierClaimed} {
		w.rekey(t, withKMS(cloud), signing.AddKey{Role: signing.RoleAttestation, Tier: tier, Ref: "awskms:///" + cloud.KMSKey("ECC_NIST_P256").ARN()})
	}
	var all []*assayv1.Subject
	for i := range 5 {
		all = append(all, subject("app", strconv.Itoa(i)))
		l.digests(t, l.ctx, all[i])
	}
	cloud.World.Fail(awstest.Fault{Service: "kms", Delay: time.Minute})
	before, began := cloud.World.Count("kms", ""), time.Now()
	for _, s := range all {
		l.decide(t, "dev", s, "ALLOWED")
		l.decide(t, "prod", s, "DENIED_BY_RULE")
	}
	if n := cloud.World.Count("kms", "") - before; n != 0 {
		t.Errorf("KMS was asked %d times for summaries", n)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("ten new decisions took %s", took)
	}
	_, err := l.tryDigests(subject("no", "no"))
	wantOutage(t, err, "KMS_UNAVAILABLE")
}

// TestUnsignedDecisions: a decision that went out without a summary is made again with one
// once it can be signed, in this life and the next, and no row of it is believed.
func TestUnsignedDecisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	frozen := time.Now()
	w.now = func() time.Time { return frozen.Add(time.Duration(w.ahead.Load())) }
	cloud := newAWS(t, w)
	w.start(t, withKMS(cloud)).stop()
	key := cloud.KMSKey("ECC_NIST_P256")
	w.rekey(t, withKMS(cloud), signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///" + key.ARN()})
	l := w.start(t, withKMS(cloud)).login(t)
	good, nobody := subject("good", "good"), subject("nobody", "nobody")
	l.digests(t, l.ctx, good)
	key.SetState("Disabled")
	l.unsigned(t, "dev", good, "ALLOWED", "KMS_KEY_UNUSABLE")
	l.unsigned(t, "dev", nobody, "NO_ATTESTATION", "KMS_KEY_UNUSABLE")
	asked := cloud.World.Count("kms", "")
	for range 20 {
		l.unsigned(t, "dev", good, "ALLOWED", "KMS_KEY_UNUSABLE")
	}
	if n := cloud.World.Count("kms", "") - asked; n != 0 {
		t.Errorf("KMS was asked %d times for one decision", n)
	}
	l.stop()
	l = w.start(t, withKMS(cloud)).login(t)
	l.unsigned(t, "dev", good, "ALLOWED", "KMS_KEY_UNUSABLE") // from the register: decided anew
	key.SetState("Enabled")
	w.advance(31 * time.Second)
	for range 2 {
		d := l.decide(t, "dev", good, "ALLOWED")
		if _, err := l.trust(t).VerifyOwn(d.GetVerificationSummary()); err != nil || d.GetSummaryMissing() != "" {
			t.Errorf("missing %q: %v", d.GetSummaryMissing(), err)
		}
		l.stop()
		l = w.start(t, withKMS(cloud)).login(t)
	}
	// A row cannot be turned into one that needs no summary.
	l.stop()
	db := database(t, w.data)
	if _, err := db.ExecContext(t.Context(), "UPDATE decisions SET sha256 = ?, expires_at = expires_at + 3600000000000, answer = (SELECT answer FROM decisions WHERE passed = 1 ORDER BY seq LIMIT 1)",
		raw(t, nobody.GetDigest()["sha256"])); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	l = w.start(t, withKMS(cloud)).login(t)
	if d := l.decide(t, "dev", nobody, "NO_ATTESTATION"); len(d.GetVerificationSummary()) == 0 {
		t.Error("no summary")
	}
}

// TestKMSCallerGone: who gives up while KMS hangs hears that, and takes no turn of
// anybody else's.
func TestKMSCallerGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "https://assay.test")
	cloud := newAWS(t, w)
	l := w.start(t, withKMS(cloud)).login(t)
	key := cloud.KMSKey("ECC_NIST_P256")
	w.rekey(t, withKMS(cloud), signing.RotateKey{Role: signing.RoleAttestation, Ref: "awskms:///" + key.ARN()})
	cloud.World.Fail(awstest.Fault{Service: "kms", Action: "Sign", Delay: time.Minute})
	whole := l.ctx
	for range 10 { // more than open a circuit
		ctx, cancel := context.WithTimeout(whole, 5*time.Millisecond)
		l.ctx = ctx
		_, err := l.tryDigests(subject("gone", "gone"))
		cancel()
		if c := status.Code(err); c != codes.DeadlineExceeded {
			t.Fatalf("got %v", err)
		}
	}
	l.ctx = whole
	cloud.World.Heal()
	w.advance(time.Minute)
	l.digests(t, l.ctx, subject("gone", "gone"))
	if k := l.kept(t); k.Pending != 0 || k.Attestations != 1 {
		t.Errorf("kept %+v", k)
	}
}
