package tufrepo

import (
	"bytes"
	"crypto"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// TestRootCeremony gets from one owner to two of three, who each sign elsewhere.
func TestRootCeremony(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	a, b, c := newKey(t), newKey(t), newKey(t)
	draft, err := DraftRoot(t.Context(), w.dir, RootChange{Keys: []crypto.PublicKey{a.Public(), b.Public(), c.Public()}, Threshold: 2, Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := RootSummary(draft); err != nil || sum.Version != 2 || sum.Threshold != 2 || len(sum.KeyIDs) != 3 {
		t.Fatalf("%+v, %v", sum, err)
	}
	// In the order of the ceremony; only the last signature makes it enough.
	for i, s := range []Signer{nil, a, a, w.root[0], newKey(t), c} {
		if s != nil {
			if draft, err = AddRootSignature(t.Context(), draft, s); err != nil {
				t.Fatal(err)
			}
		}
		err := InstallRoot(t.Context(), w.config(), draft)
		if i < 5 && refusal.CodeOf(err) != CodeThreshold || i == 5 && err != nil {
			t.Fatalf("after %d signatures: %v", i, err)
		}
	}
	if err := InstallRoot(t.Context(), w.config(), draft); refusal.CodeOf(err) != CodeRootInvalid {
		t.Errorf("twice: %v", err)
	}
	// The service serves the old root until it looks, and then all of the new.
	if get(t, w.repo.Handler(), http.MethodGet, "/tuf/2.root.json").Code != http.StatusNotFound {
		t.Error("the root is there before what belongs to it")
	}
	if err := w.repo.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := follow(w.repo.Handler(), w.first, t.TempDir(), w.clock.Now()); err != nil || !sameFiles(got, filesOf("one")) {
		t.Errorf("%q, %v", got, err)
	}
	// The first owner has no say any more.
	if err := RotateRoot(t.Context(), w.config(), RootChange{Now: w.clock.Now}, w.root...); refusal.CodeOf(err) != CodeThreshold {
		t.Errorf("by the first owner: %v", err)
	}
	if err := RotateRoot(t.Context(), w.config(), RootChange{Now: w.clock.Now}, b, c); err != nil {
		t.Error(err)
	}
}

func TestInstallRootRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	draft, err := DraftRoot(t.Context(), w.dir, RootChange{Now: w.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(fn func(*metadata.RootType)) []byte {
		m, err := metadata.Root().FromBytes(draft)
		if err != nil {
			t.Fatal(err)
		}
		fn(&m.Signed)
		if err := sign(t.Context(), m, w.root...); err != nil {
			t.Fatal(err)
		}
		data, err := m.ToBytes(false)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	p384 := `{"signed":` + strings.ReplaceAll(string(draft), "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384") + `}`
	for name, c := range map[string]struct {
		root []byte
		code refusal.Code
	}{
		"a gap":     {edit(func(r *metadata.RootType) { r.Version++ }), CodeRootInvalid},
		"the same":  {edit(func(r *metadata.RootType) { r.Version-- }), CodeRootInvalid},
		"expired":   {edit(func(r *metadata.RootType) { r.Expires = w.clock.Now().Add(-time.Second) }), CodeRootInvalid},
		"unsigned":  {draft, CodeThreshold},
		"no json":   {[]byte("root"), CodeRootInvalid},
		"null":      {[]byte(`{"signed":null}`), CodeRootInvalid},
		"P-384":     {[]byte(p384), CodeRootInvalid},
		"too large": {bytes.Repeat([]byte(" "), maxMetadata+1), CodeRootInvalid},
		"null key":  {edit(func(r *metadata.RootType) { r.Keys["x"] = nil }), CodeRootInvalid},
		"null role": {edit(func(r *metadata.RootType) { r.Roles["snapshot"] = nil }), CodeRootInvalid},
		"no role":   {edit(func(r *metadata.RootType) { delete(r.Roles, "snapshot") }), CodeRootInvalid},
		"lax":       {edit(func(r *metadata.RootType) { r.ConsistentSnapshot = false }), CodeRootInvalid},
		"threshold": {edit(func(r *metadata.RootType) { r.Roles["root"].Threshold = 2 }), CodeThreshold},
		"negative":  {edit(func(r *metadata.RootType) { r.Roles["targets"].Threshold = -1 }), CodeThreshold},
		"one key under two ids": {edit(func(r *metadata.RootType) {
			key := *r.Keys[r.Roles["root"].KeyIDs[0]]
			key.Type = metadata.KeyTypeECDSA_SHA2_P256_COMPAT
			r.Keys["second"] = &key
			r.Roles["root"].KeyIDs = append(r.Roles["root"].KeyIDs, "second")
			r.Roles["root"].Threshold = 2
		}), CodeRootInvalid},
		"a key that is not there": {edit(func(r *metadata.RootType) { r.Roles["root"].KeyIDs = append(r.Roles["root"].KeyIDs, "x") }), CodeRootInvalid},
		"a foreign snapshot key": {edit(func(r *metadata.RootType) {
			key, id, err := keyOf(newKey(t).Public())
			if err != nil {
				t.Fatal(err)
			}
			r.Keys[id], r.Roles["snapshot"].KeyIDs = key, []string{id}
		}), CodeOnlineKeyMissing},
		"a foreign targets key": {edit(func(r *metadata.RootType) {
			key, id, err := keyOf(newKey(t).Public())
			if err != nil {
				t.Fatal(err)
			}
			r.Keys[id], r.Roles["targets"].KeyIDs = key, []string{id}
		}), CodeKeyMismatch},
	} {
		if err := InstallRoot(t.Context(), w.config(), c.root); refusal.CodeOf(err) != c.code {
			t.Errorf("%s: %v; want %s", name, err, c.code)
		}
		if err := w.repo.Refresh(t.Context()); err != nil || w.repo.Status().Roles[0].Version != 1 {
			t.Fatalf("%s: the repository changed: %v", name, err)
		}
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	if _, err := w.repo.Publish(t.Context(), filesOf("two")); err != nil {
		t.Fatal(err)
	}
	h := w.repo.Handler()
	target := "/tuf/" + targetPath("keys.json", targetFiles(filesOf("two"))["keys.json"])
	const final = "public, max-age=31536000, immutable"
	for path, cache := range map[string]string{
		"/tuf/timestamp.json": "no-cache", "/tuf/1.root.json": final, "/tuf/2.snapshot.json": final, "/tuf/1.snapshot.json": final,
		"/tuf/2.targets.json": final, target: final,
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			got := get(t, h, method, path)
			if got.Code != http.StatusOK || got.Header().Get("Cache-Control") != cache || (got.Body.Len() > 0) != (method == http.MethodGet) {
				t.Errorf("%s %s: %d %v, %d bytes", method, path, got.Code, got.Header(), got.Body.Len())
			}
		}
	}
	// What a crash left over, and what is there but no metadata.
	write(t, w.dir+"/9.snapshot.json", []byte("{}"))
	write(t, w.dir+"/timestamp.next.json", []byte("{}"))
	for _, path := range []string{
		"", "/", "/tuf", "/tuf/", "/tuf/keys", "/tuf/keys/", "/tuf/keys/snapshot-1.pem", "/tuf/targets", "/tuf/targets/", "/tuf/.lock",
		"/tuf/../tuf/timestamp.json", "/tuf/targets/../timestamp.json", "/tuf/targets/../keys/snapshot-1.pem", "/tuf/./timestamp.json",
		"/tuf/timestamp.next.json", "/tuf/root.json", "/tuf/01.root.json", "/tuf/+1.root.json", "/tuf/2.root.json", "/tuf/9.snapshot.json",
		"/tuf/0.root.json", "/tuf/-1.root.json", "/tuf/99999999999999999999.root.json", "/tuf/1.timestamp.json", "/tuf/1.root.json/",
		"/tuf/1.root.json\x00", strings.ToUpper(target), target + "/", strings.Replace(target, "/targets/", "/targets//", 1),
		"/tuf/targets/" + strings.Repeat("a", 64) + "..", "/tuf/targets/" + strings.Repeat("a", 64) + "./../../x", "/timestamp.json",
	} {
		if got := get(t, h, http.MethodGet, path); got.Code != http.StatusNotFound || got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%q: %d", path, got.Code)
		}
	}
	if got := get(t, h, http.MethodPost, "/tuf/timestamp.json"); got.Code != http.StatusMethodNotAllowed || got.Header().Get("Allow") == "" {
		t.Errorf("POST: %d", got.Code)
	}
}

func FuzzHandlerPath(f *testing.F) {
	w := newWorld(f, f.TempDir())
	h := w.repo.Handler()
	for _, s := range []string{"timestamp.json", "1.root.json", "targets/x", "../keys/snapshot-1.pem", "keys/timestamp-1.pem"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.URL.Path = "/tuf/" + name
		h.ServeHTTP(rec, req)
		if rec.Code == http.StatusOK && bytes.Contains(rec.Body.Bytes(), []byte("PRIVATE KEY")) {
			t.Errorf("%q serves a private key", name)
		}
	})
}

func FuzzParseRoot(f *testing.F) {
	w := newWorld(f, f.TempDir())
	f.Add(w.first)
	f.Add([]byte(`{"signed":{"_type":"root","keys":{"a":null},"roles":{"root":null}},"signatures":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseRoot(data)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Errorf("no code: %v", err)
			}
			return
		}
		_ = m.VerifyDelegate(metadata.ROOT, m) // must not panic
		out, err := m.ToBytes(true)
		if err != nil || !json.Valid(out) {
			t.Errorf("%v", err)
		}
	})
}
