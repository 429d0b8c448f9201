package scan

import (
	"errors"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxTOMLDepth bounds arrays and tables in each other, be they nested by brackets or by
// dots in a key: the parser calls itself for each, and keeps the name of each.
const maxTOMLDepth = 64

// decodeTOML reads a lock of bounded size and depth.
func decodeTOML(f *file, limit int64, v any) error {
	data, err := readAll(f.tree, f.path, min(limit, f.maxRead))
	if err != nil {
		return err
	}
	return parseTOML(string(data), v)
}

func parseTOML(text string, v any) error {
	if tomlDepth(text) > maxTOMLDepth {
		return errors.New("TOML nested too deep")
	}
	if _, err := toml.Decode(text, v); err != nil {
		return errors.New("not the TOML that is expected")
	}
	return nil
}

// tomlDepth is how deep brackets are open in each other, with the dots of the keys that
// lead there, outside of strings and comments. The dot of a number counts as one too.
func tomlDepth(text string) int {
	var open []int // the dots before each bracket that is open
	dots, deepest := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '[', '{':
			open = append(open, dots)
		case ']', '}':
			if n := len(open); n > 0 {
				dots, open = open[n-1], open[:n-1]
			}
		case '.':
			dots++
		case ',', '\n':
			dots = 0
			if n := len(open); n > 0 {
				dots = open[n-1]
			}
		case '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
			i-- // the end of the line counts
		case '"', '\'':
			i = tomlStringEnd(text, i)
		}
		deepest = max(deepest, len(open)+dots)
	}
	return deepest
}

// tomlStringEnd gives the index of the last byte of the string that begins at i. Three
// quotes open a string of many lines, before whose closing three two more may stand.
func tomlStringEnd(text string, i int) int {
	quote := text[i]
	long := strings.HasPrefix(text[i:], strings.Repeat(string(quote), 3))
	if long {
		i += 3
	} else {
		i++
	}
	for ; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case !long && (text[i] == quote || text[i] == '\n'):
			return i
		case long && strings.HasPrefix(text[i:], strings.Repeat(string(quote), 3)):
			end := i + 2
			for extra := 0; extra < 2 && end+1 < len(text) && text[end+1] == quote; extra++ {
				end++
			}
			return end
		}
	}
	return i
}
