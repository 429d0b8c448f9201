package awstest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// kmsGrant lets a principal use a key. It is seen after the delay of PropagateKMS,
// and at once by calls that bring its token.
type kmsGrant struct {
	id, token  string
	grantee    string
	retiring   string
	name       string
	operations []string
	created    time.Time
	seen       time.Time
}

// Grant lets a principal (an ARN) do operations ("Sign") with the key, and returns
// the grant's token and id.
func (k *KMSKey) Grant(grantee string, operations ...string) (token, id string) {
	g := k.addGrant(kmsGrant{grantee: grantee, operations: operations})
	return g.token, g.id
}

// addGrant adds a grant, or finds the one of the same name and contents.
func (k *KMSKey) addGrant(g kmsGrant) *kmsGrant {
	store, now := k.store(), k.account.w.now()
	store.mu.Lock()
	defer store.mu.Unlock()
	for _, old := range k.grants {
		if g.name != "" && old.name == g.name && old.grantee == g.grantee && old.retiring == g.retiring && slices.Equal(old.operations, g.operations) {
			return old
		}
	}
	g.id, g.token = randomHex(32), randomText(180, base64.StdEncoding)
	g.created, g.seen = now, now.Add(store.delay)
	k.grants = append(k.grants, &g)
	store.tokens[g.token] = true
	return &g
}

// knownTokens refuses a call with a grant token that nobody was ever given.
func (c *call) knownTokens(tokens []string) *reply {
	store := c.w.data.kms
	store.mu.Lock()
	defer store.mu.Unlock()
	if slices.ContainsFunc(tokens, func(t string) bool { return !store.tokens[t] }) {
		return c.fail(http.StatusBadRequest, "InvalidGrantTokenException", "The grant token is not valid.")
	}
	return nil
}

// granted tells whether a grant lets the caller do an action ("kms:Sign"). The
// caller of granted holds the store's mutex.
func (k *KMSKey) granted(c *call, action string, tokens []string) bool {
	operation := strings.TrimPrefix(action, "kms:")
	now, p := c.w.now(), c.principal
	return slices.ContainsFunc(k.grants, func(g *kmsGrant) bool {
		return slices.Contains(g.operations, operation) && (g.grantee == p.arn || g.grantee == p.iamARN()) &&
			(!now.Before(g.seen) || slices.Contains(tokens, g.token))
	})
}

// grantable are the operations that a grant for the key may allow.
func (k *KMSKey) grantable() []string {
	always := []string{"DescribeKey", "CreateGrant", "RetireGrant"}
	switch {
	case k.usage == "SIGN_VERIFY":
		return append(always, "Sign", "Verify", "GetPublicKey")
	case k.usage == "GENERATE_VERIFY_MAC":
		return append(always, "GenerateMac", "VerifyMac")
	case k.usage == "KEY_AGREEMENT":
		return append(always, "DeriveSharedSecret", "GetPublicKey")
	case k.spec.asymmetric():
		return append(always, "Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GetPublicKey")
	}
	return append(always, "Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey",
		"GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext")
}

// grantOperations are those of the API's enumeration.
func grantOperations() []string {
	return []string{
		"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo",
		"Sign", "Verify", "GetPublicKey", "CreateGrant", "RetireGrant", "DescribeKey", "GenerateDataKeyPair",
		"GenerateDataKeyPairWithoutPlaintext", "GenerateMac", "VerifyMac", "DeriveSharedSecret", "Encapsulate", "Decapsulate",
	}
}

const (
	principalPattern = `^[\w+=,.@:/-]+$`
	grantNamePattern = `^[a-zA-Z0-9:/_-]+$`
)

