// Command interop judges attestations as a program would that knows sigstore-go and
// nothing of Assay: .ci/interop calls it beside cosign and @sigstore/verify, with the
// same arguments, and lets it change bundles by one byte, or graft the material of another
// bundle onto one.
//
//	interop verify --bundle FILE --trusted-root FILE
//	    (--key PEM | --certificate-identity SAN --certificate-oidc-issuer URL)
//	    --type slsaprovenance1|cyclonedx ARTIFACT
//	interop flip BUNDLE FIELD OUT
//	interop graft BUNDLE OTHER OUT
//
// It takes sigstore-go as shipped, with what cosign asks for by default and a signed
// timestamp on top: one log entry, one timestamp and, for a certificate, one SCT.
//
// Exit codes: 0 verified, 1 refused, 2 it could not get so far.
package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// errUsage marks what is wrong with the call, as against with the bundle.
var errUsage = errors.New("wrong use")

func run(args []string, stdout, stderr io.Writer) int {
	err := command(args, stdout)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "interop: %v\n", err)
		return 2
	default:
		fmt.Fprintf(stderr, "sigstore-go: %v\n", err)
		return 1
	}
}

func command(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: interop verify|flip|graft …", errUsage)
	}
	switch args[0] {
	case "verify":
		q, err := parseQuestion(args[1:])
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		if err := q.verify(); err != nil {
			return err
		}
		fmt.Fprintln(stdout, "sigstore-go: verified", q.artifact)
		return nil
	case "flip", "graft":
		if len(args) != 4 {
			return fmt.Errorf("%w: interop %s BUNDLE FIELD|OTHER OUT", errUsage, args[0])
		}
		change := flipFile
		if args[0] == "graft" {
			change = graftFile
		}
		if err := change(args[1], args[2], args[3]); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		return nil
	default:
		return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
	}
}

// question is one bundle and everything it is held against.
type question struct {
	bundlePath       string
	root             *root.TrustedRoot
	key              crypto.PublicKey // nil: a certificate
	identity, issuer string
	predicateType    string
	artifact         string
	digest           [sha256.Size]byte
}

func parseQuestion(args []string) (*question, error) {
	q := new(question)
	fs := flag.NewFlagSet("interop verify", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&q.bundlePath, "bundle", "", "")
	rootPath := fs.String("trusted-root", "", "")
	keyPath := fs.String("key", "", "")
	fs.StringVar(&q.identity, "certificate-identity", "", "")
	fs.StringVar(&q.issuer, "certificate-oidc-issuer", "", "")
	kind := fs.String("type", "", "")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	q.artifact = fs.Arg(0)
	byKey, byName := *keyPath != "", q.identity != "" && q.issuer != ""
	if fs.NArg() != 1 || byKey == byName || byKey && (q.identity != "" || q.issuer != "") {
		return nil, errors.New("want one artifact, and a key or an identity with its issuer")
	}
	types := map[string]string{"slsaprovenance1": "https://slsa.dev/provenance/v1", "cyclonedx": "https://cyclonedx.org/bom"}
	if q.predicateType = types[*kind]; q.predicateType == "" {
		return nil, fmt.Errorf("type %q is unknown", *kind)
	}
	if _, err := os.Stat(q.bundlePath); err != nil {
		return nil, err
	}
	var err error
	if q.root, err = root.NewTrustedRootFromPath(*rootPath); err != nil {
		return nil, err
	}
	if byKey {
		if q.key, err = readKey(*keyPath); err != nil {
			return nil, err
		}
	}
	content, err := os.ReadFile(q.artifact)
	if err != nil {
		return nil, err
	}
	q.digest = sha256.Sum256(content)
	return q, nil
}

func readKey(path string) (crypto.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("%s is not one PUBLIC KEY block", path)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

func (q *question) verify() error {
	b, err := bundle.LoadJSONFromPath(q.bundlePath)
	if err != nil {
		return err
	}
	material := root.TrustedMaterialCollection{q.root}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithSignedTimestamps(1)}
	var policy verify.PolicyOption
	if q.key != nil {
		verifier, err := signature.LoadDefaultVerifier(q.key)
		if err != nil {
			return err
		}
		// The one key this verifier was given, whatever the bundle hints at.
		material = append(material, root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
			return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
		}))
		policy = verify.WithKey()
	} else {
		identity, err := verify.NewShortCertificateIdentity(q.issuer, "", q.identity, "")
		if err != nil {
			return err
		}
		options = append(options, verify.WithSignedCertificateTimestamps(1))
		policy = verify.WithCertificateIdentity(identity)
	}
	verifier, err := verify.NewVerifier(material, options...)
	if err != nil {
		return err
	}
	result, err := verifier.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", q.digest[:]), policy))
	if err != nil {
		return err
	}
	if got := result.Statement.GetPredicateType(); got != q.predicateType {
		return fmt.Errorf("predicate type %s, want %s", got, q.predicateType)
	}
	return nil
}
