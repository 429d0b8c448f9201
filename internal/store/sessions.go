package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeTokenReplayed: the credential was used before. It opens one session, ever.
const CodeTokenReplayed refusal.Code = "TOKEN_REPLAYED"

// CodeCallerTooLarge: the caller's facts are more than MaxCallerBytes. Nothing was
// written: the credential, where there is one, is not used up.
const CodeCallerTooLarge refusal.Code = "CALLER_TOO_LARGE"

const (
	// MaxCallerBytes is the limit of a caller's facts, wherever they are kept: with a
	// session, an attestation or a decision. It is one limit, so that who was given a
	// session is not refused later for what the session says.
	MaxCallerBytes = 64 << 10
	// purgeRows is how many expired rows one transaction deletes.
	purgeRows = 256
)

func checkCaller(caller []byte) error {
	if len(caller) > MaxCallerBytes {
		return refusal.New(CodeCallerTooLarge, "the caller's facts are %d bytes, at most %d are kept", len(caller), MaxCallerBytes).InField("caller")
	}
	return nil
}

// CreateSession uses up a credential and opens a session for it, both or neither.
// Of any number of calls with one replay key, at the same time or years apart, on
// either side of a restart, exactly one succeeds; the others are refused with
// CodeTokenReplayed. The key is remembered until replayExpires, which must not be
// earlier than the instant from which the credential is refused as expired.
func (s *Store) CreateSession(ctx context.Context, id [16]byte, caller []byte, expires time.Time, replayKey string, replayExpires time.Time) error {
	if replayKey == "" {
		return invalid("replay_key", "is empty")
	}
	if err := checkCaller(caller); err != nil {
		return err
	}
	if caller == nil {
		caller = []byte{}
	}
	key := sha256.Sum256([]byte(replayKey))
	return s.w.do(ctx, len(caller)+256, func(c *conn) error {
		res, err := c.exec("INSERT INTO consumed (key, expires_at) VALUES (?,?) ON CONFLICT DO NOTHING", key[:], micros(replayExpires))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return orErr(err, refusal.New(CodeTokenReplayed, "this credential has already opened a session"))
		}
		// A clash of ids undoes the row above: it is no refusal but an error, and
		// takes the transaction with it.
		_, err = c.exec("INSERT INTO sessions (id, expires_at, caller) VALUES (?,?,?)", id[:], micros(expires), caller)
		return err
	})
}

// Consumed reports whether a credential was used up and that is still remembered, so
// that CreateSession would refuse it. It sees every CreateSession that returned
// before it was called, and waits for no write.
//
// It is a hint that spares work for a credential that cannot succeed: false grants
// nothing, since one that is used up meanwhile is refused by CreateSession alone. With
// an error it is not known.
func (s *Store) Consumed(ctx context.Context, replayKey string) (bool, error) {
	if replayKey == "" {
		return false, invalid("replay_key", "is empty")
	}
	key := sha256.Sum256([]byte(replayKey))
	var found bool
	if err := s.get.consumed.QueryRowContext(ctx, key[:]).Scan(&found); err != nil {
		return false, refused(err)
	}
	return found, nil
}

// Session returns the caller's facts and the expiry of a session, expired or not,
// as long as DeleteExpired has not removed it.
func (s *Store) Session(ctx context.Context, id [16]byte) (caller []byte, expires time.Time, err error) {
	var at int64
	err = s.get.session.QueryRowContext(ctx, id[:]).Scan(&caller, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, time.Time{}, refusal.New(CodeNotFound, "no such session")
	}
	if err != nil {
		return nil, time.Time{}, refused(err)
	}
	return caller, fromMicros(at), nil
}

// DeleteExpired removes sessions and used-up credentials that have expired, a few
// hundred at a time, so that other writes get their turn between.
func (s *Store) DeleteExpired(ctx context.Context) error {
	now := micros(s.now())
	for _, query := range []string{
		"DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < ? LIMIT +?)",
		"DELETE FROM consumed WHERE key IN (SELECT key FROM consumed WHERE expires_at < ? LIMIT +?)",
	} {
		for deleted := int64(purgeRows); deleted == purgeRows; {
			err := s.w.do(ctx, 256, func(c *conn) error {
				res, err := c.exec(query, now, int64(purgeRows))
				if err != nil {
					return err
				}
				deleted, err = res.RowsAffected()
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func orErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
