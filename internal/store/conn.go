package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"modernc.org/sqlite"
)

// The page cache of each connection, in KiB. It fills only as pages are used.
const (
	writerCacheKiB = 32 << 10
	readerCacheKiB = 8 << 10
)

// dsn names the database with the pragmas of every connection, so that one a pool
// opens later cannot lack them. The file name travels as a URI: a path with '?',
// '#' or '%' is a path.
func dsn(path string, readOnly bool) string {
	q := url.Values{"_defensive": {"1"}, "_dqs": {"0"}, "_error_rc": {"1"}}
	pragma := func(name, value string) { q.Add("_pragma", name+"("+value+")") }
	pragma("busy_timeout", "5000")
	pragma("foreign_keys", "ON")
	pragma("trusted_schema", "OFF")
	if readOnly {
		q.Set("mode", "ro")
		pragma("query_only", "ON")
		pragma("cache_size", strconv.Itoa(-readerCacheKiB))
	} else {
		q.Set("mode", "rw")
		pragma("page_size", "4096")
		pragma("journal_mode", "WAL")
		pragma("synchronous", "FULL")
		pragma("cache_size", strconv.Itoa(-writerCacheKiB))
		pragma("wal_autocheckpoint", strconv.Itoa(backstopPages))
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	return u.String()
}

// conn is the one connection that writes. It is the driver's own, without
// database/sql between: one goroutine uses it at a time, and a statement costs a
// microsecond less. Statements are prepared at first use and kept.
type conn struct {
	raw   driver.Conn
	stmts map[string]driver.Stmt
	args  []driver.NamedValue

	// committed and undone run once the transaction under way has ended, one way
	// or the other. Operations that change memory leave their counterpart here.
	committed, undone []func()
}

func openConn(ctx context.Context, path string) (*conn, error) {
	connector, err := sqlite.NewConnector(dsn(path, false))
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{raw: raw, stmts: make(map[string]driver.Stmt)}, nil
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		_ = s.Close() // says again what the statement's last run said
	}
	return c.raw.Close()
}

func (c *conn) prepare(query string) (driver.Stmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.raw.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("%w in %q", err, query)
	}
	c.stmts[query] = s
	return s, nil
}

func (c *conn) named(args []driver.Value) []driver.NamedValue {
	c.args = c.args[:0]
	for i, v := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return c.args
}

// exec runs one statement. The arguments are int64, string, []byte or nil.
func (c *conn) exec(query string, args ...driver.Value) (driver.Result, error) {
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	return s.(driver.StmtExecContext).ExecContext(context.Background(), c.named(args))
}

// row reads the first row of a query into dest and reports whether there was one.
func (c *conn) row(query string, dest []driver.Value, args ...driver.Value) (bool, error) {
	found := false
	err := c.rows(query, dest, func() error { found = true; return io.EOF }, args...)
	return found, err
}

// rows calls f after reading each row into dest, until f returns io.EOF.
func (c *conn) rows(query string, dest []driver.Value, f func() error, args ...driver.Value) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), c.named(args))
	if err != nil {
		return err
	}
	for err == nil {
		if err = rows.Next(dest); err == nil {
			err = f()
		}
	}
	if cerr := rows.Close(); err == io.EOF { //nolint:errorlint // Next promises io.EOF itself; a wrapped one is a fault, not the end
		err = cerr
	}
	return err
}

// script runs statements that take no arguments.
func (c *conn) script(sql string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(context.Background(), sql, nil)
	return err
}

// transact runs f in a transaction of its own.
func (c *conn) transact(f func() error) error {
	_, err := c.exec("BEGIN IMMEDIATE")
	if err == nil {
		if err = f(); err == nil {
			_, err = c.exec("COMMIT")
		}
		if err != nil {
			// SQLite has rolled back by itself after some errors; this one then
			// fails and says nothing new.
			_, _ = c.exec("ROLLBACK")
		}
	}
	ended := c.committed
	if err != nil {
		ended = c.undone
	}
	for i := len(ended) - 1; i >= 0; i-- {
		ended[i]()
	}
	clear(c.committed)
	clear(c.undone)
	c.committed, c.undone = c.committed[:0], c.undone[:0]
	return err
}
