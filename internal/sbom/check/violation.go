package check

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/assay-build/assay/internal/refusal"
)

// violation says in one line what the schema does not allow. The validator finds all
// there is, in an order that differs from run to run; told is the deepest, since of
// alternatives that all fail it is the one that was meant, and the first among those.
func violation(err error, at *path) error {
	var all *jsonschema.ValidationError
	if !errors.As(err, &all) {
		return refusal.New(CodeSBOMInvalid, "%s", clip(err.Error(), 240)).InField(at.String())
	}
	worst := worstLeaf(all, nil)
	where := path{steps: slices.Clone(at.steps)}
	for _, name := range worst.InstanceLocation {
		if i, err := strconv.Atoi(name); err == nil {
			where.pushIndex(i)
		} else {
			where.push(name)
		}
	}
	return refusal.New(CodeSBOMInvalid, "%s", describe(worst)).InField(where.String())
}

func worstLeaf(e, worst *jsonschema.ValidationError) *jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		if worst == nil || compareLeaves(e, worst) < 0 {
			return e
		}
		return worst
	}
	for _, c := range e.Causes {
		worst = worstLeaf(c, worst)
	}
	return worst
}

func compareLeaves(a, b *jsonschema.ValidationError) int {
	if c := cmp.Or(cmp.Compare(len(b.InstanceLocation), len(a.InstanceLocation)),
		slices.Compare(a.InstanceLocation, b.InstanceLocation)); c != 0 {
		return c
	}
	return cmp.Compare(describe(a), describe(b))
}

// describe words the common violations for people. None of them is of unbounded length.
func describe(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		return "missing " + clip(strings.Join(k.Missing, ", "), 200)
	case *kind.AdditionalProperties:
		return fmt.Sprintf("unknown member %q", clip(slices.Min(k.Properties), 80))
	case *kind.Enum:
		return fmt.Sprintf("%s is none of the values that are allowed", quote(k.Got))
	case *kind.Const:
		return fmt.Sprintf("%s is not the value that is required", quote(k.Got))
	case *kind.Pattern:
		return fmt.Sprintf("%q does not match %s", clip(k.Got, 120), k.Want)
	case *kind.Format:
		return fmt.Sprintf("%s is no valid %s", quote(k.Got), k.Want)
	case *kind.Type:
		return fmt.Sprintf("%s, where %s is required", k.Got, strings.Join(k.Want, " or "))
	case *kind.MinLength:
		return fmt.Sprintf("%d characters; at least %d are required", k.Got, k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("%d elements; at least %d are required", k.Got, k.Want)
	case *kind.UniqueItems:
		return fmt.Sprintf("elements %d and %d are the same", k.Duplicates[0], k.Duplicates[1])
	case *kind.OneOf:
		return "must be exactly one of the alternatives"
	case *kind.Not:
		return "members that exclude each other"
	}
	return "breaks " + strings.Join(e.ErrorKind.KeywordPath(), "/")
}

// quote words a value of the document, which may be of any size.
func quote(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(clip(v, 120))
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	}
	return fmt.Sprint(v)
}
