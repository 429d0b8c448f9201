package awstest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	mldsax509 "filippo.io/mldsa/x509"
)

func (w *World) serveKMS(c *call) *reply {
	switch c.action {
	case "Sign":
		return c.kmsSign()
	case "Verify":
		return c.kmsVerify()
	case "GetPublicKey":
		return c.getPublicKey()
	case "DescribeKey":
		return c.describeKey()
	case "ListAliases":
		return c.listAliases()
	case "UpdateAlias":
		return c.updateAlias()
	case "CreateGrant":
		return c.createGrant()
	case "ListGrants":
		return c.listGrants()
	case "RevokeGrant":
		return c.revokeGrant()
	}
	return c.fail(http.StatusBadRequest, "UnknownOperationException", "")
}

// rule is a constraint of the API's model. It tells how a member breaks it.
type rule func() string

// stringRule is the rule for a string: required, its length, its pattern.
func stringRule(member string, value *string, required bool, least, most int, pattern string) rule {
	return func() string {
		switch {
		case *value == "" && !required:
			return ""
		case utf8.RuneCountInString(*value) < least:
			return fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have length greater than or equal to %d", member, least)
		case utf8.RuneCountInString(*value) > most:
			return fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", member, most)
		case pattern != "" && !regexp.MustCompile(pattern).MatchString(*value):
			return fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: %s", member, pattern)
		}
		return ""
	}
}

// blobRule is the rule for bytes, which must be there.
func blobRule(member string, value *[]byte, least, most int) rule {
	return func() string {
		switch {
		case *value == nil:
			return fmt.Sprintf("Value null at '%s' failed to satisfy constraint: Member must not be null", member)
		case len(*value) < least:
			return fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have length greater than or equal to %d", member, least)
		case len(*value) > most:
			return fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", member, most)
		}
		return ""
	}
}

// enumRule is the rule for an enumeration.
func enumRule(member string, value *string, required bool, values ...string) rule {
	return func() string {
		if *value == "" && !required || slices.Contains(values, *value) {
			return ""
		}
		return fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]",
			*value, member, strings.Join(values, ", "))
	}
}

// listRule is the rule for a list of strings.
func listRule(member string, values *[]string, least, most, length int) rule {
	return func() string {
		if len(*values) < least || len(*values) > most ||
			slices.ContainsFunc(*values, func(v string) bool { return v == "" || len(v) > length }) {
			return fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have between %d and %d members of length 1 to %d", member, least, most, length)
		}
		return ""
	}
}

// tokensRule is the rule for the member of that name, of every operation.
func tokensRule(tokens *[]string) rule { return listRule("grantTokens", tokens, 0, 10, 8192) }

// keyIDRule is the rule for KeyId.
func keyIDRule(id *string) rule { return stringRule("keyId", id, true, 1, 2048, "") }

// limitRule is the rule for the length of a page.
func limitRule(value **int, most int) rule {
	return func() string {
		if *value != nil && (**value < 1 || **value > most) {
			return fmt.Sprintf("Value '%d' at 'limit' failed to satisfy constraint: Member must be between 1 and %d", **value, most)
		}
		return ""
	}
}

// readJSON reads the body of a call and holds it to rules, all of which it names
// that are broken.
func (c *call) readJSON(in any, rules ...rule) *reply {
	if err := json.Unmarshal(c.body, in); err != nil || reflect.ValueOf(in).Elem().Kind() != reflect.Struct {
		return c.fail(http.StatusBadRequest, "SerializationException", "the body is not what the operation takes")
	}
	var broken []string
	for _, r := range rules {
		if why := r(); why != "" {
			broken = append(broken, why)
		}
	}
	switch len(broken) {
	case 0:
		return nil
	case 1:
		return c.invalidInput("1 validation error detected: " + broken[0])
	}
	return c.invalidInput(fmt.Sprintf("%d validation errors detected: %s", len(broken), strings.Join(broken, "; ")))
}

func (c *call) invalidInput(message string) *reply {
	return c.fail(http.StatusBadRequest, "ValidationException", message)
}

// wireTime is a time as awsJson1.1 sends it.
func wireTime(t time.Time) any { return wireValue(reflect.ValueOf(t)) }

// kmsPage answers a part of a list: what comes after marker, limit of it.
func kmsPage[T any](c *call, member string, all []T, name func(T) string, marker string, limit *int) *reply {
	if marker != "" {
		at := slices.IndexFunc(all, func(e T) bool { return name(e) == marker })
		if at < 0 {
			return c.fail(http.StatusBadRequest, "InvalidMarkerException", "Invalid marker")
		}
		all = all[at+1:]
	}
	most := 50
	if limit != nil {
		most = *limit
	}
	out := map[string]any{"Truncated": len(all) > most}
	if len(all) > most {
		all = all[:most]
		out["NextMarker"] = name(all[most-1])
	}
	out[member] = append([]T{}, all...)
	return jsonReply(http.StatusOK, out)
}

