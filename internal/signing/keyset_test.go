package signing

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/refusal"
)

func TestKeysetStaysTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "keys")
	open := func(cfg Config) *Keyset {
		t.Helper()
		ks, err := OpenKeyset(t.Context(), dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return ks
	}
	first := open(Config{Host: "assay.example.com", Now: clock(testTime), Create: true})
	later := clock(testTime.AddDate(1, 0, 0))
	for _, again := range []*Keyset{
		open(Config{Host: "assay.example.com", Now: later, Create: true}),
		open(Config{Host: "assay.example.com", Now: later}),
		open(Config{Now: later}),
	} {
		for _, pair := range [][2]KeyEntry{{first.Attestation[0], again.Attestation[0]}, {first.Log[0], again.Log[0]}, {first.Timestamp[0], again.Timestamp[0]}} {
			a, b := pair[0], pair[1]
			if a.KeyID != b.KeyID || a.State != StateActive || b.State != StateActive || !a.NotBefore.Equal(testTime.Truncate(time.Second)) || !b.NotBefore.Equal(a.NotBefore) || !b.NotAfter.IsZero() {
				t.Errorf("keys changed: %+v, then %+v", a, b)
			}
		}
		if a, b := trustedRootText(t, first), trustedRootText(t, again); a != b {
			t.Errorf("trusted root changed:\n%s%s", a, b)
		}
		if again.AttestationKeysPEM() != first.AttestationKeysPEM() || again.Host != "assay.example.com" {
			t.Error("published keys changed")
		}
	}
	if first.AttestationSigner().KeyID() != first.Attestation[0].KeyID || first.LogSigner().KeyID() != first.Log[0].KeyID {
		t.Error("the signers are not the active keys")
	}
	assertNames(t, filepath.Dir(dir), "keys")
	assertNames(t, dir, "attestation.pem", "keyset.json", "log.pem", "tsa.pem")
	for _, name := range []string{"", "attestation.pem", "keyset.json", "log.pem", "tsa.pem"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func trustedRootText(tb testing.TB, ks *Keyset) string {
	tb.Helper()
	text, err := ks.TrustedRoot()
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func assertNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s holds %v, want %v", dir, got, want)
	}
}

// damage is one way to spoil the keyset in dir.
type damage func(t *testing.T, dir string)

// editing rewrites keyset.json.
func editing(f func(keyset map[string]any)) damage {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, keysetName)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		f(v)
		if text, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// editingKey rewrites the i-th key of keyset.json: attestation, log, timestamp.
func editingKey(i int, f func(k map[string]any)) damage {
	return editing(func(v map[string]any) { f(v["keys"].([]any)[i].(map[string]any)) })
}

func setting(i int, name string, value any) damage {
	return editingKey(i, func(k map[string]any) { k[name] = value })
}

// onDisk spoils the files themselves.
func onDisk(f func(dir string) error) damage {
	return func(t *testing.T, dir string) {
		if err := f(dir); err != nil {
			t.Fatal(err)
		}
	}
}

type damageCase struct {
	name   string
	damage damage
	want   refusal.Code
}

func damagedFiles() []damageCase {
	return []damageCase{
		{"attestation key lost", onDisk(func(d string) error { return os.Remove(filepath.Join(d, "attestation.pem")) }), CodeKeyMissing},
		{"log key lost", onDisk(func(d string) error { return os.Remove(filepath.Join(d, "log.pem")) }), CodeKeyMissing},
		{"timestamp key lost", onDisk(func(d string) error { return os.Remove(filepath.Join(d, "tsa.pem")) }), CodeKeyMissing},
		{"keyset.json lost", onDisk(func(d string) error { return os.Remove(filepath.Join(d, keysetName)) }), CodeKeyMissing},
		{"key readable by others", onDisk(func(d string) error { return os.Chmod(filepath.Join(d, "log.pem"), 0o644) }), CodeKeyFileMode},
		{"keys exchanged", onDisk(func(d string) error {
			return os.Rename(filepath.Join(d, "log.pem"), filepath.Join(d, "attestation.pem"))
		}), CodeKeyMismatch},
		{"key emptied", onDisk(func(d string) error { return os.Truncate(filepath.Join(d, "log.pem"), 0) }), CodeKeyFileInvalid},
		{"keyset.json emptied", onDisk(func(d string) error { return os.Truncate(filepath.Join(d, keysetName), 0) }), CodeKeysetInvalid},
		{"keyset.json huge", onDisk(func(d string) error { return os.Truncate(filepath.Join(d, keysetName), maxKeysetFile+1) }), CodeKeysetInvalid},
	}
}

func damagedKeysets() []damageCase {
	return []damageCase{
		{"newer version", editing(func(v map[string]any) { v["version"] = 3 }), CodeKeysetInvalid},
		{"unknown member", editing(func(v map[string]any) { v["rotate"] = true }), CodeKeysetInvalid},
		{"host changed", editing(func(v map[string]any) { v["host"] = "other.example.com" }), CodeKeysetHostMismatch},
		{"host malformed", editing(func(v map[string]any) { v["host"] = "assay.example.com:443" }), CodeHostInvalid},
		{"no keys", editing(func(v map[string]any) { v["keys"] = []any{} }), CodeKeysetInvalid},
		{"key twice", editing(func(v map[string]any) { v["keys"] = append(v["keys"].([]any), v["keys"].([]any)[0]) }), CodeKeysetInvalid},
		{"role missing", editing(func(v map[string]any) { v["keys"] = v["keys"].([]any)[1:] }), CodeKeysetInvalid},
		{"role unknown", setting(0, "role", "everything"), CodeKeysetInvalid},
		{"two roles exchanged", setting(1, "role", "attestation"), CodeKeysetInvalid},
		{"state unknown", setting(0, "state", "Active"), CodeKeysetInvalid},
		{"no active key", editingKey(0, func(k map[string]any) {
			k["state"], k["not_after"] = "verify-only", k["not_before"]
			delete(k, "ref")
		}), CodeKeysetInvalid},
		{"verify-only without end", editingKey(0, func(k map[string]any) { k["state"] = "verify-only"; delete(k, "ref") }), CodeKeysetInvalid},
		{"active without ref", editingKey(0, func(k map[string]any) { delete(k, "ref") }), CodeKeysetInvalid},
		{"active with end", editingKey(0, func(k map[string]any) { k["not_after"] = k["not_before"] }), CodeKeysetInvalid},
		{"no start", editingKey(0, func(k map[string]any) { delete(k, "not_before") }), CodeKeysetInvalid},
		{"start with fraction", setting(0, "not_before", "2031-04-05T06:07:08.9Z"), CodeKeysetInvalid},
		{"file elsewhere", setting(0, "ref", "file:../attestation.pem"), CodeKeysetInvalid},
		{"file is the directory", setting(0, "ref", "file:.."), CodeKeysetInvalid},
		{"key id of another", setting(0, "key_id", strings.Repeat("0", 64)), CodeKeysetInvalid},
		{"public key malformed", setting(0, "public_key", "AAAA"), CodeKeysetInvalid},
		{"no chain", editingKey(2, func(k map[string]any) { delete(k, "certificate_chain") }), CodeKeysetInvalid},
		{"chain without root", editingKey(2, func(k map[string]any) { k["certificate_chain"] = k["certificate_chain"].([]any)[:1] }), CodeKeysetInvalid},
		{"chain malformed", setting(2, "certificate_chain", []string{"AAAA", "AAAA"}), CodeKeysetInvalid},
		{"chain for the log key", setting(1, "certificate_chain", []string{"AAAA"}), CodeKeysetInvalid},
		{"chain begins later than the key", setting(2, "not_before", "2031-04-05T06:07:07Z"), CodeKeysetInvalid},
	}
}

// Whatever is damaged, the keyset does not open, and nothing is made anew.
func TestKeysetDamageRefused(t *testing.T) {
	for _, c := range append(damagedFiles(), damagedKeysets()...) {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			cfg := Config{Host: "assay.example.com", Now: clock(testTime), Create: true}
			if _, err := OpenKeyset(t.Context(), dir, cfg); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			before := listing(t, dir)
			if _, err := OpenKeyset(t.Context(), dir, cfg); refusal.CodeOf(err) != c.want {
				t.Errorf("got %v, want code %q", err, c.want)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("files changed:\n%s\n%s", before, after)
			}
		})
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, e.Name(), info.Mode(), info.Size(), info.ModTime())
	}
	return b.String()
}

