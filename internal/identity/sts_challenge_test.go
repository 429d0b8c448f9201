package identity

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
)

func TestChallenge(t *testing.T) {
	t.Parallel()
	c := newClock()
	a, err := NewAWS(awsConfig(c))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for range 1000 {
		nonce, expires := a.Challenge()
		if len(nonce) != stsproof.NonceBytes || seen[string(nonce)] || !expires.Equal(c.Now().Add(5*time.Minute)) {
			t.Fatalf("nonce of %d bytes, seen before: %t, good until %s", len(nonce), seen[string(nonce)], expires)
		}
		seen[string(nonce)] = true
	}

	nonce, expires := a.Challenge()
	for _, step := range []struct {
		at   time.Duration
		code refusal.Code
	}{
		{-2 * time.Minute, CodeNonceInvalid}, // this machine's clock is behind the issuer's by more than the skew
		{-time.Minute, ""},
		{0, ""},
		{5*time.Minute + defaultClockSkew - time.Second, ""},
		{5*time.Minute + defaultClockSkew, CodeNonceExpired},
		{24 * time.Hour, CodeNonceExpired},
	} {
		cfg := awsConfig(c)
		cfg.Now = func() time.Time { return c.Now().Add(step.at) }
		other, err := NewAWS(cfg) // another machine of the deployment
		if err != nil {
			t.Fatal(err)
		}
		got, err := other.checkNonce(nonce)
		if wantCode(t, err, step.code); err == nil && !got.Equal(expires.Add(defaultClockSkew)) {
			t.Errorf("refused by itself from %s on", got)
		}
	}
}

// TestForeignChallenges: only what this deployment made for this audience passes;
// one bit is enough to tell.
func TestForeignChallenges(t *testing.T) {
	t.Parallel()
	c := newClock()
	ours, _ := NewAWS(awsConfig(c))
	for name, edit := range map[string]func(*AWSConfig){
		"another key":      func(c *AWSConfig) { c.NonceKey = bytes.Repeat([]byte{8}, 32) },
		"another audience": func(c *AWSConfig) { c.Audience = testAudience + ".evil" },
	} {
		cfg := awsConfig(c)
		edit(&cfg)
		theirs, err := NewAWS(cfg)
		if err != nil {
			t.Fatal(err)
		}
		nonce, _ := theirs.Challenge()
		_, err = ours.checkNonce(nonce)
		if wantCode(t, err, CodeNonceInvalid); t.Failed() {
			t.Fatal(name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		nonce, _ := ours.Challenge()
		bit := rapid.IntRange(0, 8*len(nonce)-1).Draw(t, "bit")
		nonce[bit/8] ^= 1 << (bit % 8)
		if _, err := ours.checkNonce(nonce); refusal.CodeOf(err) != CodeNonceInvalid {
			t.Fatalf("with bit %d turned: %v", bit, err)
		}
	})
	for _, nonce := range [][]byte{nil, make([]byte, 32), make([]byte, 31), make([]byte, 33)} {
		if _, err := ours.checkNonce(nonce); refusal.CodeOf(err) != CodeNonceInvalid {
			t.Errorf("%d zeroes: %v", len(nonce), err)
		}
	}
}

func TestProofDate(t *testing.T) {
	t.Parallel()
	c := newClock()
	a, _ := NewAWS(awsConfig(c))
	for _, tt := range []struct {
		signed time.Duration // from now
		code   refusal.Code
	}{
		{0, ""}, {-6 * time.Minute, ""}, {-6*time.Minute - time.Second, CodeProofExpired}, {-14 * time.Minute, CodeProofExpired},
		{-24 * time.Hour, CodeProofExpired}, {time.Minute, ""}, {time.Minute + time.Second, CodeProofNotYetValid}, {24 * time.Hour, CodeProofNotYetValid},
	} {
		want := c.Now().Add(tt.signed)
		got, err := a.checkDate(&stsproof.Proof{Date: want.Format(stsproof.DateFormat)})
		if wantCode(t, err, tt.code); err == nil && !got.Equal(want) {
			t.Errorf("signed %s, read %s", want, got)
		}
	}
	_, err := a.checkDate(&stsproof.Proof{Date: "20260304T050607"})
	wantCode(t, err, stsproof.CodeProofInvalid)
}
