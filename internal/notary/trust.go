package notary

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/assay-build/assay/internal/refusal"
)

// Trust is whose signatures count.
type Trust struct {
	// Roots are the root certificates of AWS Signer, one for each partition. AWS hands
	// them out with its installer; they cannot be fetched from an API.
	Roots []*x509.Certificate
	// ProfileVersionARNs are the versions of signing profiles that may have signed, each in
	// full: arn:aws:signer:REGION:ACCOUNT:/signing-profiles/NAME/VERSION.
	ProfileVersionARNs []string
}

const (
	maxRoots    = 16
	maxProfiles = 256
	maxChains   = 64
)

// trusted is a Trust that was checked.
type trusted struct {
	roots    []*x509.Certificate
	pool     *x509.CertPool
	profiles []profileARN
	arns     []string
	chains   *lru.Cache[[sha256.Size]byte, struct{}] // that lead to a root
}

func (t Trust) check() (*trusted, error) {
	switch {
	case len(t.Roots) == 0:
		return nil, refusal.New(CodeTrustInvalid, "no root certificate").InField("roots")
	case len(t.Roots) > maxRoots:
		return nil, refusal.New(CodeTrustInvalid, "%d root certificates; at most %d are accepted", len(t.Roots), maxRoots).InField("roots")
	case len(t.ProfileVersionARNs) == 0:
		return nil, refusal.New(CodeTrustInvalid, "no profile version").InField("profile_versions")
	case len(t.ProfileVersionARNs) > maxProfiles:
		return nil, refusal.New(CodeTrustInvalid, "%d profile versions; at most %d are accepted",
			len(t.ProfileVersionARNs), maxProfiles).InField("profile_versions")
	}
	chains, err := lru.New[[sha256.Size]byte, struct{}](maxChains)
	if err != nil {
		return nil, err
	}
	out := &trusted{pool: x509.NewCertPool(), chains: chains}
	for i, root := range t.Roots {
		if err := checkRoot(i, root); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out.roots, root.Equal) {
			return nil, refusal.New(CodeTrustInvalid, "root %d occurs twice", i).InField("roots")
		}
		out.roots = append(out.roots, root)
		out.pool.AddCert(root)
	}
	for _, s := range t.ProfileVersionARNs {
		p, ok := parseProfileARN(s)
		switch {
		case strings.ContainsAny(s, "*?"):
			return nil, refusal.New(CodeTrustInvalid, "%.160q: a wildcard pins nothing", s).InField("profile_versions")
		case !ok:
			return nil, refusal.New(CodeTrustInvalid, "%.160q is not the ARN of a signing profile's version", s).InField("profile_versions")
		case p.version == "":
			return nil, refusal.New(CodeTrustInvalid,
				"%.160q has no version; a profile that is cancelled and made again has its name", s).InField("profile_versions")
		case slices.Contains(out.profiles, p):
			return nil, refusal.New(CodeTrustInvalid, "%.160q occurs twice", s).InField("profile_versions")
		}
		out.profiles = append(out.profiles, p)
		out.arns = append(out.arns, p.String())
	}
	return out, nil
}

// checkRoot refuses what is not a self-signed certificate authority. A root is trusted
// for every certificate under it, so a leaf or an intermediate is a mistake here.
func checkRoot(i int, root *x509.Certificate) error {
	switch {
	case root == nil || len(root.Raw) == 0:
		return refusal.New(CodeTrustInvalid, "root %d is empty", i).InField("roots")
	case !root.IsCA || !root.BasicConstraintsValid:
		return refusal.New(CodeTrustInvalid, "root %d is not a certificate authority", i).InField("roots")
	case root.CheckSignatureFrom(root) != nil || string(root.RawSubject) != string(root.RawIssuer):
		return refusal.New(CodeTrustInvalid, "root %d is not self-signed", i).InField("roots")
	}
	return nil
}

// allows reports whether p, with its version, is pinned.
func (t *trusted) allows(p profileARN) bool { return p.version != "" && slices.Contains(t.profiles, p) }
