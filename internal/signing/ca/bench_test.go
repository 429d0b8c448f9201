package ca

import "testing"

// BenchmarkIssue is the whole of one leaf: its key, the SCT, the certificate.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b)
	id := workflow()
	w.issue(id) // and makes the intermediate
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.authority.Issue(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLogEntryOf(b *testing.B) {
	w := newWorld(b)
	leaf := w.issue(workflow())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := LogEntryOf(parsed(b, leaf), leaf.Issuer); err != nil {
			b.Fatal(err)
		}
	}
}
