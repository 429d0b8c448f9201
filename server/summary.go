package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/signing/ca"
	"github.com/assay-build/assay/internal/store"
)

// summary signs a verification summary, which the instance says in its own name. It asks
// whatever signs and dates, and nothing of the log.
func (s *sealer) summary(ctx context.Context, k *keys, st *attest.Statement) (*signed, error) {
	payload, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	if !k.certificates {
		what, err := s.envelope(ctx, k, payload, subjectOf{})
		if err != nil {
			return nil, err
		}
		return what, s.checkDated(what)
	}
	c, err := s.certifyVerifier(ctx, k)
	if err != nil {
		return nil, err
	}
	what, err := s.signUnder(ctx, k, payload, c.leaf)
	if err != nil {
		return nil, err
	}
	if !c.logged.Load() {
		what.promised = c
	}
	return what, s.checkDated(what)
}

// unregistered is the bundle of a summary that is not registered, that of a denial. There
// is no head of the log to it.
func (s *sealer) unregistered(ctx context.Context, what *signed) ([]byte, *store.LogHead, error) {
	if err := s.keepPromise(ctx, what); err != nil {
		return nil, nil, err
	}
	bundle, err := s.bundle(what, nil)
	return bundle, nil, err
}

// registered registers a summary, that of a permission. It has no pending row: its
// decision row is written after it, with the head that is returned, so a crash between
// the two costs one log entry that nobody was told of.
func (s *sealer) registered(ctx context.Context, k *keys, what *signed) ([]byte, *store.LogHead, error) {
	if err := s.keepPromise(ctx, what); err != nil {
		return nil, nil, err
	}
	body, err := s.entryBody(k, what)
	if err != nil {
		return nil, nil, err
	}
	entry, err := s.log.Add(ctx, body)
	if err != nil {
		return nil, nil, err
	}
	head := headOf(entry)
	bundle, err := s.bundle(what, entry)
	return bundle, &head, err
}

// keepPromise registers the certificate that a summary is the first to be signed under.
// Where several are the first, the log takes it once for those at a time.
func (s *sealer) keepPromise(ctx context.Context, what *signed) error {
	if what.promised == nil {
		return nil
	}
	if _, err := s.log.Add(ctx, what.promised.leaf.LogEntry()); err != nil {
		return err
	}
	what.promised.logged.Store(true)
	return nil
}

// certified is a certificate of the instance as a verifier, and who issued it.
type certified struct {
	leaf   *ca.Leaf
	by     *ca.Authority
	logged atomic.Bool // its entry is in the log
}

// certifyVerifier returns the certificate of the instance as a verifier, made anew where
// less than half of its life is left, or its authority is not the one of now: what was
// issued before a revocation is no answer to who asks after it.
func (s *sealer) certifyVerifier(ctx context.Context, k *keys) (*certified, error) {
	authority, err := k.authority("")
	if err != nil {
		return nil, err
	}
	if c := s.verifierLeaf.Load(); c != nil && c.by == authority && s.now().Before(halfLife(c.leaf)) {
		return c, nil
	}
	ch := s.certifying.DoChan(k.signerID(), func() (_ any, err error) {
		defer func() {
			if p := recover(); p != nil { // singleflight would end the process
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
		leaf, err := authority.Issue(ctx, ca.Identity{URI: s.instance + "/verifier", Issuer: s.instance})
		if err != nil {
			return nil, err
		}
		fresh := &certified{leaf: leaf, by: authority}
		s.verifierLeaf.Store(fresh) // one of an authority that is no more is used by nobody
		return fresh, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*certified), nil
	}
}

func halfLife(c *ca.Leaf) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 2)
}
