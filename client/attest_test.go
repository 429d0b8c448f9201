package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/assay-build/assay/client/clienttest"
	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAttest(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	dir := t.TempDir()
	big := make([]byte, 3*chunkSize+17)
	rand.Read(big)
	exact := bytes.Repeat([]byte("x"), chunkSize)
	artifacts := []Artifact{
		{Name: "app", Path: write(t, dir, "app", "hello")},
		{Name: "empty", Path: write(t, dir, "empty", "")},
		{Name: "sub/big", Path: write(t, dir, "big", string(big))},
		{Name: "exact", Path: write(t, dir, "exact", string(exact))},
		{Name: "streamed", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("stream")), nil }},
	}
	var received []string
	var sent int64
	result, err := c.Attest(t.Context(), artifacts, func(e Event) {
		switch e.Stage {
		case StageReceived:
			received = append(received, e.Name)
		case StageSending:
			sent = e.Sent
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"app": digestOf("hello"), "empty": digestOf(""), "sub/big": digestOf(string(big)),
		"exact": digestOf(string(exact)), "streamed": digestOf("stream"),
	}
	for _, subject := range result.Attestation.GetSubjects() {
		if subject.GetDigest()["sha256"] != want[subject.GetName()] {
			t.Errorf("%s has digest %s", subject.GetName(), subject.GetDigest()["sha256"])
		}
	}
	if !slices.Equal(received, []string{"app", "empty", "sub/big", "exact", "streamed"}) {
		t.Errorf("received events for %q", received)
	}
	if total := int64(5 + len(big) + len(exact) + 6); sent != total {
		t.Errorf("%d bytes reported as sent, want %d", sent, total)
	}
}

// TestAttestRestarts: the server goes away in the middle of an upload; the next
// attempt reads everything again, from the start.
func TestAttestRestarts(t *testing.T) {
	s := clienttest.New(t)
	attempts := 0
	s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
		if attempts++; attempts < 3 {
			for range 4 { // header, start, two chunks
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
			return status.Error(codes.Unavailable, "going away")
		}
		subjects, err := clienttest.Receive(stream)
		if err != nil {
			return err
		}
		return clienttest.SendResult(stream, clienttest.Attestation(subjects...))
	}
	c, slept := dial(t, s)
	data := make([]byte, 20*chunkSize)
	rand.Read(data)
	opened, closed, retries := 0, 0, 0
	artifact := Artifact{Name: "app", Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		opened++
		return closer{bytes.NewReader(data), &closed}, nil
	}}
	result, err := c.Attest(t.Context(), []Artifact{artifact}, func(e Event) {
		if e.Stage == StageRetrying {
			retries++
			wantCode(t, e.Err, "UNAVAILABLE")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Attestation.GetSubjects()[0].GetDigest()["sha256"]; got != digestOf(string(data)) {
		t.Errorf("digest %s", got)
	}
	if opened != 3 || closed != 3 || retries != 2 || len(slept.waits) != 2 {
		t.Errorf("opened %d, closed %d, retries %d, waits %d; want 3, 3, 2, 2", opened, closed, retries, len(slept.waits))
	}
}

type closer struct {
	io.Reader
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

// TestAttestDishonest: a server that answers about something else.
func TestAttestDishonest(t *testing.T) {
	subject := func(name, content string) *assayv1.Subject {
		return &assayv1.Subject{Name: name, Digest: map[string]string{"sha256": digestOf(content)}}
	}
	honest := func() *assayv1.Attestation { return clienttest.Attestation(subject("a", "A"), subject("b", "B")) }
	edited := func(edit func(*assayv1.Attestation)) *assayv1.Attestation {
		at := honest()
		edit(at)
		return at
	}
	rebundled := func(predicateType string, logged bool, subjects ...*assayv1.Subject) *assayv1.Attestation {
		return edited(func(at *assayv1.Attestation) {
			at.Bundle, at.AttestationId = clienttest.Bundle(predicateType, clienttest.Predicate, logged, subjects...)
			at.PredicateType, at.Subjects = predicateType, subjects
		})
	}
	provenance := attest.PredicateSLSAProvenanceV1
	tests := []struct {
		name string
		at   *assayv1.Attestation
		text string
	}{
		{"honest", honest(), ""},
		{"other order", clienttest.Attestation(subject("b", "B"), subject("a", "A")), ""},
		{"nothing", nil, "no attestation"},
		{"no bundle", edited(func(at *assayv1.Attestation) { at.Bundle = nil }), "bundle"},
		{"bundle cut short", edited(func(at *assayv1.Attestation) { at.Bundle = at.Bundle[:len(at.Bundle)-1] }), "bundle"},
		{"other id", edited(func(at *assayv1.Attestation) { at.AttestationId = digestOf("other") }), "statement of another"},
		{"other digest", clienttest.Attestation(subject("a", "A"), subject("b", "evil")), "digest"},
		{"digest in index only", edited(func(at *assayv1.Attestation) { at.Subjects[0] = subject("a", "evil") }), "digest"},
		{"one missing", clienttest.Attestation(subject("a", "A")), "1 subjects, want 2"},
		{"one more", clienttest.Attestation(subject("a", "A"), subject("b", "B"), subject("c", "C")), "3 subjects, want 2"},
		{"index lacks one", edited(func(at *assayv1.Attestation) { at.Subjects = at.Subjects[:1] }), "2 subjects, want 1"},
		{"other name", clienttest.Attestation(subject("a", "A"), subject("c", "B")), `"c"`},
		{"swapped", clienttest.Attestation(subject("a", "B"), subject("b", "A")), "digest"},
		{"not provenance", rebundled(attest.PredicateVSA, true, subject("a", "A"), subject("b", "B")), "not provenance"},
		{"another type in index", edited(func(at *assayv1.Attestation) { at.PredicateType = attest.PredicateVSA }), "listed as"},
		{"not logged", rebundled(provenance, false, subject("a", "A"), subject("b", "B")), "transparency log"},
		{"another index", edited(func(at *assayv1.Attestation) { at.LogIndex++ }), "log index"},
		{"no sha256", rebundled(provenance, true,
			&assayv1.Subject{Name: "a", Digest: map[string]string{"sha512": strings.Repeat("0", 128)}}, subject("b", "B")), "digest"},
	}
	dir := t.TempDir()
	artifacts := []Artifact{{Name: "a", Path: write(t, dir, "a", "A")}, {Name: "b", Path: write(t, dir, "b", "B")}}
	digests := []Subject{{"a", digestOf("A")}, {"b", digestOf("B")}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
				if _, err := clienttest.Receive(stream); err != nil {
					return err
				}
				return clienttest.SendResult(stream, tt.at)
			}
			s.OnAttestDigests = func(context.Context, *assayv1.AttestDigestsRequest) (*assayv1.AttestDigestsResponse, error) {
				return &assayv1.AttestDigestsResponse{Result: &assayv1.AttestResult{Attestation: tt.at}}, nil
			}
			c, _ := dial(t, s)
			uploaded, uploadErr := c.Attest(t.Context(), artifacts, nil)
			claimed, claimErr := c.AttestDigests(t.Context(), digests)
			for _, err := range []error{uploadErr, claimErr} {
				if tt.text == "" {
					wantCode(t, err, "")
				} else {
					wantDishonest(t, err, tt.text)
				}
			}
			if (uploaded == nil) != (uploadErr != nil) || (claimed == nil) != (claimErr != nil) {
				t.Error("an answer came with an error, or neither")
			}
		})
	}
}

// TestAttestStreamDishonest: a server that breaks the course of the stream.
func TestAttestStreamDishonest(t *testing.T) {
	a := &assayv1.Subject{Name: "a", Digest: map[string]string{"sha256": digestOf("A")}}
	for _, tt := range []struct {
		name, text string
		script     func(assayv1.AttestationService_AttestServer) error
	}{
		{"no result", "without a result", func(s assayv1.AttestationService_AttestServer) error {
			_, err := clienttest.Receive(s)
			return err
		}},
		{"two results", "two results", func(s assayv1.AttestationService_AttestServer) error {
			if _, err := clienttest.Receive(s); err != nil {
				return err
			}
			if err := clienttest.SendResult(s, clienttest.Attestation(a)); err != nil {
				return err
			}
			return clienttest.SendResult(s, clienttest.Attestation(a))
		}},
		{"result before the bytes", "before it had everything", func(s assayv1.AttestationService_AttestServer) error {
			return clienttest.SendResult(s, clienttest.Attestation(a))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			s.OnAttest = tt.script
			c, _ := dial(t, s)
			// Endless, so that the early answer is early on every machine.
			artifact := Artifact{Name: "a", Open: func() (io.ReadCloser, error) { return io.NopCloser(zeroes{}), nil }}
			if tt.name != "result before the bytes" {
				artifact.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("A")), nil }
			}
			_, err := c.Attest(t.Context(), []Artifact{artifact}, nil)
			wantDishonest(t, err, tt.text)
		})
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }

