package client

import (
	"context"
	"iter"

	"github.com/assay-build/assay/internal/attest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// maxUndecided bounds what is told of versions that nobody can place.
const maxUndecided = 1000

// ComponentSearch asks which artifacts hold a package. PURL, Name or License is
// required; all that is set must hold.
type ComponentSearch struct {
	// PURL is a package URL: without a version, with one, or with a range in its place,
	// pkg:maven/org.apache.logging.log4j/log4j-core@<2.17.1.
	PURL string
	// Name is the name of a package of any type and namespace, instead of PURL.
	Name string
	// VersionRange is a range for either, as in PURL or as vers:maven/>=2.0|<2.17.1.
	VersionRange string
	// License is an SPDX license identifier.
	License string
	// PageSize is how many matches come with one call, 1 to 1000; 0 leaves it to the server.
	PageSize int
	// Undecided, if not nil, is told once of each version that the ecosystem's order says
	// nothing about: it is not among the matches, and may well be what is looked for. They
	// come before the matches of the page.
	Undecided func(purl string)
	// Truncated, if not nil, is called once where the server says that it did not look at
	// everything: there may be matches that are not told. It comes before the page's matches.
	Truncated func()
}

// SearchComponents yields the SBOMs that hold what is asked for, the newest first,
// fetching page after page as they are consumed. An error is yielded last.
func (c *Client) SearchComponents(ctx context.Context, o ComponentSearch) iter.Seq2[*assayv1.ComponentMatch, error] {
	told, truncated := make(map[string]bool), false
	return pages(func(token string) (rows []*assayv1.ComponentMatch, next string, err error) {
		var resp *assayv1.SearchComponentsResponse
		err = c.authenticated(ctx, unaryTimeout, func(ctx context.Context) (err error) {
			resp, err = c.audit.SearchComponents(ctx, &assayv1.SearchComponentsRequest{
				Purl: o.PURL, Name: o.Name, VersionRange: o.VersionRange, License: o.License, PageSize: int32(o.PageSize), PageToken: token,
			})
			return err
		})
		if err != nil {
			return nil, "", err
		}
		if resp.GetTruncated() && !truncated && o.Truncated != nil {
			truncated = true
			o.Truncated()
		}
		for _, purl := range resp.GetUndecidedPurls() {
			if o.Undecided != nil && !told[purl] && len(told) < maxUndecided {
				told[purl] = true
				o.Undecided(purl)
			}
		}
		for _, m := range resp.GetMatches() {
			if err := checkMatch(m); err != nil {
				return nil, "", err
			}
		}
		return resp.GetMatches(), resp.GetNextPageToken(), nil
	})
}

// checkMatch refuses a match that names no artifact, or no SBOM where that could be
// looked up.
func checkMatch(m *assayv1.ComponentMatch) error {
	if err := attest.CheckDigest("sha256", m.GetSubject().GetDigest()["sha256"]); err != nil {
		return dishonest("a match that is no artifact: %w", err)
	}
	if err := attest.CheckDigest("sha256", m.GetAttestationId()); err != nil {
		return dishonest("a match without the id of an SBOM: %w", err)
	}
	return nil
}
