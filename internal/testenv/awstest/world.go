package awstest

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Config configures a World.
type Config struct {
	// Now is the clock of every service. Default time.Now.
	Now func() time.Time
}

// World is one AWS with its accounts. It is safe for concurrent use.
type World struct {
	now      func() time.Time
	servers  *servers
	services map[string]service // by the name in a SigV4 credential scope
	data     dataState

	mu       sync.Mutex
	accounts map[string]*Account
	keys     map[string]*accessKey // by access key id
	mailbox  map[string]string     // container credentials: id → access key id
	issuers  map[string]*Account   // host of the token issuer → account
	faults   []*Fault
	throttle map[bucketKey]*bucket
	limits   map[operation]int
	latency  map[operation]time.Duration
	requests []RequestRecord
	counts   map[operation]int
}

// New starts a world: a TLS listener that is every AWS host, and a plain one for
// the credentials of containers, both on the loopback interface.
func New(cfg Config) (*World, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &World{
		now:      cfg.Now,
		accounts: map[string]*Account{},
		keys:     map[string]*accessKey{},
		mailbox:  map[string]string{},
		issuers:  map[string]*Account{},
		throttle: map[bucketKey]*bucket{},
		limits:   map[operation]int{},
		latency:  map[operation]time.Duration{},
		counts:   map[operation]int{},
	}
	w.services = map[string]service{
		"sts": {protocol: query, serve: w.serveSTS},
		"iam": {protocol: query, serve: w.serveIAM},
	}
	for name, s := range w.dataServices() {
		w.services[name] = s
	}
	var err error
	if w.servers, err = listen(w); err != nil {
		return nil, fmt.Errorf("awstest: %w", err)
	}
	return w, nil
}

// Close stops the listeners and breaks the connections.
func (w *World) Close() { w.servers.close() }

// Transport leads every AWS host to the world and trusts its certificates. Any
// other host does not exist.
func (w *World) Transport() *http.Transport { return w.transport() }

// HTTPClient uses Transport.
func (w *World) HTTPClient() *http.Client { return &http.Client{Transport: w.Transport()} }

// AWSConfig configures clients of the SDK that use creds and region in this
// world.
func (w *World) AWSConfig(creds aws.Credentials, region string) aws.Config {
	return aws.Config{
		Region:           region,
		HTTPClient:       w.HTTPClient(),
		RetryMaxAttempts: 3,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return creds, nil
		}),
	}
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// Account returns an account of the partition "aws", which is made on first use.
func (w *World) Account(id string) *Account { return w.AccountIn("aws", id) }

// AccountIn returns an account of a partition, which is made on first use.
func (w *World) AccountIn(partition, id string) *Account {
	if !accountID.MatchString(id) {
		panic("awstest: an account is twelve digits, not " + id)
	}
	if _, ok := partitions[partition]; !ok {
		panic("awstest: no such partition: " + partition)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.accounts[id]
	if a == nil {
		a = &Account{w: w, partition: partition, id: id, roles: map[string]*Role{}, users: map[string]*user{}}
		w.accounts[id] = a
	}
	if a.partition != partition {
		panic("awstest: account " + id + " is in " + a.partition)
	}
	return a
}

// Account is an AWS account.
type Account struct {
	w         *World
	partition string
	id        string

	// Guarded by w.mu.
	roles  map[string]*Role
	users  map[string]*user
	root   *accessKey
	issuer *tokenIssuer
	pins   []string // request tags that must be the build's ARN
}

// ID is the account's twelve digits.
func (a *Account) ID() string { return a.id }

// Partition is "aws", "aws-cn" and so on.
func (a *Account) Partition() string { return a.partition }

// arn is the ARN of a resource of the account.
func (a *Account) arn(service, region, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", a.partition, service, region, a.id, resource)
}

func randomText(n int, enc interface{ EncodeToString([]byte) string }) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, as crypto/rand documents
	return enc.EncodeToString(b)[:n]
}

// uniqueID is the identifier of a principal (AROA, AIDA) as IAM makes them: 21
// characters.
func uniqueID(prefix string) string { return prefix + randomText(17, base32.StdEncoding) }

func secretKey() string { return randomText(40, base64.StdEncoding) }
