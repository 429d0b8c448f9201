package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// formatChoice is a --format flag with its choices; the first is the default.
type formatChoice struct {
	value   string
	choices []string
}

func formatFlag(cmd *cobra.Command, choices ...string) *formatChoice {
	f := &formatChoice{choices: choices}
	cmd.Flags().StringVar(&f.value, "format", choices[0], "output: "+strings.Join(choices, " or "))
	return f
}

func (f *formatChoice) check() error {
	if !slices.Contains(f.choices, f.value) {
		return usage(fmt.Sprintf("--format %q", f.value), "want "+strings.Join(f.choices, " or "))
	}
	return nil
}

// print adds to what will go to stdout. Callers clean what comes from outside.
func (a *app) print(format string, args ...any) { fmt.Fprintf(&a.out, format, args...) }

// printJSON adds v, indented, in ASCII where that matters.
func (a *app) printJSON(v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	a.out.Write(escapeJSON(buf.Bytes()))
	return nil
}

// escapeJSON writes characters that must not reach a terminal as \u escapes. In
// well-formed JSON they can only stand in strings, so the meaning stays; line
// breaks and tabs between values stay too.
func escapeJSON(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if shows(r) || r == '\n' || r == '\t' || r == '\r' {
			out = append(out, data[:n]...)
		} else if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		} else {
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		data = data[n:]
	}
	return out
}

// table lines up columns. Rows whose only value is empty are left out.
type table struct{ w *tabwriter.Writer }

func (a *app) table() *table {
	return &table{tabwriter.NewWriter(&a.out, 0, 0, 2, ' ', 0)}
}

func (t *table) row(cells ...string) {
	if len(cells) == 2 && cells[1] == "" {
		return
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *table) flush() { _ = t.w.Flush() } // A bytes.Buffer takes everything.

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// bytesOf prints a size for people.
func bytesOf(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < 4 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %cB", value, "kMGTP"[prefix])
}
