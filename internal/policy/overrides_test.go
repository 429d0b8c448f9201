package policy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// harmlessOverrides are those that prod takes by default: none of them says what is
// built, by what, or with whose rights.
var harmlessOverrides = []string{
	"sourceVersion", "timeoutInMinutes", "queuedTimeoutInMinutes", "autoRetryLimit",
	"source.gitCloneDepth", "source.reportBuildStatus", "source.buildStatusConfig.context", "source.buildStatusConfig.targetUrl",
	"logsConfig.cloudWatchLogs.status", "logsConfig.cloudWatchLogs.groupName", "logsConfig.cloudWatchLogs.streamName",
	"logsConfig.s3Logs.status", "logsConfig.s3Logs.location", "logsConfig.s3Logs.encryptionDisabled", "logsConfig.s3Logs.bucketOwnerAccess",
}

// overridable are the fields that package codebuild compares, read from its source:
// a misspelt field would be one that is never met, and a new one needs a decision.
func overridable(tb testing.TB) []string {
	tb.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../codebuild/overrides.go", nil, 0)
	if err != nil {
		tb.Fatal(err)
	}
	// What the functions that compare a part are called with.
	parts := map[string][]string{
		"source":          {"source", "secondarySources.tools"},
		"compareArtifact": {"artifacts", "secondaryArtifacts.docs"},
	}
	found := map[string]bool{}
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(function, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if !callsDiff(n) {
					break
				}
				for _, field := range fieldsOf(n.Args[0], parts[function.Name.Name]) {
					found[field] = true
				}
			case *ast.AssignStmt: // field := "environment.environmentVariables." + label(name)
				if left, ok := n.Lhs[0].(*ast.Ident); ok && left.Name == "field" {
					for _, field := range fieldsOf(n.Rhs[0], nil) {
						found[field] = true
					}
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// callsDiff recognises d.str(field, …) and its like.
func callsDiff(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) < 3 {
		return false
	}
	receiver, ok := method.X.(*ast.Ident)
	return ok && receiver.Name == "d"
}

// fieldsOf returns the fields that an expression may name.
func fieldsOf(e ast.Expr, parts []string) []string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err == nil {
			return []string{text}
		}
	case *ast.BinaryExpr: // field + ".type", "secondarySources." + label(id)
		if suffix, ok := e.Y.(*ast.BasicLit); ok {
			var out []string
			for _, part := range parts {
				out = append(out, part+fieldsOf(suffix, nil)[0])
			}
			return out
		}
		return []string{fieldsOf(e.X, nil)[0] + "x"}
	}
	return nil
}

// TestOverrides asks prod about a build for each field that CodeBuild lets whoever
// starts it override, and what else makes one override more than the project.
func TestOverrides(t *testing.T) {
	set := defaultSet(t)
	fields := overridable(t)
	for _, field := range harmlessOverrides {
		if !slices.Contains(fields, field) {
			t.Errorf("package codebuild has no field %s", field)
		}
	}
	for _, field := range []string{ // one of each class, so that reading the source is known to find them
		"source.type", "source.location", "source.buildspec", "source.insecureSsl", "source.auth.resource", "source.gitSubmodulesConfig.fetchSubmodules",
		"secondarySources.x", "secondarySources.tools.buildspec", "secondarySourceVersions.x",
		"environment.type", "environment.image", "environment.privilegedMode", "environment.certificate", "environment.fleet.fleetArn",
		"environment.registryCredential.credential", "environment.environmentVariables.x",
		"artifacts.location", "secondaryArtifacts.docs.location", "serviceRole", "cache.location", "fileSystemLocations",
		"vpcConfig.subnets", "encryptionKey", "debugSession.sessionEnabled",
	} {
		if !slices.Contains(fields, field) {
			t.Errorf("%s is not among the fields: %q", field, fields)
		}
	}
	prod := func(fields ...string) Decision {
		list := make([]string, len(fields))
		for i, field := range fields {
			list[i] = fmt.Sprintf(`{"field":%q}`, field)
		}
		return judge(t, set, askAll("prod"), build{Predicate: edited(t, codeBuildPredicate, overridden, `"overrides":[`+strings.Join(list, ",")+`]`)})
	}
	refused := 0
	for _, field := range fields {
		t.Run(field, func(t *testing.T) {
			d := prod(field)
			if slices.Contains(harmlessOverrides, field) {
				if !d.Allowed {
					t.Errorf("%s: %s", d.Code, d.Message)
				}
				return
			}
			refused++
			if d.Code != CodeDeniedByRule || d.unmet() != "prod-no-overrides" {
				t.Errorf("%s, unmet %q", d.Code, d.unmet())
			}
			// Something harmless beside it hides nothing.
			if d := prod("sourceVersion", field); d.Code != CodeDeniedByRule || d.unmet() != "prod-no-overrides" {
				t.Errorf("beside sourceVersion: %s, unmet %q", d.Code, d.unmet())
			}
		})
	}
	if refused < 50 {
		t.Errorf("%d fields are refused; some are missing", refused)
	}
	for name, tt := range map[string]struct {
		fields []string
		unmet  string
	}{
		"none":                      {nil, ""},
		"everything harmless":       {harmlessOverrides, ""},
		"a replaced source":         {[]string{"environment.image", "source.buildspec", "source.location", "source.type", "sourceVersion"}, "prod-no-overrides"},
		"another case":              {[]string{"SourceVersion"}, "prod-no-overrides"},
		"a space":                   {[]string{"sourceVersion "}, "prod-no-overrides"},
		"no name":                   {[]string{""}, "prod-no-overrides"},
		"a variable called like it": {[]string{"environment.environmentVariables.sourceVersion"}, "prod-no-overrides"},
		"a field of a later day":    {[]string{"hostKernel"}, "prod-no-overrides"},
	} {
		t.Run(name, func(t *testing.T) {
			if d := prod(tt.fields...); d.Allowed != (tt.unmet == "") || d.unmet() != tt.unmet {
				t.Errorf("%s, unmet %q, want %q", d.Code, d.unmet(), tt.unmet)
			}
		})
	}
}

// TestProjectChanged: a project that was changed to look like the build hides what
// was overridden, whatever else is known.
func TestProjectChanged(t *testing.T) {
	set := defaultSet(t)
	changed := []string{`["privileged-override"]`, `["artifact-digest-unconfirmed","project-changed"]`}
	for _, base := range []string{asConfigured, edited(t, asConfigured, inJob, postBuild)} {
		d := judge(t, set, askAll("prod"), build{Predicate: edited(t, base, changed...)})
		if d.Code != CodeDeniedByRule || d.unmet() != "prod-no-overrides" {
			t.Errorf("%s, unmet %q", d.Code, d.unmet())
		}
		if found := d.rule(t, "prod-no-overrides").Found; !strings.Contains(found, `resource.provenance.downgrades = ["artifact-digest-unconfirmed", "project-changed"]`) {
			t.Errorf("found %s", found)
		}
		if d := judge(t, set, askAll("staging"), build{Predicate: edited(t, base, changed...)}); !d.Allowed {
			t.Errorf("staging: %s, unmet %q", d.Code, d.unmet())
		}
	}
}
