package awstest

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	maxKeyBytes      = 1024
	maxMetadataBytes = 2 << 10
)

// getObject answers GetObject and HeadObject; the world leaves out the body of
// the latter.
func (s *s3Call) getObject() *reply {
	o, refused := s.find()
	if refused != nil {
		return refused
	}
	h := s.objectHeader(o)
	if match := s.r.Header.Get("If-Match"); match != "" && match != "*" && match != o.etag {
		return s.fail(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	}
	if match := s.r.Header.Get("If-None-Match"); match == "*" || match == o.etag {
		return &reply{status: http.StatusNotModified, header: h}
	}
	body, status := o.data, http.StatusOK
	if from, to, ok := byteRange(s.r.Header.Get("Range"), len(o.data)); ok {
		if from >= to {
			out := s.fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
			out.header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(o.data)))
			return out
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(o.data)))
		h.Del(o.checksum.header()) // it is that of the whole
		h.Del("X-Amz-Checksum-Type")
		body, status = o.data[from:to], http.StatusPartialContent
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	return &reply{status: status, header: h, body: body}
}

// find returns the object that is asked for, or the refusal. Who may not list a
// bucket is not told that a key is absent.
func (s *s3Call) find() (*object, *reply) {
	id := s.query.Get("versionId")
	if s.query.Has("versionId") && id == "" {
		return nil, s.fail(http.StatusBadRequest, "InvalidArgument", "Version id cannot be the empty string")
	}
	o := s.bucket.get(s.key, id)
	switch {
	case o == nil && !s.may("s3:ListBucket", s.bucket.ARN()):
		return nil, s.fail(http.StatusForbidden, "AccessDenied", "Access Denied")
	case o == nil && id != "":
		return nil, s.fail(http.StatusNotFound, "NoSuchVersion", "The specified version does not exist.")
	case o == nil:
		return nil, s.fail(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	case !o.deleteMarker:
		return o, nil
	}
	out := s.fail(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	if id != "" {
		out = s.fail(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
		out.header.Set("Allow", http.MethodDelete)
	}
	out.header.Set("X-Amz-Delete-Marker", "true")
	out.header.Set("X-Amz-Version-Id", o.versionID)
	return nil, out
}

func (s *s3Call) objectHeader(o *object) http.Header {
	h := http.Header{}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", o.contentType)
	h.Set("Etag", o.etag)
	h.Set("Last-Modified", o.modified.Format(http.TimeFormat))
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	for name, value := range o.metadata {
		h.Set(name, value)
	}
	if s.bucket.versioningState() != "" {
		h.Set("X-Amz-Version-Id", o.versionID)
	}
	if strings.EqualFold(s.r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") {
		h.Set(o.checksum.header(), o.checksum.value)
		h.Set("X-Amz-Checksum-Type", "FULL_OBJECT")
	}
	return h
}

// byteRange reads a Range header for size bytes. What is no single range in
// bytes is not ok, and S3 then sends everything. An empty range cannot be
// satisfied.
func byteRange(header string, size int) (from, to int, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	if first == "" { // the last n bytes
		n, err := strconv.ParseUint(last, 10, 31)
		return max(0, size-int(n)), size, err == nil
	}
	a, err := strconv.ParseUint(first, 10, 31)
	if err != nil {
		return 0, 0, false
	}
	if last == "" {
		return int(a), size, true
	}
	z, err := strconv.ParseUint(last, 10, 31)
	if err != nil || z < a {
		return 0, 0, false
	}
	return int(a), min(int(z)+1, size), true
}

func (s *s3Call) putObject() *reply {
	if len(s.key) > maxKeyBytes {
		return s.fail(http.StatusBadRequest, "KeyTooLongError", "Your key is too long")
	}
	o, refused := s.upload()
	if refused != nil {
		return refused
	}
	switch condition := s.r.Header.Get("If-None-Match"); {
	case condition == "":
		o = s.bucket.put(o)
	case condition != "*" || s.r.Header.Get("If-Match") != "":
		return s.fail(http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented")
	case !s.bucket.putIfAbsent(o):
		return s.fail(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	}
	h := http.Header{}
	h.Set("Etag", o.etag)
	h.Set("X-Amz-Server-Side-Encryption", "AES256")
	h.Set(o.checksum.header(), o.checksum.value)
	h.Set("X-Amz-Checksum-Type", "FULL_OBJECT")
	if s.bucket.versioningState() != "" {
		h.Set("X-Amz-Version-Id", o.versionID)
	}
	return &reply{status: http.StatusOK, header: h}
}

// upload makes the object of a PutObject, having checked every digest that came
// with it. That x-amz-content-sha256 is the body's was checked with the signature.
func (s *s3Call) upload() (*object, *reply) {
	data, trailers, refused := s.payload()
	if refused != nil {
		return nil, refused
	}
	o := &object{key: s.key, data: slices.Clone(data), contentType: s.r.Header.Get("Content-Type"), metadata: map[string]string{}}
	if sent := s.r.Header.Get("Content-Md5"); sent != "" {
		if sum := md5.Sum(data); sent != base64.StdEncoding.EncodeToString(sum[:]) {
			return nil, s.fail(http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if o.checksum, refused = s.checksumOf(data, trailers); refused != nil {
		return nil, refused
	}
	size := 0
	for name, values := range s.r.Header {
		if meta, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			o.metadata[name] = strings.Join(values, ",")
			size += len(meta) + len(o.metadata[name])
		}
	}
	if size > maxMetadataBytes {
		return nil, s.fail(http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
	}
	return o, nil
}

// checksumOf is the checksum to keep with data: the one that was sent, which must
// be right, or S3's own.
func (s *s3Call) checksumOf(data []byte, trailers http.Header) (checksum, *reply) {
	headers := s.r.Header.Clone()
	for name, values := range trailers {
		headers[name] = append(headers[name], values...)
	}
	sent, err := sentChecksum(headers)
	switch {
	case err != nil:
		return checksum{}, s.fail(http.StatusBadRequest, "InvalidRequest", err.Error())
	case sent == checksum{}:
		return newChecksum(checksumDefault, data), nil
	case checksumHash(sent.algorithm) == nil:
		return checksum{}, s.fail(http.StatusNotImplemented, "NotImplemented", "The checksum algorithm is not implemented")
	case sent != newChecksum(sent.algorithm, data):
		return checksum{}, s.fail(http.StatusBadRequest, "BadDigest",
			fmt.Sprintf("The %s you specified did not match the calculated checksum.", strings.ToUpper(sent.algorithm)))
	}
	return sent, nil
}

// payload is the body without its aws-chunked encoding, if it has it. Chunks
// that are signed one by one are refused, since nothing here checks them.
func (s *s3Call) payload() ([]byte, http.Header, *reply) {
	switch kind := s.r.Header.Get("X-Amz-Content-Sha256"); {
	case strings.HasPrefix(kind, streamingSigned):
		return nil, nil, s.fail(http.StatusNotImplemented, "NotImplemented", "Chunk signatures are not implemented")
	case kind != streamingUnsigned:
		return s.body, nil, nil
	}
	data, trailers, err := decodeChunked(s.body, s.r.Header.Get("X-Amz-Trailer"))
	if err != nil {
		return nil, nil, s.fail(http.StatusBadRequest, "IncompleteBody", "The request body is no aws-chunked encoding: "+err.Error())
	}
	if length := s.r.Header.Get("X-Amz-Decoded-Content-Length"); length != strconv.Itoa(len(data)) {
		return nil, nil, s.fail(http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by x-amz-decoded-content-length")
	}
	return data, trailers, nil
}

func (s *s3Call) deleteObject() *reply {
	h := http.Header{}
	if id := s.query.Get("versionId"); id != "" {
		if o := s.bucket.deleteVersion(s.key, id); o != nil && o.deleteMarker {
			h.Set("X-Amz-Delete-Marker", "true")
		}
		h.Set("X-Amz-Version-Id", id)
	} else if marker := s.bucket.delete(s.key); marker != nil {
		h.Set("X-Amz-Delete-Marker", "true")
		h.Set("X-Amz-Version-Id", marker.versionID)
	}
	return &reply{status: http.StatusNoContent, header: h}
}
