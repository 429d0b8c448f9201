package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// Codes of a saved login that cannot be used.
const (
	// CodeLoginExpired: the session of the saved login is over.
	CodeLoginExpired = "LOGIN_EXPIRED"
	// CodeLoginServerMismatch: the saved login is one to another server.
	CodeLoginServerMismatch = "LOGIN_SERVER_MISMATCH"
	// CodeLoginFileInvalid: the saved login cannot be read, or others could read it.
	CodeLoginFileInvalid = "LOGIN_FILE_INVALID"
)

const maxLoginFile = 16 << 10

// Session is an open session with one server. Its token is a secret until it
// expires, 15 minutes after it was opened at most.
type Session struct {
	// Server is the origin of the server that opened it, and the only one that it is
	// ever sent to.
	Server     string    `json:"server"`
	Token      string    `json:"session_token"`
	ExpireTime time.Time `json:"expire_time"`
}

// OpenSession opens a session, for a process that ends before its work does, and
// returns it with who it belongs to. Other calls open theirs by themselves.
func (c *Client) OpenSession(ctx context.Context) (*Session, *Identity, error) {
	me, err := c.WhoAmI(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := me.GetExpireTime().CheckValid(); err != nil {
		return nil, nil, dishonest("WhoAmI tells no end of the session: %w", err)
	}
	token, err := c.sessions.token(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("open session: %w", err)
	}
	return &Session{Server: c.endpoint.origin, Token: token, ExpireTime: me.GetExpireTime().AsTime()}, me, nil
}

// resumed is a source that brings an open session along. Dial consults it.
type resumed interface {
	session(origin string, now time.Time) (*Session, error)
}

func openSession(source CredentialSource, origin string, now time.Time) (*Session, error) {
	if r, ok := source.(resumed); ok {
		return r.session(origin, now)
	}
	return nil, nil
}

// resume starts with an open session. It is called before s is shared.
func (s *sessions) resume(open *Session) {
	if open != nil {
		s.current, s.goodTil = open.Token, open.ExpireTime.Add(-sessionMargin)
	}
}

// LoginFile is where a login is kept: $XDG_STATE_HOME/assay/login.json, or below
// ~/.local/state. lookup reads the environment.
func LoginFile(lookup func(string) (string, bool)) (string, error) {
	if dir, _ := lookup("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "assay", "login.json"), nil
	}
	if home, _ := lookup("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "assay", "login.json"), nil
	}
	return "", badInput(CodeLoginFileInvalid, "neither XDG_STATE_HOME nor HOME names a directory to keep a login in")
}

// SaveLogin keeps a session in a file that only its owner can read, in place of
// the one that is there. What is kept is the session and nothing that could open
// another: no ID token, no refresh token. So it is of no use after 15 minutes.
func SaveLogin(path string, s *Session) error {
	data, err := json.Marshal(s)
	if err != nil {
		return badInput(CodeLoginFileInvalid, "save the login: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return badInput(CodeLoginFileInvalid, "save the login: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(path), ".login-"+rand.Text())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return badInput(CodeLoginFileInvalid, "save the login: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return badInput(CodeLoginFileInvalid, "save the login: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

// RemoveLogin forgets a saved login, and reports whether there was one. Its session
// ends by itself, 15 minutes after it was opened at most.
func RemoveLogin(path string) (bool, error) {
	err := os.Remove(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, badInput(CodeLoginFileInvalid, "remove the login: %w", err)
	}
	return true, nil
}

// SavedLogin returns the session in a file of SaveLogin as a credential source. It
// opens no other session: when that one is over the answer is LOGIN_EXPIRED.
func SavedLogin(path string) CredentialSource { return savedLogin(path) }

type savedLogin string

func (p savedLogin) Credential(context.Context, string) (*assayv1.ExchangeRequest, error) {
	return nil, newError(ErrUnauthenticated, CodeLoginExpired, "the saved login is over")
}

func (p savedLogin) session(origin string, now time.Time) (*Session, error) {
	s, err := readLogin(string(p))
	if err != nil {
		return nil, err
	}
	switch {
	// The server would learn a token that is good at another one.
	case s.Server != origin:
		return nil, badInput(CodeLoginServerMismatch, "the saved login is one to %.300q, not to %s", s.Server, origin)
	case !validToken(s.Token):
		return nil, badInput(CodeLoginFileInvalid, "the saved login holds no session")
	case !now.Before(s.ExpireTime.Add(-sessionMargin)):
		return nil, newError(ErrUnauthenticated, CodeLoginExpired, "the saved login ended at %s", s.ExpireTime.UTC().Format(time.RFC3339))
	}
	return s, nil
}

func readLogin(path string) (*Session, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newError(ErrUnauthenticated, CodeCredentialMissing, "nobody is logged in: there is no %s", path)
	}
	if err != nil {
		return nil, badInput(CodeLoginFileInvalid, "the saved login: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, badInput(CodeLoginFileInvalid, "%s is not a regular file", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, badInput(CodeLoginFileInvalid, "%s has mode %o: others could read or change it", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLoginFile+1))
	if err != nil {
		return nil, badInput(CodeLoginFileInvalid, "the saved login: %w", err)
	}
	var s Session
	// The parser's error could quote the token.
	if attest.DecodeStrict(data, maxLoginFile, &s) != nil {
		return nil, badInput(CodeLoginFileInvalid, "%s is not a saved login", path)
	}
	return &s, nil
}
