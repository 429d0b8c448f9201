package awstest

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Role is an IAM role. Its methods change what IAM and STS answer from then on.
type Role struct {
	account *Account
	name    string
	path    string
	id      string // AROA…
	created time.Time

	// Guarded by the world's mutex.
	trust       string
	maxSession  time.Duration
	permissions permissions
	gone        bool
}

// RoleOption says how a role is made or changed.
type RoleOption func(*Role)

// TrustPolicy is the role's trust policy, as a JSON document. It is kept byte for
// byte, since iam:GetRole tells it so.
func TrustPolicy(document string) RoleOption { return func(r *Role) { r.trust = document } }

// TrustService lets only services assume the role.
func TrustService(services ...string) RoleOption {
	return TrustPolicy(trustDocument("Service", services, ""))
}

// TrustAWS lets principals (ARNs or account ids) assume the role; with an external
// id, only those who name it.
func TrustAWS(externalID string, principals ...string) RoleOption {
	return TrustPolicy(trustDocument("AWS", principals, externalID))
}

// Path is the role's path, "/" if not given. STS leaves it out of session ARNs.
func Path(path string) RoleOption { return func(r *Role) { r.path = path } }

// MaxSession is how long a session may be asked for, an hour if not given.
func MaxSession(d time.Duration) RoleOption { return func(r *Role) { r.maxSession = d } }

// Role returns a role of the account, which is made on first use. Options change
// a role that exists. Without one that says whom to trust, a new role trusts its
// own account.
func (a *Account) Role(name string, options ...RoleOption) *Role {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	r := a.roles[name]
	made := r == nil
	if made {
		r = &Role{
			account: a, name: name, path: "/", id: uniqueID("AROA"), created: a.w.now(),
			maxSession: time.Hour, trust: trustDocument("AWS", []string{a.id}, ""),
		}
		a.roles[name] = r
	}
	path := r.path
	for _, o := range options {
		o(r)
	}
	if !made {
		r.path = path // a role keeps its path for life
	}
	return r
}

// DeleteRole deletes a role. Its sessions end; a role of the same name made later
// is another one, with another unique id.
func (a *Account) DeleteRole(name string) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if r := a.roles[name]; r != nil {
		r.gone = true
		delete(a.roles, name)
	}
}

// Name is the role's name, without path.
func (r *Role) Name() string { return r.name }

// Account is the account that the role is in.
func (r *Role) Account() *Account { return r.account }

// UniqueID is the role's AROA… id.
func (r *Role) UniqueID() string { return r.id }

// ARN is the role's, with its path.
func (r *Role) ARN() string { return r.account.arn("iam", "", "role"+r.path+r.name) }

// SessionARN is what STS calls a session of the role; the path is left out.
func (r *Role) SessionARN(session string) string {
	return r.account.arn("sts", "", "assumed-role/"+r.name+"/"+session)
}

// Allow lets the role do actions ("s3:GetObject", "s3:*", "*") on anything.
func (r *Role) Allow(actions ...string) *Role {
	for _, action := range actions {
		r.AllowOn(action, "*")
	}
	return r
}

// AllowOn lets the role do an action on resources, ARNs with * and ?.
func (r *Role) AllowOn(action string, resources ...string) *Role {
	r.account.w.mu.Lock()
	defer r.account.w.mu.Unlock()
	r.permissions.allow = append(r.permissions.allow, grant{action, resources})
	return r
}

// Deny forbids actions, whatever allows them.
func (r *Role) Deny(actions ...string) *Role {
	r.account.w.mu.Lock()
	defer r.account.w.mu.Unlock()
	for _, action := range actions {
		r.permissions.deny = append(r.permissions.deny, grant{action, []string{"*"}})
	}
	return r
}

// Session returns credentials of a session of an hour, as AWS itself makes them
// for a service: the trust policy is not asked.
func (r *Role) Session(name string) aws.Credentials { return r.SessionFor(name, time.Hour) }

// SessionFor is Session with another lifetime.
func (r *Role) SessionFor(name string, lifetime time.Duration) aws.Credentials {
	return r.session(name, lifetime, nil)
}

// session mints the credentials of a session. context is what AWS adds to the
// request context of the session's calls, as codebuild:BuildArn.
func (r *Role) session(name string, lifetime time.Duration, context map[string]string) aws.Credentials {
	w := r.account.w
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mint(&principal{
		account: r.account, arn: r.SessionARN(name), userID: r.id + ":" + name, kind: sessionOfRole,
		role: r, session: name, context: context,
	}, lifetime)
}

type user struct {
	id          string // AIDA…
	key         *accessKey
	permissions permissions
}

// User returns the long-lived credentials of a user, who is made on first use.
func (a *Account) User(name string) aws.Credentials {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return a.user(name).key.credentials()
}

func (a *Account) user(name string) *user {
	u := a.users[name]
	if u == nil {
		u = &user{id: uniqueID("AIDA")}
		u.key = a.w.keep(&principal{
			account: a, arn: a.arn("iam", "", "user/"+name), userID: u.id, kind: userOfAccount, user: u,
		}, "AKIA")
		a.users[name] = u
	}
	return u
}

// AllowUser lets a user do actions on anything.
func (a *Account) AllowUser(name string, actions ...string) {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	u := a.user(name)
	for _, action := range actions {
		u.permissions.allow = append(u.permissions.allow, grant{action, []string{"*"}})
	}
}

