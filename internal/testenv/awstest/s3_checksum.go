package awstest

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// Checksum algorithms of S3, as they stand in header names.
const checksumDefault = "crc64nvme" // what S3 adds where the client sends none

// checksum is what S3 keeps of an object beside its ETag. It is told only to
// those who ask with x-amz-checksum-mode: ENABLED.
type checksum struct{ algorithm, value string }

func (c checksum) header() string { return "X-Amz-Checksum-" + c.algorithm }

func newChecksum(algorithm string, data []byte) checksum {
	h := checksumHash(algorithm)
	h.Write(data)
	return checksum{algorithm, base64.StdEncoding.EncodeToString(h.Sum(nil))}
}

// checksumHash returns nil for an algorithm that this stand-in does not have.
func checksumHash(algorithm string) hash.Hash {
	switch algorithm {
	case "crc32":
		return crc32.NewIEEE()
	case "crc32c":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "crc64nvme":
		return crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5))
	case "sha1":
		return sha1.New()
	case "sha256":
		return sha256.New()
	}
	return nil
}

// sentChecksum finds the checksum among headers or trailers. The zero value
// means that there is none.
func sentChecksum(h http.Header) (checksum, error) {
	var found checksum
	for name := range h {
		algorithm, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-checksum-")
		if !ok || algorithm == "algorithm" || algorithm == "type" || algorithm == "mode" {
			continue
		}
		if found.algorithm != "" {
			return checksum{}, errors.New("expecting a single x-amz-checksum- header")
		}
		found = checksum{algorithm, h.Get(name)}
	}
	return found, nil
}

// Kinds of x-amz-content-sha256 that are not a digest.
const (
	unsignedPayload   = "UNSIGNED-PAYLOAD"
	streamingUnsigned = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamingSigned   = "STREAMING-AWS4-" // chunk signatures, which nothing here verifies
)

// decodeChunked undoes the aws-chunked encoding of a body whose chunks are not
// signed: HTTP's own chunks, and after the last the trailer that the request
// announced in x-amz-trailer, if any.
func decodeChunked(body []byte, announced string) ([]byte, http.Header, error) {
	var data []byte
	for {
		line, rest, ok := bytes.Cut(body, []byte("\r\n"))
		if !ok {
			return nil, nil, io.ErrUnexpectedEOF
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return nil, nil, fmt.Errorf("size of a chunk: %w", err)
		}
		if size == 0 {
			trailer, err := readTrailer(rest, announced)
			return data, trailer, err
		}
		if uint64(len(rest)) < size+2 || string(rest[size:size+2]) != "\r\n" {
			return nil, nil, io.ErrUnexpectedEOF
		}
		data = append(data, rest[:size]...)
		body = rest[size+2:]
	}
}

// readTrailer wants exactly the trailer that was announced.
func readTrailer(b []byte, announced string) (http.Header, error) {
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(b))).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("trailer: %w", err)
	}
	want := textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(announced))
	for name := range h {
		if name != want {
			return nil, fmt.Errorf("trailer %s was not announced", name)
		}
	}
	if want != "" && len(h[want]) != 1 {
		return nil, fmt.Errorf("trailer %s: %d values", want, len(h[want]))
	}
	return http.Header(h), nil
}
