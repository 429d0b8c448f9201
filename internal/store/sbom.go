package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of one SBOM in the component index.
const (
	maxComponents        = 200_000
	maxComponentLicenses = 1 << 10
	maxSBOMLicenses      = 1_000_000
	maxComponentText     = 1 << 10
	maxFormatBytes       = 64
)

// SBOM is what an attestation says of the parts of its subjects.
type SBOM struct {
	// Claimed: the client made it, the service did not.
	Claimed bool
	// Complete: nothing is known to be missing.
	Complete bool
	// Format is a short word, such as "cyclonedx"; at most 64 bytes.
	Format string
	// Components are at most 200,000, in any order. One that comes twice counts once,
	// with the licences of both.
	Components []Component
}

// Component is a part of an artifact. A text has at most 1 KiB.
type Component struct {
	// PURL is the canonical package URL. The other fields but the licences are parts
	// of it: they are kept as they came first with this PURL. It is empty where the
	// component has none; the other fields then tell components apart.
	PURL                           string
	Type, Namespace, Name, Version string
	// Licenses are the SPDX ids, or texts where there are none, that occur in what is
	// said of the component's licence; at most 1024, and a million in an SBOM.
	Licenses []string
}

func checkSBOM(b *SBOM) error {
	if b == nil {
		return nil
	}
	if err := checkText("sbom.format", b.Format, maxFormatBytes); err != nil {
		return err
	}
	if len(b.Components) > maxComponents {
		return invalid("sbom.components", "are %d, at most %d", len(b.Components), maxComponents)
	}
	licenses := 0
	for i := range b.Components {
		c := &b.Components[i]
		for _, f := range []struct{ name, v string }{{"purl", c.PURL}, {"type", c.Type}, {"namespace", c.Namespace}, {"name", c.Name}, {"version", c.Version}} {
			if !textFits(f.v) {
				return checkText(fmt.Sprintf("sbom.components[%d].%s", i, f.name), f.v, maxComponentText)
			}
		}
		if strings.HasPrefix(c.PURL, "\n") {
			return invalid(fmt.Sprintf("sbom.components[%d].purl", i), "begins with a line end")
		}
		if len(c.Licenses) > maxComponentLicenses {
			return invalid(fmt.Sprintf("sbom.components[%d].licenses", i), "are %d, at most %d", len(c.Licenses), maxComponentLicenses)
		}
		for _, l := range c.Licenses {
			if !textFits(l) {
				return checkText(fmt.Sprintf("sbom.components[%d].licenses", i), l, maxComponentText)
			}
		}
		licenses += len(c.Licenses)
	}
	if licenses > maxSBOMLicenses {
		return invalid("sbom.components", "have %d licences, at most %d", licenses, maxSBOMLicenses)
	}
	return nil
}

// textFits is checkText without a field name to make.
func textFits(v string) bool { return checkText("", v, maxComponentText) == nil }

// key is what a component is known by in the dictionary. What has no package URL has a
// key that none can be: no URL begins with a line end.
func (c *Component) key() string {
	if c.PURL != "" {
		return c.PURL
	}
	return fmt.Sprintf("\n%d %d %d %s%s%s%s", len(c.Type), len(c.Namespace), len(c.Name), c.Type, c.Namespace, c.Name, c.Version)
}

// purlOf is the package URL in a key.
func purlOf(key string) string {
	if key == "" || key[0] == '\n' {
		return ""
	}
	return key
}

// sbomRow is an SBOM as it is stored: the texts are numbers of the dictionary.
type sbomRow struct {
	claimed, complete bool
	format            string
	list              []byte
}

// A list is the components of an SBOM, packed: of each, in the order of their ids, how
// much its id is greater than the one before (a varint, at least 1), and its licences:
// each a varint of twice its id, plus 1 where another follows, or 0 for none at all.

// listed is one component of a list, its licences ascending.
type listed struct {
	id       int64
	licenses []int64
}

