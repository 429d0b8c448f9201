package codebuild

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

// unpacked makes a project upload an object for each file, below out/.
func unpacked(p *awstest.Project) {
	p.Artifacts.Packaging, p.Artifacts.NamespaceType = types.ArtifactPackagingNone, types.ArtifactNamespaceNone
	p.Artifacts.Path, p.Artifacts.Name = aws.String("out"), aws.String("app")
}

// finish ends b and reads it.
func (e *env) finish(t *testing.T, r *Reader, b *awstest.Build) *Build {
	t.Helper()
	e.clock.Advance(time.Second)
	b.Finish(types.StatusTypeSucceeded)
	got, err := r.Finished(ctx(t), b.ARN)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func names(objects []Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.Name)
	}
	return out
}

func TestFetchZIP(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	raw := e.start()
	up := raw.Upload("app", []byte("the program"))[0]
	b := e.finish(t, r, raw)
	objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 1 || objects[0].Name != "app-artifacts/"+raw.UUID+"/app.zip" || objects[0].VersionID != up.VersionID || objects[0].SHA256 != up.SHA256 ||
		!objects[0].Confirmed || len(objects[0].SHA512) != 128 || objects[0].Size == 0 {
		t.Errorf("%+v", objects)
	}
	// Afterwards the key is overwritten and deleted: the version stays.
	e.clock.Advance(2 * time.Minute)
	e.bucket.Put(up.Key, []byte("something else"))
	e.bucket.Delete(up.Key)
	again, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil || !slices.Equal(again, objects) {
		t.Errorf("%+v, %v", again, err)
	}
	// Overwritten at once, within what clocks may differ: the digest decides.
	raw = e.start()
	up = raw.Upload("app", []byte("second"))[0]
	e.bucket.Put(up.Key, []byte("something else"))
	b = e.finish(t, r, raw)
	if objects, err = r.Fetch(ctx(t), b, 1<<20, 10, nil); err != nil || objects[0].VersionID != up.VersionID || !objects[0].Confirmed {
		t.Errorf("%+v, %v", objects, err)
	}
}

func TestFetchZIPHostile(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	r := e.New(t)
	other := e.world.Account(otherAccount).Bucket(testRegion, "foreign-artifacts", awstest.Versioned(true), awstest.SharedWith(testAccount))
	e.account.Bucket("us-west-2", "elsewhere-artifacts", awstest.Versioned(true))
	for name, c := range map[string]struct {
		do   func(*awstest.Build, awstest.Uploaded) // before the build ends
		then func(*Build)
		want refusal.Code
	}{
		"content swapped": {do: func(_ *awstest.Build, up awstest.Uploaded) {
			e.bucket.Rewrite(up.Key, up.VersionID, bytes.Repeat([]byte("x"), 119))
		}, want: CodeArtifactDigestMismatch},
		"digest of record": {do: func(b *awstest.Build, _ awstest.Uploaded) {
			b.Edit(func(r *types.Build) { r.Artifacts.Sha256sum = aws.String(strings.Repeat("0", 64)) })
		}, want: CodeArtifactDigestMismatch},
		"never there":    {then: func(b *Build) { b.Artifacts[0].Location += ".bak" }, want: CodeNoArtifacts},
		"no such bucket": {then: func(b *Build) { b.Artifacts[0].Location = "arn:aws:s3:::no-such-bucket/x" }, want: CodeNoArtifacts},
		"others' bucket": {then: func(b *Build) { b.Artifacts[0].Location = other.ARN() + "/x" }, want: CodeReaderDenied},
		"another region": {then: func(b *Build) { b.Artifacts[0].Location = "arn:aws:s3:::elsewhere-artifacts/x" }, want: CodeArtifactInvalid},
		"another time": {then: func(b *Build) {
			b.UploadStartedAt, b.UploadEndedAt = b.UploadStartedAt.Add(-time.Hour), b.UploadEndedAt.Add(-time.Hour)
			b.StartedAt, b.FinishedAt = b.StartedAt.Add(-time.Hour), b.FinishedAt.Add(-time.Hour)
		}, want: CodeNoArtifacts},
		"unfinished":       {then: func(b *Build) { b.FinishedAt = time.Time{} }, want: CodeNotFinished},
		"another account":  {then: func(b *Build) { b.ARN = strings.Replace(b.ARN, testAccount, otherAccount, 1) }, want: CodeAccountNotAllowed},
		"another project":  {then: func(b *Build) { b.ARN = strings.Replace(b.ARN, "/app:", "/other:", 1) }, want: CodeProjectNotAllowed},
		"no artifacts":     {then: func(b *Build) { b.Artifacts = nil }, want: CodeNoArtifacts},
		"access point":     {then: func(b *Build) { b.Artifacts[0].Location = "arn:aws:s3:eu-west-1:111122223333:accesspoint/x/object/y" }, want: CodeArtifactInvalid},
		"special bucket":   {then: func(b *Build) { b.Artifacts[0].Location = "arn:aws:s3:::evil--euw1-az1--x-s3/k" }, want: CodeArtifactInvalid},
		"bucket is a host": {then: func(b *Build) { b.Artifacts[0].Location = "arn:aws:s3:::evil.example:8080/k" }, want: CodeArtifactInvalid},
		"not an ARN":       {then: func(b *Build) { b.Artifacts[0].Location = "https://evil.example/x" }, want: CodeArtifactInvalid},
		"other partition":  {then: func(b *Build) { b.Artifacts[0].Location = "arn:aws-cn:s3:::app-artifacts/x" }, want: CodeArtifactInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			raw := e.start()
			up := raw.Upload("app", []byte("the program"))[0]
			if c.do != nil {
				c.do(raw, up)
			}
			b := e.finish(t, r, raw)
			b.Artifacts = slices.Clone(b.Artifacts)
			if c.then != nil {
				c.then(b)
			}
			objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
			wantCode(t, err, c.want)
			if objects != nil {
				t.Error("a refusal comes with objects")
			}
		})
	}
}

