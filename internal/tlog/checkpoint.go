package tlog

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeCheckpointInvalid refuses a text that is not a signed checkpoint.
	CodeCheckpointInvalid refusal.Code = "CHECKPOINT_INVALID"
	// CodeCheckpointSignatureInvalid refuses a checkpoint that the log's key did not sign.
	CodeCheckpointSignatureInvalid refusal.Code = "CHECKPOINT_SIGNATURE_INVALID"
)

const (
	maxCheckpointBytes      = 64 << 10
	maxCheckpointSignatures = 100 // the limit of golang.org/x/mod/sumdb/note
	signatureDash           = "\u2014 "
)

// rekorV1Origin recognises the older dialect, as sigstore-go does.
var rekorV1Origin = regexp.MustCompile(` - [0-9]+$`)

// Checkpoint is a parsed, not yet verified checkpoint.
type Checkpoint struct {
	Origin     string
	Size       uint64
	RootHash   []byte
	Extension  []string
	Signatures []CheckpointSig
	// Signed is the text the signatures are over, with its final newline.
	Signed []byte
}

// CheckpointSig is one signature line.
type CheckpointSig struct {
	Name    string
	KeyHint uint32
	Sig     []byte
}

// ParseCheckpoint parses a signed note that holds a checkpoint.
//
// It is strict, so that a text has one reading: sizes in plain decimal, base64
// in its canonical form, no control characters, no empty lines but the one
// before the signatures. The signatures are not checked; see VerifyCheckpoint.
func ParseCheckpoint(s string) (*Checkpoint, error) {
	invalid := func(format string, args ...any) error {
		return refusal.New(CodeCheckpointInvalid, "checkpoint: "+format, args...)
	}
	if len(s) > maxCheckpointBytes {
		return nil, invalid("%d bytes, limit %d", len(s), maxCheckpointBytes)
	}
	// SPEC (signed-note): valid UTF-8, MUST NOT contain ASCII control characters below U+0020 other than newline.
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) {
		return nil, invalid("not printable UTF-8")
	}
	body, sigs, ok := strings.Cut(s, "\n\n")
	if !ok {
		return nil, invalid("no blank line before the signatures")
	}
	cp := &Checkpoint{Signed: []byte(body + "\n")}
	lines := strings.Split(body, "\n")
	if len(lines) < 3 {
		return nil, invalid("%d lines before the signatures, want at least 3", len(lines))
	}
	// SPEC (tlog-checkpoint): the origin MUST be non-empty.
	if cp.Origin = lines[0]; cp.Origin == "" {
		return nil, invalid("no origin")
	}
	var err error
	if cp.Size, err = parseSize(lines[1]); err != nil {
		return nil, invalid("%w", err)
	}
	if cp.RootHash, err = decodeBase64(lines[2]); err != nil || len(cp.RootHash) != sha256.Size {
		return nil, invalid("root hash is not the base64 of 32 bytes")
	}
	cp.Extension = lines[3:] // never empty strings: the first blank line ended the body
	if cp.Signatures, err = parseSignatures(sigs); err != nil {
		return nil, invalid("%w", err)
	}
	return cp, nil
}

// parseSize reads a tree size. SPEC (tlog-checkpoint): ASCII decimal with no leading zeros.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("size is not a plain decimal number below 2^63")
	}
	return n, nil
}

// parseSignatures reads the lines "— <name> <base64(hint || signature)>".
func parseSignatures(s string) ([]CheckpointSig, error) {
	if !strings.HasSuffix(s, "\n") {
		return nil, fmt.Errorf("no newline after the last signature")
	}
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	if len(lines) > maxCheckpointSignatures {
		return nil, fmt.Errorf("%d signatures, limit %d", len(lines), maxCheckpointSignatures)
	}
	sigs := make([]CheckpointSig, 0, len(lines))
	for i, line := range lines {
		rest, ok := strings.CutPrefix(line, signatureDash)
		if !ok {
			return nil, fmt.Errorf("line %d of the signatures does not begin with an em dash and a space", i+1)
		}
		name, b64, _ := strings.Cut(rest, " ")
		// SPEC (signed-note): the key name MUST be non-empty, without Unicode spaces or plus.
		if name == "" || strings.Contains(name, "+") || strings.ContainsFunc(name, unicode.IsSpace) {
			return nil, fmt.Errorf("signature %d has an invalid key name", i+1)
		}
		raw, err := decodeBase64(b64)
		if err != nil || len(raw) < 5 {
			return nil, fmt.Errorf("signature %d is not the base64 of a hint and a signature", i+1)
		}
		sigs = append(sigs, CheckpointSig{Name: name, KeyHint: binary.BigEndian.Uint32(raw), Sig: raw[4:]})
	}
	return sigs, nil
}

