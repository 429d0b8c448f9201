package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// Codes of artifacts that cannot be attested or verified.
const (
	// CodeArtifactUnreadable: a file is missing, not regular or not readable.
	CodeArtifactUnreadable = "ARTIFACT_UNREADABLE"
	// CodeArtifactChanged: a file did not hold as many bytes as it said.
	CodeArtifactChanged = "ARTIFACT_CHANGED"
	// CodeSubjectsInvalid: none, too many, or two of one name.
	CodeSubjectsInvalid = "SUBJECTS_INVALID"
	// CodeSubjectInvalid: a name or digest that no statement may carry.
	CodeSubjectInvalid = "SUBJECT_INVALID"
)

// MaxSubjects is the most artifacts that one attest covers.
const MaxSubjects = attest.MaxSubjects

// Artifact is something to upload and attest.
type Artifact struct {
	// Name is what the statement will call it: a relative, slash-separated path.
	Name string
	// Path is a regular file. Ignored where Open is set.
	Path string
	// Open returns the bytes from their start. It is called once per attempt.
	Open func() (io.ReadCloser, error)
	// Size is how many bytes Open will yield, 0 or less where that is unknown.
	// Ignored for a Path.
	Size int64
	// Kind is ARTIFACT_KIND_FILE if unspecified.
	Kind assayv1.ArtifactKind
}

// Subject names an artifact by its digest.
type Subject struct {
	Name string
	// SHA256 is 64 lower-case hex digits.
	SHA256 string
}

// Attested is the answer to an attest.
type Attested struct {
	// Attestation holds the bundle, checked against what was sent.
	Attestation *assayv1.Attestation
	// Repeated is true where the same statement had been attested before.
	Repeated bool
	// SBOMs say what was found in each artifact whose bytes the server saw, in short;
	// [Client.SBOM] has all of it. Of attached evidence it is that one.
	SBOMs []*assayv1.SBOMSummary
}

// attestedOf is an answer that was checked.
func attestedOf(result *assayv1.AttestResult) *Attested {
	return &Attested{Attestation: result.GetAttestation(), Repeated: result.GetRepeated(), SBOMs: result.GetSboms()}
}

// Stage says how far an attest is.
type Stage int

const (
	// StageSending: bytes are on their way. Many events.
	StageSending Stage = iota + 1
	// StageReceived: the server has hashed one artifact whole.
	StageReceived
	// StageSigning: the server builds and signs the statement.
	StageSigning
	// StageRegistered: the attestation is in the log, durably.
	StageRegistered
	// StageRetrying: an attempt failed, the next starts over. Err says why.
	StageRetrying
	// StageScanning: everything was received, and the server looks into it.
	StageScanning
)

// Event is progress.
type Event struct {
	Stage Stage
	// Artifact is the index of the artifact concerned; Name is its name.
	Artifact int
	Name     string
	// Sent counts the bytes sent in this attempt, Total those there are (0 if unknown).
	Sent, Total int64
	Err         error
}

