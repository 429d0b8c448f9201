package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// flipFile changes one character of the base64 value of a JSON field.
func flipFile(in, field, out string) error {
	text, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	if text, err = flip(text, field); err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, text, 0o600)
}

// flip changes the character in the middle of the first value of field, so that it is a
// byte that is signed, bound or part of a proof, and never padding. Where the value is a
// list, that is its first value. Everything else stays as it is, byte for byte.
func flip(text []byte, field string) ([]byte, error) {
	key := fmt.Appendf(nil, "%q:", field)
	at := bytes.Index(text, key)
	if at < 0 {
		return nil, fmt.Errorf("no %s", field)
	}
	at += len(key)
	open := bytes.IndexByte(text[at:], '"')
	if open < 0 {
		return nil, fmt.Errorf("%s has no string", field)
	}
	at += open + 1
	length := bytes.IndexByte(text[at:], '"')
	if length < 16 {
		return nil, fmt.Errorf("%s has no value of some length", field)
	}
	changed := bytes.Clone(text)
	middle := &changed[at+length/2]
	if *middle == 'A' {
		*middle = 'B'
	} else {
		*middle = 'A'
	}
	return changed, nil
}

// graftFile gives a bundle the log entry, the timestamp and the key or certificate of
// another: all of them genuine, and none of them about what is signed.
func graftFile(in, other, out string) error {
	const material = "verificationMaterial"
	var fields [2]map[string]json.RawMessage
	for i, path := range []string{in, other} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &fields[i]); err != nil {
			return fmt.Errorf("%s is no bundle: %w", path, err)
		}
		if fields[i][material] == nil {
			return fmt.Errorf("%s has no %s", path, material)
		}
	}
	fields[0][material] = fields[1][material]
	text, err := json.Marshal(fields[0])
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o600)
}
