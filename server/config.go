package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/sbom/sandbox"
	"github.com/assay-build/assay/internal/tlog"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

// CodeConfigInvalid refuses a configuration before anything is opened.
const CodeConfigInvalid refusal.Code = "CONFIG_INVALID"

// ErrConfig is in the chain of every error that a change of the configuration
// mends. Such an error comes before anything was opened.
var ErrConfig = errors.New("configuration")

// Config is all that a Server needs to know. The zero value of each field is
// good unless its comment says otherwise; docs/configuration.md explains each
// with its trust consequence. The fields without a YAML name are set by the
// program that embeds the server.
type Config struct {
	// Data is the directory that holds everything: keys, database, log, spool.
	// Required. It is created with mode 0700 on first start.
	Data string `yaml:"data"`
	// Listen is the host:port for gRPC and HTTP; 127.0.0.1:8780 if empty.
	Listen string `yaml:"listen"`
	// GRPCListen is an optional second address that speaks gRPC only, for load
	// balancers that offer both protocols upstream.
	GRPCListen string `yaml:"grpc_listen"`
	// Instance is the public URL of this deployment, scheme and host (and port)
	// only. It is the prefix of every builder.id and of the verifier.id of summaries,
	// and its host name is the origin of the transparency log: it cannot change
	// once the log exists. Defaults to the URL of Listen.
	Instance string `yaml:"instance"`
	// Audience lists what the aud claim of a platform token may be; [Instance] if empty.
	Audience []string `yaml:"audience"`
	// AllowPlaintext permits serving without TLS beyond loopback.
	AllowPlaintext bool           `yaml:"allow_plaintext"`
	TLS            TLSConfig      `yaml:"tls"`
	Identity       IdentityConf   `yaml:"identity"`
	AWS            AWSConf        `yaml:"aws"`
	Access         AccessConfig   `yaml:"access"`
	Provenance     ProvenanceConf `yaml:"provenance"`
	Log            LogConfig      `yaml:"log"`
	Policy         PolicyConfig   `yaml:"policy"`
	Limits         LimitsConfig   `yaml:"limits"`
	Scan           ScanConfig     `yaml:"scan"`
	Verify         VerifyConfig   `yaml:"verify"`
	Keys           KeysConf       `yaml:"keys"`
	Signer         SignerConf     `yaml:"signer"`
	Timestamp      TimestampConf  `yaml:"timestamp"`
	TUF            TUFConf        `yaml:"tuf"`

	// Logger receives structured logs; slog.Default() if nil.
	Logger *slog.Logger `yaml:"-"`
	// Now is the clock; time.Now if nil.
	Now func() time.Time `yaml:"-"`
	// Registry receives the metrics that /metrics serves; a new one if nil.
	Registry *prometheus.Registry `yaml:"-"`
	// Listener replaces Listen where the caller has bound a socket already.
	Listener net.Listener `yaml:"-"`
	// HTTPClient fetches issuer metadata; a bounded one if nil.
	HTTPClient *http.Client `yaml:"-"`
	// AWSClients replaces the service's own AWS identity, and AWSTransport the
	// transport of STS proofs: for tests and the sandbox, which have no AWS.
	AWSClients   *aws.Config       `yaml:"-"`
	AWSTransport http.RoundTripper `yaml:"-"`
	// SandboxAWS says that those accounts vouch for nothing real: their builds are
	// of builder …/builders/dev and level 0.
	SandboxAWS bool `yaml:"-"`
	// AllowSandboxIssuers lets an issuer be marked as a sandbox, which only
	// assay-dev and tests do: assayd refuses such a configuration.
	AllowSandboxIssuers bool `yaml:"-"`
}

// TLSConfig names certificate files; they are read again when they change.
type TLSConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// IdentityConf says whose tokens are exchanged for sessions.
type IdentityConf struct {
	// Issuers are matched exactly. With none, every Exchange is refused.
	Issuers []IssuerConf `yaml:"issuers"`
	// ClockSkew is the difference tolerated between clocks; 60s if zero, 5m at most.
	ClockSkew time.Duration `yaml:"clock_skew"`
	// SessionTTL is how long a session lives; 15m if zero, and at most.
	SessionTTL time.Duration `yaml:"session_ttl"`
	// ClientCertificates are the authorities whose client certificates open sessions.
	ClientCertificates []CertificateAuthorityConf `yaml:"client_certificates"`
}

// ProvenanceConf shapes what is said of builders.
type ProvenanceConf struct {
	// TrustedWorkflows are reusable workflows of GitHub Actions that count as
	// builders of their own, of SLSA Build level 3.
	TrustedWorkflows []TrustedWorkflowConf `yaml:"trusted_workflows"`
}

