package scan

import (
	"errors"

	"go.yaml.in/yaml/v3"
)

// maxYAMLWork bounds the pairs of members that decoding compares: the library holds each
// key of a mapping against each other one. The mappings of a sound lock have some ten
// thousand members.
const maxYAMLWork = 1 << 29

var errYAMLWork = errors.New("YAML with too many members in one mapping")

// decodeYAML decodes a document that was parsed.
func decodeYAML(n *yaml.Node, v any) error {
	if (yamlWork{}).of(n) > maxYAMLWork {
		return errYAMLWork
	}
	return n.Decode(v)
}

// yamlWork is what decoding each node costs, with the aliases in it.
type yamlWork map[*yaml.Node]int64

func (w yamlWork) of(n *yaml.Node) int64 {
	if n == nil || (n.Kind == yaml.ScalarNode) {
		return 0
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
		if work, known := w[n]; known {
			return work
		}
	}
	if n.Anchor != "" {
		w[n] = maxYAMLWork + 1 // should it contain itself
	}
	work := int64(0)
	if n.Kind == yaml.MappingNode {
		members := int64(len(n.Content) / 2)
		work = members * members / 2
	}
	for _, inner := range n.Content {
		work = min(work+w.of(inner), maxYAMLWork+1)
	}
	if n.Anchor != "" {
		w[n] = work
	}
	return work
}
