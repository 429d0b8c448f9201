package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeTokenReplayed: the credential was already exchanged. SessionStore
	// implementations return it.
	CodeTokenReplayed refusal.Code = "TOKEN_REPLAYED"
	// CodeSessionInvalid: not a session token that this deployment made.
	CodeSessionInvalid refusal.Code = "SESSION_INVALID"
	// CodeSessionExpired: a true session token whose time is over.
	CodeSessionExpired refusal.Code = "SESSION_EXPIRED"

	// codeNotFound is what a SessionStore answers for an id it does not have.
	codeNotFound refusal.Code = "NOT_FOUND"
)

const (
	// MaxSessionTTL is the longest life of a session.
	MaxSessionTTL = 15 * time.Minute
	// SessionKeyBytes is the length of the key of Sessions.
	SessionKeyBytes = 32

	sessionPrefix = "asy_"
	sessionBytes  = 16 + sha256.Size
	// sessionTokenLen is constant. 48 bytes fill base64 exactly, so that a token
	// has one spelling: no padding, no unused bits.
	sessionTokenLen = len(sessionPrefix) + sessionBytes/3*4

	// maxCachedSessions and maxCachedBytes bound the memory of Check. Most sessions
	// take 1 KiB; one of a large build a hundred times as much.
	maxCachedSessions = 1 << 15
	maxCachedBytes    = 64 << 20
	// What a session takes is estimated by its stored form.
	cachedPerByte  = 2
	cachedOverhead = 512
	// replayMargin keeps a replay key beyond the credential's end, for clocks of
	// several machines that differ.
	replayMargin = 5 * time.Minute
)

// SessionStore keeps sessions and consumed credentials. It is safe for
// concurrent use, and shared by all machines of a deployment.
type SessionStore interface {
	// CreateSession marks replayKey as consumed and stores the session, both or
	// neither, and returns once they are durable. If the key is consumed already
	// it stores nothing and returns a refusal TOKEN_REPLAYED; of any number of
	// concurrent calls with one key, exactly one succeeds. The key is kept at
	// least until replayExpires.
	CreateSession(ctx context.Context, id [16]byte, caller []byte, expires time.Time, replayKey string, replayExpires time.Time) error
	// Session returns what CreateSession stored, whether or not it has expired.
	// An id that is not there, or no longer, is a refusal NOT_FOUND. Any other
	// error means that the answer is not known.
	Session(ctx context.Context, id [16]byte) (caller []byte, expires time.Time, err error)
}

// Sessions opens and checks sessions. It is safe for concurrent use.
type Sessions struct {
	store SessionStore
	ttl   time.Duration
	now   func() time.Time

	tokenMAC  macPool // over id: the token
	recordMAC macPool // over id, expiry and caller: the stored record

	mu     sync.RWMutex
	cache  map[[16]byte]session
	cached int // bytes, estimated
}

type session struct {
	caller  *Caller
	expires time.Time
	bytes   int // estimated
}

// newSession returns a session whose caller has a stored form of n bytes.
func newSession(caller *Caller, expires time.Time, n int) session {
	return session{caller, expires, n*cachedPerByte + cachedOverhead}
}

// NewSessions returns Sessions under a key of SessionKeyBytes, as LoadSessionKey
// returns it; any other length is a mistake in the program and panics. ttl is
// cut to MaxSessionTTL, which is also the default. now nil is time.Now.
func NewSessions(key []byte, store SessionStore, ttl time.Duration, now func() time.Time) *Sessions {
	if len(key) != SessionKeyBytes {
		panic(fmt.Sprintf("identity: session key of %d bytes; %d are needed", len(key), SessionKeyBytes))
	}
	if ttl <= 0 || ttl > MaxSessionTTL {
		ttl = MaxSessionTTL
	}
	if now == nil {
		now = time.Now
	}
	s := &Sessions{store: store, ttl: ttl, now: now, cache: make(map[[16]byte]session)}
	s.tokenMAC.init(key, "assay session token v1")
	s.recordMAC.init(key, "assay session record v1")
	return s
}

// Open consumes v and returns a session token that Check accepts until expires.
// The second Open of one credential, on any machine, is TOKEN_REPLAYED.
//
// Crash story: the store makes consumption and session durable together. If the
// process dies before it answers, the credential is spent and its session is
// known to nobody; the client asks its platform for a fresh credential.
func (s *Sessions) Open(ctx context.Context, v *Verified) (token string, expires time.Time, err error) {
	if v == nil || v.ReplayKey == "" {
		return "", time.Time{}, refusal.New(CodeSessionInvalid, "no verified credential")
	}
	caller, err := v.Caller.Marshal()
	if err != nil {
		return "", time.Time{}, err
	}
	// Stores keep milliseconds or seconds; what the record's MAC covers must come
	// back from the store unchanged.
	now := s.now()
	expires = now.Add(s.ttl).Truncate(time.Second)
	if end := v.NotAfter.Truncate(time.Second); !v.NotAfter.IsZero() && end.Before(expires) {
		if !now.Before(end) {
			return "", time.Time{}, refusal.New(CodeSessionExpired, "the credential ended at %s", end.UTC().Format(time.RFC3339))
		}
		expires = end
	}
	var id [16]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	record := s.seal(id, expires, caller)
	if err := s.store.CreateSession(ctx, id, record, expires, v.ReplayKey, v.ExpiresAt.Add(replayMargin)); err != nil {
		return "", time.Time{}, fmt.Errorf("open session: %w", err)
	}
	s.remember(id, newSession(v.Caller, expires, len(caller)))

	raw := make([]byte, 0, sessionBytes)
	raw = append(raw, id[:]...)
	mac := s.tokenMAC.sum(id, nil)
	raw = append(raw, mac[:]...)
	return sessionPrefix + base64.RawURLEncoding.EncodeToString(raw), expires, nil
}

