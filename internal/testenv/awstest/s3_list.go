package awstest

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxPage is the most that S3 lists at once, whatever is asked for.
const maxPage = 1000

// listDate is how listings write dates; the fraction is always zero.
const listDate = "2006-01-02T15:04:05.000Z"

type s3Owner struct{ ID string }

// listPage is what listings have in common: what was asked, and the part of the
// entries that fits.
type listPage struct {
	prefix, delimiter string
	max               int
	encode            func(string) string

	entries  []version
	prefixes []s3Prefix
	last     version // the last that was listed, directly or by its prefix
	more     bool
}

type s3Prefix struct{ Prefix string }

// page reads what listings are asked in common.
func (s *s3Call) page() (*listPage, *reply) {
	p := &listPage{
		prefix: s.query.Get("prefix"), delimiter: s.query.Get("delimiter"), max: maxPage,
		encode: func(text string) string { return text },
	}
	switch s.query.Get("encoding-type") {
	case "":
	case "url":
		p.encode = func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "%2F", "/") }
	default:
		return nil, s.fail(http.StatusBadRequest, "InvalidArgument", "Invalid Encoding Method specified in Request")
	}
	if text := s.query.Get("max-keys"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil, s.fail(http.StatusBadRequest, "InvalidArgument", "Provided max-keys not an integer or within integer range")
		}
		p.max = min(int(n), maxPage)
	}
	return p, nil
}

// fill takes entries in their order until the page is full. Keys that share what
// stands before a delimiter count once, as their common prefix; those in whose
// prefix the page before ended are passed over.
func (p *listPage) fill(entries []version, after string) {
	for _, v := range entries {
		common := p.common(v.key)
		if common != "" {
			if n := len(p.prefixes); n > 0 && p.prefixes[n-1].Prefix == p.encode(common) || strings.HasPrefix(after, common) {
				p.last = v
				continue
			}
		}
		if len(p.entries)+len(p.prefixes) == p.max {
			p.more = p.max > 0
			return
		}
		if common != "" {
			p.prefixes = append(p.prefixes, s3Prefix{p.encode(common)})
		} else {
			p.entries = append(p.entries, v)
		}
		p.last = v
	}
}

// common is the common prefix that a key is rolled up into, if any.
func (p *listPage) common(key string) string {
	if p.delimiter == "" {
		return ""
	}
	head, _, found := strings.Cut(key[len(p.prefix):], p.delimiter)
	if !found {
		return ""
	}
	return p.prefix + head + p.delimiter
}

type listedObject struct {
	Key               string
	LastModified      string
	ETag              string
	ChecksumAlgorithm string
	ChecksumType      string
	Size              int
	StorageClass      string
	Owner             *s3Owner `xml:",omitempty"`
}

func (s *s3Call) listObjects() *reply {
	p, refused := s.page()
	if refused != nil {
		return refused
	}
	after := s.query.Get("start-after")
	token := s.query.Get("continuation-token")
	if token != "" {
		key, err := base64.URLEncoding.DecodeString(token)
		if err != nil {
			return s.fail(http.StatusBadRequest, "InvalidArgument", "The continuation token provided is incorrect")
		}
		after = string(key)
	}
	var current []version
	for _, v := range s.bucket.list(p.prefix) {
		if v.latest && !v.deleteMarker && v.key > after {
			current = append(current, v)
		}
	}
	p.fill(current, after)
	var objects []listedObject
	for _, v := range p.entries {
		o := listedObject{
			Key: p.encode(v.key), LastModified: v.modified.Format(listDate), ETag: v.etag,
			ChecksumAlgorithm: strings.ToUpper(v.checksum.algorithm), ChecksumType: "FULL_OBJECT",
			Size: len(v.data), StorageClass: "STANDARD",
		}
		if s.query.Get("fetch-owner") == "true" {
			o.Owner = &s3Owner{s.bucket.ownerID()}
		}
		objects = append(objects, o)
	}
	next := ""
	if p.more {
		next = base64.URLEncoding.EncodeToString([]byte(p.last.key))
	}
	return xmlReply(http.StatusOK, struct {
		XMLName               xml.Name
		Name                  string
		Prefix                string
		Delimiter             string `xml:",omitempty"`
		StartAfter            string `xml:",omitempty"`
		ContinuationToken     string `xml:",omitempty"`
		NextContinuationToken string `xml:",omitempty"`
		EncodingType          string `xml:",omitempty"`
		KeyCount              int
		MaxKeys               int
		IsTruncated           bool
		Contents              []listedObject
		CommonPrefixes        []s3Prefix
	}{
		xml.Name{Space: s3Namespace, Local: "ListBucketResult"}, s.bucket.name, p.encode(p.prefix), p.encode(p.delimiter),
		p.encode(s.query.Get("start-after")), token, next, s.query.Get("encoding-type"),
		len(p.entries) + len(p.prefixes), p.max, p.more, objects, p.prefixes,
	})
}

