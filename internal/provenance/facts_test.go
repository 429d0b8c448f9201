package provenance

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/assay-build/assay/internal/identity"
	"github.com/assay-build/assay/internal/refusal"
)

// Each fact that tells two builds apart must tell their statements apart. So each
// field of each fact struct is changed in turn; those that rightly change nothing
// are known by name.
func TestEveryFactCounts(t *testing.T) {
	t.Parallel()
	silent := map[string]string{
		".DisplayName": "for people only",
		// GitHub
		".GitHub.RepositoryOwner": "part of Repository", ".GitHub.RepositoryVisibility": "changes without a build",
		".GitHub.RefType": "the ref says it", ".GitHub.RunNumber": "RunID is the run's",
		".GitHub.Actor": "personal; decides nothing", ".GitHub.ActorID": "personal; decides nothing",
		".GitHub.HeadRef": "chosen by the proposer", ".GitHub.BaseRef": "of the request, not of the build",
		// CodeBuild
		".CodeBuild.Build.Partition": "part of ARN", ".CodeBuild.Build.Project": "part of ProjectARN", ".CodeBuild.Build.UUID": "part of ARN",
		".CodeBuild.Build.Artifacts.[].SHA256":    "the subject's digest is its own",
		".CodeBuild.Build.Artifacts.[].VersionID": "the subject's digest is its own",
		".CodeBuild.Build.UploadStartedAt":        "bounds what Fetch takes", ".CodeBuild.Build.UploadEndedAt": "bounds what Fetch takes",
		".CodeBuild.Build.SecondarySources.[].Buildspec": "only the first source's counts", ".CodeBuild.Build.SecondarySources.[].BuildspecSHA256": "only the first source's counts",
		// AWS role
		".AWSRole.SessionName": "chosen by the holder", ".AWSRole.Partition": "part of RoleARN", ".AWSRole.PrincipalTags": "not of the artifact",
	}
	for name, source := range map[string]func() *identity.Caller{
		"github": direct, "codebuild": everyOverride, "batch": batch, "role": awsRole, "gitlab": gitLab,
	} {
		want := string(statement(t, writer(t), source()))
		paths := leaves(reflect.ValueOf(source()).Elem(), "")
		if len(paths) < 8 {
			t.Fatalf("%s: only %d facts were found", name, len(paths))
		}
		for _, path := range paths {
			c := source()
			changeAt(reflect.ValueOf(c).Elem(), strings.Split(path[1:], "."))
			st, err := writer(t).Statement(c, subjectsOf(source()))
			if err != nil {
				if refusal.CodeOf(err) == "" {
					t.Errorf("%s: %s: a refusal without code: %v", name, path, err)
				}
				continue // refused, so it counts
			}
			payload, err := st.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			_, known := silent[path]
			// ServerURL and ARN say it for GitHub and CodeBuild.
			if path == ".Issuer" {
				known = name != "gitlab" && name != "role"
			}
			if same := string(payload) == want; same != known {
				t.Errorf("%s: a change of %s leaves the statement the same: %v, expected %v", name, path, same, known)
			}
		}
	}
}

// leaves lists the paths of all fields that have no fields; elements of a list as
// its first, "[]".
func leaves(v reflect.Value, at string) []string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return leaves(v.Elem(), at)
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			return []string{at}
		}
		var out []string
		for i := range v.NumField() {
			if at == "" && v.Type().Field(i).Name == "Kind" {
				continue
			}
			out = append(out, leaves(v.Field(i), at+"."+v.Type().Field(i).Name)...)
		}
		return out
	case reflect.Slice:
		if v.Len() > 0 && v.Index(0).Kind() == reflect.Struct {
			return leaves(v.Index(0), at+".[]")
		}
	}
	return []string{at}
}

func changeAt(v reflect.Value, path []string) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if len(path) > 0 {
		if path[0] == "[]" {
			changeAt(v.Index(0), path[1:])
			return
		}
		changeAt(v.FieldByName(path[0]), path[1:])
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "0")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Slice:
		element := reflect.New(v.Type().Elem()).Elem()
		if element.Kind() == reflect.String {
			element.SetString("x=1")
		}
		v.Set(reflect.Append(v, element))
	case reflect.Struct:
		v.Set(reflect.ValueOf(v.Interface().(time.Time).Add(time.Second)))
	}
}

func TestCodeBuildRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*identity.CodeBuild)
		want   refusal.Code
	}{
		{"nothing wrong", func(*identity.CodeBuild) {}, ""},
		{"no ARN", func(c *identity.CodeBuild) { c.Build.ARN = "" }, CodeFactMissing},
		{"no project", func(c *identity.CodeBuild) { c.Build.ProjectARN = "" }, CodeFactMissing},
		{"no account", func(c *identity.CodeBuild) { c.Build.Account = "" }, CodeFactMissing},
		{"no region", func(c *identity.CodeBuild) { c.Build.Region = "" }, CodeFactMissing},
		{"no role", func(c *identity.CodeBuild) { c.Build.ServiceRole = "" }, CodeFactMissing},
		{"no start", func(c *identity.CodeBuild) { c.Build.StartedAt = time.Time{} }, CodeFactMissing},
		{"no end", func(c *identity.CodeBuild) { c.Build.FinishedAt = time.Time{} }, CodeFactMissing},
		{"no source type", func(c *identity.CodeBuild) { c.Build.Source.Type = "" }, CodeFactMissing},
		{"no environment type", func(c *identity.CodeBuild) { c.Build.Environment.Type = "" }, CodeFactMissing},
		{"no image", func(c *identity.CodeBuild) { c.Build.Environment.Image = "" }, CodeFactMissing},
		{"a branch for a commit", func(c *identity.CodeBuild) { c.Build.Source.Commit = "main" }, CodeFactInvalid},
		{"a short commit", func(c *identity.CodeBuild) { c.Build.Source.Commit = sha[:8] }, CodeFactInvalid},
		{"an odd image digest", func(c *identity.CodeBuild) { c.Build.Environment.ImageDigest = "sha256:" + hex("d", 64) }, CodeFactInvalid},
		{"an odd buildspec digest", func(c *identity.CodeBuild) { c.Build.Source.BuildspecSHA256 = "x" }, CodeFactInvalid},
		{"an odd secondary commit", func(c *identity.CodeBuild) { c.Build.SecondarySources[1].Commit = "HEAD" }, CodeFactInvalid},
		{"an unknown source type", func(c *identity.CodeBuild) { c.Build.Source.Type = "SVN" }, CodeSourceInvalid},
		{"no location", func(c *identity.CodeBuild) { c.Build.Source.Location = "" }, CodeSourceInvalid},
		{"an S3 bucket without a key", func(c *identity.CodeBuild) { c.Build.SecondarySources[0].Location = "acme-models" }, CodeSourceInvalid},
		{"secondary user information", func(c *identity.CodeBuild) {
			c.Build.SecondarySources[1].Location = "https://u:hunter2@bitbucket.org/a/b"
		}, CodeSourceInvalid},
	}
	for _, tt := range tests {
		c := batch()
		tt.change(c.CodeBuild)
		_, err := writer(t).Statement(c, subjects())
		if refusal.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the refusal tells a secret: %v", tt.name, err)
		}
	}
	for name, change := range map[string]func(*identity.Caller){
		"a commit by its name":  func(c *identity.Caller) { c.Workload.Commit = "HEAD" },
		"a pipeline by its tag": func(c *identity.Caller) { c.Workload.BuildConfigDigest = "v1" },
	} {
		c := gitLab()
		change(c)
		if _, err := writer(t).Statement(c, subjects()); refusal.CodeOf(err) != CodeFactInvalid {
			t.Errorf("%s: %v, want %s", name, err, CodeFactInvalid)
		}
	}
	for name, c := range map[string]*identity.Caller{
		"a role without an ARN": {Kind: identity.KindAWSRole, AWSRole: &identity.AWSRole{Account: "111122223333"}},
		"no subject":            {Kind: identity.KindWorkload, Workload: &identity.Workload{Platform: "x509"}},
	} {
		if _, err := writer(t).Statement(c, subjects()); refusal.CodeOf(err) != CodeFactMissing {
			t.Errorf("%s: %v, want %s", name, err, CodeFactMissing)
		}
	}
}

// A source that is no git repository is told as far as CodeBuild tells it.
func TestCodeBuildSources(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ kind, location, version, revision, want string }{
		{"NO_SOURCE", "", "", "", ""},
		{"CODEPIPELINE", "", "", "8d0c0e4e", ""},
		{"S3", "acme-source/app.zip", "", "", "s3://acme-source/app.zip"},
		{"S3", "acme-source/app.zip", "3sL4", "", "s3://acme-source/app.zip?versionId=3sL4"},
		{"GITLAB_SELF_MANAGED", "https://git.example.com/g/s/app.git", "v1", "", "git+https://git.example.com/g/s/app@v1"},
	} {
		c := postBuild()
		s := &c.CodeBuild.Build.Source
		s.Type, s.Location, s.Version, s.Revision, s.Commit = tt.kind, tt.location, tt.version, tt.revision, ""
		d, err := writer(t).Describe(c)
		if err != nil || d.SourceURI != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.kind, d.SourceURI, err, tt.want)
		}
		payload := statement(t, writer(t), c)
		if err := compileSchema(t, "codebuild-v1").Validate(parse(t, payload)); err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(payload), tt.revision) {
			t.Errorf("%s: the revision is lost", tt.kind)
		}
		checkInToto(t, payload)
	}
}
