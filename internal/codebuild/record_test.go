package codebuild

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	raw := buildOf(fullProject())
	raw.ResolvedSourceVersion = aws.String(strings.Repeat("a1", 20))
	raw.BuildBatchArn = aws.String("arn:aws:codebuild:eu-west-1:111122223333:build-batch/app:" + testUUID)
	raw.DebugSession = &types.DebugSession{SessionEnabled: aws.Bool(true)}
	raw.ExportedEnvironmentVariables = []types.ExportedEnvironmentVariable{{Name: aws.String("EXPORTED"), Value: aws.String("canary")}}
	b, err := normalise(raw, fullProject())
	if err != nil {
		t.Fatal(err)
	}
	if b.Source.Commit != strings.Repeat("a1", 20) || b.Source.Version != "main" || b.Source.Buildspec != "ci/buildspec.yml" || !b.Source.GitSubmodules {
		t.Errorf("source %+v", b.Source)
	}
	if len(b.SecondarySources) != 2 || b.SecondarySources[0].Identifier != "data" || b.SecondarySources[1].Version != "v1" || b.SecondarySources[1].Commit != "" {
		t.Errorf("secondary sources %+v", b.SecondarySources)
	}
	if d := b.Environment.DockerServer; d == nil || *d != (DockerServer{ComputeType: "BUILD_GENERAL1_SMALL"}) {
		t.Errorf("docker server %+v", d)
	}
	if b.Environment.ImageDigest != strings.Repeat("ab", 32) {
		t.Errorf("image digest %q", b.Environment.ImageDigest)
	}
	want := []Variable{{Name: "DB", Type: "PARAMETER_STORE", Value: "/app/db"}, {Name: "INTERNAL", Type: "PLAINTEXT", Redacted: true}, {Name: "STAGE", Type: "PLAINTEXT", Value: "prod"}}
	if fmt.Sprint(b.Environment.Variables) != fmt.Sprint(want) {
		t.Errorf("variables %+v", b.Environment.Variables)
	}
	if !b.DebugSession || b.CacheType != "S3" || len(b.FileSystems) != 1 || b.VPC != "vpc-1" || b.Fleet == "" || b.Number != 7 || b.BatchARN == "" {
		t.Errorf("%+v", b)
	}
	stored, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	quiet(t, "the record", string(stored), "canary", "untold", "EXPORTED")
	var back Build
	if err := attest.DecodeStrict(stored, MaxBuildBytes, &back); err != nil {
		t.Errorf("the stored form: %v", err)
	}
}

func TestRecordSources(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		source   types.ProjectSource
		resolved string
		want     Source
	}{
		"git":              {types.ProjectSource{Type: "GITHUB", Location: aws.String("https://github.com/a/b")}, strings.Repeat("0a", 20), Source{Type: "GITHUB", Location: "https://github.com/a/b", Version: "v", Commit: strings.Repeat("0a", 20)}},
		"git, not a hash":  {types.ProjectSource{Type: "GITHUB", Location: aws.String("https://github.com/a/b")}, "refs/heads/main", Source{Type: "GITHUB", Location: "https://github.com/a/b", Version: "v"}},
		"git, short hash":  {types.ProjectSource{Type: "CODECOMMIT", Location: aws.String("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/b")}, "0a0a0a0", Source{Type: "CODECOMMIT", Location: "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/b", Version: "v"}},
		"S3":               {types.ProjectSource{Type: "S3", Location: aws.String("b/src.zip")}, "", Source{Type: "S3", Location: "b/src.zip", Version: "v"}},
		"pipeline":         {types.ProjectSource{Type: "CODEPIPELINE"}, strings.Repeat("0a", 20), Source{Type: "CODEPIPELINE", Version: "v", Revision: strings.Repeat("0a", 20)}},
		"inline buildspec": {types.ProjectSource{Type: "NO_SOURCE", Buildspec: aws.String("version: 0.2")}, "", Source{Type: "NO_SOURCE", Version: "v", BuildspecSHA256: hexSHA256("version: 0.2")}},
		"JSON buildspec":   {types.ProjectSource{Type: "NO_SOURCE", Buildspec: aws.String(`{"version":0.2}`)}, "", Source{Type: "NO_SOURCE", Version: "v", BuildspecSHA256: hexSHA256(`{"version":0.2}`)}},
		"S3 buildspec":     {types.ProjectSource{Type: "NO_SOURCE", Buildspec: aws.String("arn:aws:s3:::b/spec.yml")}, "", Source{Type: "NO_SOURCE", Version: "v", Buildspec: "arn:aws:s3:::b/spec.yml"}},
		"secret as path":   {types.ProjectSource{Type: "NO_SOURCE", Buildspec: aws.String(canaries["github"])}, "", Source{Type: "NO_SOURCE", Version: "v", BuildspecSHA256: hexSHA256(canaries["github"])}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := buildOf(fullProject())
			raw.Source, raw.SourceVersion, raw.ResolvedSourceVersion = &c.source, aws.String("v"), &c.resolved
			b, err := normalise(raw, fullProject())
			if err != nil || b.Source != c.want {
				t.Errorf("%+v, %v", b, err)
			}
		})
	}
}

