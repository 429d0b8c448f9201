package archivetest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/assay-build/assay/internal/sbom"
)

// Archives that are one thing to one reader and another to the next: what this one cannot
// show it must at least say. Lockfile is what each of them holds for some reader or other.
const (
	Lockfile = "app/package-lock.json"
	Content  = `{"lockfileVersion":3,"packages":{"":{},"node_modules/found":{"version":"1.0.0"}}}`
)

// hidden is a whole zip, as it would lie in or behind something else.
func hidden() []byte { return zipOf(file(Lockfile, Content)) }

// local is a member as who reads a stream sees it: a header and the data.
func local(name, data string) string {
	f := file(name, data)
	packed, method, crc := f.form()
	return string(appendLocal(nil, f, packed, method, crc))
}

// behind is the descriptor that says where data end, of n bytes.
func behind(n int) string {
	return "PK\x07\x08\x00\x00\x00\x00" + string(le.AppendUint32(le.AppendUint32(nil, uint32(n)), uint32(n)))
}

// zipTwice are zips that two readers do not see alike.
func zipTwice() []recipe {
	const unsafe, malformed = sbom.ReasonUnsafePath, sbom.ReasonMalformed
	ok := file("readme.txt", "nothing to see")
	as := func(mode uint32) []byte {
		return zipOf(ok, zipFile{name: Lockfile, data: Content, deflate: true, mode: mode})
	}
	lies := func(mode, size uint32) []byte {
		return zipOf(ok, zipFile{name: Lockfile, data: Content, deflate: true, mode: mode, nothing: size == 0, size: size})
	}
	hello := deflate("hello")
	const descriptor = 1 << 3
	stored := "\x01" + string(le.AppendUint16(le.AppendUint16(nil, uint16(len(hidden()))), ^uint16(len(hidden())))) + string(hidden())
	again := func(f zipFile) []byte {
		f.name, f.noData, f.headerTrue = Lockfile, true, true
		return zipOf(file(Lockfile, Content), f, ok)
	}
	return []recipe{
		aZip("zip-pipe-content", as(0o010644), unsafe),
		aZip("zip-socket-content", as(0o140644), unsafe),
		aZip("zip-block-content", as(0o060644), unsafe),
		aZip("zip-no-kind-content", as(0o170644), unsafe),
		aZip("zip-folder-mode-content", as(0o040755), unsafe),
		aZip("zip-link-content", as(0o120777)),
		aZip("zip-link-inside", zipOf(file("real/package-lock.json", Content), zipFile{name: "app", data: "real", mode: 0o120777})),
		aZip("zip-claims-nothing", lies(0, 0), malformed),
		aZip("zip-claims-little", lies(0, 3), malformed),
		aZip("zip-claims-nothing-folder", lies(0o040755, 0), malformed, unsafe),
		aZip("zip-claims-head", lies(0, 40), malformed),
		aZip("zip-empty-deflated", zipOf(zipFile{name: "a/__init__.py", deflate: true}, zipFile{name: "a/b/", deflate: true})),
		aZip("zip64-unasked", zip64Unasked(), unsafe),
		aZip("zip-slack", zipOf(ok, zipFile{name: "a.txt", data: "hello", deflate: true, flags: descriptor,
			packed: hello + behind(len(hello)) + local(Lockfile, Content)}, file("c", "3")), unsafe),
		aZip("zip-slack-stored", zipOf(ok, zipFile{name: "a.txt", flags: descriptor, data: "hello" + behind(5) + local(Lockfile, Content)}), unsafe),
		aZip("zip-in-stored-block", zipOf(ok, zipFile{name: "inner.jar", data: string(hidden()), deflate: true, flags: descriptor, packed: stored})),
		aZip("zip-hidden-behind-junk", zipOf(ok, zipFile{name: Lockfile, data: Content, noDir: true, before: strings.Repeat("junk", 20)}, file("c", "3")), unsafe),
		aZip("zip-record-again", again(zipFile{data: Content})),
		aZip("zip-record-again-crc", again(zipFile{data: Content, crc: 1}), unsafe),
		aZip("zip-record-again-method", again(zipFile{data: Content, method: 98}), unsafe),
		aZip("zip-record-again-mode", again(zipFile{data: Content, mode: 0o120777}), unsafe),
		aZip("zip-behind-zip", append(zipOf(ok), hidden()...), unsafe),
	}
}

