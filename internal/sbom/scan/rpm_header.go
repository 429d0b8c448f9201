package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Tags and types of an RPM header (rpmtag.h). Only those that are read.
const (
	rpmTagName     = 1000
	rpmTagVersion  = 1001
	rpmTagRelease  = 1002
	rpmTagEpoch    = 1003
	rpmTagLicense  = 1014
	rpmTagArch     = 1022
	rpmTagOldFiles = 1027
	rpmTagProvides = 1047
	rpmTagRequires = 1049
	rpmTagDirIndex = 1116
	rpmTagBaseName = 1117
	rpmTagDirName  = 1118

	rpmTypeInt32       = 4
	rpmTypeString      = 6
	rpmTypeStringArray = 8
	rpmTypeI18NString  = 9
)

// Bounds of a header: rpm itself refuses more than 65,535 tags and 256 MiB of data; the
// largest packages of distributions have some megabytes, for their lists of files.
const (
	maxRPMTags   = 0xffff
	maxRPMHeader = 64 << 20
	// maxRPMPath is PATH_MAX of Linux.
	maxRPMPath = 4 << 10
)

var errRPMHeader = errors.New("malformed RPM header")

// rpmHeader is one header: an index of tags over a store of values.
type rpmHeader struct {
	entries []rpmEntry
	store   []byte
}

type rpmEntry struct{ tag, typ, offset, count uint32 }

// parseRPMHeader reads a header as databases keep it: the two counts, the index, the store.
func parseRPMHeader(blob []byte) (*rpmHeader, error) {
	if len(blob) < 8 {
		return nil, errRPMHeader
	}
	tags, size := binary.BigEndian.Uint32(blob), binary.BigEndian.Uint32(blob[4:])
	if tags > maxRPMTags || size > maxRPMHeader || uint64(len(blob)-8) < uint64(tags)*16+uint64(size) {
		return nil, errRPMHeader
	}
	h := &rpmHeader{entries: make([]rpmEntry, tags), store: blob[8+16*tags:][:size]}
	for i := range h.entries {
		e := blob[8+16*i:]
		h.entries[i] = rpmEntry{
			tag: binary.BigEndian.Uint32(e), typ: binary.BigEndian.Uint32(e[4:]),
			offset: binary.BigEndian.Uint32(e[8:]), count: binary.BigEndian.Uint32(e[12:]),
		}
	}
	return h, nil
}

// value is where a tag's values start; nil where the header does not have it as that type.
func (h *rpmHeader) value(tag uint32, types ...uint32) ([]byte, int) {
	for _, e := range h.entries {
		if e.tag != tag || e.offset > uint32(len(h.store)) { //nolint:gosec // at most maxRPMHeader
			continue
		}
		for _, t := range types {
			if e.typ == t {
				return h.store[e.offset:], int(min(e.count, uint32(len(h.store)))) //nolint:gosec // as above
			}
		}
	}
	return nil, 0
}

func (h *rpmHeader) text(tag uint32) string {
	data, _ := h.value(tag, rpmTypeString, rpmTypeI18NString)
	text, _, _ := bytes.Cut(data, []byte{0})
	return string(text)
}

func (h *rpmHeader) texts(tag uint32) []string {
	data, n := h.value(tag, rpmTypeStringArray)
	var out []string
	for range n {
		text, rest, ok := bytes.Cut(data, []byte{0})
		if !ok {
			break
		}
		out, data = append(out, string(text)), rest
	}
	return out
}

func (h *rpmHeader) numbers(tag uint32) []uint32 {
	data, n := h.value(tag, rpmTypeInt32)
	n = min(n, len(data)/4)
	out := make([]uint32, n)
	for i := range out {
		out[i] = binary.BigEndian.Uint32(data[4*i:])
	}
	return out
}

// files calls f with each path that the package holds.
func (h *rpmHeader) files(f func(path string)) {
	for _, p := range h.texts(rpmTagOldFiles) {
		f(p)
	}
	dirs, index := h.texts(rpmTagDirName), h.numbers(rpmTagDirIndex)
	for i, base := range h.texts(rpmTagBaseName) {
		if i < len(index) && uint64(index[i]) < uint64(len(dirs)) && len(dirs[index[i]])+len(base) <= maxRPMPath {
			f(dirs[index[i]] + base)
		}
	}
}