func (c *call) createGrant() *reply {
	var in struct {
		KeyId, GranteePrincipal, RetiringPrincipal, Name string
		Operations, GrantTokens                          []string
		Constraints                                      json.RawMessage
		DryRun                                           bool
	}
	rules := []rule{
		keyIDRule(&in.KeyId), stringRule("granteePrincipal", &in.GranteePrincipal, true, 1, 256, principalPattern),
		stringRule("retiringPrincipal", &in.RetiringPrincipal, false, 1, 256, principalPattern),
		stringRule("name", &in.Name, false, 1, 256, grantNamePattern), tokensRule(&in.GrantTokens),
		func() string {
			for _, o := range in.Operations {
				if why := enumRule("operations", &o, true, grantOperations()...)(); why != "" {
					return why
				}
			}
			return listRule("operations", &in.Operations, 1, len(grantOperations()), 64)()
		},
	}
	if refused := c.readJSON(&in, rules...); refused != nil {
		return refused
	}
	k, refused := c.kmsKey(in.KeyId, false, in.GrantTokens)
	if refused != nil {
		return refused
	}
	if refused := c.usable(k); refused != nil {
		return refused
	}
	for _, p := range []string{in.GranteePrincipal, in.RetiringPrincipal} {
		if p != "" && !strings.HasPrefix(p, "arn:"+k.account.partition+":iam::") && !strings.HasPrefix(p, "arn:"+k.account.partition+":sts::") {
			return c.fail(http.StatusBadRequest, "InvalidArnException", "ARN does not refer to a valid principal: "+p)
		}
	}
	for _, o := range in.Operations {
		if !slices.Contains(k.grantable(), o) {
			return c.invalidInput("Operation " + o + " is not supported by the key usage " + k.usage + ".")
		}
	}
	if len(in.Constraints) > 0 && string(in.Constraints) != "null" {
		return c.invalidInput("awstest has no grants with constraints.")
	}
	if in.DryRun {
		return c.dryRun()
	}
	g := k.addGrant(kmsGrant{grantee: in.GranteePrincipal, retiring: in.RetiringPrincipal, name: in.Name, operations: in.Operations})
	return jsonReply(http.StatusOK, map[string]string{"GrantId": g.id, "GrantToken": g.token})
}

func (c *call) listGrants() *reply {
	var in struct {
		KeyId, GrantId, GranteePrincipal, Marker string
		Limit                                    *int
	}
	if refused := c.readJSON(&in, keyIDRule(&in.KeyId), stringRule("grantId", &in.GrantId, false, 1, 128, ""),
		stringRule("granteePrincipal", &in.GranteePrincipal, false, 1, 256, principalPattern),
		stringRule("marker", &in.Marker, false, 1, 1024, ""), limitRule(&in.Limit, 100)); refused != nil {
		return refused
	}
	k, refused := c.kmsKey(in.KeyId, false, nil)
	if refused != nil {
		return refused
	}
	type entry struct {
		KeyId, GrantId, GranteePrincipal, IssuingAccount string
		Name                                             string `json:",omitempty"`
		RetiringPrincipal                                string `json:",omitempty"`
		Operations                                       []string
		CreationDate                                     any
	}
	var all []entry
	k.store().mu.Lock()
	for _, g := range k.grants {
		if (in.GrantId == "" || in.GrantId == g.id) && (in.GranteePrincipal == "" || in.GranteePrincipal == g.grantee) {
			all = append(all, entry{k.ARN(), g.id, g.grantee, k.account.arn("iam", "", "root"), g.name, g.retiring,
				slices.Clone(g.operations), wireTime(g.created)})
		}
	}
	k.store().mu.Unlock()
	return kmsPage(c, "Grants", all, func(e entry) string { return e.GrantId }, in.Marker, in.Limit)
}

func (c *call) revokeGrant() *reply {
	var in struct {
		KeyId, GrantId string
		DryRun         bool
	}
	if refused := c.readJSON(&in, keyIDRule(&in.KeyId), stringRule("grantId", &in.GrantId, true, 1, 128, "")); refused != nil {
		return refused
	}
	k, refused := c.kmsKey(in.KeyId, false, nil)
	if refused != nil {
		return refused
	}
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	at := slices.IndexFunc(k.grants, func(g *kmsGrant) bool { return g.id == in.GrantId })
	switch {
	case at < 0:
		return c.fail(http.StatusBadRequest, "NotFoundException", "Grant ID "+in.GrantId+" not found")
	case in.DryRun:
		return c.dryRun()
	}
	k.grants = slices.Delete(k.grants, at, at+1)
	return jsonReply(http.StatusOK, struct{}{})
}
