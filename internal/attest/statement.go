package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/assay-build/assay/internal/refusal"
)

// Why a statement is refused.
const (
	CodeStatementTypeUnknown      refusal.Code = "STATEMENT_TYPE_UNKNOWN"
	CodeStatementPredicateType    refusal.Code = "STATEMENT_PREDICATE_TYPE_INVALID"
	CodeStatementPredicateInvalid refusal.Code = "STATEMENT_PREDICATE_INVALID"
	CodeStatementTooLarge         refusal.Code = "STATEMENT_TOO_LARGE"
	CodeNoSubjects                refusal.Code = "NO_SUBJECTS"
	CodeTooManySubjects           refusal.Code = "TOO_MANY_SUBJECTS"
	CodeSubjectNoDigest           refusal.Code = "SUBJECT_NO_DIGEST"
	CodeSubjectTooManyDigests     refusal.Code = "SUBJECT_TOO_MANY_DIGESTS"
	CodeSubjectDigestInvalid      refusal.Code = "SUBJECT_DIGEST_INVALID"
	CodeSubjectDigestWeak         refusal.Code = "SUBJECT_DIGEST_WEAK"
	CodeSubjectDuplicate          refusal.Code = "SUBJECT_DUPLICATE"
	CodeSubjectAnnotationInvalid  refusal.Code = "SUBJECT_ANNOTATION_INVALID"
)

// Subject is one artifact a statement is about: a name and its digests, by
// algorithm. Annotations hold text that helps a reader.
type Subject struct {
	Name        string
	Digest      map[string]string
	Annotations map[string]string
}

// Statement is an in-toto statement. Predicate is kept as the bytes it was
// written with: who signs and who reads see the same.
type Statement struct {
	Type          string
	Subjects      []Subject
	PredicateType string
	Predicate     json.RawMessage
}

// Marshal validates the statement and writes it: fields in the order of the
// in-toto specification, map keys sorted, nothing escaped that need not be, no
// white space. The predicate stands in it byte for byte: somebody else may have
// made it, and may look for it with its digest; RawPredicate takes it out again.
// Equal statements give equal bytes. It is stricter than
// ParseStatement: only v1, only names that CheckSubjectName accepts, each once,
// and for each subject a digest that cannot collide.
func (s *Statement) Marshal() ([]byte, error) {
	if s.Type != StatementTypeV1 {
		return nil, refusal.New(CodeStatementTypeUnknown, "statement type %.80q, want %s", s.Type, StatementTypeV1).InField("_type")
	}
	if err := checkPredicateType(s.PredicateType); err != nil {
		return nil, err
	}
	if err := checkSubjectCount(len(s.Subjects)); err != nil {
		return nil, err
	}
	if err := s.checkOwnSubjects(); err != nil {
		return nil, err
	}
	if err := checkOwnPredicate(s.Predicate); err != nil {
		return nil, err
	}
	out := make([]byte, 0, 256+320*len(s.Subjects)+len(s.Predicate))
	out = append(out, `{"_type":`...)
	out = appendString(out, s.Type)
	out = append(out, `,"subject":[`...)
	for i := range s.Subjects {
		if i > 0 {
			out = append(out, ',')
		}
		out = s.Subjects[i].append(out)
	}
	out = append(out, `],"predicateType":`...)
	out = appendString(out, s.PredicateType)
	out = append(out, `,"predicate":`...)
	out = append(out, s.Predicate...)
	out = append(out, '}')
	if len(out) > MaxStatementBytes {
		return nil, refusal.New(CodeStatementTooLarge, "%d bytes; at most %d are accepted", len(out), MaxStatementBytes)
	}
	return out, nil
}

// checkOwnPredicate refuses anything but a JSON object: the in-toto specification
// has no other predicates.
func checkOwnPredicate(predicate json.RawMessage) error {
	if err := CheckJSON(predicate, MaxStatementBytes); err != nil {
		return inField(err, "predicate")
	}
	if jsontext.Value(predicate).Kind() != '{' {
		return refusal.New(CodeStatementPredicateInvalid, "the predicate is not a JSON object").InField("predicate")
	}
	return nil
}

