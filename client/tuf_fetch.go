package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// trustTimeout bounds one file, so that a server that sends a byte now and then does
// not use up the time of a whole update. A large file has a second more for each
// trustRate bytes that it may have.
const (
	trustTimeout = 20 * time.Second
	trustRate    = 1 << 20
)

// trustHTTP is the HTTP client for one server.
func trustHTTP(ep *endpoint, caFile string) (*http.Client, error) {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  trustTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		// A body that grows while it is unpacked would get around the limits.
		DisableCompression: true,
	}
	if caFile != "" {
		if ep.plaintext {
			return nil, badInput(CodeServerInvalid, "server %s is plaintext: a CA file has no meaning", ep.origin)
		}
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, badInput(CodeCAFileInvalid, "CA file: %v", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, badInput(CodeCAFileInvalid, "CA file %s holds no PEM certificate", caFile)
		}
	}
	return &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme || len(via) > 3 {
			return newError(ErrUnavailable, CodeTUFUnavailable, "the server redirects to another host, or too often")
		}
		return nil
	}}, nil
}

// trustFetcher fetches for one update, and remembers what it fetched. It implements
// go-tuf's Fetcher, which knows no context.
type trustFetcher struct {
	ctx   context.Context
	store *TrustStore
	have  []byte            // the root that the update began with
	last  string            // the role, or the target, fetched last
	roots map[int64][]byte  // roots by version; the last one go-tuf may have refused
	got   map[string][]byte // the last of each role
}

// DownloadFile fetches one file of at most limit bytes. Metadata are held to their
// form before go-tuf sees them.
func (f *trustFetcher) DownloadFile(url string, limit int64, _ time.Duration) ([]byte, error) {
	version, role := metadataName(path.Base(url))
	target := strings.HasPrefix(url, f.store.endpoint.origin+"/tuf/targets/")
	if target {
		_, role, _ = strings.Cut(path.Base(url), ".")
		limit = min(limit, maxTUFTarget)
	} else {
		limit = min(limit, maxTUFMetadata)
	}
	f.last = role
	var data []byte
	err := f.store.retry.do(f.ctx, func(ctx context.Context) (err error) {
		data, err = f.store.fetch(ctx, url, role, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !target {
		if err := checkMetadata(role, data); err != nil {
			return nil, err
		}
	}
	if role == metadata.ROOT {
		f.roots[version] = data
	}
	f.got[role] = data
	return data, nil
}

// metadataName takes 7.root.json or timestamp.json apart.
func metadataName(name string) (version int64, role string) {
	number, rest, _ := strings.Cut(strings.TrimSuffix(name, ".json"), ".")
	version, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, number
	}
	return version, rest
}

func (s *TrustStore) fetch(ctx context.Context, url, what string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, trustTimeout+time.Duration(limit/trustRate)*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", s.cfg.UserAgent)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, away(what, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, &metadata.ErrDownloadHTTP{StatusCode: resp.StatusCode, URL: url}
	case resp.StatusCode != http.StatusOK:
		return nil, refusalOf(&metadata.ErrDownloadHTTP{StatusCode: resp.StatusCode, URL: url}, what)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, away(what, err)
	}
	if int64(len(data)) > limit {
		return nil, tooLong(what, limit)
	}
	return data, nil
}

func away(what string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		return own // A redirect: no better the next time.
	}
	e := newError(ErrUnavailable, CodeTUFUnavailable, "%s: %w", what, err)
	e.Retryable = true
	return e
}

// tooLong refuses what is longer than what was signed, or than anything honest.
func tooLong(what string, limit int64) error {
	code := CodeTUFTargetMismatch
	switch what {
	case metadata.ROOT:
		code = CodeTUFRootInvalid
	case metadata.TIMESTAMP:
		code = CodeTUFMetadataInvalid
	case metadata.SNAPSHOT, metadata.TARGETS:
		code = CodeTUFMixAndMatch
	}
	return untrusted(code, "%s: more than the %d bytes that it may have", what, limit)
}

// refusal gives an error of go-tuf's Refresh its code.
func (f *trustFetcher) refusal(err error, up *updater.Updater) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	var version *metadata.ErrBadVersionNumber
	set := up.GetTrustedMetadataSet()
	if errors.As(err, &version) && f.last == metadata.SNAPSHOT && set.Timestamp != nil {
		// The snapshot that was promised, but it names older targets than before; or
		// another than was promised.
		promised := set.Timestamp.Signed.Meta["snapshot.json"].Version
		if m, parseErr := metadata.Snapshot().FromBytes(f.got[metadata.SNAPSHOT]); parseErr == nil && m.Signed.Version == promised {
			return untrusted(CodeTUFRollback, "%s: %w", f.last, err)
		}
	}
	root := f.roots[set.Root.Signed.Version]
	if root == nil {
		root = f.have
	}
	// A root has to be signed as its predecessor says, and as it says itself.
	if next := f.got[metadata.ROOT]; f.last == metadata.ROOT && thresholdOf(next, f.last) > 1 {
		root = next
	}
	return signatureRefusal(err, f.last, root)
}

// signatureRefusal is refusalOf where root says how many have to sign.
func signatureRefusal(err error, role string, root []byte) error {
	var unsigned *metadata.ErrUnsignedMetadata
	if errors.As(err, &unsigned) && thresholdOf(root, role) > 1 {
		return untrusted(CodeTUFThreshold, "%s: %w", role, err)
	}
	return refusalOf(err, role)
}

// next is what an update has got to: what was fetched and taken, and the rest as it was.
func (f *trustFetcher) next(have *generation, up *updater.Updater) (*generation, error) {
	set := up.GetTrustedMetadataSet()
	next := &generation{root: have.root, snapshot: have.snapshot, targets: have.targets, files: map[string][]byte{}}
	if root := f.roots[set.Root.Signed.Version]; root != nil {
		next.root = root
	}
	if data := f.got[metadata.SNAPSHOT]; data != nil {
		next.snapshot = data
	}
	if data := f.got[metadata.TARGETS]; data != nil {
		next.targets = data
	}
	// Of two timestamps of one version go-tuf keeps the one it had. No other metadata
	// name its hash, so it may be written anew.
	var err error
	if next.timestamp, err = set.Timestamp.ToBytes(false); err != nil {
		return nil, fmt.Errorf("timestamp: %w", err)
	}
	for name, info := range set.Targets[metadata.TARGETS].Signed.Targets {
		if name != targetTrustedRoot && name != targetPEM && name != targetKeys {
			continue
		}
		if data := have.files[name]; info.VerifyLengthHashes(data) == nil {
			next.files[name] = data
			continue
		}
		info.Path = name
		_, data, err := up.DownloadTarget(info, "", "")
		var length *metadata.ErrLengthOrHashMismatch
		if errors.As(err, &length) {
			return nil, untrusted(CodeTUFTargetMismatch, "%s: %w", name, err)
		}
		if err != nil {
			return nil, refusalOf(err, name)
		}
		next.files[name] = data
	}
	return next, nil
}