// signing is what Sign and Verify have in common: the checks, in the order of KMS,
// of the request, the caller, the state of the key, its usage and its algorithm.
func (c *call) signing(keyID, algorithm string, messageType *string, message []byte, tokens []string) (*KMSKey, []byte, *reply) {
	k, refused := c.kmsKey(keyID, true, tokens)
	if refused != nil {
		return nil, nil, refused
	}
	if refused := c.usable(k); refused != nil {
		return nil, nil, refused
	}
	if k.usage != "SIGN_VERIFY" {
		return nil, nil, c.fail(http.StatusBadRequest, "InvalidKeyUsageException",
			fmt.Sprintf("%s key usage is %s which is not valid for %s.", k.ARN(), k.usage, c.action))
	}
	if !k.fits(algorithm) {
		return nil, nil, c.fail(http.StatusBadRequest, "InvalidKeyUsageException",
			fmt.Sprintf("Algorithm %s is incompatible with key spec %s.", algorithm, k.spec))
	}
	if k.signer() == nil {
		return nil, nil, c.fail(http.StatusBadRequest, "UnsupportedOperationException", "awstest has no keys of spec "+string(k.spec))
	}
	if *messageType == "" {
		*messageType = "RAW"
	}
	representative, why := k.representative(algorithm, *messageType, message)
	if why != "" {
		return nil, nil, c.invalidInput(why)
	}
	return k, representative, nil
}

func (c *call) dryRun() *reply {
	return c.fail(http.StatusBadRequest, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
}

func (c *call) kmsSign() *reply {
	var in struct {
		KeyId, MessageType, SigningAlgorithm string
		Message                              []byte
		GrantTokens                          []string
		DryRun                               bool
	}
	if refused := c.readJSON(&in, keyIDRule(&in.KeyId), blobRule("message", &in.Message, 0, 4096),
		enumRule("messageType", &in.MessageType, false, "RAW", "DIGEST", "EXTERNAL_MU"),
		enumRule("signingAlgorithm", &in.SigningAlgorithm, true, signingAlgorithms()...), tokensRule(&in.GrantTokens)); refused != nil {
		return refused
	}
	k, representative, refused := c.signing(in.KeyId, in.SigningAlgorithm, &in.MessageType, in.Message, in.GrantTokens)
	if refused != nil {
		return refused
	}
	if in.DryRun {
		return c.dryRun()
	}
	out := signAnswer{k.ARN(), nil, in.SigningAlgorithm}
	if f := k.takeFault("Sign"); f != nil {
		out = f.sign(k, out, representative)
	} else {
		out.Signature = k.sign(in.SigningAlgorithm, representative)
	}
	return jsonReply(http.StatusOK, out)
}

// signAnswer is what Sign answers.
type signAnswer struct {
	KeyId            string
	Signature        []byte
	SigningAlgorithm string
}

func (c *call) kmsVerify() *reply {
	var in struct {
		KeyId, MessageType, SigningAlgorithm string
		Message, Signature                   []byte
		GrantTokens                          []string
		DryRun                               bool
	}
	if refused := c.readJSON(&in, keyIDRule(&in.KeyId), blobRule("message", &in.Message, 0, 4096),
		blobRule("signature", &in.Signature, 1, 6144),
		enumRule("messageType", &in.MessageType, false, "RAW", "DIGEST", "EXTERNAL_MU"),
		enumRule("signingAlgorithm", &in.SigningAlgorithm, true, signingAlgorithms()...), tokensRule(&in.GrantTokens)); refused != nil {
		return refused
	}
	k, representative, refused := c.signing(in.KeyId, in.SigningAlgorithm, &in.MessageType, in.Message, in.GrantTokens)
	if refused != nil {
		return refused
	}
	if in.DryRun {
		return c.dryRun()
	}
	ok, able := k.verify(in.SigningAlgorithm, in.MessageType, in.Message, representative, in.Signature)
	switch {
	case !able:
		return c.fail(http.StatusBadRequest, "UnsupportedOperationException", "awstest verifies no EXTERNAL_MU")
	case !ok:
		return c.fail(http.StatusBadRequest, "KMSInvalidSignatureException", "")
	}
	return jsonReply(http.StatusOK, map[string]any{
		"KeyId": k.ARN(), "SignatureValid": true, "SigningAlgorithm": in.SigningAlgorithm,
	})
}

func (c *call) getPublicKey() *reply {
	var in struct {
		KeyId       string
		GrantTokens []string
	}
	if refused := c.readJSON(&in, keyIDRule(&in.KeyId), tokensRule(&in.GrantTokens)); refused != nil {
		return refused
	}
	k, refused := c.kmsKey(in.KeyId, true, in.GrantTokens)
	if refused != nil {
		return refused
	}
	if refused := c.usable(k); refused != nil {
		return refused
	}
	if k.signer() == nil {
		return c.fail(http.StatusBadRequest, "UnsupportedOperationException", fmt.Sprintf("GetPublicKey is not supported for key spec %s.", k.spec))
	}
	out := k.publicKeyAnswer()
	if f := k.takeFault("GetPublicKey"); f != nil {
		f.publicKey(&out)
	}
	return jsonReply(http.StatusOK, out)
}

// publicKeyAnswer is what GetPublicKey answers.
type publicKeyAnswer struct {
	KeyId                  string
	PublicKey              []byte
	KeySpec                string
	CustomerMasterKeySpec  string `json:",omitempty"`
	KeyUsage               string
	SigningAlgorithms      []string `json:",omitempty"`
	EncryptionAlgorithms   []string `json:",omitempty"`
	KeyAgreementAlgorithms []string `json:",omitempty"`
}

func (k *KMSKey) publicKeyAnswer() publicKeyAnswer {
	der, err := mldsax509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		panic(fmt.Sprintf("awstest: %v", err))
	}
	out := publicKeyAnswer{
		KeyId: k.ARN(), PublicKey: der, KeySpec: string(k.spec), CustomerMasterKeySpec: k.oldSpec(), KeyUsage: k.usage,
	}
	switch member, algorithms := k.algorithms(); member {
	case "SigningAlgorithms":
		out.SigningAlgorithms = algorithms
	case "EncryptionAlgorithms":
		out.EncryptionAlgorithms = algorithms
	case "KeyAgreementAlgorithms":
		out.KeyAgreementAlgorithms = algorithms
	}
	return out
}