// RawPredicate is the predicate of a statement that Marshal wrote, with the white
// space around it if it had some. Of a statement in which something follows the
// predicate it is what ParseStatement gives.
func RawPredicate(payload []byte) (json.RawMessage, error) {
	st, err := ParseStatement(payload)
	if err != nil {
		return nil, err
	}
	envelope := *st
	envelope.Predicate = json.RawMessage("{}")
	head, err := envelope.Marshal()
	if err != nil {
		return st.Predicate, nil //nolint:nilerr // not one of ours, which is no fault
	}
	head = head[:len(head)-len("{}}")]
	if rest, ours := bytes.CutPrefix(payload, head); ours && len(rest) > 0 && rest[len(rest)-1] == '}' {
		// What follows the head is the predicate and the closing bracket: the head holds
		// every other field, and no field occurs twice.
		return json.RawMessage(rest[:len(rest)-1]), nil
	}
	return st.Predicate, nil
}

// checkOwnSubjects holds what we sign to more than what we read.
func (s *Statement) checkOwnSubjects() error {
	var names map[string]struct{}
	if len(s.Subjects) > 1 {
		names = make(map[string]struct{}, len(s.Subjects))
	}
	for i := range s.Subjects {
		subject, field := &s.Subjects[i], fieldOf(i)
		if err := CheckSubjectName(subject.Name); err != nil {
			return inField(err, field("name"))
		}
		// in-toto: names SHOULD be unique within subject. One name with two digests
		// would let a reader choose.
		if _, found := names[subject.Name]; found {
			return refusal.New(CodeSubjectDuplicate, "the name %+q occurs twice", subject.Name).InField(field("name"))
		}
		if names != nil {
			names[subject.Name] = struct{}{}
		}
		if err := checkDigests(subject.Digest, field("digest")); err != nil {
			return err
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(subject.Digest)), strongContentDigest) {
			return refusal.New(CodeSubjectDigestWeak, "no sha256, sha384 or sha512 digest").InField(field("digest"))
		}
		if err := checkAnnotations(subject.Annotations, field("annotations")); err != nil {
			return err
		}
	}
	return nil
}

// checkAnnotations keeps what Marshal writes readable to ParseStatement.
func checkAnnotations(annotations map[string]string, field string) error {
	if len(annotations) > MaxAnnotations {
		return refusal.New(CodeSubjectAnnotationInvalid, "%d annotations; at most %d are accepted", len(annotations), MaxAnnotations).InField(field)
	}
	var keys nameStack
	keys.push()
	for key, value := range annotations {
		switch {
		case key == "" || !utf8.ValidString(key) || !utf8.ValidString(value):
			return refusal.New(CodeSubjectAnnotationInvalid, "an empty key, or text that is not UTF-8").InField(field)
		case !keys.add([]byte(key)):
			return refusal.New(CodeSubjectAnnotationInvalid, "two keys differ only by case").InField(field)
		}
	}
	return nil
}

func (s *Subject) append(out []byte) []byte {
	out = append(out, `{"name":`...)
	out = appendString(out, s.Name)
	out = append(out, `,"digest":`...)
	out = appendMap(out, s.Digest)
	if len(s.Annotations) > 0 {
		out = append(out, `,"annotations":`...)
		out = appendMap(out, s.Annotations)
	}
	return append(out, '}')
}

func appendMap(out []byte, m map[string]string) []byte {
	out = append(out, '{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendString(out, key)
		out = append(out, ':')
		out = appendString(out, m[key])
	}
	return append(out, '}')
}

// ParseStatement reads an in-toto statement, v1 or v0.1, ours or someone else's.
// Statement and subjects are read strictly; the other ResourceDescriptor fields
// of a subject (uri, content, downloadLocation, mediaType) and annotations that
// are not text are allowed and dropped, for nothing here judges by them. The
// predicate is checked as JSON and kept as it came.
func ParseStatement(payload []byte) (*Statement, error) {
	var wire struct {
		Type          string         `json:"_type"`
		Subject       []wireSubject  `json:"subject"`
		PredicateType string         `json:"predicateType"`
		Predicate     jsontext.Value `json:"predicate"`
	}
	if err := DecodeStrict(payload, MaxStatementBytes, &wire); err != nil {
		return nil, err
	}
	if wire.Type != StatementTypeV1 && wire.Type != StatementTypeV01 {
		return nil, refusal.New(CodeStatementTypeUnknown, "statement type %.80q", wire.Type).InField("_type")
	}
	if err := checkPredicateType(wire.PredicateType); err != nil {
		return nil, err
	}
	// The predicate may be left out where its type says it all (in-toto v1).
	if wire.Predicate != nil && wire.Predicate.Kind() != '{' {
		return nil, refusal.New(CodeStatementPredicateInvalid, "the predicate is not a JSON object").InField("predicate")
	}
	if err := checkSubjectCount(len(wire.Subject)); err != nil {
		return nil, err
	}
	subjects, err := readSubjects(wire.Subject)
	if err != nil {
		return nil, err
	}
	return &Statement{
		Type:          wire.Type,
		Subjects:      subjects,
		PredicateType: wire.PredicateType,
		Predicate:     json.RawMessage(wire.Predicate),
	}, nil
}

