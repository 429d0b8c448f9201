package awskms_test

import (
	"github.com/assay-build/assay/internal/signing"
	"github.com/assay-build/assay/internal/signing/awskms"
)

// The keys are what package signing asks for, though neither imports the other.
var (
	_ signing.Signer        = (*awskms.Key)(nil)
	_ signing.MessageSigner = (*awskms.MLDSAKey)(nil)
)
