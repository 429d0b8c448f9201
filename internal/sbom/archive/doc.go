// Package archive reads hostile archives. It presents an artifact, and every archive in
// it, as a read-only file system:
//
//	budget := archive.NewBudget(archive.DefaultLimits(), tempDir)
//	tree, err := budget.Open(ctx, file, size, "app.war")
//	if err != nil {
//		return err // our own disk, or the end of ctx; never the artifact
//	}
//	defer tree.Close()
//	err = tree.Walk(func(path string, info fs.FileInfo) error { … })
//	missing := budget.Reasons()
//
// # What is read
//
// What some bytes are is decided by the bytes. The name only gives a hint where a script
// may come before a zip, and names what a compressed file unpacks to. A zip is found behind
// anything, since most readers of zip look at the end alone; behind a program it is a nested
// archive of the program. The formats:
//
//	zip             jar, war, wheel, nupkg; stored, deflate, bzip2, zstd, xz
//	tar             v7, POSIX, GNU, PAX
//	tar+gzip, tar+zstd, tar+xz, tar+bzip2
//	gzip, zstd, xz, bzip2   one compressed file
//	ar              a Debian package: its data, and its control files below DEBIAN/
//	apk             a package of Alpine
//	gem             its data, beside metadata.gz and checksums.yaml.gz
//	oci-layout      the root file system of an image, whiteouts and hard links applied
//	docker-archive  the same, from "docker save"
//	file            no archive: a tree of one file
//
// An archive of several images has each in a folder named for its platform, such as
// "linux_amd64/"; statements about an image that lie beside it are left out. Layers are
// compared with their digests. Files that are neither an image nor part of one are below
// ".beside/": who unpacks the archive as a tar has them.
//
// A member of a zip that some unpack as a device or a symbolic link is the plain file that
// it is for the others, and so is a member of a tar of a type that nobody knows. Walk gives
// files under their own names, Links under those that symbolic links give them.
//
// # What is not there
//
// Nothing is ever written under a name that an archive gives. The bytes of a member are a
// range of the artifact, or unpacked to memory, or to a file that has no name; they are
// gone with the process. Symbolic links lead from member to member and never out: "/" is
// the root of the tree, or of the image.
//
// # What is left out, and said
//
// Malformed or hostile input is never an error. The tree has what could be read, and the
// Budget has a Reason for the rest:
//
//   - names that lead out, or stand for two things: absolute, with "..", a drive letter, a
//     NUL, no UTF-8; two members of one name with different content (the later one is in
//     the tree, as it would be on a disk); a file where a folder is; members below a
//     symbolic link; a zip that names a member differently in its two places, or holds one
//     that its directory does not list; an image that tells two readers two things;
//   - what is two archives at once, or has another one behind its end: a tar that is a zip
//     too, a tar behind a tar, two directories of a zip, a deflate stream that ends early;
//   - headers of a tar that readers differ about: sizes of members without data, records
//     and beginnings of names that only some apply;
//   - members that share bytes, reach behind their archive, or are not as long as they say;
//   - more entries, bytes, depth or unpacking than Limits allow, in all archives together;
//   - encryption, sparse files, compression methods and kinds of archives that are not read.
//
// In the layers of an image absolute names are below its root and parents may be symbolic
// links, as container runtimes have it. Devices and pipes have no content and no reason.
//
// # Figures
//
// Opening a tar reads its headers only: 40,000 members in 334 MB take about 40 ms. A
// compressed tar is unpacked once, as fast as the decompressor is, and then read in place.
// Opening a zip reads through the data of the members whose sizes are said behind them, for
// headers of others: 10,000 members take about 7 ms. HidesZip takes a few µs.
// Names and places of 500,000 members take at most 128 MiB.
package archive
