package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/store"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc"
)

const (
	maxChunk      = 1 << 20
	progressEvery = 32 << 20 // bytes between two RECEIVING events
	// leastPace is how many bytes a second an upload must bring on the whole, once
	// uploads.grace is over: the pace of a modem. One that is slower holds a place
	// rather than sends something.
	leastPace = 4 << 10
)

// uploads bounds what is received at one time, in number and in size.
type uploads struct {
	spool    *spool
	slots    chan struct{}
	maxBytes int64
	idle     time.Duration
	grace    time.Duration

	mu     sync.Mutex
	shares map[string]*share // those in use only
}

// share is what of the places one caller, or one tenant, may take.
type share struct {
	slots chan struct{}
	users int
}

// acquire waits for a place, for the idle limit at most: in the share of the
// repository, project or role, a quarter of all; in that of its tenant, three
// quarters, since a tenant has as many repositories as it likes; and among all.
func (u *uploads) acquire(ctx context.Context, of, tenant string) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, u.idle)
	defer cancel()
	var taken []func()
	release = func() {
		for i := len(taken) - 1; i >= 0; i-- {
			taken[i]()
		}
	}
	for _, s := range [...]struct {
		key, whose string
		places     int
	}{
		{"caller " + of, "of this repository, project or role ", cap(u.slots) / 4},
		{"tenant " + tenant, "of this account ", cap(u.slots) * 3 / 4},
	} {
		own := u.share(s.key, max(1, s.places))
		taken = append(taken, func() { u.leave(s.key) })
		if !take(wait, own.slots) {
			release()
			return nil, refusal.New(CodeOverloaded, "%d uploads %sare under way, which is the limit for one", cap(own.slots), s.whose)
		}
		taken = append(taken, func() { <-own.slots })
	}
	if !take(wait, u.slots) {
		release()
		return nil, refusal.New(CodeOverloaded, "%d uploads are under way, which is the limit", cap(u.slots))
	}
	taken = append(taken, func() { <-u.slots })
	return release, nil
}

func take(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
	}
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (u *uploads) share(key string, places int) *share {
	u.mu.Lock()
	defer u.mu.Unlock()
	own := u.shares[key]
	if own == nil {
		if u.shares == nil {
			u.shares = make(map[string]*share)
		}
		own = &share{slots: make(chan struct{}, places)}
		u.shares[key] = own
	}
	own.users++
	return own
}

func (u *uploads) leave(of string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	own := u.shares[of]
	if own.users--; own.users == 0 {
		delete(u.shares, of)
	}
}

// Attest receives artifacts and attests them.
func (a *attestationService) Attest(stream grpc.BidiStreamingServer[assayv1.AttestRequest, assayv1.AttestResponse]) error {
	ctx := stream.Context()
	caller := sessionFrom(ctx).caller
	release, err := a.uploads.acquire(ctx, shareOf(caller), tenantOf(caller))
	if err != nil {
		return err
	}
	defer release()
	dir, err := a.uploads.spool.session()
	if err != nil {
		return spoolError(err)
	}
	defer os.RemoveAll(dir)

	scans := a.scans.begin(ctx, partyOf(caller), dir)
	defer scans.abandon()
	r := &receiver{uploads: a.uploads, stream: stream, in: receive(ctx, stream), dir: dir, scans: scans, metrics: a.metrics}
	subjects, err := r.run(ctx)
	if err != nil {
		return err
	}
	if err := r.progress(assayv1.AttestStage_ATTEST_STAGE_SCANNING, nil, 0); err != nil {
		return err
	}
	found, err := scans.wait()
	if err != nil {
		return err
	}
	if err := r.progress(assayv1.AttestStage_ATTEST_STAGE_SIGNING, nil, 0); err != nil {
		return err
	}
	result, err := a.attest(ctx, caller, subjects, partyOf(caller), found)
	if err != nil {
		return err
	}
	if err := r.progress(assayv1.AttestStage_ATTEST_STAGE_REGISTERED, nil, 0); err != nil {
		return err
	}
	return stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Result{Result: result}})
}

// incoming is one message of the client, or the error that ended its side.
type incoming struct {
	req *assayv1.AttestRequest
	err error
}

