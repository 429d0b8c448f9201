-- The heads of all logs that were ever written, by the id of the log. The id is empty in
-- what versions left that knew one log only.
CREATE TABLE log_heads (
  log  BLOB    PRIMARY KEY,
  size INTEGER NOT NULL,
  root BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO log_heads (log, size, root) SELECT x'', size, root FROM log_head;
DROP TABLE log_head;
