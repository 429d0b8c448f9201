package tlog_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
	f_log "github.com/transparency-dev/formats/log"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/vectors"
	"github.com/assay-build/assay/internal/tlog"
)

// localSigner is a log key in memory.
type localSigner struct{ key *ecdsa.PrivateKey }

func newSigner(tb testing.TB) localSigner {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return localSigner{key}
}

func (s localSigner) Public() crypto.PublicKey { return s.key.Public() }
func (s localSigner) Sign(_ context.Context, digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, s.key, digest)
}

func signed(tb testing.TB, format tlog.EntryFormat) (string, *tlog.Key) {
	tb.Helper()
	s := newSigner(tb)
	key, err := tlog.NewKey("log.example.com", s.Public())
	if err != nil {
		tb.Fatal(err)
	}
	root := tlog.LeafHash([]byte("root"))
	cp, err := tlog.SignCheckpoint(tb.Context(), key.Origin(format), key.Host, 4711, root[:], s)
	if err != nil {
		tb.Fatal(err)
	}
	return cp, key
}

func TestSignedCheckpointParsesAndVerifies(t *testing.T) {
	for _, format := range []tlog.EntryFormat{tlog.RekorV1, tlog.RekorV2} {
		t.Run(string(format), func(t *testing.T) {
			text, key := signed(t, format)
			cp, err := tlog.ParseCheckpoint(text)
			if err != nil {
				t.Fatal(err)
			}
			if cp.Origin != key.Origin(format) || cp.Size != 4711 || len(cp.RootHash) != 32 || len(cp.Extension) != 0 {
				t.Fatalf("parsed %+v", cp)
			}
			if cp.String() != text {
				t.Fatalf("printed %q, want %q", cp.String(), text)
			}
			if err := tlog.VerifyCheckpoint(cp, key.Host, key.Public, key.Hint); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The rekor-v2 checkpoint must satisfy the verifier that sigstore-go uses.
func TestRekorV2CheckpointSatisfiesRekorTiles(t *testing.T) {
	text, key := signed(t, tlog.RekorV2)
	sv, err := signature.LoadVerifier(key.Public, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	nv, err := rekornote.NewNoteVerifier(key.Host, sv)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := f_log.ParseCheckpoint([]byte(text), key.Host, nv); err != nil {
		t.Fatal(err)
	}
	if _, id, err := rekornote.KeyHash(key.Host, key.Public); err != nil || string(id) != string(key.LogID) {
		t.Fatalf("log ID %x, rekor-tiles computes %x (%v)", key.LogID, id, err)
	}
}

func TestVerifyCheckpointRefusals(t *testing.T) {
	v1, key1 := signed(t, tlog.RekorV1)
	v2, key2 := signed(t, tlog.RekorV2)
	_, other := signed(t, tlog.RekorV2)
	foreign := "\u2014 witness.example.com " + base64.StdEncoding.EncodeToString([]byte("12345678")) + "\n"
	tests := []struct {
		name, text string
		key        *tlog.Key
		refused    bool
	}{
		{"v2 with a witness", v2 + foreign, key2, false},
		{"v1 with a foreign line", v1 + foreign, key1, true},
		{"only a witness", v2[:strings.Index(v2, "\n\n")+2] + foreign, key2, true},
		{"other key", v2, other, true},
		{"name changed", strings.Replace(v2, "\u2014 log.", "\u2014 lag.", 1), key2, true},
		{"origin changed", strings.Replace(v2, "log.", "lag.", 1), key2, true},
		{"size changed", strings.Replace(v2, "\n4711\n", "\n4712\n", 1), key2, true},
		{"extension added", strings.Replace(v2, "\n\n", "\nTimestamp: 1\n\n", 1), key2, true},
		{"signature twice", v2 + v2[strings.Index(v2, "\u2014"):], key2, false},
		{"good and bad signature of one key", v2 + corruptLine(v2), key2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cp, err := tlog.ParseCheckpoint(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			err = tlog.VerifyCheckpoint(cp, tt.key.Host, tt.key.Public, tt.key.Hint)
			checkCode(t, err, tt.refused, tlog.CodeCheckpointSignatureInvalid)
		})
	}
	cp, err := tlog.ParseCheckpoint(v2)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []crypto.PublicKey{nil, ed25519.PublicKey(nil), "key"} {
		err := tlog.VerifyCheckpoint(cp, key2.Host, pub, key2.Hint)
		checkCode(t, err, true, tlog.CodeCheckpointSignatureInvalid)
	}
}

// corruptLine returns the signature line of a checkpoint with its last byte changed.
func corruptLine(text string) string {
	line := strings.TrimSuffix(text[strings.Index(text, "\u2014"):], "\n")
	name, b64, _ := strings.Cut(strings.TrimPrefix(line, "\u2014 "), " ")
	raw, _ := base64.StdEncoding.DecodeString(b64)
	raw[len(raw)-1] ^= 1
	return "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

func TestParseCheckpointRefusals(t *testing.T) {
	good, _ := signed(t, tlog.RekorV2)
	line := good[strings.Index(good, "\u2014"):]
	replace := func(old, new string) string {
		out := strings.Replace(good, old, new, 1)
		if out == good {
			t.Fatalf("%q is not in the checkpoint", old)
		}
		return out
	}
	tests := map[string]string{
		"empty":                      "",
		"no signatures":              good[:strings.Index(good, "\u2014")],
		"no blank line":              replace("\n\n", "\n"),
		"two blank lines":            replace("\n\n", "\n\n\n"),
		"no origin":                  "\n4711" + good[strings.Index(good, "\n4711")+5:],
		"no root":                    "log.example.com\n4711\n\n" + line,
		"negative size":              replace("\n4711", "\n-4711"),
		"plus size":                  replace("\n4711", "\n+4711"),
		"leading zero":               replace("\n4711", "\n04711"),
		"size with space":            replace("\n4711", "\n4711 "),
		"size above int64":           replace("\n4711", "\n9223372036854775808"),
		"size above uint64":          replace("\n4711", "\n18446744073709551616"),
		"short root":                 replace(good[strings.Index(good, "\n4711\n")+6:strings.Index(good, "\n\n")], "AAAA"),
		"root with loose bits":       regexp.MustCompile(`.=\n\n`).ReplaceAllString(good, "/=\n\n"),
		"root unpadded":              replace("=\n\n", "\n\n"),
		"carriage returns":           strings.ReplaceAll(good, "\n", "\r\n"),
		"control character":          replace("log.", "log\x07."),
		"invalid UTF-8":              replace("log.", "log\xff."),
		"hyphen for the dash":        replace("\u2014", "-"),
		"no name":                    replace("\u2014 log.example.com", "\u2014 "),
		"name with plus":             replace("\u2014 log.", "\u2014 log+"),
		"name with no-break space":   replace("\u2014 log.", "\u2014 log\u00a0"),
		"signature not base64":       good + "\u2014 x !!!!\n",
		"signature too short":        good + "\u2014 x AAAAAA==\n",
		"signature with third field": strings.TrimSuffix(good, "\n") + " x\n",
		"no final newline":           strings.TrimSuffix(good, "\n"),
		"text after":                 good + "x",
		"blank line after":           good + "\n",
		"too many signatures":        good + strings.Repeat(line, 100),
		"too large":                  replace("\n\n", "\n"+strings.Repeat("x", 64<<10)+"\n\n"),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := tlog.ParseCheckpoint(text)
			checkCode(t, err, true, tlog.CodeCheckpointInvalid)
		})
	}
}

// Sixteen checkpoints that Tessera's project signed with Ed25519.
func TestTesseraCheckpoints(t *testing.T) {
	dir := vectors.Dir(t, "tessera/testdata/log")
	vkey, err := base64.StdEncoding.DecodeString("AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 16 {
		raw, err := os.ReadFile(filepath.Join(dir, "checkpoint."+strconv.Itoa(n)))
		if err != nil {
			t.Fatal(err)
		}
		cp, err := tlog.ParseCheckpoint(string(raw))
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size != uint64(n) || cp.String() != string(raw) {
			t.Errorf("checkpoint.%d: parsed size %d", n, cp.Size)
		}
		if err := tlog.VerifyCheckpoint(cp, "example.com/log/testdata", ed25519.PublicKey(vkey[1:]), 0x33d7b496); err != nil {
			t.Errorf("checkpoint.%d: %v", n, err)
		}
	}
}

// The checkpoints of real bundles, from the public Rekor (v1) and its tiled successor (v2).
func TestPublicGoodCheckpoints(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(vectors.Dir(t, "sigstore-root-signing/targets"), "trusted_root.json"))
	if err != nil {
		t.Fatal(err)
	}
	tr, err := root.NewTrustedRootFromJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(vectors.Dir(t, "sigstore-conformance/test/assets/bundle-verify"), "*", "bundle.sigstore.json"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d bundles, %v", len(files), err)
	}
	verified := map[string]int{}
	for _, file := range files {
		if strings.HasSuffix(filepath.Dir(file), "_fail") {
			continue
		}
		for _, text := range bundleCheckpoints(t, file) {
			cp, err := tlog.ParseCheckpoint(text)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			for _, log := range tr.RekorLogs() {
				name := strings.TrimPrefix(log.BaseURL, "https://")
				hint := tlog.KeyHint(log.ID)
				if cp.Signatures[0].Name != name {
					continue
				}
				if err := tlog.VerifyCheckpoint(cp, name, log.PublicKey, hint); err != nil {
					t.Errorf("%s: %v", file, err)
				}
				verified[name]++
			}
		}
	}
	if len(verified) < 1 || verified["rekor.sigstore.dev"] < 3 {
		t.Errorf("verified only %v", verified)
	}
	t.Logf("verified %v", verified)
}

func bundleCheckpoints(t *testing.T, file string) (out []string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b struct {
		VerificationMaterial struct {
			TlogEntries []struct {
				InclusionProof *struct{ Checkpoint struct{ Envelope string } }
			}
		}
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	for _, e := range b.VerificationMaterial.TlogEntries {
		if e.InclusionProof != nil {
			out = append(out, e.InclusionProof.Checkpoint.Envelope)
		}
	}
	return out
}

func TestNewKeyRefusals(t *testing.T) {
	p256 := newSigner(t).Public()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, pub := range []crypto.PublicKey{edPub, p384.Public(), nil} {
		_, err := tlog.NewKey("log.example.com", pub)
		checkCode(t, err, true, tlog.CodeLogKeyUnsupported)
	}
	for _, host := range []string{"", "Log.example.com", "log.example.com:443", "log.example.com/x", "a b", "a+b", ".a", "a.", "a..b", "-a", "[::1]", strings.Repeat("a.", 127) + "a"} {
		_, err := tlog.NewKey(host, p256)
		if host == strings.Repeat("a.", 127)+"a" && len(host) != 255 {
			t.Fatal("bad test")
		}
		checkCode(t, err, true, tlog.CodeLogHostInvalid)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "assay.example.com", "a-b.c1"} {
		if _, err := tlog.NewKey(host, p256); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// A rekor-v1 origin is recognised by this expression in sigstore-go.
func TestRekorV1OriginShape(t *testing.T) {
	shape := regexp.MustCompile("^log.example.com - [0-9]+$")
	_, key := signed(t, tlog.RekorV1)
	if o := key.Origin(tlog.RekorV1); !shape.MatchString(o) {
		t.Errorf("origin %q", o)
	}
	if o := tlog.RekorV1Origin("h", []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}); o != "h - 9223372036854775807" {
		t.Errorf("origin %q does not fit 63 bits", o)
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	v1, _ := signed(f, tlog.RekorV1)
	v2, _ := signed(f, tlog.RekorV2)
	seeds := []string{v1, v2, v1 + v1[strings.Index(v1, "\u2014"):], strings.Replace(v2, "\n\n", "\nx\n\n", 1),
		"o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u2014 n AAAAAAA=\n", "\n\n\n", ""}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cp, err := tlog.ParseCheckpoint(s)
		if err != nil {
			if refusal.CodeOf(err) != tlog.CodeCheckpointInvalid {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if cp.String() != s {
			t.Fatalf("%q printed as %q", s, cp.String())
		}
		if cp.Origin == "" || len(cp.RootHash) != 32 || len(cp.Signatures) == 0 {
			t.Fatalf("accepted %+v", cp)
		}
	})
}