// Check returns whose session token is, and until when. The Caller is shared and
// must not be changed. A refusal is SESSION_INVALID or SESSION_EXPIRED; any
// other error is the store's, and then nothing is known.
func (s *Sessions) Check(ctx context.Context, token string) (*Caller, time.Time, error) {
	id, ok := s.open(token)
	if !ok {
		return nil, time.Time{}, refusal.New(CodeSessionInvalid, "not a session token of this service")
	}
	s.mu.RLock()
	sess, ok := s.cache[id]
	s.mu.RUnlock()
	if !ok {
		var err error
		if sess, err = s.load(ctx, id); err != nil {
			return nil, time.Time{}, err
		}
	}
	if !s.now().Before(sess.expires) {
		return nil, time.Time{}, refusal.New(CodeSessionExpired, "session ended at %s", sess.expires.UTC().Format(time.RFC3339))
	}
	if !ok {
		s.remember(id, sess)
	}
	return sess.caller, sess.expires, nil
}

// open checks form and MAC of a token. Every token but the ones that Open made
// stops here, before anything is looked up.
func (s *Sessions) open(token string) (id [16]byte, ok bool) {
	if len(token) != sessionTokenLen || token[:len(sessionPrefix)] != sessionPrefix {
		return id, false
	}
	var raw [sessionBytes]byte
	// A line break, which the decoder would skip, leaves n short.
	n, err := base64.RawURLEncoding.Decode(raw[:], []byte(token[len(sessionPrefix):]))
	if err != nil || n != sessionBytes {
		return id, false
	}
	copy(id[:], raw[:])
	mac := s.tokenMAC.sum(id, nil)
	return id, hmac.Equal(mac[:], raw[len(id):])
}

// load reads a session from the store.
func (s *Sessions) load(ctx context.Context, id [16]byte) (session, error) {
	record, expires, err := s.store.Session(ctx, id)
	if refusal.CodeOf(err) == codeNotFound {
		// We made this token, so there was a session: it was swept after its end.
		return session{}, refusal.New(CodeSessionExpired, "session is over")
	}
	if err != nil {
		return session{}, fmt.Errorf("read session: %w", err)
	}
	data, ok := s.unseal(id, expires, record)
	if !ok {
		return session{}, refusal.New(CodeSessionInvalid, "the stored session was altered")
	}
	caller, err := UnmarshalCaller(data)
	if err != nil {
		return session{}, err
	}
	return newSession(caller, expires, len(data)), nil
}

// seal binds caller and expiry to id: MAC || caller.
func (s *Sessions) seal(id [16]byte, expires time.Time, caller []byte) []byte {
	mac := s.recordMAC.sum(id, recordInput(expires, caller))
	return append(mac[:], caller...)
}

func (s *Sessions) unseal(id [16]byte, expires time.Time, record []byte) (caller []byte, ok bool) {
	if len(record) < sha256.Size {
		return nil, false
	}
	caller = record[sha256.Size:]
	mac := s.recordMAC.sum(id, recordInput(expires, caller))
	return caller, hmac.Equal(mac[:], record[:sha256.Size])
}

func recordInput(expires time.Time, caller []byte) []byte {
	in := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(caller)), uint64(expires.Unix()))
	return append(in, caller...)
}

// remember caches a session. A full cache first drops what has expired, then
// anything: a dropped session is read from the store again.
func (s *Sessions) remember(id [16]byte, sess session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(id)
	if len(s.cache) >= maxCachedSessions || s.cached+sess.bytes > maxCachedBytes {
		now := s.now()
		for k, v := range s.cache {
			if !v.expires.After(now) {
				s.forget(k)
			}
		}
		for k := range s.cache {
			if len(s.cache) <= maxCachedSessions*3/4 && s.cached+sess.bytes <= maxCachedBytes*3/4 {
				break
			}
			s.forget(k)
		}
	}
	s.cache[id] = sess
	s.cached += sess.bytes
}

// forget drops a session that may be cached. The caller holds s.mu.
func (s *Sessions) forget(id [16]byte) {
	s.cached -= s.cache[id].bytes
	delete(s.cache, id)
}

// macPool computes HMAC-SHA256 under one key without allocating.
type macPool struct{ pool sync.Pool }

type macState struct {
	h   hash.Hash
	id  [16]byte // here, so that handing it to h does not put the caller's on the heap
	out [sha256.Size]byte
}

// init derives the pool's own key, so that one session key serves several uses.
func (p *macPool) init(key []byte, use string) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(use))
	derived := h.Sum(nil)
	p.pool.New = func() any { return &macState{h: hmac.New(sha256.New, derived)} }
}

func (p *macPool) sum(id [16]byte, rest []byte) [sha256.Size]byte {
	st := p.pool.Get().(*macState)
	defer p.pool.Put(st)
	st.id = id
	st.h.Reset()
	st.h.Write(st.id[:])
	st.h.Write(rest)
	st.h.Sum(st.out[:0])
	return st.out
}
