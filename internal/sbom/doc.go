// Package sbom is what Assay knows of the inside of artifacts: the inventory of one, its
// names and licences in one spelling each, and the documents that say it to others.
//
// # From bytes to a document
//
// A scan (package scan, in a process of its own) finds packages and hands over an
// Inventory. Normalize brings it into its one form, whatever was found and in whatever
// order; Validate checks that form, because the scanning process read hostile bytes and
// is not believed. Encode makes the CycloneDX 1.6 document of it. Each of the three
// gives the same result for the same input, byte for byte, so an artifact has one SBOM.
//
//	inv.Normalize()                                   // by the scan, last
//	if err := inv.Validate(); err != nil { … }        // by whoever receives it
//	doc, err := sbom.Encode(artifact, inv, tool)
//
// The document is bound to the bytes by the digests in metadata.component. It says
// "complete" only where everything was read and something was found, "incomplete" with
// the reasons where a limit was met or a file could not be read, and "unknown" where
// nobody could look inside.
//
// # Names
//
// A package is named by its package URL (ECMA-427), in canonical spelling: ParsePURL is
// strict, NewPURL spells what a scan found, PURL.WithoutVersion is the key by which
// packages are searched. Licences are SPDX expressions, also canonical: NormalizeLicense
// makes one of what packages say in dozens of ways, and leaves as text what it does not
// understand in full. LicenseIDs takes them apart for policies and the index.
//
// Text of an artifact reaches terminals, logs and pages, so all of it is one line of
// valid UTF-8 without control characters and of at most MaxTextBytes.
//
// # From a document to facts
//
// Read streams the components of a CycloneDX or SPDX document, ours or one that a client
// attached, in the same form; policies, the index and the command line all read through
// it. WriteSPDX renders a document of ours as SPDX 2.3. ParseQuery reads a question for
// components, which may hold a range of versions in the order of their ecosystem
// (package versions).
//
// This package is part of the client program. It imports no scanner and no schema.
package sbom
