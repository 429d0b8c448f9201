package awstest

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"
)

const credentialsPath = "/v2/credentials/"

// sessionToken is opaque and as long as those of AWS.
func sessionToken() string {
	return "IQoJb3JpZ2luX2Vj" + randomText(480, base64.StdEncoding)
}

// CredentialsURL is where a container gets creds, which must be of this world: the
// AWS_CONTAINER_CREDENTIALS_FULL_URI of a CodeBuild job.
func (w *World) CredentialsURL(creds aws.Credentials) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys[creds.AccessKeyID] == nil {
		panic("awstest: credentials of another world")
	}
	id := uuid.NewString()
	w.mailbox[id] = creds.AccessKeyID
	return "http://" + w.servers.plainAddr + credentialsPath + id
}

// serveCredentials gives a container what CodeBuild's agent would.
func (w *World) serveCredentials(rw http.ResponseWriter, r *http.Request) {
	id, ok := strings.CutPrefix(r.URL.Path, credentialsPath)
	w.mu.Lock()
	key := w.keys[w.mailbox[id]]
	w.mu.Unlock()
	if !ok || key == nil || r.Method != http.MethodGet {
		http.NotFound(rw, r)
		return
	}
	answer := struct {
		RoleArn         string `json:",omitempty"`
		AccessKeyId     string
		SecretAccessKey string
		Token           string `json:",omitempty"`
		Expiration      string `json:",omitempty"`
	}{AccessKeyId: key.id, SecretAccessKey: key.secret, Token: key.token}
	if !key.expires.IsZero() {
		answer.Expiration = key.expires.UTC().Format(time.RFC3339)
	}
	if key.principal.role != nil {
		answer.RoleArn = key.principal.role.ARN()
	}
	rw.Header().Set("Content-Type", "application/json")
	_, _ = rw.Write(mustJSON(answer)) // the caller may be gone
}