// LogConfig shapes the transparency log.
type LogConfig struct {
	// EntryFormat is "rekor-v1" (the default: every measured verifier accepts it)
	// or "rekor-v2".
	EntryFormat string `yaml:"entry_format"`
	// CheckpointInterval is the pace of the published checkpoint, and what a stop
	// waits for; 1s if zero. Tests shorten it.
	CheckpointInterval time.Duration `yaml:"-"`
}

// PolicyConfig names the Cedar policies that Verify decides by.
type PolicyConfig struct {
	// File holds Cedar policies; the built-in default policy if empty.
	File string `yaml:"file"`
}

// LimitsConfig bounds what one caller can ask for.
type LimitsConfig struct {
	// MaxArtifactBytes is the size of one uploaded artifact; 16 GiB if zero.
	MaxArtifactBytes int64 `yaml:"max_artifact_bytes"`
	// MaxConcurrentUploads bounds the uploads under way; 64 if zero.
	MaxConcurrentUploads int `yaml:"max_concurrent_uploads"`
	// IdleTimeout ends an upload whose next message does not come; 30s if zero.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
}

// ScanConfig bounds what looking into one artifact may cost. Each is read by a process
// of its own, which is this program started again.
type ScanConfig struct {
	// Workers is how many artifacts are looked into at a time, and a quarter as many
	// attached documents beside them; one for each processor if zero.
	Workers int `yaml:"workers"`
	// Timeout is how long one may take, with TimeoutPerGiB more for its size; 2m and
	// 30s if zero. What was found by then is kept, and the SBOM says that it is not
	// complete.
	Timeout       time.Duration `yaml:"timeout"`
	TimeoutPerGiB time.Duration `yaml:"timeout_per_gib"`
	// MaxMemoryBytes is what one may take; 448 MiB if zero, 128 MiB at least.
	MaxMemoryBytes int64 `yaml:"max_memory_bytes"`
	// Isolation is "auto" (the default: namespaces, a root folder of its own, Landlock and a
	// system call filter as far as the kernel has them) or "required" (all but Landlock, or
	// the service does not start).
	Isolation string `yaml:"isolation"`
}

// VerifyConfig shapes decisions.
type VerifyConfig struct {
	// SummaryTTL is how long a verification summary is good for; 1h if zero, 24h at most.
	SummaryTTL time.Duration `yaml:"summary_ttl"`
}

// LoadConfig reads a YAML file strictly: an unknown key is an error that names
// the key and its line, a second document or a duplicate key is an error too.
func LoadConfig(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, refusal.New(CodeConfigInvalid, "%w", err))
	}
	var c Config
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", ErrConfig, refusal.New(CodeConfigInvalid, "%s: %w", path, err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", ErrConfig, refusal.New(CodeConfigInvalid, "%s: more than one YAML document", path))
	}
	return &c, nil
}

const (
	defaultListen       = "127.0.0.1:8780"
	maxSessionTTL       = 15 * time.Minute
	maxSummaryTTL       = 24 * time.Hour
	defaultArtifactSize = 16 << 30
)

// complete fills in defaults and refuses what cannot be served.
func (c *Config) complete() error {
	if c.Data == "" {
		return configError("data", "is required: the directory that holds keys, database and log")
	}
	abs, err := filepath.Abs(c.Data)
	if err != nil {
		return configError("data", "%v", err)
	}
	c.Data = abs
	c.setDefaults()
	if err := c.checkInstance(); err != nil {
		return err
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return configError("tls", "cert_file and key_file go together")
	}
	if !tlog.EntryFormat(c.Log.EntryFormat).Valid() {
		return configError("log.entry_format", "is %q; rekor-v1 or rekor-v2", c.Log.EntryFormat)
	}
	if c.Identity.SessionTTL < time.Second || c.Identity.SessionTTL > maxSessionTTL {
		return configError("identity.session_ttl", "is %s; 1s to %s", c.Identity.SessionTTL, maxSessionTTL)
	}
	if c.Verify.SummaryTTL < time.Second || c.Verify.SummaryTTL > maxSummaryTTL {
		return configError("verify.summary_ttl", "is %s; 1s to %s", c.Verify.SummaryTTL, maxSummaryTTL)
	}
	if c.Limits.MaxArtifactBytes < 1 || c.Limits.MaxConcurrentUploads < 1 || c.Limits.IdleTimeout < time.Second {
		return configError("limits", "must be positive: max_artifact_bytes %d, max_concurrent_uploads %d, idle_timeout %s",
			c.Limits.MaxArtifactBytes, c.Limits.MaxConcurrentUploads, c.Limits.IdleTimeout)
	}
	if err := c.checkKeys(); err != nil {
		return err
	}
	if err := c.Scan.check(); err != nil {
		return err
	}
	return c.AWS.check()
}

