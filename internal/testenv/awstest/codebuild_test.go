package awstest

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// turnedClock shows the time that a test turns it to. It starts now, since the SDK
// signs with the real time.
type turnedClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *turnedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *turnedClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newTurnedWorld(t *testing.T) (*World, *turnedClock) {
	t.Helper()
	c := &turnedClock{at: time.Now()}
	w, err := New(Config{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, c
}

// reader is a client that may read the builds of an account.
func reader(w *World, a *Account) *codebuild.Client {
	return codebuild.NewFromConfig(w.AWSConfig(a.Role("reader").Allow("codebuild:*").Session("assay"), testRegion))
}

func getBuild(t *testing.T, c *codebuild.Client, id string) types.Build {
	t.Helper()
	out, err := c.BatchGetBuilds(t.Context(), &codebuild.BatchGetBuildsInput{Ids: []string{id}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Builds) != 1 || len(out.BuildsNotFound) != 0 {
		t.Fatalf("%d builds, not found: %v", len(out.Builds), out.BuildsNotFound)
	}
	return out.Builds[0]
}

var sameRecord = cmp.Options{
	cmpopts.IgnoreUnexported(types.Build{}, types.Project{}), cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && f.Name() == "noSmithyDocumentSerde"
	}, cmp.Ignore()),
}

// fill sets every field of a record to something that is not its zero value.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Struct:
		if _, ok := v.Interface().(time.Time); ok {
			v.Set(reflect.ValueOf(time.UnixMilli(1732267800123 + int64(*n)).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	case reflect.String:
		v.SetString("text " + strings.Repeat("x", *n%7))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	}
}

// TestWireJSON has the SDK read back records in which every field is set.
func TestWireJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	p := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild")})
	b := p.StartBuild(StartBuild{})
	n := 0
	b.Edit(func(r *types.Build) { fill(reflect.ValueOf(r).Elem(), &n) })
	p.Edit(func(r *types.Project) { fill(reflect.ValueOf(r).Elem(), &n) })
	c := reader(w, acct)
	if d := cmp.Diff(b.Record(), getBuild(t, c, b.ID), sameRecord); d != "" {
		t.Errorf("build (-stored +read):\n%s", d)
	}
	out, err := c.BatchGetProjects(t.Context(), &codebuild.BatchGetProjectsInput{Names: []string{"app"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]types.Project{p.Record()}, out.Projects, sameRecord); d != "" {
		t.Errorf("project (-stored +read):\n%s", d)
	}
}

func TestBatchGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, away := w.Account(testAccount), w.Account(otherAccount)
	app := home.Project(testRegion, Project{Name: "app", ServiceRole: home.Role("codebuild")})
	b := app.StartBuild(StartBuild{})
	elsewhere := home.Project("us-west-2", Project{Name: "app", ServiceRole: home.Role("codebuild")}).StartBuild(StartBuild{})
	foreign := away.Project(testRegion, Project{Name: "app", ServiceRole: away.Role("codebuild")}).StartBuild(StartBuild{})

	one := home.Role("one").AllowOn("codebuild:BatchGetBuilds", app.ARN)
	all := home.Role("all").Allow("*")
	for _, tt := range []struct {
		name    string
		role    *Role
		ids     []string
		found   []string
		missing []string
		code    string
	}{
		{"by id", one, []string{b.ID}, []string{b.ARN}, nil, ""},
		{"by ARN", one, []string{b.ARN}, []string{b.ARN}, nil, ""},
		{"the same twice", one, []string{b.ARN, b.ID}, []string{b.ARN}, nil, ""},
		{"found and not", all, []string{"app:none", b.ID}, []string{b.ARN}, []string{"app:none"}, ""},
		{"of another region", all, []string{elsewhere.ID}, nil, []string{elsewhere.ID}, ""},
		{"ARN of another region", all, []string{elsewhere.ARN}, nil, []string{elsewhere.ARN}, ""},
		{"of another account", all, []string{foreign.ID}, nil, []string{foreign.ID}, ""},
		{"ARN of another account", all, []string{foreign.ARN}, nil, nil, "AccessDeniedException"},
		{"of another project", one, []string{b.ID, "other:" + b.UUID}, nil, nil, "AccessDeniedException"},
		{"not allowed", home.Role("nobody"), []string{b.ID}, nil, nil, "AccessDeniedException"},
		{"none", all, []string{}, nil, nil, "InvalidInputException"},
		{"empty", all, []string{""}, nil, nil, "InvalidInputException"},
		{"too many", all, make101(b.ID), nil, nil, "InvalidInputException"},
		{"no UUID", all, []string{"app"}, nil, nil, "InvalidInputException"},
		{"ARN of a project", all, []string{app.ARN}, nil, nil, "InvalidInputException"},
		{"ARN of a batch", all, []string{strings.Replace(b.ARN, ":build/", ":build-batch/", 1)}, nil, nil, "InvalidInputException"},
		{"ARN of another partition", all, []string{strings.Replace(b.ARN, "arn:aws:", "arn:aws-cn:", 1)}, nil, nil, "InvalidInputException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := codebuild.NewFromConfig(w.AWSConfig(tt.role.Session("s"), testRegion))
			out, err := c.BatchGetBuilds(t.Context(), &codebuild.BatchGetBuildsInput{Ids: tt.ids})
			if tt.code != "" {
				wantCode(t, err, tt.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, b := range out.Builds {
				found = append(found, aws.ToString(b.Arn))
			}
			want(t, "found", found, tt.found)
			want(t, "not found", out.BuildsNotFound, append([]string{}, tt.missing...))
		})
	}
}

func make101(id string) []string {
	ids := make([]string, 101)
	for i := range ids {
		ids[i] = id
	}
	return ids
}

func TestBatchGetProjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct := w.Account(testAccount)
	p := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild", Path("/service-role/"))})
	out, err := reader(w, acct).BatchGetProjects(t.Context(), &codebuild.BatchGetProjectsInput{Names: []string{p.ARN, "none"}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "not found", out.ProjectsNotFound, []string{"none"})
	want(t, "projects", len(out.Projects), 1)
	got := out.Projects[0]
	want(t, "role", aws.ToString(got.ServiceRole), "arn:aws:iam::111122223333:role/service-role/codebuild")
	want(t, "source", aws.ToString(got.Source.Location), "https://github.com/acme/app.git")
	_, err = reader(w, acct).BatchGetProjects(t.Context(), &codebuild.BatchGetProjectsInput{Names: []string{"app:1"}})
	wantCode(t, err, "InvalidInputException")
	_, err = reader(w, acct).ListProjects(t.Context(), &codebuild.ListProjectsInput{})
	wantCode(t, err, "UnknownOperationException")
}

// TestWireShape looks at the bytes: times are numbers, absent members absent.
func TestWireShape(t *testing.T) {
	t.Parallel()
	w, clk := newTurnedWorld(t)
	clk.at = time.Date(2026, 11, 22, 9, 0, 0, 123456e3, time.UTC)
	acct := w.Account(testAccount)
	b := acct.Project(testRegion, Project{Name: "app", ServiceRole: acct.Role("codebuild")}).StartBuild(StartBuild{})
	data, err := json.Marshal(wireJSON(b.Record()))
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"startTime": "1795338000.123", "buildComplete": "false", "currentPhase": `"QUEUED"`, "buildNumber": "1",
		"artifacts": `{"location":""}`, "secondarySources": "[]", "endTime": "", "resolvedSourceVersion": "", "buildBatchArn": "",
	} {
		want(t, name, string(members[name]), text)
	}
}
