package scan

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decodeLoose decodes JSON as a package manager would: the last of two equal names
// counts, names match exactly, and what is not UTF-8 is replaced.
func decodeLoose(data []byte, v any) error {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	err := json.Unmarshal(data, v, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON, at offset %d", syntax.ByteOffset)
	}
	return err
}

// looseString is a string, or "" for any other JSON value.
type looseString string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (s *looseString) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*s = ""
	if dec.PeekKind() != '"' {
		return dec.SkipValue()
	}
	token, err := dec.ReadToken()
	if err == nil {
		*s = looseString(token.String())
	}
	return err
}

// looseBool is a boolean, or false for any other JSON value.
type looseBool bool

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (b *looseBool) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*b = dec.PeekKind() == 't'
	return dec.SkipValue()
}

// looseMap is an object of strings. Members of other types are kept as "".
type looseMap map[string]string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (m *looseMap) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	*m = nil
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	*m = looseMap{}
	for dec.PeekKind() != '}' {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		name := token.String() // before the next read: the token lives in the buffer
		var value looseString
		if err := value.UnmarshalJSONFrom(dec); err != nil {
			return err
		}
		(*m)[name] = string(value)
	}
	_, err := dec.ReadToken()
	return err
}

func unionKeys(maps ...looseMap) []string {
	var keys []string
	for _, m := range maps {
		for key := range m {
			keys = append(keys, key)
		}
	}
	return sortedUnique(keys)
}
