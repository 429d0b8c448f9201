package check

import (
	"strconv"
	"strings"
)

// path is where in a document the reader is. It is rendered only for a refusal.
type path struct{ steps []step }

// step is a member, or an element where name is "".
type step struct {
	name  string
	index int
}

func (p *path) push(name string)    { p.steps = append(p.steps, step{name: name, index: -1}) }
func (p *path) pushIndex(index int) { p.steps = append(p.steps, step{index: index}) }
func (p *path) pop()                { p.steps = p.steps[:len(p.steps)-1] }

// String is as in "components[3].licenses[0].license.id".
func (p *path) String() string {
	var sb strings.Builder
	for _, s := range p.steps {
		switch {
		case s.index >= 0:
			sb.WriteString("[" + strconv.Itoa(s.index) + "]")
		case plainName(s.name):
			if sb.Len() > 0 {
				sb.WriteByte('.')
			}
			sb.WriteString(s.name)
		default:
			sb.WriteString("[" + strconv.Quote(clip(s.name, 80)) + "]")
		}
	}
	return sb.String()
}

// plainName reports whether a member is written as it is; others are quoted.
func plainName(s string) bool {
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && c != '$' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= 80
}

// clip bounds text of the document in a message.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
