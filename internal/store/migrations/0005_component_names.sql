-- The components of a name in the order in which they came: a row that is added later
-- comes later, so that no number of them stands before those that were there.
CREATE INDEX components_only_name ON components (name);