func TestKeysetFirstStart(t *testing.T) {
	cfg := Config{Host: "assay.example.com", Now: clock(testTime), Create: true}
	for _, c := range []struct {
		name    string
		prepare func(parent string) error
		cfg     Config
		want    refusal.Code
	}{
		{"nothing there", func(string) error { return nil }, cfg, ""},
		{"empty directory", func(p string) error { return os.Mkdir(filepath.Join(p, "keys"), 0o755) }, cfg, ""},
		// What a crash before the rename leaves: keys that never signed anything.
		{"interrupted before", func(p string) error {
			if err := os.Mkdir(filepath.Join(p, ".keys.new-1"), 0o700); err != nil {
				return err
			}
			_, err := OpenFile(filepath.Join(p, ".keys.new-1", "log.pem"), true)
			return err
		}, cfg, ""},
		{"a key but no keyset", func(p string) error {
			if err := os.Mkdir(filepath.Join(p, "keys"), 0o700); err != nil {
				return err
			}
			_, err := OpenFile(filepath.Join(p, "keys", "log.pem"), true)
			return err
		}, cfg, CodeKeyMissing},
		{"not asked to create", func(string) error { return nil }, Config{Host: cfg.Host, Now: cfg.Now}, CodeKeyMissing},
		{"no host", func(string) error { return nil }, Config{Now: cfg.Now, Create: true}, CodeHostInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			if err := c.prepare(parent); err != nil {
				t.Fatal(err)
			}
			_, err := OpenKeyset(t.Context(), filepath.Join(parent, "keys"), c.cfg)
			if refusal.CodeOf(err) != c.want || (err == nil) != (c.want == "") {
				t.Errorf("got %v, want code %q", err, c.want)
			}
			if c.want == "" {
				assertNames(t, parent, "keys")
			}
		})
	}
	if _, err := OpenKeyset(t.Context(), t.TempDir(), Config{Host: cfg.Host}); err == nil {
		t.Error("opened without a clock")
	}
}