// TestAttestResultThenError: a result counts only with the status that follows.
func TestAttestResultThenError(t *testing.T) {
	s := clienttest.New(t)
	s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
		subjects, err := clienttest.Receive(stream)
		if err != nil {
			return err
		}
		if err := clienttest.SendResult(stream, clienttest.Attestation(subjects...)); err != nil {
			return err
		}
		return clienttest.Refuse(codes.Internal, "LOG_FAILED", "not durable")
	}
	c, _ := dial(t, s)
	_, err := c.Attest(t.Context(), []Artifact{{Name: "a", Path: write(t, t.TempDir(), "a", "A")}}, nil)
	wantCode(t, err, "LOG_FAILED")
}

// TestAttestRefused: the server's refusal arrives even where it comes while
// bytes are still being sent.
func TestAttestRefused(t *testing.T) {
	s := clienttest.New(t)
	s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
		stream.Recv()
		return clienttest.Refuse(codes.InvalidArgument, "ARTIFACT_TOO_LARGE", "limit 16 GiB")
	}
	c, slept := dial(t, s)
	_, err := c.Attest(t.Context(), []Artifact{{Name: "a", Open: func() (io.ReadCloser, error) { return io.NopCloser(zeroes{}), nil }}}, nil)
	wantCode(t, err, "ARTIFACT_TOO_LARGE")
	if len(slept.waits) != 0 {
		t.Error("a refusal was retried")
	}
}