// zip64Unasked has a record of Zip64, which is for large archives, and a plain one that has
// no need of it. They disagree.
func zip64Unasked() []byte {
	data := zipOf(file("readme.txt", "nothing to see"), file(Lockfile, Content))
	const end = 22
	at := len(data) - end
	size, offset := le.Uint32(data[at+12:]), le.Uint32(data[at+16:])
	first := uint32(46 + len("readme.txt"))
	out := append(bytes.Clone(data[:at]), "PK\x06\x06\x2c\x00\x00\x00\x00\x00\x00\x00\x2d\x03\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	out = append(out, u64s(1, 1, uint64(size-first), uint64(offset+first))...)
	out = append(out, "PK\x06\x07\x00\x00\x00\x00"...)
	out = le.AppendUint32(le.AppendUint64(out, uint64(at)), 1)
	return append(out, data[at:]...)
}

// rawMember is a member of a tar, its header changed by change.
func rawMember(typ byte, name, data string, change func(h []byte)) []byte {
	h := rawHeader(typ, name, int64(len(data)))
	if change != nil {
		change(h)
		seal(h)
	}
	return append(h, pad(data)...)
}

// tarTwice are tars that two readers do not see alike.
func tarTwice() []recipe {
	unsafe := codes(sbom.ReasonUnsafePath)
	ok := rawMember('0', "readme.txt", "nothing to see", nil)
	lock := rawMember('0', Lockfile, Content, nil)
	end := make([]byte, 1024)
	sized := func(name string, typ byte) recipe {
		return rawTar(name, unsafe, ok, rawHeader(typ, "x", 512), rawHeader('0', "swallow", 1024), lock, end)
	}
	records := func(typ byte, key, value string) []byte {
		r := paxRecord(key, value)
		return rawMember(typ, "pax", r, nil)
	}
	old := func(h []byte) { copy(h[257:], make([]byte, 8)) }
	prefixed := rawMember('0', "package-lock.json", Content, func(h []byte) { old(h); copy(h[345:], "app") })
	star := rawMember('0', "package-lock.json", Content, func(h []byte) {
		copy(h[257:], "ustar\x0000")
		copy(h[345:], strings.Repeat("./", 65)+"./app")
		copy(h[508:], "tar\x00")
	})
	sum := bytes.Clone(lock)
	copy(sum[148:], "        ")
	total := uint32(0)
	for _, c := range sum[:512] {
		total += uint32(c)
	}
	copy(sum[148:], "\x80\x00\x00\x00")
	for i := range 4 {
		sum[152+i] = byte(total >> (24 - 8*i))
	}
	oldSum := bytes.Clone(sum)
	copy(oldSum[257:], make([]byte, 8))
	total -= uint32('u') + 's' + 't' + 'a' + 'r' + ' ' + ' '
	for i := range 4 {
		oldSum[152+i] = byte(total >> (24 - 8*i))
	}
	return []recipe{
		rawTar("tar-unknown-type", nil, ok, rawMember('Z', Lockfile, Content, nil), end),
		rawTar("tar-unknown-type-digit", nil, ok, rawMember('9', Lockfile, Content, nil), end),
		rawTar("tar-other-volume", unsafe, ok, rawMember('M', Lockfile, Content, nil), end),
		rawTar("tar-solaris-records", unsafe, ok, records('X', "path", Lockfile), rawMember('0', "data.bin", Content, nil), end),
		rawTar("tar-dump-content", unsafe, ok, rawMember('D', Lockfile, Content, nil), end),
		rawTar("tar-global-path", unsafe, ok, records('g', "path", Lockfile), rawMember('0', "data.bin", Content, nil), end),
		rawTar("tar-global-size", unsafe, ok, records('g', "size", "512"), lock, end),
		rawTar("tar-global-comment", nil, records('g', "comment", strings.Repeat("0", 40)), ok, lock, end),
		rawTar("tar-two-names", unsafe, ok, records('x', "path", Lockfile), rawMember('L', "././@LongLink", "data.bin\x00", nil), rawMember('0', "x", Content, nil), end),
		sized("tar-hardlink-size", '1'), sized("tar-link-size", '2'), sized("tar-char-size", '3'),
		sized("tar-block-size", '4'), sized("tar-folder-size", '5'), sized("tar-pipe-size", '6'),
		rawTar("tar-prefix-old", unsafe, ok, prefixed, end),
		rawTar("tar-prefix-star", codes(sbom.ReasonMalformed), ok, star, end),
		rawTar("tar-behind-end", unsafe, ok, end, lock, end),
		rawTar("tar-padded", nil, ok, lock, end, make([]byte, 8192)),
		rawTar("tar-checksum-256", nil, sum, end),
		rawTar("tar-checksum-256-old", nil, oldSum, end),
	}
}

// both are two archives at once, and archives behind or beside something else.
func both() []recipe {
	unsafe := codes(sbom.ReasonUnsafePath)
	ok := rawMember('0', "readme.txt", "nothing to see", nil)
	end := make([]byte, 1024)
	inTar := func(name, member string, data []byte) recipe {
		return rawTar(name, nil, ok, rawMember('0', member, string(data), nil), end)
	}
	before := func(s string) []byte { return append([]byte(s), hidden()...) }
	named := func(name, ext string, want []sbom.ReasonCode, parts ...[]byte) recipe {
		r := rawTar(name, want, parts...)
		r.ext = ext
		return r
	}
	extra := []byte("\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff")
	extra = append(le.AppendUint16(extra, uint16(len(hidden()))), hidden()...)
	extra = append(extra, gz([]byte("nothing to see"))[10:]...)
	return []recipe{
		rawTar("tar-then-zip", unsafe, ok, end, hidden()),
		named("tar-then-zip-jar", ".jar", unsafe, ok, end, hidden()),
		named("zip-then-tar", ".zip", unsafe, zipTar()),
		named("gzip-around-zip", ".gz", unsafe, extra),
		named("text-then-zip", ".txt", unsafe, before("\n")),
		named("script-then-zip", "", nil, before("#!/bin/sh\n")),
		named("program-then-zip", "", nil, before("\x7fELF\x02\x01\x01\x00"+strings.Repeat("code", 200))),
		inTar("tar-zip-last", "lib/x.bin", hidden()),
		inTar("tar-junk-zip", "lib/x", before("\n")),
		inTar("tar-junk-zip-far", "lib/x", before(strings.Repeat("junk", 5000))),
		inTar("tar-program-zip", "bin/x", before("MZ"+strings.Repeat("code", 200))),
		rawTar("tar-zip-across", codes(sbom.ReasonMalformed, sbom.ReasonUnsafePath), zipAcross()...),
		imageBeside("image-beside"),
		dockerBeside("docker-beside"),
	}
}

// zipTar begins with a local header that is the name of a tar's first member.
func zipTar() []byte {
	data := string(rawMember('0', Lockfile, Content, nil)) + string(make([]byte, 1024))
	f := zipFile{name: "x.txt", data: data}
	packed, method, crc := f.form()
	head := appendLocal(nil, zipFile{name: f.name, data: data}, "", method, crc)
	le.PutUint32(head[18:], uint32(len(packed)))
	le.PutUint16(head[28:], uint16(512-len(head)))
	block := make([]byte, 512)
	copy(block, head)
	copy(block[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        0")
	copy(block[257:], "ustar\x0000")
	seal(block)
	out := append(block, data...)
	offset := len(out)
	out = appendCentral(out, f, packed, method, crc, 0)
	return appendEnd(out, zipEnd{}, 1, len(out)-offset, offset)
}

// zipAcross is a zip over several members of a tar: none of them is one.
func zipAcross() [][]byte {
	first := []byte(local(Lockfile, Content))
	head := rawHeader('0', "a.dat", int64(len(first)))
	f := file(Lockfile, Content)
	packed, method, crc := f.form()
	dir := appendCentral(nil, f, packed, method, crc, int64(len(head)))
	blocks := append(head, pad(string(first))...)
	at := len(blocks) + 512
	second := appendEnd(dir, zipEnd{}, 1, len(dir), at)
	return [][]byte{blocks, rawHeader('0', "b.dat", int64(len(second))), pad(string(second)), make([]byte, 1024)}
}

// imageBeside is an image, and an application beside it that no manifest knows of.
func imageBeside(name string) recipe {
	return recipe{name: name, ext: ".tar", write: content(func() ([]byte, error) {
		l := &layout{}
		d, err := l.layer(reg("etc/os-release", "ID=alpine\n"))
		if err != nil {
			return nil, err
		}
		return l.write([]string{l.manifest(d)}, reg(Lockfile, Content), reg("blobs/x/"+Lockfile, Content), linkTo("app/npm-shrinkwrap.json", "package-lock.json"))
	})}
}

// dockerBeside is the same as "docker save" has it.
func dockerBeside(name string) recipe {
	return recipe{name: name, ext: ".tar", want: codes(sbom.ReasonMalformed), write: content(func() ([]byte, error) {
		inner, err := tarOf(reg("etc/os-release", "ID=alpine\n"))
		if err != nil {
			return nil, err
		}
		id := strings.Repeat("0123", 16)
		return tarOf(
			reg("manifest.json", fmt.Sprintf(`[{"Config":"c.json","Layers":["%s/layer.tar"]}]`, id)), reg("c.json", "{}"),
			reg(id+"/layer.tar", string(inner)), reg(id+"/json", "{}"), reg(id+"/VERSION", "1.0"), reg("repositories", "{}"),
			reg(Lockfile, Content))
	})}
}
