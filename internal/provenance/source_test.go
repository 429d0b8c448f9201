package provenance

import (
	"net/url"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
)

func TestGitURI(t *testing.T) {
	t.Parallel()
	const app = "git+https://github.com/acme/app"
	for _, tt := range []struct{ location, version, want string }{
		{"https://github.com/acme/app", "", app},
		{"https://github.com/acme/app.git", "", app},
		{"https://github.com/acme/app/", "", app},
		{"https://github.com/acme/app.git/", "main", app + "@main"},
		{"https://GitHub.com:443/acme/app", "refs/heads/main", app + "@refs/heads/main"},
		{"https://github.com/acme/app", "pr/7", app + "@pr/7"},
		{"https://github.com/acme/app", "v1@2", app + "@v1@2"},
		{"https://github.com/acme/app", "a#b?c%d e", app + "@a%23b%3Fc%25d%20e"},
		{"https://ghe.example.com:8443/acme/app", "", "git+https://ghe.example.com:8443/acme/app"},
		{"http://127.0.0.1:8080/g/app", "", "git+http://127.0.0.1:8080/g/app"},
		{"https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/my_app.v2", "", "git+https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/my_app.v2"},
	} {
		if got, err := gitURI(tt.location, tt.version); err != nil || got != tt.want {
			t.Errorf("%s at %s: %q, %v; want %q", tt.location, tt.version, got, err, tt.want)
		}
	}
	for _, location := range []string{
		"", "github.com/acme/app", "git@github.com:acme/app.git", "ssh://git@github.com/acme/app", "file:///etc/passwd", "https:acme/app",
		"https://user:hunter2@github.com/acme/app", "https://hunter2@github.com/acme/app", "https://github.com@evil.example/acme/app",
		"https://github.com", "https://github.com/", "https:///acme/app", "https://github.com//acme/app", "https://github.com/acme//app",
		"https://github.com/acme/../evil/app", "https://github.com/acme/./app", "https://github.com/acme/%2e%2e/app", "https://github.com/acme/app%00",
		"https://github.com/acme/app?token=hunter2", "https://github.com/acme/app#main", "https://github.com/acme/app@main",
		"https://github.com/acme/app b", "https://github.com/acme/\u0430pp", "https://g\u0456thub.com/acme/app", "https://github.com./acme/app",
		"https://[::1]/acme/app", "https://github.com/acme/.git", "https://github.com/acme/app\n", "https://github.com\\evil/acme/app",
	} {
		got, err := gitURI(location, "main")
		if refusal.CodeOf(err) != CodeSourceInvalid {
			t.Errorf("%q: %q, %v; want %s", location, got, err, CodeSourceInvalid)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the refusal tells a secret: %v", err)
		}
	}
}

func TestS3URI(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ location, version, want string }{
		{"acme-source/app.zip", "", "s3://acme-source/app.zip"},
		{"acme-source/a/b c?.zip", "v+1", "s3://acme-source/a/b%20c%3F.zip?versionId=v%2B1"},
		{"acme-source/folder/", "", "s3://acme-source/folder/"},
		{"acme-source/", "", ""}, {"acme-source", "", ""}, {"/app.zip", "", ""}, {"ab/app.zip", "", ""},
		{"Acme/app.zip", "", ""}, {"a@b.c/app.zip", "", ""}, {"https://acme/app.zip", "", ""},
	} {
		got, err := s3URI(tt.location, tt.version)
		var want refusal.Code
		if tt.want == "" {
			want = CodeSourceInvalid
		}
		if got != tt.want || refusal.CodeOf(err) != want {
			t.Errorf("%s: %q, %v; want %q", tt.location, got, err, tt.want)
		}
	}
}

// Whatever comes in, what goes out is a URL that says the same host and path to
// every reader, and to write it again changes nothing.
func FuzzGitURI(f *testing.F) {
	for _, s := range []string{"https://github.com/acme/app.git", "https://user:pw@h/p", "https://h:443/a/../b", "http://h/a.git.git", "https://h/a@b", "https://h/%2e"} {
		f.Add(s, "refs/heads/main")
	}
	f.Fuzz(func(t *testing.T, location, version string) {
		uri, err := gitURI(location, version)
		if err != nil {
			if uri != "" || refusal.CodeOf(err) != CodeSourceInvalid {
				t.Fatalf("%q, %v", uri, err)
			}
			return
		}
		u, err := url.Parse(uri)
		if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Host != strings.ToLower(u.Host) {
			t.Fatalf("%q of %q is not one plain URL: %v", uri, location, err)
		}
		// The path has no "@" but ours, so the version cannot pass for a path.
		place, got, found := strings.Cut(strings.TrimPrefix(uri, "git+"), "@")
		if found != (version != "") {
			t.Fatalf("%q with version %q", uri, version)
		}
		if plain, err := url.PathUnescape(got); err != nil || plain != version {
			t.Fatalf("version %q came out as %q (%v)", version, plain, err)
		}
		for segment := range strings.SplitSeq(u.Path[:len(u.Path)-len(version)], "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q has a dot segment", uri)
			}
		}
		if strings.HasSuffix(place, ".git") {
			return // a.git.git
		}
		if again, err := gitURI(place, version); err != nil || again != uri {
			t.Fatalf("%q became %q, %v", uri, again, err)
		}
	})
}