// Root returns long-lived credentials of the account's root user, who may do
// anything but assume a role.
func (a *Account) Root() aws.Credentials {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if a.root == nil {
		a.root = a.w.keep(&principal{
			account: a, arn: a.arn("iam", "", "root"), userID: a.id, kind: rootOfAccount,
		}, "AKIA")
	}
	return a.root.credentials()
}

// Federated returns credentials as sts:GetFederationToken gives them to user for
// somebody it calls name. They may do nothing.
func (a *Account) Federated(name string) aws.Credentials {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return a.w.mint(&principal{
		account: a, arn: a.arn("sts", "", "federated-user/"+name), userID: a.id + ":" + name, kind: federatedUser,
	}, 12*time.Hour)
}

type principalKind int

const (
	sessionOfRole principalKind = iota
	userOfAccount
	rootOfAccount
	federatedUser
)

// principal is who signed a request.
type principal struct {
	account *Account
	arn     string // as GetCallerIdentity tells it
	userID  string
	kind    principalKind
	role    *Role
	user    *user
	session string            // RoleSessionName
	context map[string]string // request context that AWS itself sets
}

// allowed tells whether the principal may do an action on a resource.
func (p *principal) allowed(action, resource string) bool {
	p.account.w.mu.Lock()
	defer p.account.w.mu.Unlock()
	switch p.kind {
	case sessionOfRole:
		return !p.role.gone && p.role.permissions.allows(action, resource)
	case userOfAccount:
		return p.user.permissions.allows(action, resource)
	case rootOfAccount:
		return true
	}
	return false
}

// denied tells whether an explicit deny forbids an action.
func (p *principal) denied(action, resource string) bool {
	p.account.w.mu.Lock()
	defer p.account.w.mu.Unlock()
	if p.kind != sessionOfRole {
		return false
	}
	return p.role.permissions.denies(action, resource)
}

// iamARN is what policies call the principal: the role, of a session of it.
func (p *principal) iamARN() string {
	if p.kind == sessionOfRole {
		return p.role.ARN()
	}
	return p.arn
}

func (r *Role) maxLifetime() time.Duration {
	r.account.w.mu.Lock()
	defer r.account.w.mu.Unlock()
	return r.maxSession
}

type grant struct {
	action    string
	resources []string
}

func (g grant) covers(action, resource string) bool {
	return like(strings.ToLower(g.action), strings.ToLower(action)) &&
		slices.ContainsFunc(g.resources, func(r string) bool { return like(r, resource) })
}

type permissions struct{ allow, deny []grant }

func (p permissions) denies(action, resource string) bool {
	return slices.ContainsFunc(p.deny, func(g grant) bool { return g.covers(action, resource) })
}

func (p permissions) allows(action, resource string) bool {
	covers := func(g grant) bool { return g.covers(action, resource) }
	return !p.denies(action, resource) && slices.ContainsFunc(p.allow, covers)
}

// like matches a pattern of IAM, where * is any text and ? any one character.
func like(pattern, text string) bool {
	head, tail, star := strings.Cut(pattern, "*")
	if !star {
		return sameBut(pattern, text)
	}
	if len(text) < len(head) || !sameBut(head, text[:len(head)]) {
		return false
	}
	for i := len(head); i <= len(text); i++ {
		if like(tail, text[i:]) {
			return true
		}
	}
	return false
}

func sameBut(pattern, text string) bool {
	if len(pattern) != len(text) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] != '?' && pattern[i] != text[i] {
			return false
		}
	}
	return true
}

// accessKey is a pair of keys, with a token if it is temporary.
type accessKey struct {
	id, secret, token string
	expires           time.Time // zero: never
	principal         *principal
}

func (k *accessKey) credentials() aws.Credentials {
	return aws.Credentials{
		AccessKeyID: k.id, SecretAccessKey: k.secret, SessionToken: k.token,
		CanExpire: !k.expires.IsZero(), Expires: k.expires,
		Source: "awstest", AccountID: k.principal.account.id,
	}
}

// keep makes and registers a key. The caller holds w.mu.
func (w *World) keep(p *principal, prefix string) *accessKey {
	k := &accessKey{id: keyID(prefix, p.account.id), secret: secretKey(), principal: p}
	w.keys[k.id] = k
	return k
}

// keyID is an access key id as AWS makes them: behind the prefix, in base32, a bit
// that is set, the account in forty bits, and a random rest.
func keyID(prefix, account string) string {
	raw := make([]byte, 10)
	_, _ = rand.Read(raw) // never fails, as crypto/rand documents
	number, err := strconv.ParseUint(account, 10, 40)
	if err != nil {
		panic("awstest: account " + account + " is not of twelve digits")
	}
	head := 1<<47 | number<<7 | uint64(raw[5]&0x7f)
	for i := range 6 {
		raw[i] = byte(head >> (40 - 8*i))
	}
	return prefix + base32.StdEncoding.EncodeToString(raw)
}

// mint makes and registers temporary credentials. The caller holds w.mu.
func (w *World) mint(p *principal, lifetime time.Duration) aws.Credentials {
	k := w.keep(p, "ASIA")
	k.token = sessionToken()
	k.expires = w.now().Add(lifetime).Truncate(time.Second)
	return k.credentials()
}

func trustDocument(kind string, principals []string, externalID string) string {
	quoted := make([]string, len(principals))
	for i, p := range principals {
		quoted[i] = fmt.Sprintf("%q", p)
	}
	condition := ""
	if externalID != "" {
		condition = fmt.Sprintf(`,"Condition":{"StringEquals":{"sts:ExternalId":%q}}`, externalID)
	}
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{%q:[%s]},"Action":"sts:AssumeRole"%s}]}`,
		kind, strings.Join(quoted, ","), condition)
}