const minScanMemory = 128 << 20

func (s *ScanConfig) check() error {
	switch {
	case s.Workers < 0 || s.Workers > 1024:
		return configError("scan.workers", "is %d; 0 to 1024", s.Workers)
	case s.Timeout < 0 || s.Timeout > time.Hour:
		return configError("scan.timeout", "is %s; 0s to 1h", s.Timeout)
	case s.TimeoutPerGiB < 0 || s.TimeoutPerGiB > time.Hour:
		return configError("scan.timeout_per_gib", "is %s; 0s to 1h", s.TimeoutPerGiB)
	case s.MaxMemoryBytes != 0 && s.MaxMemoryBytes < minScanMemory:
		return configError("scan.max_memory_bytes", "is %d; 0 or at least %d", s.MaxMemoryBytes, minScanMemory)
	case s.Isolation != "" && s.Isolation != sandbox.IsolationAuto && s.Isolation != sandbox.IsolationRequired:
		return configError("scan.isolation", "is %q; auto or required", s.Isolation)
	}
	return nil
}

// scanner starts what looks into artifacts.
func (c *Config) scanner() (*sandbox.Sandbox, error) {
	return sandbox.New(sandbox.Config{
		TempDir: c.path("scan"), Workers: c.Scan.Workers + documentPlaces(c.Scan.Workers), Isolation: c.Scan.Isolation, Logger: c.Logger,
		Limits: sandbox.Limits{Memory: c.Scan.MaxMemoryBytes, Time: c.Scan.Timeout, TimePerGiB: c.Scan.TimeoutPerGiB},
	})
}

func (c *Config) setDefaults() {
	def(&c.Listen, defaultListen)
	if c.Instance == "" {
		scheme, addr := "http", c.Listen
		if c.TLS.CertFile != "" {
			scheme = "https"
		}
		if c.Listener != nil {
			addr = c.Listener.Addr().String()
		}
		c.Instance = scheme + "://" + addr
	}
	if len(c.Audience) == 0 {
		c.Audience = []string{c.Instance}
	}
	def(&c.Log.EntryFormat, string(tlog.RekorV1))
	def(&c.Identity.SessionTTL, maxSessionTTL)
	def(&c.Verify.SummaryTTL, time.Hour)
	def(&c.Limits.MaxArtifactBytes, defaultArtifactSize)
	def(&c.Limits.MaxConcurrentUploads, 64)
	def(&c.Limits.IdleTimeout, 30*time.Second)
	def(&c.Scan.Workers, runtime.GOMAXPROCS(0))
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
}

// checkInstance refuses a URL that could not be told apart from another: the
// instance is compared as a string in builder ids and audiences.
func (c *Config) checkInstance() error {
	u, err := url.Parse(c.Instance)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" ||
		u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ToLower(c.Instance) != c.Instance {
		return configError("instance", "is %q; it must be a lower-case https://HOST[:PORT] without a path", c.Instance)
	}
	ip := net.ParseIP(u.Hostname())
	if local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback(); u.Scheme == "http" && !local && !c.AllowPlaintext {
		return configError("instance", "is %q; http is for loopback, unless allow_plaintext says that it is meant", c.Instance)
	}
	return nil
}

// host is the log's origin: sigstore verifiers compare it with the host name of
// the log's base URL, without a port.
func (c *Config) host() string {
	u, err := url.Parse(c.Instance)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// tlsConfig is nil where the service speaks plaintext.
func (c *Config) tlsConfig() (*tls.Config, error) {
	if c.TLS.CertFile == "" {
		return nil, nil
	}
	r, err := newCertReloader(c.TLS.CertFile, c.TLS.KeyFile, c.Now, c.Logger)
	if err != nil {
		return nil, configError("tls", "%v", err)
	}
	config := r.Config()
	if len(c.Identity.ClientCertificates) > 0 {
		// Taken as it comes: only who exchanges a certificate for a session has it
		// verified, and whoever else shows one is not turned away for it.
		config.ClientAuth = tls.RequestClientCert
	}
	return config, nil
}

func (c *Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.Data}, elem...)...)
}

func configError(field, format string, args ...any) error {
	return refusal.New(CodeConfigInvalid, "%s", fmt.Sprintf(format, args...)).InField(field)
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
