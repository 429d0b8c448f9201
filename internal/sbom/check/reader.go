package check

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// reader walks a document once, piece by piece.
type reader struct {
	ctx    context.Context
	dec    *jsontext.Decoder
	limits Limits
	take   func(kind string, v any, at *path) error
	at     path
	// values counts the JSON values so far, open those of the pieces being read.
	values, open int
	components   int
	// names spares one string per member: a large document has few different names.
	names map[string]string
}

const (
	maxInterned  = 4096
	maxNumberLen = 64
)

func newReader(ctx context.Context, data []byte, l Limits, take func(kind string, v any, at *path) error) *reader {
	return &reader{ctx: ctx, dec: newDecoder(data), limits: l, take: take, names: map[string]string{}}
}

func (r *reader) document(root *piece) error {
	_, _, err := r.piece(root, false)
	return err
}

// piece reads, validates and hands over one piece. Its digest is that of all that it
// holds, lists included, and is made only where it is asked for.
func (r *reader) piece(p *piece, digested bool) (any, digest, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, digest{}, err
	}
	if p.kind == "component" || p.kind == "service" || p.kind == "package" {
		if r.components++; r.components > r.limits.Components {
			return nil, digest{}, r.refuse(CodeSBOMTooManyComponents, "more than %d components", r.limits.Components)
		}
	}
	before := r.open
	var inner []innerList
	v, err := r.value(p, digested, &inner)
	if err != nil {
		return nil, digest{}, err
	}
	if err := p.schema.Validate(v); err != nil {
		return nil, digest{}, violation(err, &r.at)
	}
	if err := r.take(p.kind, v, &r.at); err != nil {
		return nil, digest{}, err
	}
	r.open = before
	if !digested {
		return v, digest{}, nil
	}
	return v, digestOf(v, inner), nil
}

// innerList is an array that was taken out of a piece.
type innerList struct {
	name string
	sum  digest
}

// value reads one value. Where it is that of a piece, p, its lists are taken out and
// inner says what they held; p and inner are nil for any other value.
func (r *reader) value(p *piece, digested bool, inner *[]innerList) (any, error) {
	if err := r.count(); err != nil {
		return nil, err
	}
	switch r.dec.PeekKind() {
	case '{':
		return r.object(p, digested, inner)
	case '[':
		return r.array()
	case '0':
		return r.number()
	}
	tok, err := r.dec.ReadToken()
	if err != nil {
		return nil, broken(err)
	}
	switch tok.Kind() {
	case '"':
		return tok.String(), nil
	case 'n':
		return nil, nil
	}
	return tok.Bool(), nil
}

func (r *reader) count() error {
	r.values++
	r.open++
	if r.values > r.limits.Values {
		return r.refuse(CodeSBOMTooLarge, "more than %d JSON values in the document", r.limits.Values)
	}
	if r.open > r.limits.OpenValues {
		return r.refuse(CodeSBOMTooLarge, "more than %d JSON values in one element", r.limits.OpenValues)
	}
	return nil
}

func (r *reader) object(p *piece, digested bool, inner *[]innerList) (any, error) {
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, broken(err)
	}
	obj := map[string]any{}
	for r.dec.PeekKind() != '}' {
		name, err := r.name()
		if err != nil {
			return nil, err
		}
		r.at.push(name)
		v, err := r.member(p, name, digested, inner)
		if err != nil {
			return nil, err
		}
		r.at.pop()
		obj[name] = v
	}
	_, err := r.dec.ReadToken()
	return obj, err
}

// member reads the value of one member of an object.
func (r *reader) member(p *piece, name string, digested bool, inner *[]innerList) (any, error) {
	if p == nil {
		return r.value(nil, false, nil)
	}
	if l, ok := p.lists[name]; ok && r.dec.PeekKind() == '[' {
		sum, err := r.list(l, digested)
		if digested && inner != nil {
			*inner = append(*inner, innerList{name, sum})
		}
		return []any{}, err
	}
	// Parts are in no array whose elements must be unique: their lists need no digest.
	return r.value(p.parts[name], false, nil)
}

// list reads the elements of an array, each a piece.
func (r *reader) list(l list, digested bool) (digest, error) {
	if err := r.count(); err != nil {
		return digest{}, err
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return digest{}, broken(err)
	}
	sums := newListDigest()
	seen := map[digest]int{}
	for i := 0; r.dec.PeekKind() != ']'; i++ {
		r.at.pushIndex(i)
		_, sum, err := r.piece(l.of, digested || l.unique)
		if err != nil {
			return digest{}, err
		}
		if l.unique {
			if first, ok := seen[sum]; ok {
				return digest{}, r.refuse(CodeSBOMInvalid, "the same as element %d; elements must be unique", first)
			}
			seen[sum] = i
		}
		sums.add(sum)
		r.at.pop()
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return digest{}, broken(err)
	}
	return sums.sum(), nil
}

func (r *reader) array() (any, error) {
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, broken(err)
	}
	arr := []any{}
	for i := 0; r.dec.PeekKind() != ']'; i++ {
		r.at.pushIndex(i)
		v, err := r.value(nil, false, nil)
		if err != nil {
			return nil, err
		}
		r.at.pop()
		arr = append(arr, v)
	}
	_, err := r.dec.ReadToken()
	return arr, err
}

// number keeps the digits. The validator computes with numbers exactly, which for
// 1e999999 takes long.
func (r *reader) number() (any, error) {
	raw, err := r.dec.ReadValue()
	if err != nil {
		return nil, broken(err)
	}
	exponent := ""
	if at := strings.IndexAny(string(raw), "eE"); at >= 0 {
		exponent = strings.TrimLeft(string(raw[at+1:]), "+-0")
	}
	if len(raw) > maxNumberLen || len(exponent) > 3 {
		return nil, r.refuse(CodeSBOMInvalid, "number %.80s; at most %d characters and exponents up to 999 are accepted",
			raw, maxNumberLen)
	}
	return json.Number(string(raw)), nil
}

// name reads the name of a member.
func (r *reader) name() (string, error) {
	tok, err := r.dec.ReadToken()
	if err != nil {
		return "", broken(err)
	}
	name := tok.String()
	if s, ok := r.names[name]; ok {
		return s, nil
	}
	if len(r.names) < maxInterned {
		r.names[name] = name
	}
	return name, nil
}

func (r *reader) refuse(code refusal.Code, format string, args ...any) error {
	return refusal.New(code, format, args...).InField(r.at.String())
}
