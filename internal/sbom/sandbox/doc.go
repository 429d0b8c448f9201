// Package sandbox runs what reads hostile bytes, package scan and package check, in a
// process of its own: the program that is running, executed again as `assayd scan`.
//
//	func main() {
//		if code, ok := sandbox.Child(os.Args); ok {
//			os.Exit(code)
//		}
//		…
//	}
//
//	s, err := sandbox.New(sandbox.Config{TempDir: "data/scan", Logger: logger})
//	…
//	inventory, err := s.Scan(ctx, "data/spool/0001", "app.jar")
//
// An artifact that bursts a parser, or takes it over, gets hold of a process that has
// nothing and can do nothing, and that the next artifact does not share.
//
// # What the child has
//
// Standard input, on which one line of JSON asks it for one thing, and which then
// stays open for as long as the parent lives; standard output for one JSON text, the
// answer; standard error; and the artifact as descriptor 3, open for reading. Its
// environment is empty. Its working directory is empty, private to it, and removed by
// the parent once it has ended; what a crash of the service leaves goes when the next
// one starts.
//
// # What it cannot do
//
// Before it touches the artifact the child gives up, for good and for all its threads:
//
//   - memory, CPU time, size of files, open files and core files beyond its limits
//     (setrlimit), and with them the means to fill the machine;
//   - new privileges, new processes and programs, sockets, other processes' memory and
//     signals to them, memory that no limit counts, and the rest of what a scanner never
//     calls (seccomp; amd64 and arm64);
//   - all files but those below its working directory (Landlock).
//
// It is started in user, mount, network, PID, IPC and UTS namespaces of its own. There
// is no network even for a process that gets round the filter, and no other process has
// a number it could name. The one thing that the child does there before it is confined
// is to make its working directory the root of all files (mount_namespaces(7),
// pivot_root(2)): no path leads to the service's data, to another artifact or to /proc,
// where the artifact could be opened again for writing. The capability that this takes,
// which is one over its own namespaces alone, goes with it.
//
// Where the kernel, or the container around the service, does not allow all this, New
// finds out, Isolation tells, and the log does. A child that comes to less than the
// first one did reads nothing. "required" makes it an error of New not to have the
// namespaces, the root of its own and the filter; Landlock then stands behind the root.
//
// A child in namespaces is a copy of the service until it executes the program, which
// takes the longer the more memory the service has: some 25 ms for each GiB.
//
// It dies with the thread that started it, or when its standard input ends, so never
// later than the service.
//
// # What becomes of it
//
// The parent believes nothing that the child says: the answer is bounded while it is
// read and must satisfy sbom.Inventory.Validate. Whatever goes wrong in the child is
// the artifact's doing as far as anybody can know, and the scan ends with an inventory
// that says why it is empty: ReasonTime, ReasonMemory or ReasonCrashed. A document that
// a client made gets no such leniency: what cannot be checked is refused. An error is
// left for what is not the artifact's doing: no child could be started, its disk is
// full, or too many are waiting.
package sandbox
