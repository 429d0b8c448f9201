package awstest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// kmsAlias is a name of a key, and where it led and leads.
type kmsAlias struct {
	name    string // alias/…
	arn     string
	created time.Time
	targets []aliasTarget // oldest first, never empty
}

// aliasTarget is a key, from when it is answered.
type aliasTarget struct {
	key     *KMSKey
	changed time.Time
	seen    time.Time
}

// target is where the alias leads at a time.
func (a *kmsAlias) target(now time.Time) aliasTarget {
	out := a.targets[0]
	for _, t := range a.targets[1:] {
		if !now.Before(t.seen) {
			out = t
		}
	}
	return out
}

var aliasName = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)

// PropagateKMS sets how long, by the world's clock, a change of an alias or a new
// grant takes until it is seen: KMS is eventually consistent. Changes before keep
// their time.
func (w *World) PropagateKMS(delay time.Duration) {
	w.data.kms.mu.Lock()
	defer w.data.kms.mu.Unlock()
	w.data.kms.delay = delay
}

// Alias makes an alias of a key of the same account and region. It is seen at
// once.
func (a *Account) Alias(region, name string, key *KMSKey) {
	if !aliasName.MatchString(name) || key.account != a || key.region != region {
		panic("awstest: " + name + " is no alias of a key of the account and region")
	}
	store, now := key.store(), a.w.now()
	store.mu.Lock()
	defer store.mu.Unlock()
	arn := a.arn("kms", region, name)
	if store.aliases[arn] != nil {
		panic("awstest: there is an " + arn)
	}
	store.aliases[arn] = &kmsAlias{name: name, arn: arn, created: now, targets: []aliasTarget{{key, now, now}}}
}

// UpdateAlias leads an alias to another key, seen after the delay of PropagateKMS.
func (a *Account) UpdateAlias(region, name string, key *KMSKey) {
	store := key.store()
	store.mu.Lock()
	defer store.mu.Unlock()
	alias := store.aliases[a.arn("kms", region, name)]
	if alias == nil || key.account != a || key.region != region {
		panic("awstest: " + name + " is no alias of the account and region of the key")
	}
	store.retarget(alias, key, a.w.now())
}

func (s *kmsStore) retarget(alias *kmsAlias, key *KMSKey, now time.Time) {
	alias.targets = append(alias.targets, aliasTarget{key, now, now.Add(s.delay)})
}

var keyID36 = regexp.MustCompile(`^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32})$`)

// kmsKey finds the key that a KeyId names: by id, key ARN, alias name or alias ARN, of
// which the last two only where the operation takes them. Only who may do the
// call's action learns whether a key exists. A key of another region or partition
// does not exist.
func (c *call) kmsKey(id string, aliases bool, tokens []string) (*KMSKey, *reply) {
	if refused := c.knownTokens(tokens); refused != nil {
		return nil, refused
	}
	arn := id
	switch {
	case strings.HasPrefix(id, "arn:"):
	case strings.HasPrefix(id, "alias/"):
		arn = c.principal.account.arn("kms", c.region, id)
	default:
		arn = c.principal.account.arn("kms", c.region, "key/"+id)
	}
	parts := strings.SplitN(arn, ":", 6) // arn:PARTITION:kms:REGION:ACCOUNT:key/ID
	if len(parts) < 6 || parts[1] != c.endpoint.partition || parts[2] != "kms" || !accountID.MatchString(parts[4]) {
		return nil, c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Invalid arn %s", id))
	}
	if parts[3] != c.region {
		return nil, c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Invalid arn %s", parts[3]))
	}
	if name := parts[5]; strings.HasPrefix(name, "alias/") {
		if !aliases {
			return nil, c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Invalid keyId '%s'", id))
		}
		return c.keyOfAlias(arn, parts[4], tokens)
	}
	if keyID, ok := strings.CutPrefix(parts[5], "key/"); !ok || !keyID36.MatchString(keyID) {
		return nil, c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Invalid keyId '%s'", id))
	}
	store := c.w.data.kms
	store.mu.Lock()
	k := store.keys[arn]
	store.mu.Unlock()
	if k != nil {
		return c.permitted(k, tokens)
	}
	if parts[4] == c.principal.account.id && c.principal.allowed("kms:"+c.action, arn) {
		return nil, c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Key '%s' does not exist", arn))
	}
	return nil, c.noAccess(arn)
}

