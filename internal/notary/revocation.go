package notary

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/signer"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/assay-build/assay/internal/refusal"
)

// RevocationQuery is what AWS Signer is asked about one signature.
type RevocationQuery struct {
	Region            string // of profile and job
	ProfileVersion    string // ARN
	Job               string // ARN
	SigningTime       time.Time
	CertificateHashes []string
}

func (q *RevocationQuery) key() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s\n%s", q.Region, q.ProfileVersion, q.Job,
		q.SigningTime.UTC().Format(time.RFC3339Nano), strings.Join(q.CertificateHashes, "\n")))
}

// Revocations tells which of the things that a query names are revoked. An error means
// that it is not known.
type Revocations interface {
	Revoked(ctx context.Context, q RevocationQuery) ([]string, error)
}

const (
	maxFailureTTL = 5 * time.Second
	// askTimeout bounds one question, whoever waits for it.
	askTimeout = 10 * time.Second
	// maxEntities bounds an answer: a profile version, a job and the certificates.
	maxEntities = 2 + maxChain
)

// answers remembers what Revocations said, by query: the same signature in other
// spellings of JSON is one question.
type answers struct {
	source  Revocations
	now     func() time.Time
	log     *slog.Logger
	ttl     time.Duration
	flights singleflight.Group
	known   *lru.Cache[[sha256.Size]byte, answer]
}

type answer struct {
	asked   time.Time // before the question: the answer may be that old
	revoked []string
	err     error
}

func newAnswers(source Revocations, cfg *VerifierConfig) (*answers, error) {
	known, err := lru.New[[sha256.Size]byte, answer](maxRemembered)
	return &answers{source: source, now: cfg.Now, log: cfg.Logger, ttl: cfg.RevocationTTL, known: known}, err
}

func (a *answers) get(ctx context.Context, s *signature) ([]string, error) {
	got, ok := a.remembered(s.queryKey)
	if !ok {
		var err error
		if got, err = a.wait(ctx, s); err != nil {
			return nil, err
		}
	}
	return got.revoked, got.err
}

func (a *answers) remembered(key [sha256.Size]byte) (answer, bool) {
	got, ok := a.known.Get(key)
	ttl := a.ttl
	if got.err != nil {
		ttl = min(ttl, maxFailureTTL)
	}
	age := a.now().Sub(got.asked)
	return got, ok && age >= 0 && age < ttl
}

// wait asks, or waits for whoever asks already. That a caller goes away does not take
// the answer from the others.
func (a *answers) wait(ctx context.Context, s *signature) (answer, error) {
	asking := context.WithoutCancel(ctx)
	done := a.flights.DoChan(string(s.queryKey[:]), func() (any, error) {
		got, ok := a.remembered(s.queryKey) // whoever was before us may just have asked
		if !ok {
			got = a.ask(asking, s)
			a.known.Add(s.queryKey, got)
		}
		return got, nil
	})
	select {
	case r := <-done:
		got, ok := r.Val.(answer)
		if !ok {
			return answer{}, refusal.New(CodeRevocationUnknown, "no answer")
		}
		return got, nil
	case <-ctx.Done():
		return answer{}, refusal.New(CodeRevocationUnknown, "AWS Signer did not answer in time: %w", ctx.Err())
	}
}

func (a *answers) ask(ctx context.Context, s *signature) (got answer) {
	got.asked = a.now()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	revoked, err := a.source.Revoked(ctx, s.query)
	switch {
	case err != nil:
		code := refusal.CodeOf(err)
		e := refusal.New(CodeRevocationUnknown, "AWS Signer could not be asked whether the signature is revoked")
		if code != "" {
			e.Detail += ": " + string(code)
		}
		e.Err, got.err = err, e
		a.log.WarnContext(ctx, "revocation unknown", "code", string(code), "job", s.job, "error", err)
	case len(revoked) > 0:
		got.revoked = slices.Clone(revoked[:min(len(revoked), maxEntities)])
		a.log.WarnContext(ctx, "signature is revoked", "job", s.job, "revoked", strings.Join(got.revoked, " "))
	}
	return got
}

// RevocationsConfig configures NewRevocations. Its zero value is usable.
type RevocationsConfig struct {
	Now           func() time.Time // time.Now if nil
	Logger        *slog.Logger     // none if nil
	Timeout       time.Duration    // of one question, retries included; 5 s if zero
	MaxConcurrent int              // questions under way; 32 if zero
	// Endpoint replaces AWS's own, for tests. No prefix is put before its host.
	Endpoint string
}

// signerRevocations asks AWS Signer.
type signerRevocations struct{ service *service }

// NewRevocations asks GetRevocationStatus of AWS Signer, in the region of each signature's
// profile. The role needs signer:GetRevocationStatus.
func NewRevocations(cfg aws.Config, opts RevocationsConfig) (Revocations, error) {
	s, err := newService(cfg, serviceConfig{
		endpoint: opts.Endpoint, timeout: opts.Timeout, maxConcurrent: opts.MaxConcurrent,
		now: opts.Now, log: opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &signerRevocations{s}, nil
}

// Revoked completes Revocations.
func (r *signerRevocations) Revoked(ctx context.Context, q RevocationQuery) ([]string, error) {
	bounded, cancel := context.WithTimeout(ctx, r.service.timeout)
	defer cancel()
	var out *signer.GetRevocationStatusOutput
	err := r.service.call(ctx, bounded, "GetRevocationStatus", func() (err error) {
		out, err = r.service.client.GetRevocationStatus(bounded, &signer.GetRevocationStatusInput{
			CertificateHashes:  q.CertificateHashes,
			JobArn:             aws.String(q.Job),
			PlatformId:         aws.String(platform),
			ProfileVersionArn:  aws.String(q.ProfileVersion),
			SignatureTimestamp: aws.Time(q.SigningTime),
		}, func(o *signer.Options) { o.Region = q.Region })
		return err
	})
	if err != nil {
		return nil, err
	}
	return out.RevokedEntities, nil
}