// wireSubject is an in-toto ResourceDescriptor.
type wireSubject struct {
	Name             string                    `json:"name"`
	URI              string                    `json:"uri"`
	Digest           map[string]string         `json:"digest"`
	Content          string                    `json:"content"`
	DownloadLocation string                    `json:"downloadLocation"`
	MediaType        string                    `json:"mediaType"`
	Annotations      map[string]jsontext.Value `json:"annotations"`
}

func readSubjects(wire []wireSubject) ([]Subject, error) {
	subjects := make([]Subject, len(wire))
	for i := range wire {
		if err := checkDigests(wire[i].Digest, fieldOf(i)("digest")); err != nil {
			return nil, err
		}
		subjects[i] = Subject{Name: wire[i].Name, Digest: wire[i].Digest}
		for key, value := range wire[i].Annotations {
			if value.Kind() != '"' {
				continue
			}
			text, err := jsontext.AppendUnquote(nil, value)
			if err != nil {
				return nil, tokenRefusal(err)
			}
			if subjects[i].Annotations == nil {
				subjects[i].Annotations = make(map[string]string, len(wire[i].Annotations))
			}
			subjects[i].Annotations[key] = string(text)
		}
	}
	return subjects, nil
}

func checkPredicateType(predicateType string) error {
	if predicateType == "" || len(predicateType) > 1024 {
		return refusal.New(CodeStatementPredicateType, "the predicate type has %d bytes, want 1 to 1024", len(predicateType)).InField("predicateType")
	}
	for _, r := range predicateType {
		if r == utf8.RuneError || r == ' ' || !visible(r) {
			return refusal.New(CodeStatementPredicateType, "the predicate type %+.80q is not a URI", predicateType).InField("predicateType")
		}
	}
	return nil
}

func checkSubjectCount(n int) error {
	// A statement about nothing would verify against anything.
	if n == 0 {
		return refusal.New(CodeNoSubjects, "the statement has no subject").InField("subject")
	}
	if n > MaxSubjects {
		return refusal.New(CodeTooManySubjects, "%d subjects; at most %d are accepted", n, MaxSubjects).InField("subject")
	}
	return nil
}

// checkDigests holds for every statement, ours or not: at least one digest, all
// well formed, and not only such as can be made to collide.
func checkDigests(digests map[string]string, field string) error {
	if len(digests) == 0 {
		return refusal.New(CodeSubjectNoDigest, "the subject has no digest").InField(field)
	}
	if len(digests) > MaxDigestsPerSubject {
		return refusal.New(CodeSubjectTooManyDigests, "%d digests; at most %d are accepted", len(digests), MaxDigestsPerSubject).InField(field)
	}
	weakOnly := true
	for alg, value := range digests {
		if err := CheckDigest(alg, value); err != nil {
			return refusal.New(CodeSubjectDigestInvalid, "%w", err).InField(field)
		}
		weakOnly = weakOnly && (alg == "sha1" || alg == "md5")
	}
	if weakOnly {
		return refusal.New(CodeSubjectDigestWeak, "only sha1 or md5 digests").InField(field)
	}
	return nil
}

// fieldOf returns a function naming the fields of subject i.
func fieldOf(i int) func(field string) string {
	return func(field string) string { return fmt.Sprintf("subject[%d].%s", i, field) }
}

// inField blames a field for a refusal that came from below.
func inField(err error, field string) error {
	var r *refusal.Error
	if errors.As(err, &r) {
		return r.InField(field)
	}
	return err
}