// oldSpec is the deprecated member, which knows nothing of newer specs.
func (k *KMSKey) oldSpec() string {
	if strings.HasPrefix(string(k.spec), "ML_") || k.spec == "ECC_NIST_EDWARDS25519" {
		return ""
	}
	return string(k.spec)
}

// algorithms are those of the key's usage, and the member that tells them.
func (k *KMSKey) algorithms() (member string, algorithms []string) {
	switch k.usage {
	case "SIGN_VERIFY":
		s, _ := k.spec.spec()
		return "SigningAlgorithms", s.algorithms
	case "KEY_AGREEMENT":
		return "KeyAgreementAlgorithms", []string{"ECDH"}
	case "GENERATE_VERIFY_MAC":
		return "MacAlgorithms", []string{strings.Replace(string(k.spec), "HMAC_", "HMAC_SHA_", 1)}
	}
	if k.spec.asymmetric() {
		return "EncryptionAlgorithms", []string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"}
	}
	return "EncryptionAlgorithms", []string{string(k.spec)}
}

func (c *call) describeKey() *reply {
	var in struct {
		KeyId       string
		GrantTokens []string
	}
	if refused := c.readJSON(&in, keyIDRule(&in.KeyId), tokensRule(&in.GrantTokens)); refused != nil {
		return refused
	}
	k, refused := c.kmsKey(in.KeyId, true, in.GrantTokens)
	if refused != nil {
		return refused
	}
	k.store().mu.Lock()
	defer k.store().mu.Unlock()
	out := map[string]any{
		"AWSAccountId": k.account.id, "Arn": k.ARN(), "KeyId": k.id, "CreationDate": wireTime(k.created), "Description": "",
		"Enabled": k.state == "Enabled", "KeyState": k.state, "KeyManager": "CUSTOMER", "Origin": "AWS_KMS",
		"KeySpec": string(k.spec), "KeyUsage": k.usage, "MultiRegion": k.multiRegion(),
	}
	if old := k.oldSpec(); old != "" {
		out["CustomerMasterKeySpec"] = old
	}
	member, algorithms := k.algorithms()
	out[member] = algorithms
	switch k.state {
	case "PendingDeletion", "PendingReplicaDeletion":
		out["DeletionDate"] = wireTime(c.w.now().AddDate(0, 0, 30))
	case "PendingImport":
		out["Origin"] = "EXTERNAL"
	}
	if k.multiRegion() {
		out["MultiRegionConfiguration"] = k.replicas()
	}
	return jsonReply(http.StatusOK, map[string]any{"KeyMetadata": out})
}

// replicas tells of the primary key and its replicas. The caller holds the store's
// mutex.
func (k *KMSKey) replicas() map[string]any {
	primary, kind := k, "PRIMARY"
	if k.primary != nil {
		primary, kind = k.primary, "REPLICA"
	}
	list := []any{}
	for _, r := range k.store().keys {
		if r.primary == primary {
			list = append(list, map[string]string{"Arn": r.ARN(), "Region": r.region})
		}
	}
	return map[string]any{
		"MultiRegionKeyType": kind, "ReplicaKeys": list,
		"PrimaryKey": map[string]string{"Arn": primary.ARN(), "Region": primary.region},
	}
}
