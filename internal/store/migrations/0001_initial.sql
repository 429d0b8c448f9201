-- Times are microseconds since 1970-01-01 UTC. Digests are raw bytes.

-- The register. Rows are small, so that lists and filters that no index serves
-- read little; what is large lies in bundles.
CREATE TABLE attestations (
  seq              INTEGER PRIMARY KEY,
  id               BLOB    NOT NULL UNIQUE,
  created_at       INTEGER NOT NULL,
  predicate_type   TEXT    NOT NULL,
  builder_id       TEXT    NOT NULL,
  build_type       TEXT    NOT NULL,
  invocation_id    TEXT    NOT NULL,
  slsa_build_level INTEGER NOT NULL,
  source_uri       TEXT    NOT NULL,
  source_commit    TEXT    NOT NULL,
  log_index        INTEGER NOT NULL,
  subjects         BLOB    NOT NULL -- every subject, packed; see codec.go
) STRICT;
CREATE INDEX attestations_created ON attestations (created_at);

CREATE TABLE bundles (
  attestation INTEGER PRIMARY KEY REFERENCES attestations (seq),
  caller      BLOB,
  bundle      BLOB NOT NULL
) STRICT;

-- Which attestations speak of a digest, and of a name: posting lists, nothing else.
CREATE TABLE subjects (
  sha256      BLOB    NOT NULL,
  attestation INTEGER NOT NULL REFERENCES attestations (seq),
  PRIMARY KEY (sha256, attestation)
) STRICT, WITHOUT ROWID;
CREATE TABLE subject_names (
  name        TEXT    NOT NULL,
  attestation INTEGER NOT NULL REFERENCES attestations (seq),
  PRIMARY KEY (name, attestation)
) STRICT, WITHOUT ROWID;

-- Attestations that were signed and may or may not be in the log yet. A row
-- leaves in the transaction that makes the attestation visible.
CREATE TABLE pending (
  seq             INTEGER PRIMARY KEY,
  id              BLOB    NOT NULL,
  created_at      INTEGER NOT NULL,
  log_size_before INTEGER NOT NULL,
  leaf_hash       BLOB    NOT NULL,
  record          BLOB    NOT NULL, -- see codec.go
  log_body        BLOB    NOT NULL,
  timestamp       BLOB    NOT NULL,
  envelope        BLOB    NOT NULL
) STRICT;

-- The largest tree of the log that an acknowledged write was made with: one row, or
-- none yet. A log that does not contain this tree is not ours.
CREATE TABLE log_head (
  one  INTEGER PRIMARY KEY CHECK (one = 1),
  size INTEGER NOT NULL,
  root BLOB    NOT NULL
) STRICT;

CREATE TABLE sessions (
  id         BLOB    PRIMARY KEY,
  expires_at INTEGER NOT NULL,
  caller     BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Credentials that were used up. The key is a hash, so no token part is at rest.
CREATE TABLE consumed (
  key        BLOB    PRIMARY KEY,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX consumed_expiry ON consumed (expires_at);

CREATE TABLE decisions (
  seq            INTEGER PRIMARY KEY,
  id             TEXT    NOT NULL UNIQUE,
  key            BLOB    NOT NULL, -- sha256 of ask_key
  ask_key        TEXT    NOT NULL,
  created_at     INTEGER NOT NULL,
  expires_at     INTEGER NOT NULL,
  subject_name   TEXT    NOT NULL,
  sha256         BLOB,
  environment    TEXT    NOT NULL,
  passed         INTEGER NOT NULL,
  reason         TEXT    NOT NULL,
  policy_version TEXT    NOT NULL,
  answer         BLOB    NOT NULL
) STRICT;
CREATE INDEX decisions_key ON decisions (key, expires_at);
CREATE INDEX decisions_created ON decisions (created_at);
CREATE INDEX decisions_sha256 ON decisions (sha256, created_at);

-- Every ask. The row id is decision.seq * 2^32 + the number of the ask, counted
-- from 1 without gaps: the asks of a decision lie together, in order, and their
-- number is that of the last one, without an index or a counter to maintain.
CREATE TABLE asks (
  seq    INTEGER PRIMARY KEY,
  caller INTEGER NOT NULL REFERENCES callers (seq),
  at     INTEGER NOT NULL
) STRICT;
CREATE TABLE callers (
  seq     INTEGER PRIMARY KEY,
  display TEXT NOT NULL UNIQUE
) STRICT;
