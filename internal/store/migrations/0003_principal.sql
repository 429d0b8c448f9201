-- Who attested: text that the server makes of ids, '' where it said nothing and in
-- rows that were written before.
ALTER TABLE attestations ADD COLUMN principal TEXT NOT NULL DEFAULT '';

-- What picks attestations of a digest, in the posting list: a posting is read for
-- every attestation of a digest, and the row of the register ends in what may be large.
-- principal is the first half of the text's sha256, empty where there is none; hashed
-- is 1 where the service itself hashed this digest for this attestation. Rows that were
-- written before have neither: among themselves they rank as they did.
ALTER TABLE subjects ADD COLUMN principal BLOB NOT NULL DEFAULT x'';
ALTER TABLE subjects ADD COLUMN hashed INTEGER NOT NULL DEFAULT 0;
