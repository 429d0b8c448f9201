package awstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// TestS3Versitygw holds an S3 that others wrote to the tests that the stand-in
// passes. It is there to find where those tests, and with them the stand-in, are
// wrong about S3. ASSAY_VERSITYGW names the binary of versitygw v1.8.0.
func TestS3Versitygw(t *testing.T) {
	binary := os.Getenv("ASSAY_VERSITYGW")
	if binary == "" {
		t.Skip("ASSAY_VERSITYGW names no versitygw; install it to hold another S3 to the same tests")
	}
	client := startVersitygw(t, binary)
	newBucket := func(t *testing.T, versioned bool) string {
		t.Helper()
		name := "b-" + strings.ToLower(rand.Text())
		_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{
			Bucket: &name, CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: testRegion},
		})
		if err == nil && versioned {
			_, err = client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
				Bucket: &name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	// Where a page ends between two versions of a key, v1.8.0 lists one of them
	// again, and with pages of one it never ends.
	s3Suite(t, s3Server{client: client, newBucket: newBucket, owner: versitygwOwner, versionPages: []int32{100}})
}

// versitygwOwner owns every bucket: the root user, who is called by his access key.
const versitygwOwner = "AKIAVERSITYGWROOT000"

// startVersitygw runs versitygw on a socket of its own until the test ends.
func startVersitygw(t *testing.T, binary string) *s3.Client {
	t.Helper()
	short, err := os.MkdirTemp("", "s3") // a socket's path has little room
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	creds := aws.Credentials{AccessKeyID: versitygwOwner, SecretAccessKey: rand.Text()}

	var output bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, "--port", socket, "--region", testRegion, "--quiet",
		"posix", "--versioning-dir", t.TempDir(), t.TempDir())
	cmd.Env = []string{"ROOT_ACCESS_KEY_ID=" + creds.AccessKeyID, "ROOT_SECRET_ACCESS_KEY=" + creds.SecretAccessKey}
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone already
		<-done
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	if err := waitFor(t.Context(), dial, done); err != nil {
		t.Fatalf("versitygw: %v\n%s", err, &output)
	}
	return s3.New(s3.Options{
		Region: testRegion, UsePathStyle: true, BaseEndpoint: aws.String("http://localhost"),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil }),
		HTTPClient:  &http.Client{Transport: &http.Transport{DialContext: dial}},
	})
}

// waitFor returns when the server takes connections.
func waitFor(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), done <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := dial(ctx, "", ""); err == nil {
			return conn.Close()
		}
		select {
		case err := <-done:
			return errors.Join(errors.New("it ended"), err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
