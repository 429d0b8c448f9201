package client

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

const (
	// chunkSize is the contract's limit.
	chunkSize = 1 << 20
	// chunkBuffers is one being read and hashed, one being sent, one between.
	chunkBuffers = 3
)

// upload is one attempt to send artifacts.
type upload struct {
	stream assayv1.AttestationService_AttestClient
	report func(Event)
	// buffers circulate between the reader of a file and the sender.
	buffers chan []byte
	// sent is what has been sent whole, with the digest of what was sent.
	sent         []Subject
	bytes, total int64
}

func newUpload(stream assayv1.AttestationService_AttestClient, report func(Event)) *upload {
	return &upload{stream: stream, report: report, buffers: make(chan []byte, chunkBuffers)}
}

// sendAll sends every artifact and closes the sending side. It returns io.EOF
// where the server ended the stream; its status then tells why.
func (u *upload) sendAll(artifacts []Artifact) error {
	u.total = totalSize(artifacts)
	header := &assayv1.AttestHeader{ArtifactCount: int32(len(artifacts)), TotalSize: u.total}
	if err := u.stream.Send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_Header{Header: header}}); err != nil {
		return err
	}
	for range chunkBuffers {
		u.buffers <- nil // Allocated when first used: small files need one.
	}
	for i := range artifacts {
		if err := u.send(i, &artifacts[i]); err != nil {
			return err
		}
	}
	return u.stream.CloseSend()
}

// totalSize is for progress only: 0 where any size is unknown.
func totalSize(artifacts []Artifact) int64 {
	var total int64
	for i := range artifacts {
		size := artifacts[i].Size
		if artifacts[i].Open == nil {
			info, err := os.Stat(artifacts[i].Path)
			if err != nil {
				return 0
			}
			size = info.Size()
		} else if size <= 0 {
			return 0
		}
		total += size
	}
	return total
}

func (u *upload) send(index int, a *Artifact) error {
	r, size, err := a.open()
	if err != nil {
		return err
	}
	defer r.Close()
	kind := a.Kind
	if kind == assayv1.ArtifactKind_ARTIFACT_KIND_UNSPECIFIED {
		kind = assayv1.ArtifactKind_ARTIFACT_KIND_FILE
	}
	start := &assayv1.ArtifactStart{Name: a.Name, Kind: kind, Size: size}
	if err := u.stream.Send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactStart{ArtifactStart: start}}); err != nil {
		return err
	}
	n, sum, err := u.sendBytes(index, a.Name, r)
	if err != nil {
		return err
	}
	if size >= 0 && n != size {
		return badInput(CodeArtifactChanged, "%s changed while it was read: %d bytes, then %d", a.Name, size, n)
	}
	u.sent = append(u.sent, Subject{Name: a.Name, SHA256: sum})
	end := &assayv1.ArtifactEnd{Sha256: sum}
	return u.stream.Send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactEnd{ArtifactEnd: end}})
}

// sendBytes sends what r yields and returns its size and digest. Reading and
// hashing (1.9 GB/s a core) go on while the chunk before is sent.
func (u *upload) sendBytes(index int, name string, r io.Reader) (n int64, sum string, err error) {
	p := startPump(r, u.buffers)
	defer p.stop()
	chunk := &assayv1.AttestRequest_Chunk{}
	msg := &assayv1.AttestRequest{Message: chunk}
	for buf := range p.full {
		chunk.Chunk = buf
		if err := u.stream.Send(msg); err != nil {
			return 0, "", err
		}
		n += int64(len(buf))
		u.bytes += int64(len(buf))
		// Send has copied the bytes into a frame: this connection is our own and
		// has no stats handler that would look at the message later.
		u.buffers <- buf
		u.report(Event{Stage: StageSending, Artifact: index, Name: name, Sent: u.bytes, Total: u.total})
	}
	if p.err != nil {
		return 0, "", badInput(CodeArtifactUnreadable, "read %s: %w", name, p.err)
	}
	return n, hex.EncodeToString(p.hash.Sum(nil)), nil
}

// pump reads and hashes in a goroutine of its own.
type pump struct {
	// full carries what was read, in order; it is closed at the end.
	full chan []byte
	hash hash.Hash
	// err is why reading ended, nil at the end of the file. Like hash it may be
	// looked at once full is closed.
	err     error
	buffers chan []byte
	quit    chan struct{}
}

func startPump(r io.Reader, buffers chan []byte) *pump {
	p := &pump{full: make(chan []byte), hash: sha256.New(), buffers: buffers, quit: make(chan struct{})}
	go p.run(r)
	return p
}

func (p *pump) run(r io.Reader) {
	defer close(p.full)
	for {
		var buf []byte
		select {
		case buf = <-p.buffers:
		case <-p.quit:
			return
		}
		if buf == nil {
			buf = make([]byte, chunkSize)
		}
		buf = buf[:chunkSize]
		n, err := io.ReadFull(r, buf)
		p.hash.Write(buf[:n])
		if n == 0 {
			p.buffers <- buf
		} else {
			select {
			case p.full <- buf[:n]:
			case <-p.quit:
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				p.err = err
			}
			return
		}
	}
}

// stop ends the goroutine and waits for it, so that nothing reads a closed file.
func (p *pump) stop() {
	close(p.quit)
	for range p.full {
	}
}

func hashAll(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, chunkSize)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