func TestCheckHost(t *testing.T) {
	for host, ok := range map[string]bool{
		"assay.example.com": true, "localhost": true, "127.0.0.1": true, "a-b.c": true, strings.Repeat("a", 63) + ".b": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "Assay.example.com": false, "assay.example.com:443": false,
		"https://assay": false, "assay/log": false, "-a.b": false, "a-.b": false, "::1": true, "[::1]": false, "0:0::1": false, "fe80::1%eth0": false, "a b": false, "a_b": false,
		"ä.example": false, strings.Repeat("a", 64): false, strings.Repeat("a.", 127): false,
	} {
		err := CheckHost(host)
		if (err == nil) != ok || !ok && refusal.CodeOf(err) != CodeHostInvalid {
			t.Errorf("CheckHost(%q) = %v", host, err)
		}
	}
}

// A keyset with keys from the past: what is published about each state.
func TestRetiredKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	cfg := Config{Host: "assay.example.com", Now: clock(testTime), Create: true}
	if _, err := OpenKeyset(t.Context(), dir, cfg); err != nil {
		t.Fatal(err)
	}
	file, err := readKeyset(dir)
	if err != nil {
		t.Fatal(err)
	}
	retired := map[State][]KeyEntry{}
	for i, state := range []State{StateVerifyOnly, StateRevoked} {
		old := newKeyset(t, clock(testTime.AddDate(-1-i, 0, 0)))
		for _, e := range []KeyEntry{old.Attestation[0], old.Log[0], old.Timestamp[0]} {
			r := keyRecord{Role: e.Role, KeyID: e.KeyID, PublicKey: e.spki, State: state, NotBefore: e.NotBefore, NotAfter: e.NotBefore.AddDate(0, 6, 0)}
			if state == StateRevoked {
				r.Revoked = &Revocation{Since: r.NotAfter, Reason: ReasonKeyCompromise}
			}
			for _, cert := range e.Chain {
				r.Chain = append(r.Chain, cert.Raw)
			}
			file.Keys = append([]keyRecord{r}, file.Keys...)
			retired[state] = append(retired[state], e)
		}
	}
	text, err := file.marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, keysetName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	ks, err := OpenKeyset(t.Context(), dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]KeyEntry{ks.Attestation, ks.Log, ks.Timestamp} {
		if len(list) != 3 || list[0].State != StateActive || list[1].State != StateVerifyOnly || list[2].State != StateRevoked {
			t.Errorf("order of keys: %+v", list)
		}
	}
	if n := strings.Count(ks.AttestationKeysPEM(), "BEGIN PUBLIC KEY"); n != 2 {
		t.Errorf("%d attestation keys are published, want 2", n)
	}
	tr := trustedRoot(t, ks)
	if n := len(tr.TimestampingAuthorities()); n != 2 {
		t.Errorf("%d timestamp authorities are published, want 2", n)
	}
	logs := tr.RekorLogs()
	old := logs[retired[StateVerifyOnly][1].KeyID]
	if len(logs) != 2 || old == nil || !old.ValidityPeriodEnd.Equal(old.ValidityPeriodStart.AddDate(0, 6, 0)) {
		t.Errorf("logs: %+v", logs)
	}
	if active := logs[ks.Log[0].KeyID]; active == nil || !active.ValidityPeriodEnd.IsZero() || active.BaseURL != "https://assay.example.com" {
		t.Errorf("active log: %+v", active)
	}
	if _, found := logs[retired[StateRevoked][1].KeyID]; found {
		t.Error("a revoked log key is published")
	}
}

