package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// mirror is a repository in the hands of somebody who has some of its keys, and can
// serve whatever they like.
type mirror struct {
	t    testing.TB
	URL  string
	keys map[string][]signature.Signer // by role
	now  time.Time

	mu     sync.Mutex
	files  map[string][]byte
	serve  func(w http.ResponseWriter, r *http.Request) bool
	served []string

	root, timestamp, snapshot, targets int64 // the versions published last

}

func newMirror(t testing.TB) *mirror {
	m := &mirror{t: t, keys: map[string][]signature.Signer{}, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), files: map[string][]byte{}}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		m.keys[role] = []signature.Signer{tufKey(t)}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.served = append(m.served, r.URL.Path)
		serve := m.serve
		data, ok := m.files[strings.TrimPrefix(r.URL.Path, "/tuf/")]
		m.mu.Unlock()
		switch {
		case serve != nil && serve(w, r):
		case ok:
			_, _ = w.Write(data)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	m.URL = srv.URL
	m.publishRoot(nil)
	m.publish("one")
	return m
}

func tufKey(t testing.TB) signature.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publicOf(t testing.TB, s signature.Signer) (*metadata.Key, string) {
	t.Helper()
	public, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	id, err := key.ID()
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func (m *mirror) put(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name] = data
}

func (m *mirror) get(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files[name]
}

// asked reports whether a path that contains text was requested.
func (m *mirror) asked(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Contains(strings.Join(m.served, "\n"), text)
}

func signed[T metadata.Roles](t testing.TB, meta *metadata.Metadata[T], signers ...signature.Signer) []byte {
	t.Helper()
	for _, s := range signers {
		if _, err := meta.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	data, err := meta.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// publishRoot makes the next root with the keys of now, signed by before too.
func (m *mirror) publishRoot(edit func(*metadata.RootType), before ...signature.Signer) {
	m.t.Helper()
	m.root++
	m.put(fmt.Sprintf("%d.root.json", m.root), m.makeRoot(m.root, edit, append(before, m.keys[metadata.ROOT]...)...))
}

func (m *mirror) makeRoot(version int64, edit func(*metadata.RootType), signers ...signature.Signer) []byte {
	m.t.Helper()
	root := metadata.Root(m.now.Add(365 * 24 * time.Hour))
	root.Signed.Version = version
	for role, keys := range m.keys {
		for _, s := range keys {
			key, _ := publicOf(m.t, s)
			if err := root.Signed.AddKey(key, role); err != nil {
				m.t.Fatal(err)
			}
		}
		root.Signed.Roles[role].Threshold = len(keys)
	}
	if edit != nil {
		edit(&root.Signed)
	}
	return signed(m.t, root, signers...)
}

// publish makes the next version of all other roles.
func (m *mirror) publish(content string) {
	m.t.Helper()
	m.publishTargets(content)
	m.publishSnapshot()
	m.publishTimestamp()
}

const somePEM = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE6Xn+9xlrEMh1trB3W/bO0Hif9Pae
XJqSglpxKS/n40iMeRmTgRar5C0rOM6ayRXMm5IHw0YPcslVuYjuV8Mh0Q==
-----END PUBLIC KEY-----
`

func targetsOf(content string) map[string][]byte {
	return map[string][]byte{
		targetTrustedRoot: []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","is":"` + content + `"}`),
		targetPEM:         []byte(somePEM),
		targetKeys:        []byte(`{"is":"` + content + `"}`),
	}
}

func (m *mirror) publishTargets(content string) { m.publishFiles(targetsOf(content), nil) }

func (m *mirror) publishFiles(files map[string][]byte, edit func(*metadata.TargetsType)) {
	m.t.Helper()
	m.targets++
	meta := metadata.Targets(m.now.Add(90 * 24 * time.Hour))
	meta.Signed.Version = m.targets
	for name, data := range files {
		sum := sha256.Sum256(data)
		meta.Signed.Targets[name] = &metadata.TargetFiles{Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
		m.put("targets/"+hex.EncodeToString(sum[:])+"."+name, data)
	}
	if edit != nil {
		edit(&meta.Signed)
	}
	m.put(fmt.Sprintf("%d.targets.json", m.targets), signed(m.t, meta, m.keys[metadata.TARGETS]...))
}

func (m *mirror) metaOf(name string, version int64) *metadata.MetaFiles {
	data := m.get(fmt.Sprintf("%d.%s", version, name))
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

func (m *mirror) publishSnapshot() { m.publishSnapshotOf(m.metaOf("targets.json", m.targets)) }

func (m *mirror) publishSnapshotOf(targets *metadata.MetaFiles) {
	m.t.Helper()
	m.snapshot++
	meta := metadata.Snapshot(m.now.Add(7 * 24 * time.Hour))
	meta.Signed.Version = m.snapshot
	meta.Signed.Meta["targets.json"] = targets
	m.put(fmt.Sprintf("%d.snapshot.json", m.snapshot), signed(m.t, meta, m.keys[metadata.SNAPSHOT]...))
}

func (m *mirror) publishTimestamp() { m.publishTimestampOf(m.metaOf("snapshot.json", m.snapshot)) }

func (m *mirror) publishTimestampOf(snapshot *metadata.MetaFiles) {
	m.t.Helper()
	m.timestamp++
	meta := metadata.Timestamp(m.now.Add(24 * time.Hour))
	meta.Signed.Version = m.timestamp
	meta.Signed.Meta["snapshot.json"] = snapshot
	m.put("timestamp.json", signed(m.t, meta, m.keys[metadata.TIMESTAMP]...))
}
