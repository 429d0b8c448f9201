// Package scan finds the packages in an artifact. It reads bytes and nothing else: it
// executes nothing, asks no network, and looks at no file of the machine besides a
// private temporary directory.
//
//	inv, err := scan.Scan(ctx, scan.Request{
//		Artifact: file, Size: size, Name: "app.war", TempDir: dir,
//	}, scan.DefaultLimits())
//
// The artifact is opened as a tree by package archive, whatever it is: a jar, a tar of a
// node_modules folder, an image with its layers applied, or one plain file, which is a
// tree of one. Every file of the tree is offered to every reader. A reader knows one kind
// of file, by its path (a lock file, a package database) or by its first bytes (an
// executable), and answers with packages. Paths that symbolic links give to a file count
// like its own. Members that are archives themselves are
// opened in turn. Their files are named with "!/" between archive and member:
// "app.war!/WEB-INF/lib/log4j-core-2.14.1.jar".
//
// # What the result promises
//
// One component per package URL: what several files say of one package is put together.
// The same bytes give the same Inventory, whatever the machine: trees are walked in order
// of path and no result depends on time, on temporary names or on the order of a map. Only
// a deadline or the end of memory breaks this, and then the Inventory says so.
//
// Whatever could not be read is a Reason in Inventory.Incomplete: a limit, a malformed
// archive, a package file that its reader could not follow, or a reader that failed. An
// artifact in which nothing was found carries ReasonOpaque. An empty Incomplete therefore
// means that all of what is known here was read to its end, not that nothing else is in
// the artifact: a statically linked C library leaves no trace.
//
// # Hostile input
//
// Sizes, counts and depths are bounded (Limits). A reader that panics loses its file, not
// the scan. Still, memory that a hostile file makes a parser use cannot be bounded from
// inside one process, so artifacts of others are scanned in a child process with limits
// of its own (package sandbox).
package scan
