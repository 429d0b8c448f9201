package check

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"maps"
	"math/big"
	"slices"
)

// digest stands for a JSON value: two values have the same exactly if JSON Schema calls
// them equal. Members have no order, and 1 equals 1.0. It is of a cryptographic hash, so
// that nobody makes two different components that pass for one.
type digest [sha256.Size]byte

// digestOf is the digest of the value that v was before inner was taken out of it.
func digestOf(v any, inner []innerList) digest {
	w := digester{h: sha256.New()}
	w.value(v)
	slices.SortFunc(inner, func(a, b innerList) int { return cmp.Compare(a.name, b.name) })
	for _, l := range inner {
		w.text('l', l.name)
		w.buf = append(w.buf, l.sum[:]...)
	}
	return w.sum()
}

// digester feeds the values to a hash in a form that has one reading: a letter for the
// kind, then the length of what follows.
type digester struct {
	h   hash.Hash
	buf []byte
}

const digestBuffer = 4 << 10

func (w *digester) value(v any) {
	switch v := v.(type) {
	case nil:
		w.head('n', 0)
	case bool:
		if v {
			w.head('t', 0)
		} else {
			w.head('f', 0)
		}
	case string:
		w.text('s', v)
	case json.Number:
		w.text('0', canonicalNumber(v))
	case []any:
		w.head('[', len(v))
		for _, e := range v {
			w.value(e)
		}
	case map[string]any:
		w.head('{', len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			w.text('k', name)
			w.value(v[name])
		}
	}
}

func (w *digester) head(kind byte, n int) {
	w.buf = binary.AppendUvarint(append(w.buf, kind), uint64(n)) //nolint:gosec // a length is not negative
	if len(w.buf) >= digestBuffer {
		w.flush()
	}
}

func (w *digester) text(kind byte, s string) {
	w.head(kind, len(s))
	w.buf = append(w.buf, s...)
}

func (w *digester) flush() {
	w.h.Write(w.buf)
	w.buf = w.buf[:0]
}

func (w *digester) sum() (d digest) {
	w.flush()
	w.h.Sum(d[:0])
	return d
}

// canonicalNumber is the one spelling of a number.
func canonicalNumber(n json.Number) string {
	if r, ok := new(big.Rat).SetString(string(n)); ok {
		return r.RatString()
	}
	return string(n)
}

// listDigest is over the digests of the elements of an array.
type listDigest struct{ h hash.Hash }

func newListDigest() listDigest { return listDigest{sha256.New()} }

func (l listDigest) add(d digest) { l.h.Write(d[:]) }

func (l listDigest) sum() (d digest) {
	l.h.Sum(d[:0])
	return d
}
