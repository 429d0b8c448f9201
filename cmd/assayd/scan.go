package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newScan is `assayd scan` for whoever types it. The service starts itself with that
// argument for each artifact, and is answered by main before any command is looked for.
func newScan() *cobra.Command {
	return &cobra.Command{
		Use:    "scan",
		Short:  "The process that reads artifacts; assayd serve starts it",
		Hidden: true,
		Args:   noArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%w: scan is started by assayd serve, with the artifact; it does nothing by itself", errUsage)
		},
	}
}