func (c *call) keyOfAlias(arn, account string, tokens []string) (*KMSKey, *reply) {
	store := c.w.data.kms
	store.mu.Lock()
	var k *KMSKey
	if alias := store.aliases[arn]; alias != nil {
		k = alias.target(c.w.now()).key
	}
	store.mu.Unlock()
	switch {
	case k != nil:
		return c.permitted(k, tokens)
	case account != c.principal.account.id:
		return nil, c.noAccess(arn)
	}
	return nil, c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Alias %s is not found.", arn))
}

func (c *call) permitted(k *KMSKey, tokens []string) (*KMSKey, *reply) {
	if !c.permits(k, c.action, tokens) {
		return nil, c.noAccess(k.ARN())
	}
	return k, nil
}

// noAccess says the same of a key that does not exist and one that may not be used.
func (c *call) noAccess(arn string) *reply {
	return c.fail(http.StatusBadRequest, "AccessDeniedException", fmt.Sprintf(
		"User: %s is not authorized to perform: kms:%s on resource: %s because the resource does not exist in this Region, "+
			"no policies or grants allow access, or a policy explicitly denies access", c.principal.arn, c.action, arn))
}

// updateAlias leads an alias to another key of the same kind. The caller must be
// allowed to do it on the alias and on both keys.
func (c *call) updateAlias() *reply {
	var in struct{ AliasName, TargetKeyId string }
	if refused := c.readJSON(&in,
		stringRule("aliasName", &in.AliasName, true, 1, 256, `^[a-zA-Z0-9:/_-]+$`),
		stringRule("targetKeyId", &in.TargetKeyId, true, 1, 2048, "")); refused != nil {
		return refused
	}
	if !aliasName.MatchString(in.AliasName) || strings.HasPrefix(in.AliasName, "alias/aws/") {
		return c.invalidInput("Alias must start with the prefix \"alias/\", and not with \"alias/aws/\".")
	}
	account := c.principal.account
	arn := account.arn("kms", c.region, in.AliasName)
	if !c.principal.allowed("kms:UpdateAlias", arn) {
		return c.noAccess(arn)
	}
	next, refused := c.kmsKey(in.TargetKeyId, false, nil)
	if refused != nil {
		return refused
	}
	store := c.w.data.kms
	store.mu.Lock()
	alias := store.aliases[arn]
	var last *KMSKey
	if alias != nil {
		last = alias.targets[len(alias.targets)-1].key
	}
	store.mu.Unlock()
	switch {
	case alias == nil:
		return c.fail(http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Alias %s is not found.", arn))
	case next.account != account || !c.permits(last, "UpdateAlias", nil):
		return c.noAccess(last.ARN())
	case last.usage != next.usage || last.spec.asymmetric() != next.spec.asymmetric():
		return c.invalidInput("Alias " + arn + " cannot be updated to a key of another type or usage.")
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if state := next.state; state == "PendingDeletion" || state == "PendingReplicaDeletion" {
		e := stateErrors()[state]
		return c.fail(e.status, e.code, fmt.Sprintf(e.message, next.ARN()))
	}
	store.retarget(alias, next, c.w.now())
	return jsonReply(http.StatusOK, struct{}{})
}

// listAliases tells the aliases of the account and region, in order of their names.
func (c *call) listAliases() *reply {
	var in struct {
		KeyId, Marker string
		Limit         *int
	}
	if refused := c.readJSON(&in, stringRule("keyId", &in.KeyId, false, 1, 2048, ""),
		stringRule("marker", &in.Marker, false, 1, 1024, ""), limitRule(&in.Limit, 100)); refused != nil {
		return refused
	}
	if !c.principal.allowed("kms:ListAliases", "*") {
		return c.noAccess("*")
	}
	var only *KMSKey
	if in.KeyId != "" {
		k, refused := c.kmsKey(in.KeyId, false, nil)
		if refused != nil {
			return refused
		}
		only = k
	}
	type entry struct {
		AliasName, AliasArn, TargetKeyId string
		CreationDate, LastUpdatedDate    any
	}
	var all []entry
	store, now, mine := c.w.data.kms, c.w.now(), c.principal.account.arn("kms", c.region, "alias/")
	store.mu.Lock()
	for arn, alias := range store.aliases {
		if t := alias.target(now); strings.HasPrefix(arn, mine) && (only == nil || t.key == only) {
			all = append(all, entry{alias.name, arn, t.key.id, wireTime(alias.created), wireTime(t.changed)})
		}
	}
	store.mu.Unlock()
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.AliasName, b.AliasName) })
	return kmsPage(c, "Aliases", all, func(e entry) string { return e.AliasName }, in.Marker, in.Limit)
}
