-- Who caused a decision: the caller's facts as identity wrote them, opaque here.
-- Reads of decisions are granted row by row, and need to know whose they are. NULL in
-- rows that were written before.
ALTER TABLE decisions ADD COLUMN caller BLOB;
