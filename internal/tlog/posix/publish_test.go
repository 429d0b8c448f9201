package posix

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/tlog"
)

// The publisher's signer never signs a second history, whatever Tessera asks.
func TestNoteSignerOnlyExtends(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tlog.NewKey("log.example.com", private.Public())
	if err != nil {
		t.Fatal(err)
	}
	p := newPublicTiles(t, 20)
	tr := newTree(p.read)
	tr.append(p.leaves)
	n := &noteSigner{key: key, signer: plainSigner{private}, ctx: t.Context()}
	text := func(size int) []byte { return tlog.CheckpointText(key.Host, uint64(size), p.roots[size][:]) }
	steps := []struct {
		name string
		msg  []byte
		do   func()
		code refusal.Code
	}{
		{"the empty tree of a new log", text(0), nil, ""},
		{"a tree nobody has looked at", text(10), nil, CodeClosed},
		{"an admitted tree", text(10), func() {
			if err := n.admit(t.Context(), tr); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"the same again", text(10), nil, ""},
		{"a smaller tree", text(9), nil, CodeRolledBack},
		{"the empty tree again", text(0), nil, CodeRolledBack},
		{"another root", tlog.CheckpointText(key.Host, 10, p.roots[11][:]), nil, CodeCorrupt},
		{"a larger tree", text(20), nil, ""},
		{"no checkpoint", []byte("hello\n"), nil, tlog.CodeCheckpointInvalid},
		{"after close", text(20), func() { n.close() }, CodeClosed},
	}
	for _, s := range steps {
		if s.do != nil {
			s.do()
		}
		if sig, err := n.Sign(s.msg); refusal.CodeOf(err) != s.code || (err == nil) != (len(sig) > 0) {
			t.Errorf("%s: %v, want %q", s.name, err, s.code)
		}
	}
}
