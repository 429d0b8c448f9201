package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/assay-build/assay/internal/tlog/posix"
)

// settleTimeout bounds the wait for a checkpoint over the whole log.
const settleTimeout = 30 * time.Second

// SettleLog has the log's key sign for all that is in the log, so that it can be retired:
// nobody else can, afterwards. A service that was stopped has done it; one that was killed
// may have left entries that no published checkpoint covers. It opens the log as the
// service would, and is refused while one runs. Where no log was begun it does nothing.
func SettleLog(ctx context.Context, cfg *Config, openers signing.Openers) (err error) {
	set, err := signing.OpenKeyset(ctx, cfg.path("keys"), signing.Config{Now: cfg.Now, Openers: openers})
	if err != nil {
		return err
	}
	dir := cfg.path(activeShard(set))
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	log, err := openSpoken(ctx, posix.Config{
		Dir: dir, Host: set.Host, Signer: set.LogSigner(), CheckpointInterval: 100 * time.Millisecond, Now: cfg.Now, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	defer func() {
		if closeErr := log.Close(ctx); err == nil && closeErr != nil {
			err = fmt.Errorf("settle the log: %w", closeErr)
		}
	}()
	return log.Settle(ctx)
}

// openSpoken opens a log in the format that it has spoken last, whatever the configuration
// wants of the next one.
func openSpoken(ctx context.Context, c posix.Config) (*posix.Log, error) {
	c.Format = tlog.RekorV1
	log, err := posix.Open(ctx, c)
	if refusal.CodeOf(err) != posix.CodeIdentityChanged {
		return log, err
	}
	c.Format = tlog.RekorV2
	return posix.Open(ctx, c)
}
