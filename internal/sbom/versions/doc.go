// Package versions orders versions of packages as their ecosystems do, and tells which
// lie in a range.
//
// An ecosystem is named by its package URL type. Whether 2.0-rc1 comes before 2.0, and
// whether 1.10 comes after 1.9, is for the ecosystem to say, so there is no order for
// types that nobody defined one for, and a text that is no version of its ecosystem has
// no place in it. Both are an error and never a plain "no": a search for vulnerable
// versions reports them as undecided.
//
//	r, err := versions.ParseRange(">=2.0,<2.17.1")
//	in, err := r.Matches("maven", "2.14.1") // true
//
// A range is one of
//
//	>=2.0,<2.17.1                  comparisons that must all hold: < <= > >= = !=
//	*                              every version
//	vers:maven/>=2.0|<2.17.1|2.20  a version range specifier (VERS) of intervals,
//	                               single versions, and versions left out
//
// The comparisons themselves are those of osv-scalibr, package semantic; what is added
// here is the refusal of texts that it would take for some version.
package versions
