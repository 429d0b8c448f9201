package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
)

// sleeps records waits instead of waiting, and makes the dice show their highest.
type sleeps struct {
	waits  []time.Duration
	bounds []time.Duration
}

// dial connects to a scripted server; nothing in it ever really waits.
func dial(t testing.TB, s *clienttest.Server) (*Client, *sleeps) {
	t.Helper()
	c, err := Dial(t.Context(), Config{Server: s.URL, Credential: clienttest.Credential{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	slept := &sleeps{}
	c.retry.sleep = func(ctx context.Context, d time.Duration) error {
		slept.waits = append(slept.waits, d)
		return ctx.Err()
	}
	c.retry.below = func(d time.Duration) time.Duration {
		slept.bounds = append(slept.bounds, d)
		return d - 1
	}
	return c, slept
}

// wantCode fails unless err is an *Error with the code, "" meaning no error.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	var e *Error
	switch {
	case code == "" && err != nil:
		t.Fatalf("error %v, want none", err)
	case code == "":
	case !errors.As(err, &e):
		t.Fatalf("error %v, want code %s", err, code)
	case e.Code != code:
		t.Fatalf("code %s (%v), want %s", e.Code, err, code)
	}
}

// wantDishonest fails unless err says that the answer cannot be believed, for a
// reason that contains the text.
func wantDishonest(t testing.TB, err error, text string) {
	t.Helper()
	wantCode(t, err, CodeAnswerInvalid)
	if !errors.Is(err, ErrDishonest) || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %q, want one about %q that matches ErrDishonest", err, text)
	}
}

func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
