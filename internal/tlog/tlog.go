// Package tlog is the arithmetic of the transparency log: hashes, proofs,
// checkpoints and the bytes of an entry. It does no I/O and keeps no state.
//
// The log is a Merkle tree as RFC 6962 section 2 defines it, over SHA-256. A
// verifier holds an entry's body, its index, a list of hashes and a signed
// checkpoint, and needs nothing else:
//
//	cp, err := tlog.ParseCheckpoint(text)
//	err = tlog.VerifyCheckpoint(cp, key.Host, key.Public, key.Hint)
//	err = tlog.VerifyInclusion(index, cp.Size, tlog.LeafHash(body), hashes, cp.RootHash)
//
// A checkpoint is a signed note (c2sp.org/signed-note, c2sp.org/tlog-checkpoint):
// an origin line, the number of entries, the root, and after a blank line the
// signatures.
//
//	log.example.com
//	4711
//	NjWx…=
//
//	— log.example.com 3q2+7w…=
//
// Sigstore knows two dialects, and EntryFormat names them. In rekor-v2 the
// origin is the host of the log. In rekor-v1 it is the host, " - " and a tree
// number, and the entry also carries a signed entry timestamp (SET): the log's
// promise that it held the entry at that second. Everything else is the same in
// both: the tree, the key, the signature name and the key hint, which is the
// start of the SHA-256 of the key's SubjectPublicKeyInfo.
package tlog

import (
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/assay-build/assay/internal/refusal"
)

const (
	// CodeInclusionProofInvalid refuses a proof that does not lead from the leaf to the root.
	CodeInclusionProofInvalid refusal.Code = "INCLUSION_PROOF_INVALID"
	// CodeConsistencyProofInvalid refuses a proof that one tree is a prefix of another.
	CodeConsistencyProofInvalid refusal.Code = "CONSISTENCY_PROOF_INVALID"
)

// MaxEntryBytes is the size of the largest entry body: an entry bundle writes
// the length in two bytes (c2sp.org/tlog-tiles).
const MaxEntryBytes = 1<<16 - 1

// LeafHash returns the Merkle leaf hash of an entry body: SHA-256(0x00 || body).
func LeafHash(body []byte) [32]byte {
	return [32]byte(rfc6962.DefaultHasher.HashLeaf(body))
}

// VerifyInclusion checks that leaf is entry number index of the tree with the
// given size and root.
func VerifyInclusion(index, size uint64, leaf [32]byte, hashes [][]byte, root []byte) error {
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf[:], hashes, root); err != nil {
		return refusal.New(CodeInclusionProofInvalid, "entry %d in a tree of %d: %w", index, size, err)
	}
	return nil
}

// VerifyConsistency checks that the tree of size1 entries with root1 is a prefix
// of the tree of size2 entries with root2.
//
// The empty tree is refused: it is a prefix of everything, so its root is never
// looked at and nothing is proven. The library accepts it.
func VerifyConsistency(size1, size2 uint64, hashes [][]byte, root1, root2 []byte) error {
	if size1 == 0 {
		return refusal.New(CodeConsistencyProofInvalid, "nothing can be proven from an empty tree")
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, size1, size2, hashes, root1, root2); err != nil {
		return refusal.New(CodeConsistencyProofInvalid, "from %d to %d entries: %w", size1, size2, err)
	}
	return nil
}
