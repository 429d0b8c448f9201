// Package store keeps what Assay must not lose: attestations and the steps on the
// way to them, sessions and the credentials that were used up, decisions and every
// ask. It is one SQLite file, in Go, with no server beside it.
//
//	s, err := store.Open(ctx, store.Config{Path: "data/assay.db", PageTokenKey: key})
//	…
//	err = s.BeginAttestation(ctx, &store.Pending{ID: id, Envelope: envelope, …}) // durable
//	entry, err := log.Add(ctx, body)                                            // durable
//	err = s.CompleteAttestation(ctx, id, entry.Index, bundle, head)             // visible
//	…
//	list, more, err := s.AttestationsBySHA256(ctx, hex, predicateType, 100)
//
// # Promises
//
// A write that returned nil is durable: it was flushed to disk, and kill -9 or a
// power cut does not undo it. A write that returned a refusal changed nothing. A
// write that returned CodeStorageFailed, or that did not return because the process
// ended, may or may not have happened; every write can be repeated to find out.
//
// A write is atomic: CompleteAttestation makes the row, its subjects and its bundle
// visible, removes the pending row and raises LogHead, all or nothing. A read that
// began after a write returned sees it. Generation lets a caller keep what it read for
// as long as no attestation was added.
//
// Writes are committed in groups by one goroutine (see writer), so their rate rises
// with their number: a flush costs the same for one as for hundreds. The queue
// before it is bounded in number and bytes; beyond that, and when a caller's context
// ends while it waits there, the answer is CodeStoreBusy and nothing was written.
//
// # Components
//
// An attestation may come with what it says of the parts of its subjects (SBOM). It is
// indexed in the write that makes the attestation visible, so a search that begins
// after CompleteAttestation returned finds it:
//
//	err := s.EachComponentVersion(ctx, "log4j-core", func(v store.ComponentVersion) bool {
//		… // the caller picks those that it is asked for, for as long as it likes
//	})
//	hits, next, err := s.SearchComponents(ctx, store.ComponentSearch{Components: ids, Key: question})
//
// Texts are kept once, in a dictionary; an SBOM is a list of numbers of it. Postings,
// the same lists by component, are made of some hundred SBOMs at a time (see index); the
// newest SBOMs are searched in memory. What is damaged is an error, never a shorter list;
// Check compares the postings with the lists, and Open makes postings anew that do not
// fit them.
//
// # When the disk fails
//
// On a full disk writes are refused with CodeStorageFull, reads go on, and writes
// resume when there is room. After a failed read, write or flush nothing more is
// written until the store is opened again: writes are refused with
// CodeStorageFailed, Health reports it, and reads go on.
//
// # Form
//
// The schema is in migrations/, numbered, embedded and never edited once released;
// schema_migrations records the checksum of each. Times are kept to the microsecond,
// digests as raw bytes. Bundles lie in rows, not in files, and apart from the rows
// that lists and filters read; the statement in a large one is compressed, and is read
// back byte for byte. Nothing of a caller's input is ever part of an SQL
// text: filters compare a fixed set of fields with bound values, and page tokens are
// sealed.
package store
