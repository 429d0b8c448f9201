package attest

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// nameStack holds the member names of the objects that are open at one point of
// a JSON text, folded, and tells when one object gets the same folded name twice.
//
// Names lie end to end in one arena that shrinks when an object closes, so an
// ordinary document costs no allocation per name. An object with many names gets
// a hash index: a document that is one huge object must not cost quadratic time.
type nameStack struct {
	arena   []byte
	ends    []int // end of each name in the arena
	objects []objectNames
}

type objectNames struct {
	first int                 // index into ends of the object's first name
	index map[string]struct{} // nil until the object has scanLimit names
}

// scanLimit is the number of names up to which comparing with each is cheaper
// than hashing.
const scanLimit = 24

func (s *nameStack) push() {
	s.objects = append(s.objects, objectNames{first: len(s.ends)})
}

func (s *nameStack) pop() {
	last := len(s.objects) - 1
	s.ends = s.ends[:s.objects[last].first]
	s.arena = s.arena[:s.end(len(s.ends))]
	s.objects = s.objects[:last]
}

// end returns where name i-1 ends, which is where name i starts.
func (s *nameStack) end(i int) int {
	if i == 0 {
		return 0
	}
	return s.ends[i-1]
}

// add records a name of the innermost object. It returns false if the object
// already has a name that folds to the same.
func (s *nameStack) add(name []byte) bool {
	object := &s.objects[len(s.objects)-1]
	start := len(s.arena)
	s.arena = appendFold(s.arena, name)
	folded := s.arena[start:]
	if object.index != nil {
		if _, found := object.index[string(folded)]; found {
			return false
		}
		object.index[string(folded)] = struct{}{}
		s.ends = append(s.ends, len(s.arena))
		return true
	}
	for i := object.first; i < len(s.ends); i++ {
		if bytes.Equal(s.arena[s.end(i):s.ends[i]], folded) {
			return false
		}
	}
	s.ends = append(s.ends, len(s.arena))
	if len(s.ends)-object.first == scanLimit {
		object.index = make(map[string]struct{}, 4*scanLimit)
		for i := object.first; i < len(s.ends); i++ {
			object.index[string(s.arena[s.end(i):s.ends[i]])] = struct{}{}
		}
	}
	return true
}

// appendFold appends the simple case folding of name: each character becomes the
// smallest of those it is equal to under unicode.SimpleFold, so that K (U+212A,
// the Kelvin sign), k and K are one, and ſ, s and S.
func appendFold(dst, name []byte) []byte {
	for i := 0; i < len(name); {
		if c := name[i]; c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(name[i:])
		dst = utf8.AppendRune(dst, foldRune(r))
		i += size
	}
	return dst
}

func foldRune(r rune) rune {
	smallest := r
	for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
		smallest = min(smallest, other)
	}
	return smallest
}
