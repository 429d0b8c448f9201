package server_test

import (
	"testing"
	"time"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"google.golang.org/grpc/codes"
)

// TestSessionLives: a session is good on its own deployment, over a restart, to its
// end; and its token is used up there for good.
func TestSessionLives(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t, "https://assay.test"), newWorld(t, "https://other.test")
	first := w.start(t)
	token := w.issuer.Mint(w.instance)
	session := first.session(t, token)
	foreign := other.start(t)
	_, err := assayv1.NewIdentityServiceClient(foreign.conn).WhoAmI(session, &assayv1.WhoAmIRequest{})
	wantReason(t, err, codes.Unauthenticated, "SESSION_INVALID")
	first.stop()

	second := w.start(t)
	whoAmI := func() (*assayv1.WhoAmIResponse, error) {
		return assayv1.NewIdentityServiceClient(second.conn).WhoAmI(session, &assayv1.WhoAmIRequest{})
	}
	who, err := whoAmI()
	if err != nil || who.GetCaller().GetGithubActions().GetRunId() != 14918273645 {
		t.Fatalf("after a restart: %v, %v", who, err)
	}
	_, err = second.exchange(t.Context(), token)
	wantReason(t, err, codes.Unauthenticated, "TOKEN_REPLAYED")
	w.advance(15*time.Minute - 10*time.Second)
	if _, err := whoAmI(); err != nil {
		t.Errorf("shortly before its end: %v", err)
	}
	w.advance(10 * time.Second)
	_, err = whoAmI()
	wantReason(t, err, codes.Unauthenticated, "SESSION_EXPIRED")
	_, err = second.exchange(t.Context(), token)
	wantReason(t, err, codes.Unauthenticated, "TOKEN_EXPIRED")
	_, err = assayv1.NewAttestationServiceClient(second.conn).AttestDigests(session, &assayv1.AttestDigestsRequest{Subjects: digests("a", okDigest)})
	wantReason(t, err, codes.Unauthenticated, "SESSION_EXPIRED")
	if err := upload(session, second.conn, nil); err == nil {
		t.Error("an expired session may upload")
	} else {
		wantReason(t, err, codes.Unauthenticated, "SESSION_EXPIRED")
	}
}

// TestSessionAltered: what the database says of a session counts for nothing
// where the service's own seal is not on it.
func TestSessionAltered(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"another caller":   `UPDATE sessions SET caller = CAST(replace(CAST(caller AS TEXT), 'octo-app', 'evil-app') AS BLOB)`,
		"a longer life":    `UPDATE sessions SET expires_at = expires_at + 3600000000`,
		"no seal":          `UPDATE sessions SET caller = substr(caller, 33)`,
		"nothing":          `UPDATE sessions SET caller = x''`,
		"another's record": `UPDATE sessions SET caller = o.caller FROM (SELECT id, caller FROM sessions) AS o WHERE o.id != sessions.id`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "https://assay.test")
			first := w.start(t)
			mine := first.session(t, w.issuer.Mint(w.instance))
			_ = first.session(t, w.issuer.Mint(w.instance, runClaims(1)))
			first.stop()
			res, err := database(t, w.data).ExecContext(t.Context(), statement)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := res.RowsAffected(); n != 2 {
				t.Fatalf("%d rows were altered", n)
			}
			second := w.start(t)
			_, err = assayv1.NewIdentityServiceClient(second.conn).WhoAmI(mine, &assayv1.WhoAmIRequest{})
			wantReason(t, err, codes.Unauthenticated, "SESSION_INVALID")
		})
	}
}
