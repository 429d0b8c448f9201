package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/mail"
	"net/url"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sigstore/fulcio/pkg/certificate"

	"github.com/assay-build/assay/internal/refusal"
)

// CodeIdentityInvalid refuses an identity that a certificate cannot bear so that
// every verifier reads it alike.
const CodeIdentityInvalid refusal.Code = "CA_IDENTITY_INVALID"

const (
	maxURI   = 2048
	maxEmail = 254 // RFC 5321, as corrected by erratum 1690
	// maxExtensions bounds the values of all extensions together: the log takes
	// entries of less than 64 KiB, and a leaf travels in every bundle.
	maxExtensions = 16 << 10
)

// Identity is whom a leaf names. Issuer and exactly one of URI and Email are set.
type Identity struct {
	// URI is absolute and spelled the way net/url spells it. Verifiers compare that
	// spelling and not the octets of the certificate, and two identities must not
	// become one on the way.
	URI string
	// Email is an address without a display name.
	Email string
	// Issuer is who vouched for the identity: the iss claim of an OIDC token.
	Issuer string
	// Extensions are what else is known of the workload. Its own Issuer stays empty,
	// or says the same as the Issuer above.
	Extensions certificate.Extensions
}

func (id *Identity) check() error {
	invalid := func(field, format string, args ...any) error {
		return refusal.New(CodeIdentityInvalid, format, args...).InField(field)
	}
	switch {
	case id.URI == "" && id.Email == "":
		return invalid("uri", "the identity has neither a URI nor an email address, it must have one")
	case id.URI != "" && id.Email != "":
		return invalid("uri", "the identity has a URI and an email address, it must have one")
	case id.URI != "":
		if len(id.URI) > maxURI || !printable(id.URI) {
			return invalid("uri", "%.300q must be at most %d printable ASCII characters", id.URI, maxURI)
		}
		if u, err := url.Parse(id.URI); err != nil || !u.IsAbs() || u.String() != id.URI || u.Host+u.Opaque+u.Path == "" {
			return invalid("uri", "%.300q is not an absolute URI in its usual spelling", id.URI)
		}
	default:
		if len(id.Email) > maxEmail || !printable(id.Email) {
			return invalid("email", "%.300q must be at most %d printable ASCII characters", id.Email, maxEmail)
		}
		if a, err := mail.ParseAddress(id.Email); err != nil || a.Name != "" || a.Address != id.Email {
			return invalid("email", "%.300q is not a plain email address", id.Email)
		}
	}
	if id.Issuer == "" || len(id.Issuer) > maxURI || !printable(id.Issuer) {
		return invalid("issuer", "%.300q must be 1 to %d printable ASCII characters", id.Issuer, maxURI)
	}
	if own := id.Extensions.Issuer; own != "" && own != id.Issuer {
		return invalid("extensions.issuer", "%.300q is not the issuer %q of the identity", own, id.Issuer)
	}
	return id.checkExtensions()
}

// checkExtensions holds every value against what a UTF8String should be, and all of
// them against the room there is. The fields are walked by reflection so that one
// that a later Fulcio adds is not forgotten.
func (id *Identity) checkExtensions() error {
	v := reflect.ValueOf(&id.Extensions).Elem()
	total := 0
	for i := range v.NumField() {
		value := v.Field(i).String()
		if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return refusal.New(CodeIdentityInvalid, "%.300q must be UTF-8 without control characters", value).InField("extensions." + v.Type().Field(i).Name)
		}
		total += len(value)
	}
	if total > maxExtensions {
		return refusal.New(CodeIdentityInvalid, "the values have %d bytes together, at most %d may be", total, maxExtensions).InField("extensions")
	}
	return nil
}

// render returns the extensions as Fulcio renders them, in its order.
func (id *Identity) render() ([]pkix.Extension, error) {
	e := id.Extensions
	e.Issuer = id.Issuer
	rendered, err := e.Render()
	if err != nil {
		return nil, refusal.New(CodeIdentityInvalid, "%w", err).InField("extensions")
	}
	return rendered, nil
}

// IdentityOf reads back whom a leaf of Issue names. Its Extensions bear the Issuer too.
func IdentityOf(leaf *x509.Certificate) (Identity, error) {
	extensions, err := certificate.ParseExtensions(leaf.Extensions)
	if err != nil {
		return Identity{}, refusal.New(CodeIdentityInvalid, "%w", err)
	}
	id := Identity{Issuer: extensions.Issuer, Extensions: extensions}
	switch {
	case len(leaf.URIs) == 1 && len(leaf.EmailAddresses) == 0:
		id.URI = leaf.URIs[0].String()
	case len(leaf.EmailAddresses) == 1 && len(leaf.URIs) == 0:
		id.Email = leaf.EmailAddresses[0]
	default:
		return Identity{}, refusal.New(CodeIdentityInvalid, "the certificate has %d URIs and %d email addresses", len(leaf.URIs), len(leaf.EmailAddresses))
	}
	return id, nil
}
