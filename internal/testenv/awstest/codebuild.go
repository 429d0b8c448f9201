package awstest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// maxBatch is how many records one request may ask for.
const maxBatch = 100

// buildStore holds the projects of every account and region, and their builds.
type buildStore struct {
	mu       sync.Mutex
	projects map[string]*BuildProject // by ARN
	builds   map[string]*Build        // by ARN
}

func newBuildStore() *buildStore {
	return &buildStore{projects: map[string]*BuildProject{}, builds: map[string]*Build{}}
}

func (s *buildStore) project(arn string) *BuildProject {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.projects[arn]
}

func (s *buildStore) build(arn string) *Build {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.builds[arn]
}

func (w *World) serveCodeBuild(c *call) *reply {
	switch c.action {
	case "BatchGetBuilds":
		return c.batchGet("ids", "build/", "builds", func(arn string) any {
			if b := w.data.builds.build(arn); b != nil {
				return wireJSON(b.Record())
			}
			return nil
		})
	case "BatchGetProjects":
		return c.batchGet("names", "project/", "projects", func(arn string) any {
			if p := w.data.builds.project(arn); p != nil {
				return wireJSON(p.Record())
			}
			return nil
		})
	}
	return c.fail(http.StatusBadRequest, "UnknownOperationException", "")
}

// batchGet answers a request for records by their ids or ARNs. The caller must be
// allowed all of them; those that do not exist are named in the answer. Records
// stand in the answer in the order of the request, each once.
func (c *call) batchGet(member, kind, out string, find func(arn string) any) *reply {
	ids, refused := c.readIDs(member)
	if refused != nil {
		return refused
	}
	records, missing := []any{}, []string{}
	seen := map[string]bool{}
	for _, id := range ids {
		arn, refused := c.readID(id, kind)
		if refused != nil {
			return refused
		}
		if seen[arn] {
			continue
		}
		seen[arn] = true
		if record := find(arn); record != nil && strings.HasPrefix(arn, c.codeBuildARN(kind)) {
			records = append(records, record)
		} else {
			missing = append(missing, id)
		}
	}
	return jsonReply(http.StatusOK, map[string]any{out: records, out + "NotFound": missing})
}

// readIDs reads the one member of the request and holds it to the model: between
// one and 100 strings, none of them empty.
func (c *call) readIDs(member string) ([]string, *reply) {
	var in map[string]json.RawMessage
	var ids []string
	if err := json.Unmarshal(c.body, &in); err != nil {
		return nil, c.fail(http.StatusBadRequest, "SerializationException", "the body is no JSON object")
	}
	if text, ok := in[member]; ok && json.Unmarshal(text, &ids) != nil {
		return nil, c.fail(http.StatusBadRequest, "SerializationException", member+" is no list of strings")
	}
	if len(ids) < 1 || len(ids) > maxBatch || slices.Contains(ids, "") {
		return nil, c.fail(http.StatusBadRequest, "InvalidInputException",
			"1 validation error detected: Value at '"+member+"' failed to satisfy constraint: between 1 and 100 members, each of length 1 or more")
	}
	return ids, nil
}

// readID returns the ARN that id names, by itself or by name in the account and
// region of the call, after it was checked that the caller may read it: the
// permission is that for the project. No project here is shared, so that another
// account's are denied whatever the caller's own permissions say.
func (c *call) readID(id, kind string) (string, *reply) {
	arn := id
	if !strings.HasPrefix(id, "arn:") {
		arn = c.codeBuildARN(kind) + id
	}
	parts := strings.SplitN(arn, ":", 6) // arn:PARTITION:codebuild:REGION:ACCOUNT:build/PROJECT:UUID
	if len(parts) < 6 || parts[1] != c.principal.account.partition || parts[2] != "codebuild" || !strings.HasPrefix(parts[5], kind) {
		return "", c.fail(http.StatusBadRequest, "InvalidInputException", "Invalid ID: "+id)
	}
	name := strings.TrimPrefix(parts[5], kind)
	project, build, isBuild := strings.Cut(name, ":")
	if project == "" || isBuild != (kind == "build/") || isBuild && build == "" {
		return "", c.fail(http.StatusBadRequest, "InvalidInputException", "Invalid ID: "+id)
	}
	resource := strings.Join(parts[:5], ":") + ":project/" + project
	if refused := c.allow(resource); refused != nil {
		return "", refused
	}
	if parts[4] != c.principal.account.id {
		return "", c.denied(resource)
	}
	return arn, nil
}

// codeBuildARN is an ARN of a resource of the caller's account in the region of
// the call.
func (c *call) codeBuildARN(resource string) string {
	return c.principal.account.arn("codebuild", c.region, resource)
}

func (c *call) denied(resource string) *reply {
	return c.fail(http.StatusBadRequest, "AccessDeniedException",
		"User: "+c.principal.arn+" is not authorized to perform: codebuild:"+c.action+" on resource: "+resource+
			" because no resource-based policy allows the codebuild:"+c.action+" action")
}
