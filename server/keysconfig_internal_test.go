package server

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/awskms"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// TestKMSMaxConcurrent: what the configuration accepts, the client of AWS KMS does too.
func TestKMSMaxConcurrent(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{-1: false, 0: true, 1024: true, 1025: false, 4096: false} {
		cfg := Config{Now: time.Now}
		cfg.Keys.KMSMaxConcurrent = n
		if err := cfg.checkKeys(); (err == nil) != ok || err != nil && refusal.CodeOf(err) != CodeConfigInvalid {
			t.Errorf("%d in the configuration: %v", n, err)
		}
		clients := aws.Config{Region: "eu-west-1", Credentials: credentials.NewStaticCredentialsProvider("AKIAEXAMPLE", "any", "")}
		if _, err := awskms.New(awskms.Config{AWS: clients, Now: cfg.Now, MaxConcurrent: n}); (err == nil) != ok {
			t.Errorf("%d at the client: %v", n, err)
		}
	}
}

// TestKeyOpenersRecover: an AWS configuration that cannot be read once is read again the
// next time, and not only after a restart.
func TestKeyOpenersRecover(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	t.Setenv("AWS_CONFIG_FILE", file)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_PROFILE", "assay")
	openers := KeyOpeners(&Config{Now: time.Now})
	// What is no ARN is refused by the client, where there is one.
	if _, err := openers.KMS("alias/none", nil); refusal.CodeOf(err) != CodeConfigInvalid {
		t.Fatalf("without a configuration: %v", err)
	}
	if err := os.WriteFile(file, []byte("[profile assay]\nregion = eu-west-1\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openers.KMS("alias/none", nil); refusal.CodeOf(err) != awskms.CodeKeyRefInvalid {
		t.Errorf("once it can be read: %v", err)
	}
}

func TestUntilWell(t *testing.T) {
	t.Parallel()
	calls := 0
	get := untilWell(func() (int, error) {
		if calls++; calls < 3 {
			return 0, errors.New("not yet")
		}
		return calls, nil
	})
	for range 2 {
		if _, err := get(); err == nil {
			t.Fatal("a failure was passed over")
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if v, err := get(); v != 3 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
		})
	}
	wg.Wait()
}