func TestHostileRecords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*types.Build)
		want refusal.Code
	}{
		"no source":             {func(b *types.Build) { b.Source = nil }, CodeRecordInvalid},
		"source of no type":     {func(b *types.Build) { b.Source.Type = "" }, CodeRecordInvalid},
		"git, no location":      {func(b *types.Build) { b.Source.Location = nil }, CodeRecordInvalid},
		"git by ssh":            {func(b *types.Build) { b.Source.Location = aws.String("git@github.com:a/b") }, CodeRecordInvalid},
		"git from a file":       {func(b *types.Build) { b.Source.Location = aws.String("file:///etc") }, CodeRecordInvalid},
		"half a password":       {func(b *types.Build) { b.Source.Location = aws.String("https://u:pa/ss@github.com/a") }, CodeRecordSecret},
		"escaped password":      {func(b *types.Build) { b.Source.Location = aws.String("https://u:pw%40github.com/a") }, CodeRecordSecret},
		"parameter in location": {func(b *types.Build) { b.Source.Location = aws.String("https://github.com/a?private_token=c4n4ry") }, CodeRecordSecret},
		"query in location":     {func(b *types.Build) { b.Source.Location = aws.String("https://github.com/a?x=c4n4ry") }, CodeRecordInvalid},
		"fragment in location":  {func(b *types.Build) { b.Source.Location = aws.String("https://github.com/a#c4n4ry") }, CodeRecordInvalid},
		"parameter in version":  {func(b *types.Build) { b.SourceVersion = aws.String("x?private_token=c4n4ry") }, CodeRecordSecret},
		"escaped parameter":     {func(b *types.Build) { b.SourceVersion = aws.String("x%3Fclient%5fsecret%3dc4n4ry") }, CodeRecordSecret},
		"URL as version":        {func(b *types.Build) { b.SourceVersion = aws.String("https://h/?x=c4n4ry") }, CodeRecordInvalid},
		"query in certificate":  {func(b *types.Build) { b.Environment.Certificate = aws.String("https://h/ca.pem?sv=1&sig=c4n4ry") }, CodeRecordSecret},
		"token in location":     {func(b *types.Build) { b.Source.Location = aws.String("https://github.com/a?x=" + canaries["github"]) }, CodeRecordSecret},
		"token in version":      {func(b *types.Build) { b.SourceVersion = aws.String(canaries["github"]) }, CodeRecordSecret},
		"token in image":        {func(b *types.Build) { b.Environment.Image = aws.String("x:" + canaries["gitlab"]) }, CodeRecordSecret},
		"token in name":         {func(b *types.Build) { b.Environment.EnvironmentVariables[0].Name = aws.String(canaries["github"]) }, CodeRecordSecret},
		"line end in version":   {func(b *types.Build) { b.SourceVersion = aws.String("a\nb") }, CodeRecordInvalid},
		"escape in initiator":   {func(b *types.Build) { b.Initiator = aws.String("\x1b[2J") }, CodeRecordInvalid},
		"bidi in version":       {func(b *types.Build) { b.SourceVersion = aws.String("a\u202eb") }, CodeRecordInvalid},
		"not UTF-8":             {func(b *types.Build) { b.SourceVersion = aws.String("\xff") }, CodeRecordInvalid},
		"no environment":        {func(b *types.Build) { b.Environment = nil }, CodeRecordInvalid},
		"no image":              {func(b *types.Build) { b.Environment.Image = nil }, CodeRecordInvalid},
		"variable of no name":   {func(b *types.Build) { b.Environment.EnvironmentVariables[0].Name = nil }, CodeRecordInvalid},
		"variable twice":        {func(b *types.Build) { b.Environment.EnvironmentVariables[0].Name = aws.String("INTERNAL") }, CodeRecordInvalid},
		"source twice":          {func(b *types.Build) { b.SecondarySources[0].SourceIdentifier = aws.String("data") }, CodeRecordInvalid},
		"batch of another": {func(b *types.Build) {
			b.BuildBatchArn = aws.String("arn:aws:codebuild:eu-west-1:444455556666:build-batch/app:" + testUUID)
		}, CodeRecordInvalid},
		"batch is a build":  {func(b *types.Build) { b.BuildBatchArn = aws.String(testARN.String()) }, CodeRecordInvalid},
		"digest of no form": {func(b *types.Build) { b.Artifacts.Sha256sum = aws.String(strings.Repeat("A", 64)) }, CodeRecordInvalid},
		"digest of nothing": {func(b *types.Build) {
			b.Artifacts.Location, b.Artifacts.Sha256sum = nil, aws.String(strings.Repeat("a", 64))
		}, CodeRecordInvalid},
		"number negative": {func(b *types.Build) { b.BuildNumber = aws.Int64(-1) }, CodeRecordInvalid},
		"location long": {func(b *types.Build) {
			b.Source.Location = aws.String("https://h/" + strings.Repeat("a", maxFieldBytes))
		}, CodeRecordTooLarge},
		"location and version long": {func(b *types.Build) {
			b.Source.Location, b.SourceVersion = aws.String("https://h/"+strings.Repeat("a", 1024)), aws.String(strings.Repeat("é", 600))
		}, CodeRecordTooLarge},
		"buildspec long": {func(b *types.Build) { b.Source.Buildspec = aws.String(strings.Repeat("a: b\n", maxTextBytes/4)) }, CodeRecordTooLarge},
		"variables without end": {func(b *types.Build) {
			for i := range 3000 {
				b.Environment.EnvironmentVariables = append(b.Environment.EnvironmentVariables, types.EnvironmentVariable{Name: aws.String(fmt.Sprint("V", i))})
			}
		}, CodeRecordTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := buildOf(fullProject())
			c.edit(raw)
			_, err := normalise(raw, fullProject())
			wantCode(t, err, c.want)
			quiet(t, "the refusal", fmt.Sprint(err), canaries["github"], canaries["gitlab"], "pa/ss", "pw%40", "c4n4ry")
		})
	}
}

