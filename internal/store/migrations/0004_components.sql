-- The component index. Its form is told in postings.go and index.go.

-- The dictionary: every component that an SBOM named. key is the package URL, or what
-- stands for it where there is none. Rows are added before the SBOM that names them,
-- and never changed or removed.
CREATE TABLE components (
  id        INTEGER PRIMARY KEY,
  key       TEXT NOT NULL UNIQUE,
  type      TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  version   TEXT NOT NULL
) STRICT;
CREATE INDEX components_name ON components (name, type, namespace, version);
CREATE TABLE licenses (
  id   INTEGER PRIMARY KEY,
  text TEXT NOT NULL UNIQUE
) STRICT;

-- SBOMs, numbered from 1 without gaps in the order in which they became visible, with
-- what each holds: the truth that postings are made from.
CREATE TABLE sboms (
  n           INTEGER PRIMARY KEY,
  attestation INTEGER NOT NULL REFERENCES attestations (seq),
  claimed     INTEGER NOT NULL,
  complete    INTEGER NOT NULL,
  format      TEXT    NOT NULL,
  components  BLOB    NOT NULL -- packed; see sbom.go
) STRICT;

-- Which SBOMs hold a component or licence, for those numbered first_n to last_n. The
-- segments follow each other without gaps; SBOMs after the last are in none yet. A
-- segment's chunks are the postings numbered from first_chunk on.
CREATE TABLE segments (
  first_n     INTEGER PRIMARY KEY,
  last_n      INTEGER NOT NULL,
  level       INTEGER NOT NULL,
  bytes       INTEGER NOT NULL,
  first_chunk INTEGER NOT NULL,
  chunks      INTEGER NOT NULL,
  directory   BLOB    NOT NULL
) STRICT;
CREATE TABLE postings (
  id    INTEGER PRIMARY KEY,
  chunk BLOB NOT NULL
) STRICT;

-- Which environments an artifact was allowed into.
CREATE INDEX decisions_allowed ON decisions (sha256, environment) WHERE passed = 1;
