package attest

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// Why a JSON text is refused.
const (
	CodeJSONInvalid     refusal.Code = "JSON_INVALID"
	CodeJSONDuplicate   refusal.Code = "JSON_DUPLICATE_KEY"
	CodeJSONCaseVariant refusal.Code = "JSON_CASE_VARIANT_KEY"
	CodeJSONTooDeep     refusal.Code = "JSON_TOO_DEEP"
	CodeJSONTooLarge    refusal.Code = "JSON_TOO_LARGE"
	CodeJSONUnknownKey  refusal.Code = "JSON_UNKNOWN_KEY"
	CodeJSONWrongType   refusal.Code = "JSON_WRONG_TYPE"
)

// CheckJSON reports whether data is one JSON text that every careful reader
// understands alike. See the package comment for the rules.
func CheckJSON(data []byte, maxBytes int) error {
	if len(data) > maxBytes {
		return refusal.New(CodeJSONTooLarge, "%d bytes; at most %d are accepted", len(data), maxBytes)
	}
	// The decoder reads a *bytes.Buffer in place: no copy. It refuses invalid
	// UTF-8 and duplicate names by default.
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	w := walker{dec: dec}
	for {
		if err := w.step(); err != nil {
			return err
		}
		if len(w.open) == 0 {
			break
		}
	}
	// RFC 8259: a JSON text is one value. The decoder reads streams of values.
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return refusal.New(CodeJSONInvalid, "data after the JSON value, at offset %d", dec.InputOffset())
	}
	return nil
}

// walker visits one JSON text token by token. It adds to the tokenizer what that
// does not know: the depth limit and names that differ only by case.
type walker struct {
	dec   *jsontext.Decoder
	open  []container // innermost last
	names nameStack
}

type container struct {
	object   bool
	wantName bool // objects only: the next string is a member's name
}

func (w *walker) step() error {
	top := len(w.open) - 1
	switch kind := w.dec.PeekKind(); kind {
	case '{', '[':
		if _, err := w.dec.ReadToken(); err != nil {
			return tokenRefusal(err)
		}
		if top+1 == MaxDepth {
			return refusal.New(CodeJSONTooDeep, "nested deeper than %d levels, at offset %d", MaxDepth, w.dec.InputOffset())
		}
		w.valueRead(top)
		w.open = append(w.open, container{object: kind == '{', wantName: kind == '{'})
		if kind == '{' {
			w.names.push()
		}
	case '}', ']':
		if _, err := w.dec.ReadToken(); err != nil {
			return tokenRefusal(err)
		}
		if w.open[top].object {
			w.names.pop()
		}
		w.open = w.open[:top]
	default:
		value, err := w.dec.ReadValue()
		if err != nil {
			return tokenRefusal(err)
		}
		if top >= 0 && w.open[top].wantName {
			w.open[top].wantName = false
			return w.name(value)
		}
		w.valueRead(top)
	}
	return nil
}

// valueRead notes that a whole member value, or the start of one, was read.
func (w *walker) valueRead(top int) {
	if top >= 0 && w.open[top].object {
		w.open[top].wantName = true
	}
}

// name checks one member name, given as it stands in the text, in quotes.
func (w *walker) name(quoted jsontext.Value) error {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		var err error
		if name, err = jsontext.AppendUnquote(nil, []byte(quoted)); err != nil {
			return tokenRefusal(err)
		}
	}
	if !w.names.add(name) {
		return refusal.New(CodeJSONCaseVariant, "key %.80q differs only by case from another key of the same object", name)
	}
	return nil
}

func tokenRefusal(err error) error {
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return refusal.New(CodeJSONDuplicate, "a key occurs twice: %s", clip(err.Error()))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return refusal.New(CodeJSONInvalid, "the text ends inside the JSON value")
	}
	return refusal.New(CodeJSONInvalid, "%s", clip(err.Error()))
}

// clip bounds a library's message, which may repeat input of any length.
func clip(s string) string {
	const limit = 240
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}

// DecodeStrict is CheckJSON followed by decoding into v: member names match
// exactly, unknown ones are refused, a number that does not fit its field is an
// error and never rounded. In a field of type any a number becomes a json.Number.
// A null leaves its field at the zero value; callers check presence.
func DecodeStrict(data []byte, maxBytes int, v any) error {
	if err := CheckJSON(data, maxBytes); err != nil {
		return err
	}
	return decode(data, v)
}

// decode fills v from a text that CheckJSON has accepted.
func decode(data []byte, v any) error {
	err := json.Unmarshal(data, v,
		json.RejectUnknownMembers(true),
		json.WithUnmarshalers(json.UnmarshalFromFunc(exactNumber)))
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic) {
		return refusal.New(CodeJSONUnknownKey, "unknown key at %.200q", string(semantic.JSONPointer)).
			InField(clip(string(semantic.JSONPointer)))
	}
	return refusal.New(CodeJSONWrongType, "%s", clip(err.Error()))
}

// exactNumber keeps the digits of a number that is decoded into an any.
func exactNumber(dec *jsontext.Decoder, v *any) error {
	if dec.PeekKind() != '0' {
		return errors.ErrUnsupported // skip: the default decoding is right
	}
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	*v = stdjson.Number(string(value))
	return nil
}
