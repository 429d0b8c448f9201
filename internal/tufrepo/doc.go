// Package tufrepo is Assay's repository of The Update Framework: how verifiers
// learn which keys to believe, and learn of a change without being told by hand.
//
// A verifier starts from one file that reached it safely, root.json, and from then
// on believes only what keys named there have signed. Below <data>/tuf lie
//
//	N.root.json          the keys of all roles; 1, 2, 3 … and no gap
//	timestamp.json       which snapshot is the newest; good for a day
//	N.snapshot.json      which targets metadata belong to it; a week
//	N.targets.json       which files there are, with length and SHA-256; 90 days
//	targets/SHA256.NAME  the files: trusted_root.json, keys.json, attestation_keys.pem
//	keys/                the private keys of snapshot and timestamp, 0600
//
// as specification 1.0.31 wants them, with consistent_snapshot true. Keys are ECDSA
// P-256. Those of root and targets stay with their owners, in a file elsewhere or in
// KMS, and come in as a [Signer]; those of snapshot and timestamp are made here and
// used by the service, since somebody has to sign every day. Who steals these can hide
// a change for as long as the targets metadata live, and can forge none.
//
//	err := tufrepo.Init(ctx, dir, tufrepo.InitOptions{
//		RootSigners: []tufrepo.Signer{alice, bob}, RootThreshold: 2,
//		Targets: kms, Files: map[string][]byte{"trusted_root.json": root},
//	})
//	repo, err := tufrepo.Open(tufrepo.Config{Dir: dir, TargetsSigner: kms})
//	mux.Handle("/tuf/", repo.Handler())
//	changed, err := repo.Publish(ctx, files)  // when keys change
//	err = repo.Refresh(ctx)                   // every minute
//
// # What a crash leaves
//
// Files are whole or not there, and a file with a version in its name never changes.
// A publication writes target files, N.targets.json, N.snapshot.json and then
// replaces timestamp.json: before that last step nobody is told of the others, after
// it all are there. What was left over is passed over, its version number with it.
//
// A new root may name new keys for the other roles, so it must take effect together
// with what these have signed. That is written first, its timestamp as
// timestamp.next.json; N.root.json is the commit point; then the timestamp takes its
// place. A process that opens the repository in between finishes the last step.
//
// Init builds a directory beside the place and renames it.
//
// # Several processes
//
// The commands of assayd work on the repository of a service that runs. Each change
// holds a lock on <data>/tuf/.lock and begins by reading, and verifying from
// 1.root.json up, what is there. The service sees the change with its next Refresh,
// and until then serves what it served before: what it hands out changes at once and
// as a whole, also where several files change. Reload takes a change up and signs
// nothing, for a service that has a reason not to vouch for what is published.
//
// What is published must not be older than what another process has published since it
// was read. PublishFrom therefore reads it under the lock.
//
// # What is refused
//
// Open refuses a repository that its own clients would refuse, but for expiry: that
// is what Refresh is for. Versions on disk below those that this process has seen are
// refused too, whoever put them there.
package tufrepo

import "github.com/assay-build/assay/internal/refusal"

const (
	// CodeRepositoryInvalid refuses a repository that clients would refuse: something is
	// missing, does not verify from 1.root.json up, or went back.
	CodeRepositoryInvalid refusal.Code = "TUF_REPOSITORY_INVALID"
	// CodeNotInitialized refuses to work on a repository that does not exist.
	CodeNotInitialized refusal.Code = "TUF_NOT_INITIALIZED"
	// CodeExists refuses to begin a repository where something is.
	CodeExists refusal.Code = "TUF_EXISTS"
	// CodeTargetsOffline refuses to publish without the key of the targets role.
	CodeTargetsOffline refusal.Code = "TUF_TARGETS_OFFLINE"
	// CodeKeyUnsupported refuses a key that is not ECDSA P-256.
	CodeKeyUnsupported refusal.Code = "TUF_KEY_UNSUPPORTED"
	// CodeKeyMismatch refuses to sign with a key that the root does not name for the role.
	CodeKeyMismatch refusal.Code = "TUF_KEY_MISMATCH"
	// CodeOnlineKeyMissing refuses to sign a snapshot or timestamp without its key file.
	CodeOnlineKeyMissing refusal.Code = "TUF_ONLINE_KEY_MISSING"
	// CodeFilesInvalid refuses target files by number, name or size.
	CodeFilesInvalid refusal.Code = "TUF_FILES_INVALID"
	// CodeRootInvalid refuses a new root that is malformed or not the next one.
	CodeRootInvalid refusal.Code = "TUF_ROOT_INVALID"
	// CodeThreshold refuses a new root with too few signatures, or a threshold that the
	// distinct keys cannot meet.
	CodeThreshold refusal.Code = "TUF_THRESHOLD"
	// CodeLocked refuses to change a repository that another process is changing.
	CodeLocked refusal.Code = "TUF_LOCKED"
)

const (
	// maxMetadata is what one metadata file may have. Clients read at most 512 kB of a
	// root, 16 KiB of a timestamp.
	maxMetadata = 512_000
	// maxFile bounds one target file, maxFiles their number. A trusted root of that size is
	// the largest that internal/verify reads.
	maxFile  = 64 << 20
	maxFiles = 16
	// keptVersions is how many superseded snapshots and targets stay, for clients that
	// are in the middle of an update.
	keptVersions = 8
)