// listedVersion is an element Version or DeleteMarker, in the order of the keys.
type listedVersion struct {
	XMLName           xml.Name
	Key               string
	VersionId         string
	IsLatest          bool
	LastModified      string
	ETag              string `xml:",omitempty"`
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              *int   `xml:",omitempty"`
	StorageClass      string `xml:",omitempty"`
	Owner             s3Owner
}

func (s *s3Call) listVersions() *reply {
	p, refused := s.page()
	if refused != nil {
		return refused
	}
	marker, versionMarker := s.query.Get("key-marker"), s.query.Get("version-id-marker")
	if marker == "" && versionMarker != "" {
		return s.fail(http.StatusBadRequest, "InvalidArgument", "A version-id marker cannot be specified without a key marker.")
	}
	p.fill(versionsAfter(s.bucket.list(p.prefix), marker, versionMarker), marker)
	var versions []listedVersion
	for _, v := range p.entries {
		versions = append(versions, s.listed(p, v))
	}
	var nextKey, nextVersion string
	if p.more {
		nextKey, nextVersion = p.encode(p.last.key), p.last.versionID
	}
	return xmlReply(http.StatusOK, struct {
		XMLName             xml.Name
		Name                string
		Prefix              string
		Delimiter           string `xml:",omitempty"`
		KeyMarker           string
		VersionIdMarker     string
		NextKeyMarker       string `xml:",omitempty"`
		NextVersionIdMarker string `xml:",omitempty"`
		EncodingType        string `xml:",omitempty"`
		MaxKeys             int
		IsTruncated         bool
		Versions            []listedVersion
		CommonPrefixes      []s3Prefix
	}{
		xml.Name{Space: s3Namespace, Local: "ListVersionsResult"}, s.bucket.name, p.encode(p.prefix), p.encode(p.delimiter),
		p.encode(marker), versionMarker, nextKey, nextVersion, s.query.Get("encoding-type"), p.max, p.more, versions, p.prefixes,
	})
}

func (s *s3Call) listed(p *listPage, v version) listedVersion {
	out := listedVersion{
		XMLName: xml.Name{Local: "DeleteMarker"},
		Key:     p.encode(v.key), VersionId: v.versionID, IsLatest: v.latest,
		LastModified: v.modified.Format(listDate), Owner: s3Owner{s.bucket.ownerID()},
	}
	if v.deleteMarker {
		return out
	}
	size := len(v.data)
	out.XMLName.Local, out.ETag, out.Size, out.StorageClass = "Version", v.etag, &size, "STANDARD"
	out.ChecksumAlgorithm, out.ChecksumType = strings.ToUpper(v.checksum.algorithm), "FULL_OBJECT"
	return out
}

// versionsAfter is what follows a marker: a version of a key, or, where only the
// key is given, all its versions.
func versionsAfter(all []version, key, versionID string) []version {
	if key == "" {
		return all
	}
	found := versionID == ""
	for i, v := range all {
		switch {
		case v.key < key:
		case v.key > key:
			return all[i:]
		case found && versionID != "":
			return all[i:]
		case v.versionID == versionID:
			found = true
		}
	}
	return nil
}
