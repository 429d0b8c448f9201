package client

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/client/clienttest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// sessionServer tells the end of its sessions, and whose token it saw last.
func sessionServer(t *testing.T, end time.Time) *clienttest.Server {
	s := clienttest.New(t)
	s.OnExchange = func(context.Context, *assayv1.ExchangeRequest) (*assayv1.ExchangeResponse, error) {
		return &assayv1.ExchangeResponse{SessionToken: "asy_secret", ExpireTime: timestamppb.New(end)}, nil
	}
	s.OnWhoAmI = func(ctx context.Context, _ *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		return &assayv1.WhoAmIResponse{Caller: &assayv1.Caller{DisplayName: bearer(ctx)}, ExpireTime: timestamppb.New(end)}, nil
	}
	return s
}

// TestSavedLogin opens a session in one client and uses it in another.
func TestSavedLogin(t *testing.T) {
	end := time.Now().Add(15 * time.Minute).Truncate(time.Second)
	s := sessionServer(t, end)
	c, _ := dial(t, s)
	session, me, err := c.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if session.Server != s.URL || session.Token != "asy_secret" || !session.ExpireTime.Equal(end) || me.GetCaller().GetDisplayName() != "Bearer asy_secret" {
		t.Errorf("session with %s until %s, %v", session.Server, session.ExpireTime, me)
	}
	path := filepath.Join(t.TempDir(), "state", "assay", "login.json")
	for range 2 { // the second takes the place of the first
		if err := SaveLogin(path, session); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others can read the login", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("%d files are left, want 1", len(left))
	}

	later, err := Dial(t.Context(), Config{Server: s.URL, Credential: SavedLogin(path)})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if me, err := later.WhoAmI(t.Context()); err != nil || me.GetCaller().GetDisplayName() != "Bearer asy_secret" {
		t.Errorf("%v, %v", me, err)
	}
	if got := s.Exchanges.Load(); got != 1 {
		t.Errorf("%d exchanges, want 1", got)
	}
	// The server calls it over: there is nothing to open another one with.
	s.OnWhoAmI = func(context.Context, *assayv1.WhoAmIRequest) (*assayv1.WhoAmIResponse, error) {
		return nil, clienttest.Refuse(codes.Unauthenticated, codeSessionExpired, "over")
	}
	_, err = later.WhoAmI(t.Context())
	wantCode(t, err, CodeLoginExpired)

	for _, want := range []bool{true, false} {
		if was, err := RemoveLogin(path); was != want || err != nil {
			t.Errorf("removed %t, %v; want %t", was, err, want)
		}
	}
	_, err = Dial(t.Context(), Config{Server: s.URL, Credential: SavedLogin(path)})
	wantCode(t, err, CodeCredentialMissing)
}

func TestSavedLoginRefused(t *testing.T) {
	const server = "https://assay.example.com"
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	file := func(server, token, end string) string {
		return `{"server":"` + server + `","session_token":"` + token + `","expire_time":"` + end + `"}`
	}
	good := file(server, "asy_SECRET", "2026-03-01T12:10:00Z")
	tests := []struct {
		name, content string
		mode          os.FileMode
		code          string
	}{
		{"good", good, 0o600, ""},
		{"another server", file("https://evil.example", "asy_SECRET", "2026-03-01T12:10:00Z"), 0o600, CodeLoginServerMismatch},
		{"the same name, another port", file(server+":8443", "asy_SECRET", "2026-03-01T12:10:00Z"), 0o600, CodeLoginServerMismatch},
		{"plaintext", file("http://assay.example.com", "asy_SECRET", "2026-03-01T12:10:00Z"), 0o600, CodeLoginServerMismatch},
		{"over", file(server, "asy_SECRET", "2026-03-01T11:59:59Z"), 0o600, CodeLoginExpired},
		{"about to be over", file(server, "asy_SECRET", "2026-03-01T12:00:30Z"), 0o600, CodeLoginExpired},
		{"no end", `{"server":"` + server + `","session_token":"asy_SECRET"}`, 0o600, CodeLoginExpired},
		{"no token", file(server, "", "2026-03-01T12:10:00Z"), 0o600, CodeLoginFileInvalid},
		{"a token of two lines", file(server, `asy_SECRET\nx: y`, "2026-03-01T12:10:00Z"), 0o600, CodeLoginFileInvalid},
		{"others may read", good, 0o640, CodeLoginFileInvalid},
		{"others may write", good, 0o602, CodeLoginFileInvalid},
		{"a member twice", strings.Replace(good, "{", `{"server":"https://evil.example",`, 1), 0o600, CodeLoginFileInvalid},
		{"an unknown member", strings.Replace(good, "{", `{"refresh_token":"SECRET",`, 1), 0o600, CodeLoginFileInvalid},
		{"no JSON", "asy_SECRET", 0o600, CodeLoginFileInvalid},
		{"large", good + strings.Repeat(" ", maxLoginFile), 0o600, CodeLoginFileInvalid},
		{"empty", "", 0o600, CodeLoginFileInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "login.json")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			c, err := Dial(t.Context(), Config{Server: server, Credential: SavedLogin(path), Now: func() time.Time { return now }})
			wantCode(t, err, tt.code)
			if err == nil {
				c.Close()
			} else if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
	if _, err := readLogin(t.TempDir()); err == nil {
		t.Error("a directory is a login")
	}
}

func TestOpenSessionWithoutEnd(t *testing.T) {
	s := clienttest.New(t)
	c, _ := dial(t, s)
	_, _, err := c.OpenSession(t.Context())
	wantDishonest(t, err, "end of the session")
}

func TestLoginFile(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"XDG_STATE_HOME": "/state", "HOME": "/home/ada"}, "/state/assay/login.json"},
		{map[string]string{"HOME": "/home/ada"}, "/home/ada/.local/state/assay/login.json"},
		// The base directory specification: a relative path is to be ignored.
		{map[string]string{"XDG_STATE_HOME": "state", "HOME": "/home/ada"}, "/home/ada/.local/state/assay/login.json"},
		{map[string]string{"HOME": "home"}, ""},
		{nil, ""},
	} {
		got, err := LoginFile(lookupIn(tt.env))
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%v: %q, %v; want %q", tt.env, got, err, tt.want)
		}
		if err != nil {
			wantCode(t, err, CodeLoginFileInvalid)
		}
	}
}