func TestFetchFiles(t *testing.T) {
	t.Parallel()
	e := newEnv(t, unpacked)
	r := e.New(t)
	// What an earlier build left, what somebody puts beside it, and the prefix's
	// neighbours.
	e.bucket.Put("out/app/old", []byte("of an earlier build"))
	e.clock.Advance(2 * time.Minute)
	raw := e.start()
	e.bucket.Put("out/app/by-the-job", []byte("of the build's own commands, or of anybody meanwhile"))
	e.clock.Advance(30 * time.Second)
	files := map[string][]byte{"b.txt": []byte("bee"), "a/a.txt": []byte("ay"), "empty": {}}
	raw.UploadFiles(files)
	e.bucket.Put("out/app-of-others/evil", []byte("evil"))
	e.bucket.Put("out/appendix", []byte("evil"))
	e.bucket.Put("out/app/folder/", nil)
	b := e.finish(t, r, raw)
	e.clock.Advance(2 * time.Minute)
	e.bucket.Put("out/app/b.txt", []byte("evil"))
	e.bucket.Put("out/app/late", []byte("evil"))

	objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(objects), []string{"app-artifacts/out/app/a/a.txt", "app-artifacts/out/app/b.txt", "app-artifacts/out/app/empty"}; !slices.Equal(got, want) {
		t.Fatalf("%v", got)
	}
	for _, o := range objects {
		content := files[strings.TrimPrefix(o.Key, "out/app/")]
		sum256, sum512 := sha256.Sum256(content), sha512.Sum512(content)
		if o.SHA256 != hex.EncodeToString(sum256[:]) || o.SHA512 != hex.EncodeToString(sum512[:]) || o.Size != int64(len(content)) || o.Confirmed || o.VersionID == "" {
			t.Errorf("%+v", o)
		}
	}
	_, err = r.Fetch(ctx(t), b, 5, 3, nil) // three objects of five bytes
	wantCode(t, err, "")
	_, err = r.Fetch(ctx(t), b, 5, 2, nil)
	wantCode(t, err, CodeArtifactTooMany)
	_, err = r.Fetch(ctx(t), b, 4, 3, nil)
	wantCode(t, err, CodeArtifactTooLarge)
	// Where the record does not tell when it uploaded, the whole build counts.
	b.UploadStartedAt, b.UploadEndedAt = time.Time{}, time.Time{}
	objects, err = r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil || len(objects) != 4 {
		t.Errorf("%v, %v", names(objects), err)
	}
	_, err = r.Fetch(ctx(t), b, 0, 0, nil)
	wantCode(t, err, CodeArtifactTooMany)
}

