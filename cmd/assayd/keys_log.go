package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/server"
)

// retireLog takes the lock of the log in folder, of which the key is about to change,
// and has the old key sign for all that is in it: nobody else may, afterwards. A log
// whose key is not believed any more need not be complete, and only says so.
func (k *keysCommand) retireLog(ctx context.Context, cfg *server.Config, config signing.Config, folder string, change signing.Change) (release func(), err error) {
	path := filepath.Join(cfg.Data, folder)
	// The service is told from other trouble before the log is opened.
	if release, err = signing.LockLog(ctx, path); err != nil {
		return nil, err
	}
	release()
	k.logTo(cfg.Logger) // Tessera's
	if err := server.SettleLog(ctx, cfg, config.Openers); err != nil {
		revoke, _ := change.(signing.RevokeKey)
		if revoke.Reason != signing.ReasonKeyCompromise && revoke.Reason != signing.ReasonUnspecified {
			return nil, fmt.Errorf("the log in %s cannot be completed before its key changes: %w", path, err)
		}
		fmt.Fprintf(k.errs, "assayd: the log in %s is left as it is: %v\n", path, err)
	}
	return signing.LockLog(ctx, path)
}
