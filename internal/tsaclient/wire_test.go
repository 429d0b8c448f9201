package tsaclient

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/tsatest"
	"github.com/assay-build/assay/internal/testenv/vectors"
)

func TestRequestAgainstAnotherReader(t *testing.T) {
	t.Parallel()
	imprint := sha256.Sum256([]byte("sig"))
	for _, nonce := range []uint64{1, 0x7f, 0x80, 1 << 63, 1<<64 - 1} {
		req, err := timestamp.ParseRequest(newRequest(imprint, nonce))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(req.HashedMessage, imprint[:]) || !req.Certificates || req.Nonce.Cmp(new(big.Int).SetUint64(nonce)) != 0 {
			t.Errorf("nonce %d: %+v", nonce, req)
		}
		again, err := req.Marshal()
		if err != nil || !bytes.Equal(again, newRequest(imprint, nonce)) {
			t.Errorf("nonce %d: the other's encoding differs: %v", nonce, err)
		}
	}
}

// answers are bodies of the authority, honest and not, for one request.
func answers(t testing.TB) (map[tsatest.Fault][]byte, []byte, uint64) {
	t.Helper()
	const nonce = 0x8123456789abcdef
	sig := []byte("sig")
	now := time.Now()
	tsa, err := tsatest.New(tsatest.Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	bodies := make(map[tsatest.Fault][]byte)
	for _, f := range append(tsatest.Faults(), tsatest.None) {
		switch f {
		case tsatest.Hang, tsatest.Slow, tsatest.Reset, tsatest.Huge:
			continue
		}
		tsa.Fail(f)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(newRequest(sha256.Sum256(sig), nonce)))
		r.Header.Set("Content-Type", "application/timestamp-query")
		w := httptest.NewRecorder()
		tsa.ServeHTTP(w, r)
		bodies[f] = w.Body.Bytes()
	}
	return bodies, sig, nonce
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	bodies, _, _ := answers(t)
	_, err := readAnswer(bodies[tsatest.Rejected])
	if want := "TSA_REFUSED: the authority answers with status 2 (the clock is broken), want 0 (granted)"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	long := append([]byte{0x30, 0x81, 0xc8 + 3, 0x0c, 0x81, 0xc8}, bytes.Repeat([]byte("\x1bé "), 50)...)
	if got := statusText(long); len(got) > 120 || bytes.ContainsRune([]byte(got), 0x1b) {
		t.Errorf("%q", got)
	}
	for _, bad := range [][]byte{nil, {0x30, 0}, {0x30, 3, 0x0c, 1, 0xff}} {
		if got := statusText(bad); got != "" {
			t.Errorf("%x: %q", bad, got)
		}
	}
}

func TestHonestAnswerIsGivenBackAsItCame(t *testing.T) {
	t.Parallel()
	bodies, sig, nonce := answers(t)
	a, err := readAnswer(bodies[tsatest.None])
	if err != nil {
		t.Fatal(err)
	}
	if !a.isFor(sha256.Sum256(sig)) || !a.hasNonce(nonce) || a.hasNonce(nonce-1) || a.hasNonce(nonce>>8) {
		t.Error("the answer is not for the request")
	}
	if !bytes.Equal(granted(a.token), bodies[tsatest.None]) {
		t.Error("the answer was changed")
	}
	b, err := readAnswer(bodies[tsatest.FreeText])
	if err != nil || bytes.Contains(granted(b.token), []byte("Okay")) {
		t.Errorf("%v", err)
	}
}

// Cut anywhere, an answer is refused: there is no part of it that is not read.
func TestCutAnswers(t *testing.T) {
	t.Parallel()
	bodies, _, _ := answers(t)
	body := bodies[tsatest.None]
	for n := range body {
		if _, err := readAnswer(body[:n]); refusal.CodeOf(err) != CodeAnswerInvalid {
			t.Fatalf("%d of %d bytes: %v", n, len(body), err)
		}
	}
}

func TestReadTime(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"20260102150405Z": true, "20240229000000Z": true, "20260102150405.5Z": false, "20260102150405+0000": false,
		"20260102150405": false, "202601021504Z": false, "20260230000000Z": false, "20261302150405Z": false, "": false,
		"20260102150405z": false, "20260102150460Z": false, " 20260102150405Z": false,
	} {
		if err := new(answer).readTime(text); ok != (err == nil) || err != nil && refusal.CodeOf(err) != CodeTimeInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	bodies, sig, nonce := answers(f)
	for _, body := range bodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readAnswer(body)
		if err != nil {
			switch refusal.CodeOf(err) {
			case CodeAnswerInvalid, CodeRefused, CodeTimeInvalid:
			default:
				t.Fatal(err)
			}
			return
		}
		again, err := readAnswer(granted(a.token))
		if err != nil || !again.at.Equal(a.at) || !bytes.Equal(again.nonce, a.nonce) || !bytes.Equal(again.imprint, a.imprint) {
			t.Fatalf("the answer is read differently when it is given back: %v", err)
		}
		// Whatever the libraries make of it, they make of it what was read here.
		ts, err := timestamp.ParseResponse(granted(a.token))
		if err != nil {
			return
		}
		if !ts.Time.Equal(a.at) || !bytes.Equal(ts.HashedMessage, a.imprint) {
			t.Fatalf("read as %s over %x, by the library as %s over %x", a.at, a.imprint, ts.Time, ts.HashedMessage)
		}
		if a.isFor(sha256.Sum256(sig)) && a.hasNonce(nonce) && (ts.Nonce == nil || ts.Nonce.Uint64() != nonce) {
			t.Fatalf("nonce %v in the library", ts.Nonce)
		}
	})
}

// Timestamps of Sigstore's and GitHub's authorities, as bundles in the wild hold them.
func TestAnswersOfOthers(t *testing.T) {
	t.Parallel()
	stamp := regexp.MustCompile(`"signedTimestamp":\s*"([A-Za-z0-9+/=]+)"`)
	read := 0
	err := filepath.WalkDir(vectors.Dir(t, "sigstore-conformance"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".json") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range stamp.FindAllSubmatch(text, -1) {
			der, err := base64.StdEncoding.DecodeString(string(m[1]))
			if err != nil {
				return err
			}
			a, err := readAnswer(der)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if !a.sha256 || a.at.Year() < 2022 || !bytes.Equal(granted(a.token), der) {
				t.Errorf("%s: read as of %s", path, a.at)
			}
			read++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 20 {
		t.Errorf("found only %d timestamps", read)
	}
}