func TestFetchFilesHostile(t *testing.T) {
	t.Parallel()
	put := func(key string) func(*env, awstest.Uploaded) {
		return func(e *env, _ awstest.Uploaded) { e.bucket.Put(key, []byte("evil")) }
	}
	for name, c := range map[string]struct {
		do   func(e *env, up awstest.Uploaded)
		want refusal.Code
	}{
		"written twice":          {put("out/app/x"), CodeArtifactChanged},
		"deleted":                {func(e *env, up awstest.Uploaded) { e.bucket.Delete(up.Key) }, ""}, // the version is still there
		"name climbs":            {put("out/app/../evil"), CodeArtifactInvalid},
		"name does not show":     {put("out/app/a\u202eb"), CodeArtifactInvalid},
		"name has an empty part": {put("out/app//evil"), CodeArtifactInvalid},
		"no versions any more":   {func(e *env, _ awstest.Uploaded) { e.bucket.SuspendVersioning(); e.bucket.Put("out/app/y", nil) }, CodeArtifactUnversioned},
		"too many versions": {func(e *env, _ awstest.Uploaded) {
			for i := range 20 {
				e.bucket.Put(fmt.Sprint("out/app/", i), nil)
			}
		}, CodeArtifactTooMany},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, unpacked)
			r, raw := e.New(t), e.start()
			c.do(e, raw.Upload("x", []byte("the program"))[0])
			objects, err := r.Fetch(ctx(t), e.finish(t, r, raw), 1<<20, 10, nil)
			wantCode(t, err, c.want)
			if c.want != "" && objects != nil {
				t.Error("a refusal comes with objects")
			}
		})
	}
}

// TestFetchUnversioned: without versions only CodeBuild's own digest will do.
func TestFetchUnversioned(t *testing.T) {
	t.Parallel()
	for packaging, want := range map[types.ArtifactPackaging]refusal.Code{
		types.ArtifactPackagingZip: "", types.ArtifactPackagingNone: CodeArtifactUnversioned,
	} {
		e := newEnv(t, func(p *awstest.Project) {
			p.Artifacts.Location, p.Artifacts.Packaging = aws.String("plain-artifacts"), packaging
		})
		bucket := e.account.Bucket(testRegion, "plain-artifacts")
		r, raw := e.New(t), e.start()
		up := raw.Upload("x", []byte("the program"))[0]
		b := e.finish(t, r, raw)
		objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
		wantCode(t, err, want)
		if want == "" && (len(objects) != 1 || !objects[0].Confirmed || objects[0].VersionID != "") {
			t.Errorf("%+v", objects)
		}
		bucket.Put(up.Key, []byte("something else"))
		if want == "" {
			want = CodeArtifactDigestMismatch
		}
		_, err = r.Fetch(ctx(t), b, 1<<20, 10, nil)
		wantCode(t, err, want)
	}
}

// TestFetchWholeBucket: the artifact named "/" is all that the build wrote.
func TestFetchWholeBucket(t *testing.T) {
	t.Parallel()
	e := newEnv(t, unpacked, func(p *awstest.Project) { p.Artifacts.Path, p.Artifacts.Name = nil, aws.String("/") })
	e.bucket.Put("of-before", nil)
	e.clock.Advance(2 * time.Minute)
	r, raw := e.New(t), e.start()
	raw.UploadFiles(map[string][]byte{"x": []byte("ex"), "y/z": []byte("zed")})
	b := e.finish(t, r, raw)
	if len(b.Overrides) != 0 {
		t.Errorf("overrides %+v", b.Overrides)
	}
	objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil || !slices.Equal(names(objects), []string{"app-artifacts/x", "app-artifacts/y/z"}) {
		t.Errorf("%v, %v", names(objects), err)
	}
}

