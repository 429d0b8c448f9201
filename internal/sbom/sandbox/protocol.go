package sandbox

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/check"
)

// What a child can be asked for.
const (
	taskProbe = "probe" // nothing but an answer
	taskScan  = "scan"
	taskCheck = "check"
)

const (
	maxRequestBytes = 32 << 10 // less than a pipe holds
	maxNameBytes    = 4 << 10
	maxFailureBytes = 1 << 10
	// maxStrings bounds the strings in lists of one answer: dependencies, licences,
	// locations. An empty one takes three bytes of the answer, and sixteen here.
	maxStrings = 4 << 20
)

// request is the line that the child reads.
type request struct {
	Task   string     `json:"task"`
	Name   string     `json:"name,omitempty"`
	Want   check.Want `json:"want,omitzero"`
	Dir    string     `json:"dir"`
	Limits Limits     `json:"limits"`
	// Isolation is what the child was started with, and what it must come to: it reads
	// nothing with less.
	Isolation Isolation `json:"isolation"`
}

func (r request) line() ([]byte, error) {
	// A name is no path here; its end tells the format.
	if over := len(r.Name) - maxNameBytes; over > 0 {
		r.Name = r.Name[over:]
	}
	line, err := stdjson.Marshal(r)
	if err == nil && len(line) >= maxRequestBytes {
		err = fmt.Errorf("a request of %d bytes", len(line))
	}
	return append(line, '\n'), err
}

// answer is all that a child says.
type answer struct {
	Inventory *sbom.Inventory `json:"inventory,omitempty"`
	Report    *check.Report   `json:"report,omitempty"`
	Refusal   *refused        `json:"refusal,omitempty"`
	// Failure is what the machine failed it in.
	Failure  string    `json:"failure,omitempty"`
	Confined Isolation `json:"confined"`
	// Memory is the most that was resident, in bytes; 0 where it does not know.
	Memory int64 `json:"memory"`
}

// refused is a refusal.Error without its cause.
type refused struct {
	Code   refusal.Code `json:"code"`
	Field  string       `json:"field,omitempty"`
	Detail string       `json:"detail"`
}

// check reports whether the answer is one to the task, and all in it is as it must be.
func (a *answer) check(task string) error {
	said := 0
	for _, there := range [...]bool{a.Inventory != nil, a.Refusal != nil, a.Failure != ""} {
		if there {
			said++
		}
	}
	switch {
	case said > 1, said == 0 && task != taskProbe:
		return errors.New("it must be an inventory, a refusal or a failure")
	case a.Failure != "":
		return checkText(a.Failure, maxFailureBytes)
	case a.Refusal != nil:
		if task != taskCheck {
			return errors.New("a refusal, where nothing can be refused")
		}
		return a.Refusal.check()
	case a.Inventory == nil:
		return nil
	case (a.Report != nil) != (task == taskCheck):
		return errors.New("a report belongs to a check, and to nothing else")
	}
	if a.Report != nil {
		if err := errors.Join(checkText(a.Report.Format, 64), checkText(a.Report.SpecVersion, 64), checkText(a.Report.Aggregate, 64)); err != nil {
			return err
		}
	}
	if err := a.Inventory.Validate(); err != nil {
		return errors.New("its inventory breaks a rule of the model")
	}
	return nil
}

// codeForm is the spelling of refusal codes (package refusal).
var codeForm = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

func (r *refused) check() error {
	if len(r.Code) > 64 || !codeForm.MatchString(string(r.Code)) {
		return errors.New("a refusal whose code is none")
	}
	return errors.Join(checkText(r.Field, maxFailureBytes), checkText(r.Detail, maxFailureBytes))
}

// checkText accepts short text without control characters. That it is UTF-8 the
// decoder has seen to.
func checkText(s string, limit int) error {
	if len(s) > limit || s != oneLine(s) {
		return errors.New("a text that is too long, or has control characters")
	}
	return nil
}

// oneLine replaces what would break a line of a log, or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
}

// clip makes a text that checkText accepts.
func clip(s string, limit int) string {
	s = oneLine(strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// writeAnswer is the child's half.
func writeAnswer(w io.Writer, a *answer) error { return json.MarshalWrite(w, a) }

// readAnswer reads one JSON text and the end of the stream after it. It keeps no more
// than the model allows an inventory to hold, however little text that takes.
func readAnswer(r io.Reader, limit int64) (*answer, error) {
	dec := jsontext.NewDecoder(&limited{r: r, left: limit})
	b := new(bounds)
	a := new(answer)
	err := json.UnmarshalDecode(dec, a, json.RejectUnknownMembers(true), json.WithUnmarshalers(json.JoinUnmarshalers(
		json.UnmarshalFromFunc(b.strings),
		json.UnmarshalFromFunc(list[sbom.Component](sbom.MaxComponents)),
		json.UnmarshalFromFunc(list[sbom.Hash](sbom.MaxHashes)),
		json.UnmarshalFromFunc(list[sbom.Reason](sbom.MaxReasons)),
	)))
	if err != nil {
		return nil, err
	}
	switch _, err := dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return a, nil
	case errors.Is(err, errAnswerTooLong):
		return nil, err
	}
	return nil, errors.New("data after the answer")
}

var errAnswerTooLong = errors.New("longer than an answer may be")

// limited is io.LimitedReader, but what is beyond the limit is an error and no end.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, errAnswerTooLong
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, errAnswerTooLong
	}
	return n, err
}

// bounds counts over one answer.
type bounds struct{ seen int }

func (b *bounds) strings(dec *jsontext.Decoder, v *[]string) error {
	return elements(dec, func() error {
		if b.seen++; b.seen > maxStrings {
			return fmt.Errorf("more than %d strings", maxStrings)
		}
		tok, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if tok.Kind() != '"' {
			return errors.New("not a string")
		}
		*v = append(*v, tok.String())
		return nil
	})
}

func list[T any](limit int) func(*jsontext.Decoder, *[]T) error {
	return func(dec *jsontext.Decoder, v *[]T) error {
		return elements(dec, func() error {
			if len(*v) == limit {
				return fmt.Errorf("a list of more than %d", limit)
			}
			var zero T
			*v = append(*v, zero)
			return json.UnmarshalDecode(dec, &(*v)[len(*v)-1])
		})
	}
}

// elements calls next for each element of an array, to read it.
func elements(dec *jsontext.Decoder, next func() error) error {
	tok, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if tok.Kind() != '[' {
		return errors.New("not an array")
	}
	for dec.PeekKind() != ']' {
		if err := next(); err != nil {
			return err
		}
	}
	_, err = dec.ReadToken()
	return err
}