// receive reads ahead by a few messages, so that the network, the hashes and the
// disk work at the same time; the channel's size and that of a message bound the memory.
func receive(ctx context.Context, stream grpc.BidiStreamingServer[assayv1.AttestRequest, assayv1.AttestResponse]) <-chan incoming {
	ch := make(chan incoming, 4)
	go func() {
		defer close(ch)
		for {
			req, err := stream.Recv()
			select {
			case ch <- incoming{req, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return ch
}

// receiver runs the client's side of the protocol: header, then for each
// artifact start, chunks, end; then the client closes its side.
type receiver struct {
	uploads *uploads
	stream  grpc.BidiStreamingServer[assayv1.AttestRequest, assayv1.AttestResponse]
	in      <-chan incoming
	dir     string
	scans   *scans
	metrics *metrics

	idle     *time.Timer
	began    time.Time
	received int64
	index    int
}

func (r *receiver) run(ctx context.Context) ([]store.Subject, error) {
	r.idle, r.began = time.NewTimer(r.uploads.idle), time.Now()
	defer r.idle.Stop()
	req, err := r.next(ctx)
	if errors.Is(err, io.EOF) {
		return nil, refusal.New(CodeStreamProtocol, "the stream ended before the header")
	}
	if err != nil {
		return nil, err
	}
	header := req.GetHeader()
	if header == nil {
		return nil, refusal.New(CodeStreamProtocol, "the first message must be the header, not %s", describe(req))
	}
	count := int(header.GetArtifactCount())
	if err := checkCount(count); err != nil {
		return nil, inField(err, "header.artifact_count")
	}
	subjects := make([]store.Subject, 0, count)
	for r.index = range count {
		s, err := r.artifact(ctx)
		if err != nil {
			return nil, inField(err, fmt.Sprintf("artifacts[%d]", r.index))
		}
		subjects = append(subjects, s)
	}
	if req, err := r.next(ctx); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, err
		}
		return nil, refusal.New(CodeStreamProtocol, "%s after the last of %d artifacts", describe(req), count)
	}
	return subjects, nil
}

// next waits for a message, for the idle limit at most: a client that says
// nothing, or next to nothing, does not hold a place.
func (r *receiver) next(ctx context.Context) (*assayv1.AttestRequest, error) {
	r.idle.Reset(r.uploads.idle)
	select {
	case m, ok := <-r.in:
		if !ok {
			return nil, ctx.Err()
		}
		r.received += int64(len(m.req.GetChunk()))
		if took := time.Since(r.began); m.err == nil && took > r.uploads.grace && r.received < int64(took.Seconds())*leastPace {
			return nil, refusal.New(CodeStreamIdle, "%d bytes in %s; the least is %d a second", r.received, took.Round(time.Second), leastPace)
		}
		return m.req, m.err
	case <-r.idle.C:
		return nil, refusal.New(CodeStreamIdle, "nothing was received for %s", r.uploads.idle)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *receiver) artifact(ctx context.Context) (store.Subject, error) {
	var none store.Subject
	start, err := r.start(ctx)
	if err != nil {
		return none, err
	}
	kind, err := checkKind(start.GetKind())
	if err != nil {
		return none, err
	}
	w, err := r.uploads.spool.create(r.dir, strconv.Itoa(r.index))
	if err != nil {
		return none, err
	}
	end, err := r.chunks(ctx, start, w)
	sha256Hex, sha512Hex, closeErr := w.close()
	if err != nil {
		return none, err
	}
	if closeErr != nil {
		return none, closeErr
	}
	if want := start.GetSize(); want >= 0 && want != w.size {
		return none, refusal.New(CodeArtifactSizeMismatch, "%d bytes were announced and %d received", want, w.size).InField("size")
	}
	// The client's digest is only ever compared; what enters the statement is
	// what was hashed here.
	if want := end.GetSha256(); want != "" && want != sha256Hex {
		return none, refusal.New(CodeDigestMismatch, "the client hashed %.64q, the service %s: the bytes changed on the way", want, sha256Hex).InField("sha256")
	}
	if err := r.progress(assayv1.AttestStage_ATTEST_STAGE_RECEIVED, start, w.size); err != nil {
		return none, err
	}
	s := store.Subject{
		Name: start.GetName(), SHA256: sha256Hex, SHA512: sha512Hex, Kind: kind,
		Origin: int(assayv1.DigestOrigin_DIGEST_ORIGIN_HASHED), Size: w.size,
	}
	// A client that has to wait for scans is not slow.
	began := time.Now()
	err = r.scans.add(ctx, w.file.Name(), s)
	r.began = r.began.Add(time.Since(began))
	return s, err
}

func (r *receiver) start(ctx context.Context) (*assayv1.ArtifactStart, error) {
	req, err := r.next(ctx)
	if errors.Is(err, io.EOF) {
		return nil, refusal.New(CodeStreamProtocol, "the stream ended before the artifact began")
	}
	if err != nil {
		return nil, err
	}
	start := req.GetArtifactStart()
	if start == nil {
		return nil, refusal.New(CodeStreamProtocol, "expected artifact_start, not %s", describe(req))
	}
	if err := attest.CheckSubjectName(start.GetName()); err != nil {
		return nil, inField(err, "name")
	}
	if start.GetSize() < -1 || start.GetSize() > r.uploads.maxBytes {
		return nil, refusal.New(CodeArtifactTooLarge, "%d bytes; the limit is %d", start.GetSize(), r.uploads.maxBytes).InField("size")
	}
	return start, nil
}

func (r *receiver) chunks(ctx context.Context, start *assayv1.ArtifactStart, w *artifactWriter) (*assayv1.ArtifactEnd, error) {
	limit := r.uploads.maxBytes
	if start.GetSize() >= 0 {
		limit = start.GetSize()
	}
	reported := int64(0)
	for {
		req, err := r.next(ctx)
		if errors.Is(err, io.EOF) {
			return nil, refusal.New(CodeArtifactSizeMismatch, "the stream ended after %d bytes, before artifact_end", w.size)
		}
		if err != nil {
			return nil, err
		}
		switch m := req.GetMessage().(type) {
		case *assayv1.AttestRequest_ArtifactEnd:
			return m.ArtifactEnd, nil
		case *assayv1.AttestRequest_Chunk:
			if len(m.Chunk) > maxChunk {
				return nil, refusal.New(CodeChunkTooLarge, "%d bytes; the limit is %d", len(m.Chunk), maxChunk)
			}
			if w.size+int64(len(m.Chunk)) > limit {
				return nil, r.tooMuch(start, limit)
			}
			if err := w.write(m.Chunk); err != nil {
				return nil, err
			}
			r.metrics.received.Add(float64(len(m.Chunk)))
			if w.size-reported >= progressEvery {
				reported = w.size
				if err := r.progress(assayv1.AttestStage_ATTEST_STAGE_RECEIVING, start, w.size); err != nil {
					return nil, err
				}
			}
		default:
			return nil, refusal.New(CodeStreamProtocol, "expected chunk or artifact_end, not %s", describe(req))
		}
	}
}

func (r *receiver) tooMuch(start *assayv1.ArtifactStart, limit int64) error {
	if start.GetSize() >= 0 {
		return refusal.New(CodeArtifactSizeMismatch, "more than the announced %d bytes were received", limit).InField("size")
	}
	return refusal.New(CodeArtifactTooLarge, "more than %d bytes, which is the limit", limit).InField("size")
}

func (r *receiver) progress(stage assayv1.AttestStage, start *assayv1.ArtifactStart, size int64) error {
	return r.stream.Send(&assayv1.AttestResponse{Message: &assayv1.AttestResponse_Progress{Progress: &assayv1.AttestProgress{
		Stage: stage, ArtifactIndex: int32(r.index), ArtifactName: start.GetName(), BytesReceived: size,
	}}})
}

func describe(req *assayv1.AttestRequest) string {
	switch req.GetMessage().(type) {
	case *assayv1.AttestRequest_Header:
		return "header"
	case *assayv1.AttestRequest_ArtifactStart:
		return "artifact_start"
	case *assayv1.AttestRequest_Chunk:
		return "chunk"
	case *assayv1.AttestRequest_ArtifactEnd:
		return "artifact_end"
	}
	return "an empty message"
}