// TestFetchSecondary: a ZIP and files in one build, one of them within the other.
func TestFetchSecondary(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(p *awstest.Project) {
		p.Artifacts.NamespaceType = types.ArtifactNamespaceNone
		p.SecondaryArtifacts = []types.ProjectArtifacts{{
			Type: types.ArtifactsTypeS3, ArtifactIdentifier: aws.String("all"), Location: aws.String("app-artifacts"), Name: aws.String("/"), Packaging: types.ArtifactPackagingNone,
		}}
	})
	r, raw := e.New(t), e.start()
	raw.Upload("app", []byte("the program"))
	raw.UploadTo("all", map[string][]byte{"readme": []byte("read me")})
	b := e.finish(t, r, raw)
	objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil || !slices.Equal(names(objects), []string{"app-artifacts/app.zip", "app-artifacts/readme"}) {
		t.Fatalf("%v, %v", names(objects), err)
	}
	if !objects[0].Confirmed || objects[1].Confirmed {
		t.Errorf("%+v", objects)
	}
}

// TestFetchPages: a list of several pages is read to its end.
func TestFetchPages(t *testing.T) {
	t.Parallel()
	e := newEnv(t, unpacked)
	for i := range 1500 {
		e.bucket.Put(fmt.Sprintf("out/app/%04d", i), nil)
	}
	e.clock.Advance(2 * time.Minute)
	r, raw := e.New(t), e.start()
	raw.Upload("zzz", []byte("the program"))
	b := e.finish(t, r, raw)
	objects, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
	if err != nil || !slices.Equal(names(objects), []string{"app-artifacts/out/app/zzz"}) {
		t.Errorf("%v, %v", names(objects), err)
	}
}

// tamper changes answers of S3 that others would believe.
type tamper struct {
	next   http.RoundTripper
	change func(*http.Response)
}

func (x tamper) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := x.next.RoundTrip(req)
	if err == nil && strings.Contains(req.URL.Host, ".s3.") && req.URL.Query().Has("versionId") {
		x.change(resp)
	}
	return resp, err
}

func TestFetchTampered(t *testing.T) {
	t.Parallel()
	body := func(s string) func(*http.Response) {
		return func(r *http.Response) {
			for name := range r.Header {
				if strings.HasPrefix(name, "X-Amz-Checksum") {
					r.Header.Del(name)
				}
			}
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s))
			r.Header.Set("Content-Length", strconv.Itoa(len(s)))
		}
	}
	e := newEnv(t, unpacked)
	raw := e.start()
	raw.Upload("x", []byte("the program"))
	b := e.finish(t, e.New(t), raw)
	for name, c := range map[string]struct {
		change func(*http.Response)
		want   refusal.Code
	}{
		"honest":          {func(*http.Response) {}, ""},
		"longer":          {body("the program, and more"), CodeArtifactChanged},
		"shorter":         {body("the pro"), CodeArtifactChanged},
		"another version": {func(r *http.Response) { r.Header.Set("X-Amz-Version-Id", "evil") }, CodeArtifactChanged},
		"no version":      {func(r *http.Response) { r.Header.Del("X-Amz-Version-Id") }, CodeArtifactChanged},
		"gone":            {func(r *http.Response) { r.StatusCode = 404; body("<Error><Code>NoSuchVersion</Code></Error>")(r) }, CodeArtifactChanged},
		"redirected":      {func(r *http.Response) { r.StatusCode = 307; r.Header.Set("Location", "https://evil.example/") }, CodeUnavailable},
		"broken off": {func(r *http.Response) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("the"), iotest.ErrReader(io.ErrUnexpectedEOF)))
		}, CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := e.New(t, func(cfg *Config) {
				cfg.AWS.HTTPClient = &http.Client{Transport: tamper{e.world.Transport(), c.change}}
			})
			_, err := r.Fetch(ctx(t), b, 1<<20, 10, nil)
			wantCode(t, err, c.want)
		})
	}
}