// decodeBase64 accepts exactly one spelling of each byte string: the standard
// alphabet with padding, zero trailing bits and no line breaks (which the
// library would skip).
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// String returns the checkpoint as a signed note. Parsing and printing are
// inverse: ParseCheckpoint(s).String() == s.
func (c *Checkpoint) String() string {
	var b strings.Builder
	b.Write(c.Signed)
	b.WriteByte('\n')
	for _, s := range c.Signatures {
		b.WriteString(signatureLine(s.Name, s.KeyHint, s.Sig))
	}
	return b.String()
}

func signatureLine(name string, hint uint32, sig []byte) string {
	raw := append(binary.BigEndian.AppendUint32(nil, hint), sig...)
	return signatureDash + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// CheckpointText returns the text of a checkpoint that gets signed.
func CheckpointText(origin string, size uint64, root []byte) []byte {
	b := make([]byte, 0, len(origin)+72)
	b = append(b, origin...)
	b = append(b, '\n')
	b = strconv.AppendUint(b, size, 10)
	b = append(b, '\n')
	b = base64.StdEncoding.AppendEncode(b, root)
	return append(b, '\n')
}

// SignCheckpoint returns a signed note: origin, size and root, signed in name.
// The standard note package cannot do this for rekor-v1, whose origin has spaces
// and is not the name of the key.
func SignCheckpoint(ctx context.Context, origin, name string, size uint64, root []byte, s Signer) (string, error) {
	key, err := NewKey(name, s.Public())
	if err != nil {
		return "", err
	}
	return key.signCheckpoint(ctx, origin, size, root, s)
}

// SignCheckpoint is the function of that name for a log whose key is at hand. s
// must hold the private part of k.
func (k *Key) SignCheckpoint(ctx context.Context, f EntryFormat, size uint64, root []byte, s Signer) (string, error) {
	return k.signCheckpoint(ctx, k.Origin(f), size, root, s)
}

func (k *Key) signCheckpoint(ctx context.Context, origin string, size uint64, root []byte, s Signer) (string, error) {
	text := CheckpointText(origin, size, root)
	digest := sha256.Sum256(text)
	sig, err := s.Sign(ctx, digest[:])
	if err != nil {
		return "", fmt.Errorf("tlog: signing a checkpoint of %d entries: %w", size, err)
	}
	return string(text) + "\n" + signatureLine(k.Host, k.Hint, sig), nil
}

// VerifyCheckpoint checks that the named key signed the checkpoint. The key is
// ECDSA over SHA-256, or Ed25519 (as the public Sigstore logs use in rekor-v2).
//
// Each line that claims the key must verify, and there must be at least one.
// Lines of other keys are witness cosignatures and are passed over, but not in
// the rekor-v1 dialect, which has no cosignatures: there sigstore-go refuses
// them, and so does this.
func VerifyCheckpoint(cp *Checkpoint, name string, public crypto.PublicKey, hint uint32) error {
	found := false
	for _, s := range cp.Signatures {
		if s.Name != name || s.KeyHint != hint {
			if rekorV1Origin.MatchString(cp.Origin) {
				return refusal.New(CodeCheckpointSignatureInvalid, "checkpoint of %q carries a signature of another key (%s, hint %08x)", cp.Origin, s.Name, s.KeyHint)
			}
			continue
		}
		if !verifySignature(public, cp.Signed, s.Sig) {
			return refusal.New(CodeCheckpointSignatureInvalid, "signature of %s (hint %08x) on the checkpoint of %d entries does not verify", name, hint, cp.Size)
		}
		found = true
	}
	if !found {
		return refusal.New(CodeCheckpointSignatureInvalid, "checkpoint of %q has no signature of %s (hint %08x)", cp.Origin, name, hint)
	}
	return nil
}

func verifySignature(public crypto.PublicKey, msg, sig []byte) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(msg)
		return ecdsa.VerifyASN1(k, digest[:], sig)
	case ed25519.PublicKey:
		return len(k) == ed25519.PublicKeySize && ed25519.Verify(k, msg, sig)
	}
	return false
}
