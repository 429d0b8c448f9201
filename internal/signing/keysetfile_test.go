package signing

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing/mldsakey"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestVersion1 reads a keyset of the first version, with keys of every state it had,
// and holds what would be written against a golden file.
func TestVersion1(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "keyset-v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := parseKeyset(text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.marshal()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "keyset-v2.golden.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again, err := parseKeyset(got); err != nil || again.Version != 2 {
		t.Errorf("what is written does not read: %v", err)
	}
}

// downgrade rewrites keyset.json as the first version wrote it.
func downgrade(t *testing.T, dir string) {
	t.Helper()
	editing(func(v map[string]any) {
		v["version"] = 1
		for _, k := range v["keys"].([]any) {
			k := k.(map[string]any)
			if ref, ok := k["ref"].(string); ok {
				k["file"] = strings.TrimPrefix(ref, fileScheme)
			}
			delete(k, "ref")
			delete(k, "shard")
		}
	})(t, dir)
}

// TestUpgrade opens a keyset of the first version, which writes nothing, and changes it,
// which makes it version 2.
func TestUpgrade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	cfg := Config{Host: "assay.example.com", Now: clock(testTime), Create: true}
	first, err := OpenKeyset(t.Context(), dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	downgrade(t, dir)
	before := listing(t, dir)
	ks, err := OpenKeyset(t.Context(), dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if trustedRootText(t, ks) != trustedRootText(t, first) || ks.LogShards()[0].Name != "log" {
		t.Error("version 1 reads otherwise")
	}
	if listing(t, dir) != before {
		t.Error("opening wrote something")
	}
	cfg.Now = clock(testTime.Add(time.Hour))
	plan, err := Plan(t.Context(), dir, cfg, RotateKey{Role: RoleTimestamp})
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := readKeyset(dir)
	if err != nil || f.Version != 2 || !bytes.Contains(f.text, []byte(`"version": 2`)) {
		t.Errorf("version %d, %v", f.Version, err)
	}
	for name, damage := range map[string]damage{
		"verify-only with file": editingKey(0, func(k map[string]any) { k["state"], k["not_after"] = "verify-only", k["not_before"] }),
		"next":                  setting(0, "state", "next"),
		"ca":                    setting(0, "role", "ca"),
		"file elsewhere":        setting(0, "file", "../attestation.pem"),
		"member of version 2":   setting(0, "ref", "file:attestation.pem"),
	} {
		dir := filepath.Join(t.TempDir(), "keys")
		if _, err := OpenKeyset(t.Context(), dir, cfg); err != nil {
			t.Fatal(err)
		}
		downgrade(t, dir)
		damage(t, dir)
		if _, err := OpenKeyset(t.Context(), dir, cfg); refusal.CodeOf(err) != CodeKeysetInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// extraKey is a record, as JSON has it, of a role and with the public key given.
func extraKey(t *testing.T, role Role, spki []byte, more map[string]any) map[string]any {
	t.Helper()
	r := keyRecord{Role: role, KeyID: keyIDOf(spki), PublicKey: spki, State: StateActive, Ref: "awskms:///arn:aws:kms:eu-west-1:111122223333:key/1", NotBefore: wholeSecond(testTime)}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for _, zero := range []string{"tier", "alias", "not_after", "revoked", "certificate_chain", "shard"} {
		delete(m, zero)
	}
	for k, v := range more {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	return m
}

// TestRecords adds one record to a good keyset.
func TestRecords(t *testing.T) {
	spki := func(pub any, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ec := func(c elliptic.Curve) []byte {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		return spki(k.Public(), err)
	}
	pq := func(p mldsa.Parameters) []byte {
		k, err := mldsa.GenerateKey(p)
		if err != nil {
			t.Fatal(err)
		}
		der, err := mldsakey.SPKI(k.PublicKey())
		if err != nil {
			return k.PublicKey().Bytes()
		}
		return der
	}
	p256, p384, mldsa65 := ec(elliptic.P256()), ec(elliptic.P384()), pq(mldsa.MLDSA65())
	at := wholeSecond(testTime).Format(time.RFC3339)
	later := wholeSecond(testTime).Add(time.Hour).Format(time.RFC3339)
	revoked := func(since, reason string) map[string]any { return map[string]any{"since": since, "reason": reason} }
	type m = map[string]any
	for name, c := range map[string]struct {
		role Role
		spki []byte
		more m
		ok   bool
	}{
		"tier":                       {RoleAttestation, p384, m{"tier": "build"}, true},
		"next":                       {RoleAttestation, p256, m{"state": "next"}, true},
		"alias":                      {RoleAttestation, p256, m{"state": "next", "alias": "awskms:///alias/x"}, true},
		"co-signature":               {RoleCoSignature, mldsa65, m{}, true},
		"retired":                    {RoleAttestation, p256, m{"state": "verify-only", "not_after": later, "ref": nil}, true},
		"retired, its place known":   {RoleAttestation, p256, m{"state": "verify-only", "not_after": later}, true},
		"revoked":                    {RoleAttestation, p256, m{"state": "revoked", "not_after": at, "revoked": revoked(later, "superseded")}, true},
		"revoked before it began":    {RoleLog, p256, m{"state": "revoked", "not_before": later, "not_after": later, "revoked": revoked(at, "keyCompromise")}, true},
		"retired shard":              {RoleLog, p256, m{"state": "verify-only", "not_after": later}, true},
		"a second active":            {RoleAttestation, p256, nil, false},
		"tier unknown":               {RoleAttestation, p256, m{"tier": "other"}, false},
		"tier of the log":            {RoleLog, p256, m{"tier": "build", "state": "next"}, false},
		"log on P-384":               {RoleLog, p384, m{"state": "next"}, false},
		"timestamps on P-384":        {RoleTimestamp, p384, m{"state": "next"}, false},
		"P-521":                      {RoleAttestation, ec(elliptic.P521()), m{"state": "next"}, false},
		"P-384 in a file":            {RoleAttestation, p384, m{"state": "next", "ref": "file:x.pem"}, false},
		"attestation by ML-DSA":      {RoleAttestation, mldsa65, m{"state": "next"}, false},
		"co-signature by P-256":      {RoleCoSignature, p256, nil, false},
		"co-signature by ML-DSA-44":  {RoleCoSignature, pq(mldsa.MLDSA44()), nil, false},
		"next with end":              {RoleAttestation, p256, m{"state": "next", "not_after": later}, false},
		"next without ref":           {RoleAttestation, p256, m{"state": "next", "ref": nil}, false},
		"ca without root":            {RoleCA, p256, nil, false},
		"ca with a timestamp chain":  {RoleCA, p256, m{"certificate_chain": []string{"AAAA"}}, false},
		"ref of an alias":            {RoleAttestation, p256, m{"state": "next", "ref": "awskms:///alias/x"}, false},
		"ref with a space":           {RoleAttestation, p256, m{"state": "next", "ref": "awskms:///arn:aws:kms:x y"}, false},
		"ref too long":               {RoleAttestation, p256, m{"state": "next", "ref": "awskms:///arn:" + strings.Repeat("a", 600)}, false},
		"ref of another's file":      {RoleAttestation, p256, m{"state": "next", "ref": "file:attestation.pem"}, false},
		"ref of the keyset":          {RoleAttestation, p256, m{"state": "next", "ref": "file:keyset.json"}, false},
		"ref of the lock":            {RoleAttestation, p256, m{"state": "next", "ref": "file:.lock"}, false},
		"ref of the intermediates":   {RoleAttestation, p256, m{"state": "next", "ref": "file:intermediates"}, false},
		"ref to anywhere":            {RoleAttestation, p256, m{"state": "next", "ref": "https://example.com"}, false},
		"alias of a file":            {RoleAttestation, p256, m{"state": "next", "ref": "file:x.pem", "alias": "awskms:///alias/x"}, false},
		"alias of a key":             {RoleAttestation, p256, m{"state": "next", "alias": "awskms:///x"}, false},
		"alias without ref":          {RoleAttestation, p256, m{"state": "verify-only", "not_after": later, "ref": nil, "alias": "awskms:///alias/x"}, false},
		"revoked without saying why": {RoleAttestation, p256, m{"state": "revoked", "not_after": at}, false},
		"revoked for no reason":      {RoleAttestation, p256, m{"state": "revoked", "not_after": at, "revoked": revoked(at, "")}, false},
		"revoked for another reason": {RoleAttestation, p256, m{"state": "revoked", "not_after": at, "revoked": revoked(at, "removeFromCRL")}, false},
		"revoked within a second":    {RoleAttestation, p256, m{"state": "revoked", "not_after": at, "revoked": revoked("2031-04-05T06:07:08.5Z", "superseded")}, false},
		"revoked and going on":       {RoleAttestation, p256, m{"state": "revoked", "not_after": later, "revoked": revoked(at, "superseded")}, false},
		"active and revoked":         {RoleAttestation, p256, m{"tier": "build", "revoked": revoked(at, "superseded")}, false},
		"shard of an attestation":    {RoleAttestation, p256, m{"state": "next", "shard": "log-2"}, false},
		"shard of what is next":      {RoleLog, p256, m{"state": "next", "shard": "log-2"}, false},
		"shard newer than the log":   {RoleLog, p256, m{"state": "verify-only", "not_after": later, "shard": "log-2"}, false},
		"shard of another log":       {RoleLog, p256, m{"state": "verify-only", "not_after": later, "shard": "log"}, false},
		"shard elsewhere":            {RoleLog, p256, m{"state": "verify-only", "not_after": later, "shard": "../log"}, false},
		"shard spelled otherwise":    {RoleLog, p256, m{"state": "verify-only", "not_after": later, "shard": "log-1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			cfg := Config{Host: "assay.example.com", Now: clock(testTime), Create: true}
			if _, err := OpenKeyset(t.Context(), dir, cfg); err != nil {
				t.Fatal(err)
			}
			editing(func(v map[string]any) { v["keys"] = append(v["keys"].([]any), extraKey(t, c.role, c.spki, c.more)) })(t, dir)
			_, _, err := Describe(dir)
			if (err == nil) != c.ok || !c.ok && refusal.CodeOf(err) != CodeKeysetInvalid {
				t.Errorf("got %v, want ok %t", err, c.ok)
			}
		})
	}
}
