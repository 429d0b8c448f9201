package server_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/sbom"
	"github.com/assay-build/assay/internal/sbom/archive/archivetest"
	assayv1 "github.com/assay-build/assay/proto/assay/v1"
	"github.com/assay-build/assay/server"
)

// treeOf is every file below dir but those of the data directory: names, modes, times
// and sizes.
func treeOf(t testing.TB, dir, data string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == data {
			return orSkip(err)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if e.IsDir() { // its time is that of the data directory in it too
			list = append(list, p+" "+info.Mode().String())
			return nil
		}
		list = append(list, fmt.Sprintf("%s %s %d %s", p, info.Mode(), info.Size(), info.ModTime()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func orSkip(err error) error {
	if err != nil {
		return err
	}
	return fs.SkipDir
}

// guarded is a world whose data directory lies beside a tree that nobody may touch.
func guarded(t testing.TB) (w *world, untouched func()) {
	t.Helper()
	w = newWorld(t, "https://assay.test")
	home := t.TempDir()
	w.data = filepath.Join(home, "service", "data")
	for _, name := range []string{"etc/passwd", "etc/cron.d/keep", "tmp/keep", "service/evil.txt.keep", "service/log/keep", "service/keys/keep"} {
		p := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("canary"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := treeOf(t, home, w.data)
	return w, func() {
		t.Helper()
		if after := treeOf(t, home, w.data); !slices.Equal(after, before) {
			t.Errorf("outside of the data directory:\n%s\nwas\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
		for _, p := range []string{"/tmp/evil.txt", "/etc/cron.d/evil"} {
			if _, err := os.Lstat(p); err == nil {
				t.Errorf("%s is there", p)
			}
		}
	}
}

// nothingLeft fails where bytes of an upload, or a scan's directory, are still there.
func nothingLeft(t testing.TB, w *world) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(w.data, "spool")); err != nil || len(left) != 0 {
		t.Errorf("%d entries in the spool (%v)", len(left), err)
	}
	if left, err := filepath.Glob(filepath.Join(w.data, "scan", "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left of scans: %q (%v)", left, err)
	}
}

// uploadFiles attests files in one call, piece by piece.
func uploadFiles(ctx context.Context, l *life, paths ...string) (*assayv1.AttestResult, error) {
	stream, err := assayv1.NewAttestationServiceClient(l.conn).Attest(ctx)
	if err != nil {
		return nil, err
	}
	send := func(p string) error {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_ = stream.Send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactStart{ArtifactStart: &assayv1.ArtifactStart{Name: filepath.Base(p), Size: -1}}})
		for {
			b := make([]byte, 1<<20)
			n, err := io.ReadFull(f, b)
			if n > 0 && stream.Send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_Chunk{Chunk: b[:n]}}) != nil {
				return nil // the reason is in Recv
			}
			if err != nil {
				return stream.Send(&assayv1.AttestRequest{Message: &assayv1.AttestRequest_ArtifactEnd{ArtifactEnd: &assayv1.ArtifactEnd{}}})
			}
		}
	}
	_ = stream.Send(headerMessage(len(paths)))
	go func() {
		for _, p := range paths {
			if send(p) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	for {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if resp.GetResult() != nil {
			return resp.GetResult(), nil
		}
	}
}

// beside uploads and verifies something small, again and again, until the returned
// function is called, which tells the longest that one round took.
func (l *life) beside(t testing.TB) (end func() (rounds int, longest time.Duration)) {
	t.Helper()
	ctx := l.session(t, l.Issuer.Mint(l.world.instance, runClaims(900)))
	done := make(chan error, 1)
	var enough atomic.Bool
	var rounds int
	var longest time.Duration
	go func() {
		for !enough.Load() {
			began, content := time.Now(), fmt.Sprintf("small %d", rounds)
			_, err := uploadAll(ctx, l.conn, append([]*assayv1.AttestRequest{headerMessage(1)}, artifactMessages("small", []byte(content))...))
			if err == nil {
				var resp *assayv1.VerifyResponse
				resp, err = assayv1.NewVerificationServiceClient(l.conn).Verify(ctx, &assayv1.VerifyRequest{Environment: "dev", Subjects: []*assayv1.Subject{subject("small", content)}})
				if err == nil && resp.GetVerificationResult() != assayv1.VerificationResult_VERIFICATION_RESULT_PASSED {
					err = fmt.Errorf("round %d: %s", rounds, resp.GetDecisions()[0].GetReason())
				}
			}
			if err != nil {
				done <- err
				return
			}
			rounds, longest = rounds+1, max(longest, time.Since(began))
		}
		done <- nil
	}()
	return func() (int, time.Duration) {
		t.Helper()
		enough.Store(true)
		if err := <-done; err != nil {
			t.Errorf("beside it: %v", err)
		}
		return rounds, longest
	}
}

// TestHostileArtifacts: every archive that is known to have harmed somebody is attested,
// its SBOM says why it is not complete, and the service goes on as if nothing had been.
func TestHostileArtifacts(t *testing.T) {
	t.Parallel()
	if raced {
		t.Skip("a process for each archive, each ten times as slow under the race detector")
	}
	const small = 4 << 20
	all := !testing.Short()
	cases, err := archivetest.Hostile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w, untouched := guarded(t)
	l := w.start(t).login(t)
	end := l.beside(t)
	tried := 0
	batch := func(cases []archivetest.Case) {
		var paths []string
		for _, c := range cases {
			paths = append(paths, c.Path)
		}
		result, err := uploadFiles(l.ctx, l, paths...)
		if err != nil {
			t.Fatalf("%s … %s: %v", cases[0].Name, cases[len(cases)-1].Name, err)
		}
		for i, c := range cases {
			l.hostileSBOM(t, c, result.GetSboms()[i])
		}
		tried += len(cases)
	}
	var few []archivetest.Case
	for _, c := range cases {
		info, err := os.Stat(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !c.Large && info.Size() <= small:
			few = append(few, c)
		case all: // alone: it takes a while, a hole of 4 GiB the longest
			batch([]archivetest.Case{c})
		}
	}
	if !all { // the sandbox's own tests have each
		for i := range len(few) / 5 {
			few[i] = few[5*i]
		}
		few = few[:len(few)/5]
	}
	for some := range slices.Chunk(few, 24) {
		batch(some)
	}
	rounds, longest := end()
	t.Logf("%d of %d archives; beside them %d small ones, the longest took %s", tried, len(cases), rounds, longest)
	if rounds == 0 || longest > 20*time.Second { // this machine may have other things to do
		t.Errorf("%d small artifacts were attested and verified beside them, the longest took %s", rounds, longest)
	}
	if tried < 40 || all && tried != len(cases) {
		t.Errorf("%d of %d archives were tried", tried, len(cases))
	}
	nothingLeft(t, w)
	untouched()
	if n := l.count(t, "pending"); n != 0 {
		t.Errorf("%d pending", n)
	}
	// One that looks honest is looked into as before.
	honest := zipOf(t, "package-lock.json", string(packageLock("lodash@4.17.21")))
	if sum := l.upload(t, l.ctx, "honest.zip", string(honest)).GetSboms()[0]; !sum.GetComplete() {
		t.Errorf("an honest archive afterwards: %v", sum)
	}
}

// hostileSBOM holds what the SBOM of a hostile archive says against what is wrong with it.
func (l *life) hostileSBOM(t *testing.T, c archivetest.Case, sum *assayv1.SBOMSummary) {
	t.Helper()
	got := sum.GetIncompleteReasons()
	// A scan does not read all of it: what no reader would read is declined by its size
	// before it is unpacked, and what it stopped in is malformed to its reader.
	declined := slices.Contains(got, string(sbom.ReasonFileSize))
	for _, want := range c.Want {
		if !slices.Contains(got, string(want)) && !declined {
			t.Errorf("%s: %q; want %q", c.Name, got, c.Want)
		}
	}
	for _, code := range got {
		ofReader := len(c.Want) > 0 && (code == string(sbom.ReasonMalformed) || code == string(sbom.ReasonFileSize))
		if !slices.Contains(c.Want, sbom.ReasonCode(code)) && code != string(sbom.ReasonOpaque) && !ofReader {
			t.Errorf("%s: %q; want only %q", c.Name, got, c.Want)
		}
	}
	if len(c.Want) > 0 && sum.GetComplete() {
		t.Errorf("%s is said to be complete: %v", c.Name, sum)
	}
	a := l.attestation(t, l.ctx, sum.GetAttestationId())
	if _, err := l.verifier(t).VerifyOwn(a.GetBundle()); err != nil {
		t.Errorf("%s: %v", c.Name, err)
	}
	_, h := purls(t, statementOf(t, a.GetBundle()).Predicate)
	if complete := h.Aggregate == sbom.AggregateComplete; complete != sum.GetComplete() || !slices.Equal(h.Incomplete, got) {
		t.Errorf("%s: the signed document says %q %q, the answer %q", c.Name, h.Aggregate, h.Incomplete, got)
	}
}

// TestScanLogsNoNames: what an archive calls its files is the business of who may read
// the SBOM, and of no log.
func TestScanLogsNoNames(t *testing.T) {
	t.Parallel()
	const canary = "CANARY-9f2d77"
	w := newWorld(t, "https://assay.test")
	l := w.start(t, func(c *server.Config) { c.Scan.Workers = 2 }).login(t)
	inner := string(zipOf(t, canary+"/package-lock.json", "{ "+canary, "../"+canary, canary, canary+".jar", "PK\x03\x04"+canary))
	result := l.upload(t, l.ctx, "app.zip", string(zipOf(t,
		canary+"/package-lock.json", `{"lockfileVersion":3,"packages":{"node_modules/`+canary+`":`,
		"/"+canary, canary, "a/../../"+canary, canary, canary+"/x.jar", inner, "var/lib/dpkg/status", "Package: "+canary+"\nVersion",
		"lib/apk/db/installed", "P:"+canary+"\x00", canary+".whl", inner, "META-INF/MANIFEST.MF", canary, "Cargo.lock", "[["+canary,
	)))
	sum := result.GetSboms()[0]
	if sum.GetComplete() || !slices.Contains(sum.GetIncompleteReasons(), "unsafe-path") || !slices.Contains(sum.GetIncompleteReasons(), "malformed") {
		t.Errorf("%v; the test tests nothing", sum)
	}
	if st := statementOf(t, l.attestation(t, l.ctx, sum.GetAttestationId()).GetBundle()); !strings.Contains(string(st.Predicate), canary) {
		t.Error("the SBOM does not name the file; the test tests nothing")
	}
	// Nor is what somebody attaches.
	if _, err := uploadEvidence(l.ctx, l.conn, evidenceHeader(nil, -1, result), cycloneDX("app", "pkg:npm/"+strings.ToLower(canary)+"@1"), 1<<20); err != nil {
		t.Error(err)
	}
	l.stop()
	if i := strings.Index(strings.ToUpper(l.logs.String()), canary); i >= 0 {
		t.Errorf("in the log: …%s…", l.logs.String()[max(0, i-300):min(len(l.logs.String()), i+100)])
	}
}