// TestSecretAsReference: somebody put the secret where its name belongs.
func TestSecretAsReference(t *testing.T) {
	t.Parallel()
	for _, kind := range []types.EnvironmentVariableType{types.EnvironmentVariableTypeParameterStore, types.EnvironmentVariableTypeSecretsManager, "NEW_TYPE"} {
		raw := buildOf(fullProject())
		raw.Environment.EnvironmentVariables = []types.EnvironmentVariable{{Name: aws.String("STAGE"), Value: aws.String(canaries["github"]), Type: kind}}
		b, err := normalise(raw, fullProject())
		if err != nil || !b.Environment.Variables[0].Redacted {
			t.Errorf("%s: %+v, %v", kind, b, err)
		}
		quiet(t, "the record", fmt.Sprintf("%+v", b), canaries["github"])
	}
}

func TestProjectChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		modified *time.Time
		want     bool
	}{
		"before":      {aws.Time(testStart.Add(-time.Millisecond)), false},
		"at the time": {aws.Time(testStart), true},
		"after":       {aws.Time(testStart.Add(time.Hour)), true},
		"unknown":     {nil, true},
	} {
		p := fullProject()
		p.LastModified = c.modified
		if b, err := normalise(buildOf(p), p); err != nil || b.ProjectChanged != c.want {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}

// TestSecretsNeverKept: a secret in the value of a variable, whatever the
// variable is called and whether it is allowed or overridden, is in no part of
// the record, nor in a refusal of it.
func TestSecretsNeverKept(t *testing.T) {
	t.Parallel()
	forms := make([]string, 0, len(canaries))
	for _, s := range canaries {
		forms = append(forms, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SampledFrom(forms).Draw(t, "secret")
		value := rapid.SampledFrom([]string{"", "x ", "key=", "https://h/?q="}).Draw(t, "before") + secret + rapid.SampledFrom([]string{"", " y", "\n"}).Draw(t, "after")
		name := rapid.SampledFrom([]string{"STAGE", "API_TOKEN", "OTHER"}).Draw(t, "name")
		secretive := types.EnvironmentVariable{Name: &name, Value: &value, Type: types.EnvironmentVariableTypePlaintext}
		p, raw := fullProject(), buildOf(fullProject())
		if rapid.Bool().Draw(t, "in project") {
			p.Environment.EnvironmentVariables = []types.EnvironmentVariable{secretive}
		}
		if rapid.Bool().Draw(t, "in build") {
			raw.Environment.EnvironmentVariables = []types.EnvironmentVariable{secretive}
		}
		b, err := normalise(raw, p)
		stored, _ := json.Marshal(b)
		if text := string(stored) + fmt.Sprint(err); err != nil || strings.Contains(text, secret) || strings.Contains(text, "hunter2") {
			t.Fatal(text)
		}
	})
}