// Attest uploads artifacts and has them attested in one statement. progress, if
// not nil, is told what happens, from one goroutine at a time.
//
// Each artifact is hashed while it is sent; an answer about any other digest is
// an error. If the server becomes unavailable on the way the upload starts over,
// reading each artifact anew.
func (c *Client) Attest(ctx context.Context, artifacts []Artifact, progress func(Event)) (*Attested, error) {
	names := make([]string, len(artifacts))
	for i := range artifacts {
		names[i] = artifacts[i].Name
	}
	if err := checkNames(names); err != nil {
		return nil, err
	}
	if err := checkReadable(artifacts); err != nil {
		return nil, err
	}
	report := serialised(progress)
	var out *Attested
	var failed error
	err := c.authenticated(ctx, streamTimeout, func(ctx context.Context) error {
		if failed != nil {
			report(Event{Stage: StageRetrying, Err: failed})
		}
		out, failed = c.attestOnce(ctx, artifacts, report)
		failed = fromStatus(failed)
		return failed
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (c *Client) attestOnce(ctx context.Context, artifacts []Artifact, report func(Event)) (*Attested, error) {
	// Ends the stream, and with it the receiver, on every way out.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.attestation.Attest(ctx)
	if err != nil {
		return nil, err
	}
	received := make(chan received, 1)
	go func() { received <- receive(stream, report) }()

	up := newUpload(stream, report)
	sendErr := up.sendAll(artifacts)
	if sendErr != nil && !errors.Is(sendErr, io.EOF) {
		cancel()
		<-received
		return nil, sendErr
	}
	r := <-received
	switch {
	case r.err != nil:
		return nil, r.err
	case sendErr != nil:
		return nil, dishonest("the server ended the attest before it had everything")
	}
	if err := checkAttested(r.result, up.sent); err != nil {
		return nil, err
	}
	if err := checkGenerated(r.result); err != nil {
		return nil, err
	}
	return attestedOf(r.result), nil
}

// received is all that came back on a stream.
type received struct {
	result *assayv1.AttestResult
	err    error
}

// receive reads until the server ends the stream. A result counts only together
// with the OK status that follows it.
func receive(stream assayv1.AttestationService_AttestClient, report func(Event)) received {
	var out received
	for {
		msg, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && out.result == nil:
			return received{err: dishonest("the server ended the attest without a result")}
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			return received{err: err}
		}
		if r := msg.GetResult(); r != nil {
			if out.result != nil {
				return received{err: dishonest("the server sent two results for one attest")}
			}
			out.result = r
		}
		if p := msg.GetProgress(); p != nil {
			if stage := stageOf(p.GetStage()); stage != 0 {
				report(Event{Stage: stage, Artifact: int(p.GetArtifactIndex()), Name: p.GetArtifactName()})
			}
		}
	}
}

// stageOf maps the server's stages to ours, 0 for what is not passed on. That is
// RECEIVING, since the client knows better what it has sent, and what is new.
func stageOf(s assayv1.AttestStage) Stage {
	switch s {
	case assayv1.AttestStage_ATTEST_STAGE_RECEIVED:
		return StageReceived
	case assayv1.AttestStage_ATTEST_STAGE_SCANNING:
		return StageScanning
	case assayv1.AttestStage_ATTEST_STAGE_SIGNING:
		return StageSigning
	case assayv1.AttestStage_ATTEST_STAGE_REGISTERED:
		return StageRegistered
	}
	return 0
}

// AttestDigests attests artifacts that stay where they are. The statement says
// that their digests are the caller's word.
func (c *Client) AttestDigests(ctx context.Context, subjects []Subject) (*Attested, error) {
	names := make([]string, len(subjects))
	for i := range subjects {
		names[i] = subjects[i].Name
	}
	if err := checkNames(names); err != nil {
		return nil, err
	}
	wire, err := wireSubjects(subjects)
	if err != nil {
		return nil, err
	}
	var resp *assayv1.AttestDigestsResponse
	err = c.authenticated(ctx, unaryTimeout, func(ctx context.Context) (err error) {
		resp, err = c.attestation.AttestDigests(ctx, &assayv1.AttestDigestsRequest{Subjects: wire})
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkAttested(resp.GetResult(), subjects); err != nil {
		return nil, err
	}
	if n := len(resp.GetResult().GetSboms()); n > 0 {
		return nil, dishonest("%d SBOMs of artifacts whose bytes the server never saw", n)
	}
	return attestedOf(resp.GetResult()), nil
}

// checkNames refuses what the server would refuse, before any byte is sent.
func checkNames(names []string) error {
	if len(names) == 0 {
		return badInput(CodeSubjectsInvalid, "nothing to attest")
	}
	if len(names) > MaxSubjects {
		return badInput(CodeSubjectsInvalid, "%d artifacts; at most %d fit one attestation", len(names), MaxSubjects)
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if err := attest.CheckSubjectName(name); err != nil {
			return badInput(CodeSubjectInvalid, "%w", err)
		}
		if seen[name] {
			return badInput(CodeSubjectsInvalid, "two artifacts are named %q", name)
		}
		seen[name] = true
	}
	return nil
}

// checkReadable finds the file that is missing before the ones in front of it
// have been uploaded.
func checkReadable(artifacts []Artifact) error {
	for i := range artifacts {
		if artifacts[i].Open != nil {
			continue
		}
		f, _, err := openRegular(artifacts[i].Path)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

func wireSubjects(subjects []Subject) ([]*assayv1.Subject, error) {
	wire := make([]*assayv1.Subject, len(subjects))
	for i, s := range subjects {
		if err := attest.CheckDigest("sha256", s.SHA256); err != nil {
			return nil, badInput(CodeSubjectInvalid, "%s: %w", s.Name, err)
		}
		wire[i] = &assayv1.Subject{Name: s.Name, Digest: map[string]string{"sha256": s.SHA256}}
	}
	return wire, nil
}

// serialised lets the sender and the receiver of a stream report at will.
func serialised(progress func(Event)) func(Event) {
	if progress == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		progress(e)
	}
}

// open returns the artifact's bytes and how many there are, -1 if unknown.
func (a *Artifact) open() (io.ReadCloser, int64, error) {
	if a.Open != nil {
		r, err := a.Open()
		if err != nil {
			return nil, 0, badInput(CodeArtifactUnreadable, "%s: %w", a.Name, err)
		}
		if a.Size <= 0 {
			return r, -1, nil
		}
		return r, a.Size, nil
	}
	return openRegular(a.Path)
}

// openRegular opens a regular file. What it is is asked before the open, which
// on a named pipe would wait for ever, and again after, of the file that was opened.
func openRegular(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, badInput(CodeArtifactUnreadable, "%w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, badInput(CodeArtifactUnreadable, "%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, badInput(CodeArtifactUnreadable, "%w", err)
	}
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, 0, errors.Join(badInput(CodeArtifactUnreadable, "%s is not a regular file", path), err, f.Close())
	}
	return f, info.Size(), nil
}

// HashFile returns the SHA-256 of a regular file, lower-case hex.
func HashFile(path string) (string, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum, err := hashAll(f)
	if err != nil {
		return "", badInput(CodeArtifactUnreadable, "%w", fmt.Errorf("read %s: %w", path, err))
	}
	return sum, nil
}