func TestTrustedRootForm(t *testing.T) {
	ks := newKeyset(t, clock(testTime))
	text := trustedRootText(t, ks)
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "}\n") || strings.ContainsAny(text, " \t\r") && !strings.Contains(text, "Timestamp root of") {
		t.Errorf("not one line:\n%s", text)
	}
	for _, want := range []string{`"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"`,
		`"baseUrl":"https://assay.example.com"`, `"keyDetails":"PKIX_ECDSA_P256_SHA_256"`, `"validFor":{"start":"2031-04-05T06:07:08Z"}`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func TestTrustedRootOfIPv6Host(t *testing.T) {
	ks, err := OpenKeyset(t.Context(), filepath.Join(t.TempDir(), "keys"), Config{Host: "::1", Now: clock(testTime), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	log := trustedRoot(t, ks).RekorLogs()[ks.Log[0].KeyID]
	if u, err := url.Parse(log.BaseURL); err != nil || u.Hostname() != "::1" {
		t.Errorf("base URL %q, %v", log.BaseURL, err)
	}
}

// Whatever way a key is printed, its scalar does not come out.
func TestKeysStaySecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	ks, err := OpenKeyset(t.Context(), dir, Config{Host: "assay.example.com", Now: clock(testTime), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	key := ks.AttestationSigner().(*FileKey)
	scalar, err := key.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	text := slog.New(slog.NewTextHandler(&out, nil))
	for _, v := range []any{key, *key, &key, ks, *ks, []*FileKey{key}, map[string]Signer{"k": key}, struct{ S Signer }{key},
		struct{ k FileKey }{*key}, ks.TSA(), *ks.TSA(), ks.Attestation} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		logger.Info("key", "value", v)
		text.Info("key", "value", v)
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
	}
	// Errors about a damaged key file do not quote it.
	path := filepath.Join(dir, "attestation.pem")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{good[:len(good)-40], append([]byte("x"), good...), bytes.Replace(good, []byte("M"), []byte("N"), 1)} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeyset(t.Context(), dir, Config{Now: clock(testTime)})
		if err == nil {
			t.Error("opened a damaged key")
		}
		fmt.Fprintf(&out, "%v %+v %#v\n", err, err, err)
	}
	printed := strings.ToLower(out.String())
	for _, secret := range []string{hex.EncodeToString(scalar), new(big.Int).SetBytes(scalar).String(), strings.Trim(fmt.Sprintf("%d", scalar), "[]"),
		strings.ToLower(strings.Split(string(good), "\n")[1])} {
		if strings.Contains(printed, secret) {
			t.Errorf("%q was printed", secret)
		}
	}
	if !strings.Contains(printed, key.id) {
		t.Error("the key is not named by its id anywhere: the test prints nothing")
	}
}

// FuzzParseKeyset: what parses, writes itself back to something that parses to the same.
func FuzzParseKeyset(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "keys")
	if _, err := OpenKeyset(f.Context(), dir, Config{Host: "assay.example.com", Now: clock(testTime), Create: true}); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(filepath.Join(dir, keysetName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":1,"host":"a","keys":[]}`))
	for _, name := range []string{"keyset-v1.json", "keyset-v2.golden.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(bytes.ReplaceAll(text, []byte(`"verify-only"`), []byte(`"revoked"`)))
		f.Add(bytes.ReplaceAll(text, []byte(`"file:attestation-2.pem"`), []byte(`"awskms:///arn:aws:kms:eu-west-1:111122223333:key/1","tier":"build","alias":"awskms:///alias/a"`)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := parseKeyset(text)
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("refused without a code: %v", err)
			}
			return
		}
		once, err := first.marshal()
		if err != nil {
			t.Fatal(err)
		}
		second, err := parseKeyset(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := second.marshal(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s\n%v", once, twice, err)
		}
	})
}
