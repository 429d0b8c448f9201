package awstest

import (
	"crypto"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// kmsStore holds the keys, aliases and grants of every account and region.
type kmsStore struct {
	mu      sync.Mutex
	keys    map[string]*KMSKey   // by ARN
	aliases map[string]*kmsAlias // by ARN
	tokens  map[string]bool      // of grants
	delay   time.Duration        // until a change is seen
}

func newKMSStore() *kmsStore {
	return &kmsStore{keys: map[string]*KMSKey{}, aliases: map[string]*kmsAlias{}, tokens: map[string]bool{}}
}

// KMSKey is a key of KMS. Its methods change what KMS answers from then on.
type KMSKey struct {
	account *Account
	region  string
	id      string
	spec    KeySpec
	usage   string
	created time.Time
	primary *KMSKey // of a replica
	*material

	// Guarded by the store's mutex.
	state      string
	iam        bool // the key policy leaves decisions to the account's IAM
	statements []keyStatement
	grants     []*kmsGrant
	faults     []*KMSFault
}

// material is a key itself, which replicas share. It is made when first needed,
// since RSA keys take long.
type material struct {
	once     sync.Once
	generate func() (crypto.Signer, error)
	private  crypto.Signer
}

// keyStatement allows principals actions, in a key policy.
type keyStatement struct {
	principal string // an ARN, an account id, or *
	actions   []string
}

// KeyOption says how a key is made.
type KeyOption func(*KMSKey)

// MultiRegion makes a primary key of several regions, whose id begins with mrk-.
func MultiRegion() KeyOption {
	return func(k *KMSKey) { k.id = "mrk-" + strings.ReplaceAll(uuid.NewString(), "-", "") }
}

// Usage is what the key is for, as "ENCRYPT_DECRYPT" for an RSA key. Keys that can
// sign are for SIGN_VERIFY if nothing is said.
func Usage(usage string) KeyOption { return func(k *KMSKey) { k.usage = usage } }

// Material makes the key one that a test has already, as importing it does.
func Material(private crypto.Signer) KeyOption {
	return func(k *KMSKey) {
		k.generate = func() (crypto.Signer, error) { return private, nil }
	}
}

// PolicyOnly makes a key whose policy does not let the account's IAM decide: only
// those may use it whom AllowPolicy or a grant names.
func PolicyOnly() KeyOption { return func(k *KMSKey) { k.iam = false } }

// Key makes a key of KMS. Its key policy is the default one, which lets the IAM of
// the account decide.
func (a *Account) Key(region string, spec KeySpec, options ...KeyOption) *KMSKey {
	s, ok := spec.spec()
	if !ok {
		panic("awstest: KMS has no key spec " + string(spec))
	}
	k := &KMSKey{
		account: a, region: region, id: uuid.NewString(), spec: spec, usage: s.usage, created: a.w.now(),
		material: &material{generate: s.generate}, state: "Enabled", iam: true,
	}
	for _, o := range options {
		o(k)
	}
	if !slices.Contains(s.usages, k.usage) {
		panic(fmt.Sprintf("awstest: a key of spec %s is not for %s", spec, k.usage))
	}
	return k.register()
}

func (k *KMSKey) register() *KMSKey {
	if !partitions[k.account.partition].regions.MatchString(k.region) {
		panic("awstest: " + k.account.partition + " has no region " + k.region)
	}
	store := k.store()
	store.mu.Lock()
	defer store.mu.Unlock()
	store.keys[k.ARN()] = k
	return k
}

// Replicate makes a replica of a MultiRegion key in another region: the same id,
// the same key, another ARN, a state and a policy of its own.
func (k *KMSKey) Replicate(region string) *KMSKey {
	if !k.multiRegion() || k.primary != nil || region == k.region {
		panic("awstest: only a primary key has replicas, in other regions")
	}
	r := &KMSKey{
		account: k.account, region: region, id: k.id, spec: k.spec, usage: k.usage, created: k.account.w.now(),
		primary: k, material: k.material, state: "Enabled", iam: true,
	}
	return r.register()
}

func (k *KMSKey) store() *kmsStore  { return k.account.w.data.kms }
func (k *KMSKey) multiRegion() bool { return strings.HasPrefix(k.id, "mrk-") }

// ID is the key's id: a UUID, or mrk- and 32 hexadecimal digits.
func (k *KMSKey) ID() string { return k.id }

// ARN is the key ARN.
func (k *KMSKey) ARN() string { return k.account.arn("kms", k.region, "key/"+k.id) }

// Spec is the key's spec.
func (k *KMSKey) Spec() KeySpec { return k.spec }

// Public is the public key: *ecdsa.PublicKey, *rsa.PublicKey or *mldsa.PublicKey.
// Symmetric keys, and those of specs that are only known by name, have none.
func (k *KMSKey) Public() crypto.PublicKey {
	s := k.signer()
	if s == nil {
		return nil
	}
	return s.Public()
}

// signer is the key itself, or nil if there is none.
func (m *material) signer() crypto.Signer {
	m.once.Do(func() {
		if m.generate == nil {
			return
		}
		var err error
		if m.private, err = m.generate(); err != nil {
			panic(fmt.Sprintf("awstest: %v", err))
		}
	})
	return m.private
}

// SetState changes the key's state: "Enabled", "Disabled", "PendingDeletion",
// "PendingReplicaDeletion", "PendingImport", "Unavailable", "Creating", "Updating".
func (k *KMSKey) SetState(state string) *KMSKey {
	if _, known := stateErrors()[state]; !known {
		panic("awstest: a key is never " + state)
	}
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	k.state = state
	return k
}

// AllowPolicy lets a principal (an ARN of a role, a session, a user or an account's
// root; an account id; "*") do actions, in the key policy: "kms:Sign", "kms:*".
// Principals of other accounts need the permission of their own account as well.
func (k *KMSKey) AllowPolicy(principal string, actions ...string) *KMSKey {
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	k.statements = append(k.statements, keyStatement{principal, actions})
	return k
}

// stateErrors are the states of keys, and what an operation that uses the key is
// refused with in each.
func stateErrors() map[string]answerText {
	return map[string]answerText{
		"Enabled":                {},
		"Updating":               {},
		"Disabled":               {400, "DisabledException", "%s is disabled."},
		"PendingDeletion":        {400, "KMSInvalidStateException", "%s is pending deletion."},
		"PendingReplicaDeletion": {400, "KMSInvalidStateException", "%s is pending replica deletion."},
		"PendingImport":          {400, "KMSInvalidStateException", "%s is pending import."},
		"Creating":               {400, "KMSInvalidStateException", "%s is creating."},
		"Unavailable":            {500, "KeyUnavailableException", "%s is unavailable."},
	}
}

// answerText is an error and its message, with a place for the ARN.
type answerText struct {
	status  int
	code    string
	message string
}

// usable refuses a call that uses the key in a state in which it cannot be.
func (c *call) usable(k *KMSKey) *reply {
	k.store().mu.Lock()
	e := stateErrors()[k.state]
	k.store().mu.Unlock()
	if e.code == "" {
		return nil
	}
	return c.fail(e.status, e.code, fmt.Sprintf(e.message, k.ARN()))
}

// names tells whether a statement is about an action of a principal. With the whole
// account named, it is the account's IAM that decides.
func (s keyStatement) names(p *principal, action string) (direct, account bool) {
	if !slices.ContainsFunc(s.actions, func(a string) bool { return like(strings.ToLower(a), strings.ToLower(action)) }) {
		return false, false
	}
	switch s.principal {
	case "*", p.arn, p.iamARN():
		return true, false
	case p.account.id, p.account.arn("iam", "", "root"):
		return false, true
	}
	return false, false
}

// permits tells whether the caller may do an action with the key. In the key's own
// account, the key policy, a grant, or IAM if the key policy leaves it to it, is
// enough. Elsewhere, the key's policy or a grant must allow it and the IAM of the
// caller's account as well.
func (c *call) permits(k *KMSKey, action string, tokens []string) bool {
	action = "kms:" + action
	p, arn := c.principal, k.ARN()
	if p.denied(action, arn) {
		return false
	}
	byIAM := p.allowed(action, arn)
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	named, delegated := k.granted(c, action, tokens), false
	for _, s := range k.statements {
		direct, account := s.names(p, action)
		named, delegated = named || direct, delegated || account
	}
	if p.account != k.account {
		return (named || delegated) && byIAM
	}
	return named || (k.iam || delegated) && byIAM
}

// randomHex is n random bytes in hexadecimal.
func randomHex(n int) string { return randomText(2*n, hexEncoding{}) }

type hexEncoding struct{}

func (hexEncoding) EncodeToString(b []byte) string { return hex.EncodeToString(b) }