// appendList packs components, which it sorts. The same one twice becomes one.
func appendList(b []byte, components []listed) []byte {
	slices.SortStableFunc(components, func(x, y listed) int { return int(x.id - y.id) })
	var last int64
	for i := 0; i < len(components); {
		c := components[i]
		for i++; i < len(components) && components[i].id == c.id; i++ {
			c.licenses = slices.Concat(c.licenses, components[i].licenses)
		}
		slices.Sort(c.licenses)
		c.licenses = slices.Compact(c.licenses)
		b = binary.AppendUvarint(b, uint64(c.id-last))
		last = c.id
		if len(c.licenses) == 0 {
			b = append(b, 0)
		}
		for j, l := range c.licenses {
			more := uint64(1)
			if j == len(c.licenses)-1 {
				more = 0
			}
			b = binary.AppendUvarint(b, uint64(l)<<1|more)
		}
	}
	return b
}

var errList = errors.New("store: packed list of components: damaged")

// maxID is the largest id of the dictionary that fits wherever ids are packed.
const maxID = math.MaxInt64 >> 2

// eachListed calls f with each component of a list until it returns false. The
// licences are good only for the call.
func eachListed(b []byte, f func(id int64, licenses []int64) bool) error {
	var id int64
	var licenses []int64
	next := func() (int64, bool) {
		if len(b) > 0 && b[0] < 0x80 {
			v := int64(b[0])
			b = b[1:]
			return v, true
		}
		v, n := binary.Uvarint(b)
		if n <= 0 || v > maxID {
			return 0, false
		}
		b = b[n:]
		return int64(v), true
	}
	for len(b) > 0 {
		delta, ok := next()
		if !ok || delta == 0 || id+delta > maxID {
			return errList
		}
		id += delta
		licenses = licenses[:0]
		for more := true; more; {
			v, ok := next()
			if !ok {
				return errList
			}
			more = v&1 == 1
			if v == 0 && len(licenses) == 0 {
				break
			}
			if v>>1 == 0 || len(licenses) > 0 && v>>1 <= licenses[len(licenses)-1] {
				return errList
			}
			licenses = append(licenses, v>>1)
		}
		if !f(id, licenses) {
			return nil
		}
	}
	return nil
}

// A term is what a posting list is of: a component or a licence.
func componentTerm(id int64) uint64 { return uint64(id) << 1 }
func licenseTerm(id int64) uint64   { return uint64(id)<<1 | 1 }

// termsOf returns the terms of a list, ascending, each once.
func termsOf(list []byte) ([]uint64, error) {
	terms := make([]uint64, 0, len(list)/4+8)
	licenses := make(map[int64]struct{})
	err := eachListed(list, func(id int64, ls []int64) bool {
		terms = append(terms, componentTerm(id))
		for _, l := range ls {
			licenses[l] = struct{}{}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for l := range maps.Keys(licenses) {
		terms = append(terms, licenseTerm(l))
	}
	slices.Sort(terms)
	return terms, nil
}

// appendSBOM packs an SBOM as field 11 of a Record:
//
//	message SBOM { int64 claimed = 1; int64 complete = 2; string format = 3; bytes components = 4; }
func appendSBOM(b []byte, r *sbomRow) []byte {
	if r == nil {
		return b
	}
	one := appendInt(nil, 1, oneIf(r.claimed))
	one = appendInt(one, 2, oneIf(r.complete))
	one = appendBytes(one, 3, r.format)
	one = appendBytes(one, 4, r.list)
	b = protowire.AppendTag(b, 11, protowire.BytesType)
	return protowire.AppendBytes(b, one)
}

// unpackSBOM returns the SBOM of a packed record, nil if it has none.
func unpackSBOM(record []byte) (*sbomRow, error) {
	var r *sbomRow
	err := fields(record, func(num protowire.Number, _ int64, v []byte) error {
		if num != 11 {
			return nil
		}
		r = &sbomRow{}
		return fields(v, func(num protowire.Number, n int64, v []byte) error {
			switch num {
			case 1:
				r.claimed = n != 0
			case 2:
				r.complete = n != 0
			case 3:
				r.format = string(v)
			case 4:
				r.list = slices.Clone(v)
			}
			return nil
		})
	})
	if err != nil || r == nil {
		return nil, err
	}
	// A damaged list would otherwise show only when it is searched.
	return r, eachListed(r.list, func(int64, []int64) bool { return true })
}
