package provenance

import (
	"net/url"
	"strings"

	"github.com/assay-build/assay/internal/refusal"
)

// gitURI writes the source "git+https://host/owner/repo@version" (the form of SPDX
// and of SLSA's examples) of a repository's address. The same repository written
// in two ways must be one source, so what git hosts ignore goes: a final ".git" or
// slash, the case of the host, the default port. What could make one string stand
// for two sources, or two readers see different ones, is refused: escapes, dot
// segments, an "@" that is not ours, query, fragment, user information.
func gitURI(location, version string) (string, error) {
	u, err := url.Parse(location)
	// The location is not told: it may hold what somebody put there as user
	// information in a form that was not recognised.
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.Opaque != "" ||
		u.User != nil || strings.ContainsAny(location, "?#@%") {
		return "", refusal.New(CodeSourceInvalid, "the location of the source is not an address https://HOST/PATH")
	}
	host, err := plainHost(u)
	if err != nil {
		return "", err
	}
	path := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), ".git")
	if err := checkPath(path); err != nil {
		return "", err
	}
	return withVersion("git+"+u.Scheme+"://"+host+path, version), nil
}

func plainHost(u *url.URL) (string, error) {
	name := strings.ToLower(u.Hostname())
	port := u.Port()
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || strings.HasSuffix(name, ".") {
		return "", refusal.New(CodeSourceInvalid, "the host of the source is not a plain name")
	}
	if port == "" || port == map[string]string{"https": "443", "http": "80"}[u.Scheme] {
		return name, nil
	}
	return name + ":" + port, nil
}

// checkPath wants "/segment/segment" of the characters that git hosts allow.
func checkPath(path string) error {
	rest, rooted := strings.CutPrefix(path, "/")
	if !rooted {
		return refusal.New(CodeSourceInvalid, "the location of the source has no path")
	}
	for segment := range strings.SplitSeq(rest, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.IndexFunc(segment, oddInPath) >= 0 {
			return refusal.New(CodeSourceInvalid, "the path of the source has a segment that is empty, of dots or of odd characters")
		}
	}
	return nil
}

func oddInPath(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~+", r)
}

// withVersion appends what was asked for; nothing for the default branch. It may
// hold any character that a ref may, hence the escapes.
func withVersion(uri, version string) string {
	if version == "" {
		return uri
	}
	return uri + "@" + (&url.URL{Path: version}).EscapedPath()
}

// s3URI writes s3://bucket/key of the "bucket/key" that CodeBuild has, with the
// version id, if one was asked for.
func s3URI(location, version string) (string, error) {
	bucket, key, found := strings.Cut(location, "/")
	if !found || key == "" || len(bucket) < 3 || strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return "", refusal.New(CodeSourceInvalid, "the location of the S3 source is not BUCKET/KEY")
	}
	uri := "s3://" + bucket + "/" + strings.TrimPrefix((&url.URL{Path: "/" + key}).EscapedPath(), "/")
	if version != "" {
		uri += "?versionId=" + url.QueryEscape(version)
	}
	return uri, nil
}
