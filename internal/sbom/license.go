package sbom

import (
	"slices"
	"strings"
)

// NormalizeLicense makes an SPDX expression in canonical spelling of what a package
// says of its licence: an expression in any case, a name or an address in common use, a
// trove classifier, a short name of Debian or Fedora, or the beginning of a well-known
// licence text. Where it can make none of it, isSPDX is false and expr is the text
// itself, cleaned; "" where it says only that nothing is known.
//
// "BSD" and "public domain", which name no one text, become LicenseRef-BSD and
// LicenseRef-public-domain, and a GNU licence without a version is that in any version,
// as it says itself. The result is a fixed point.
func NormalizeLicense(s string) (expr string, isSPDX bool) {
	if strings.Count(s, "\n") > 2 {
		if id := detectLicenseText(s); id != "" {
			return id, true
		}
	}
	text := cleanText(s)
	if saysNothing(text) {
		return "", false
	}
	if n := parseLicense(text); n != nil {
		// A chain of operators can grow by its canonical spelling, and a text that was
		// cut is not what was said.
		if expr := n.String(); len(expr) <= MaxTextBytes && len(s) <= MaxTextBytes {
			return expr, true
		}
	}
	return text, false
}

func saysNothing(text string) bool {
	switch strings.ToLower(text) {
	case "", "noassertion", "none", "unknown", "n/a", "null", "undefined", "license", "licence", "-", "other",
		"license :: osi approved", "osi approved", "see license", "unspecified":
		return true
	}
	return false
}

// splitLicense gives the parts of an expression that all apply, so that "A AND B" and
// the list of A and B are the same to a reader.
func splitLicense(expr string) []string {
	if !strings.Contains(expr, " AND ") {
		return []string{expr}
	}
	n := parseExpression(expr, exactAtom)
	if n == nil || n.op != opAnd {
		return []string{expr}
	}
	parts := make([]string, len(n.kids))
	for i, kid := range n.kids {
		parts[i] = kid.String()
	}
	return parts
}

// LicenseIDs lists the licences that occur in expressions as NormalizeLicense gives
// them: SPDX identifiers without their exceptions, LicenseRefs, and texts that are no
// expression. In order, each once.
func LicenseIDs(exprs []string) []string {
	var ids []string
	for _, expr := range exprs {
		if isLicenseID(expr) {
			ids = append(ids, expr)
			continue
		}
		switch n := parseExpression(expr, exactAtom); {
		case n != nil:
			ids = n.ids(ids)
		case !saysNothing(expr):
			ids = append(ids, expr)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// isLicenseID reports whether expr is one identifier of the SPDX list, as spelt there.
func isLicenseID(expr string) bool {
	return expr != "" && spdx().licenses[strings.ToLower(expr)] == expr
}

// detectLicenseText knows the texts that packages put where a name should be. It looks
// for sentences that the one licence has and its relatives have not.
func detectLicenseText(s string) string {
	const enough = 16 << 10
	words := strings.Join(strings.Fields(strings.ToLower(s[:min(len(s), enough)])), " ")
	has := func(sentence string) bool { return strings.Contains(words, sentence) }
	switch {
	case has("permission is hereby granted, free of charge, to any person obtaining a copy") &&
		has("the above copyright notice and this permission notice") && !has("except as contained in this notice"):
		return "MIT"
	case has("redistribution and use in source and binary forms") && !has("all advertising materials"):
		return detectBSD(has)
	case has("permission to use, copy, modify, and/or distribute this software for any purpose"),
		has("permission to use, copy, modify, and distribute this software for any purpose with or without fee"):
		if has("provided that the above copyright notice and this permission notice appear in all copies") {
			return "ISC"
		}
		return ""
	case strings.HasPrefix(words, "apache license version 2.0, january 2004"),
		has(`licensed under the apache license, version 2.0 (the "license")`):
		return "Apache-2.0"
	case strings.HasPrefix(words, "mozilla public license version 2.0"):
		return "MPL-2.0"
	case has("this is free and unencumbered software released into the public domain"):
		return "Unlicense"
	}
	return ""
}

func detectBSD(has func(string) bool) string {
	if !has("redistributions of source code must retain") || !has("redistributions in binary form must reproduce") {
		return ""
	}
	if has("neither the name") || has("may be used to endorse or promote") {
		return "BSD-3-Clause"
	}
	return "BSD-2-Clause"
}
