package server

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/assay-build/assay/internal/refusal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	assayv1 "github.com/assay-build/assay/proto/assay/v1"
)

// declaredCodes finds every refusal.Code constant of the module.
func declaredCodes(t *testing.T) map[string]string {
	t.Helper()
	codes := make(map[string]string) // value → where
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !isCode(spec) {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				if v, err := strconv.Unquote(lit.Value); err == nil {
					codes[v] = path
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

// isCode recognises refusal.Code constants, and the client's, which are plain
// strings because that package is public.
func isCode(spec *ast.ValueSpec) bool {
	switch e := spec.Type.(type) {
	case *ast.SelectorExpr:
		x, ok := e.X.(*ast.Ident)
		return ok && x.Name == "refusal" && e.Sel.Name == "Code"
	case *ast.Ident:
		return e.Name == "Code"
	case nil:
		return strings.HasPrefix(spec.Names[0].Name, "Code")
	}
	return false
}

// TestErrorsAreDocumented compares docs/errors.md with the code, both ways.
func TestErrorsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredCodes(t)
	if len(declared) < 100 {
		t.Fatalf("found only %d codes: the search is broken", len(declared))
	}
	documented := make(map[string]bool)
	withStatus := false
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| code |") {
			withStatus = strings.Contains(line, "| status |")
		}
		rest, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		code, rest, _ := strings.Cut(rest, "`")
		documented[code] = true
		if said := strings.TrimSpace(strings.Split(rest, "|")[1]); withStatus && declared[code] != "" {
			if is := statusCode(refusal.Code(code)); said != "" && said != wireName(is) || said == "" && is != codes.Internal {
				t.Errorf("docs/errors.md says %q of %s, which is %s", said, code, wireName(is))
			}
		}
	}
	for code, path := range declared {
		if !documented[code] {
			t.Errorf("%s (%s) is not in docs/errors.md", code, path)
		}
	}
	for code := range documented {
		if strings.ToUpper(code) == code && declared[code] == "" {
			t.Errorf("docs/errors.md lists %s, which no code declares", code)
		}
	}
}

// wireName is a status as the wire's own documents spell it: INVALID_ARGUMENT.
func wireName(c codes.Code) string {
	return strings.ToUpper(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(c.String(), "${1}_${2}"))
}

// TestConfigIsDocumented compares the YAML keys with docs/configuration.md.
func TestConfigIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range yamlKeys(reflect.TypeFor[Config](), "") {
		if !strings.Contains(string(doc), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not name `%s`", key)
		}
	}
}

func yamlKeys(typ reflect.Type, at string) []string {
	var out []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag := f.Tag.Get("yaml")
		if tag == "-" {
			continue
		}
		key, inner := at+tag, f.Type
		if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
			key, inner = key+"[]", inner.Elem()
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			out = append(out, yamlKeys(inner, key+".")...)
			continue
		}
		out = append(out, key)
	}
	return out
}

// TestEveryMethodHasAccess compares the access table with the service descriptors.
func TestEveryMethodHasAccess(t *testing.T) {
	table := methodAccess()
	want := map[string]bool{"/grpc.health.v1.Health/Check": true, "/grpc.health.v1.Health/List": true, "/grpc.health.v1.Health/Watch": true}
	for _, d := range []grpc.ServiceDesc{
		assayv1.AttestationService_ServiceDesc, assayv1.AuditService_ServiceDesc, assayv1.IdentityService_ServiceDesc,
		assayv1.PolicyService_ServiceDesc, assayv1.VerificationService_ServiceDesc,
	} {
		for _, m := range d.Methods {
			want["/"+d.ServiceName+"/"+m.MethodName] = true
		}
		for _, s := range d.Streams {
			want["/"+d.ServiceName+"/"+s.StreamName] = true
		}
	}
	for m := range want {
		if a := table[m]; !a.public && (a.action == "" || a.kind == "") {
			t.Errorf("%s has no entry in the access table", m)
		}
	}
	for m := range table {
		if !want[m] {
			t.Errorf("the access table lists %s, which no service has", m)
		}
	}
}