func TestAttestLocalErrors(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good", "x")
	many := make([]Artifact, MaxSubjects+1)
	for i := range many {
		many[i] = Artifact{Name: "a" + strconv.Itoa(i), Path: good}
	}
	boom := errors.New("boom")
	open := func(r io.Reader) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(r), nil }
	}
	tests := []struct {
		name      string
		artifacts []Artifact
		code      string
		exchanges int64 // 0 where nothing may reach the server at all
	}{
		{"none", nil, CodeSubjectsInvalid, 0},
		{"too many", many, CodeSubjectsInvalid, 0},
		{"one name twice", []Artifact{{Name: "a", Path: good}, {Name: "a", Path: good}}, CodeSubjectsInvalid, 0},
		{"bad name", []Artifact{{Name: "../a", Path: good}}, CodeSubjectInvalid, 0},
		{"no name", []Artifact{{Path: good}}, CodeSubjectInvalid, 0},
		{"missing second", []Artifact{{Name: "a", Path: good}, {Name: "b", Path: filepath.Join(dir, "absent")}}, CodeArtifactUnreadable, 0},
		{"a directory", []Artifact{{Name: "a", Path: dir}}, CodeArtifactUnreadable, 0},
		{"a device", []Artifact{{Name: "a", Path: os.DevNull}}, CodeArtifactUnreadable, 0},
		{"open fails", []Artifact{{Name: "a", Open: func() (io.ReadCloser, error) { return nil, boom }}}, CodeArtifactUnreadable, 1},
		{"read fails", []Artifact{{Name: "a", Open: open(io.MultiReader(strings.NewReader("x"), failing{boom}))}}, CodeArtifactUnreadable, 1},
		{"shorter than said", []Artifact{{Name: "a", Size: 5, Open: open(strings.NewReader("1234"))}}, CodeArtifactChanged, 1},
		{"longer than said", []Artifact{{Name: "a", Size: 5, Open: open(strings.NewReader("123456"))}}, CodeArtifactChanged, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := clienttest.New(t)
			c, slept := dial(t, s)
			_, err := c.Attest(t.Context(), tt.artifacts, nil)
			wantCode(t, err, tt.code)
			if !errors.Is(err, ErrInvalid) || len(slept.waits) != 0 || s.Exchanges.Load() != tt.exchanges {
				t.Errorf("%v: %d waits, %d exchanges", err, len(slept.waits), s.Exchanges.Load())
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAttestDigestsLocalErrors(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	for _, tt := range []struct {
		subjects []Subject
		code     string
	}{
		{nil, CodeSubjectsInvalid},
		{[]Subject{{"a", digestOf("a")}, {"a", digestOf("b")}}, CodeSubjectsInvalid},
		{[]Subject{{"", digestOf("a")}}, CodeSubjectInvalid},
		{[]Subject{{"a", ""}}, CodeSubjectInvalid},
		{[]Subject{{"a", strings.ToUpper(digestOf("a"))}}, CodeSubjectInvalid},
		{[]Subject{{"a", digestOf("a")[1:]}}, CodeSubjectInvalid},
	} {
		_, err := c.AttestDigests(t.Context(), tt.subjects)
		wantCode(t, err, tt.code)
	}
	if s.Exchanges.Load() != 0 {
		t.Error("bad input reached the server")
	}
}

// TestAttestCanceled: the context ends an upload, and the reader is closed.
func TestAttestCanceled(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	closed := 0
	artifact := Artifact{Name: "a", Open: func() (io.ReadCloser, error) { return closer{zeroes{}, &closed}, nil }}
	_, err := c.Attest(ctx, []Artifact{artifact}, func(e Event) {
		if e.Sent > 8<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || closed != 1 {
		t.Errorf("error %v, closed %d times", err, closed)
	}
}

func TestHashFile(t *testing.T) {
	dir := t.TempDir()
	got, err := HashFile(write(t, dir, "a", "hello"))
	if err != nil || got != digestOf("hello") {
		t.Errorf("%s, %v", got, err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "absent"), os.DevNull} {
		_, err := HashFile(path)
		wantCode(t, err, CodeArtifactUnreadable)
	}
}

// BenchmarkAttest uploads to a server that throws the bytes away: what remains
// is the client's reading and hashing, and gRPC.
func BenchmarkAttest(b *testing.B) {
	const size = 512 << 20
	path := filepath.Join(b.TempDir(), "artifact")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	f.Close()
	digest, err := HashFile(path)
	if err != nil {
		b.Fatal(err)
	}
	s := clienttest.New(b)
	s.OnAttest = func(stream assayv1.AttestationService_AttestServer) error {
		for {
			if _, err := stream.Recv(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
		}
		return clienttest.SendResult(stream, clienttest.Attestation(&assayv1.Subject{Name: "a", Digest: map[string]string{"sha256": digest}}))
	}
	c, _ := dial(b, s)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Attest(b.Context(), []Artifact{{Name: "a", Path: path}}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
