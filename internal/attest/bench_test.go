package attest

import (
	"encoding/json"
	"testing"
)

// benchStatement is of the size of a GitHub provenance statement.
func benchStatement() *Statement {
	return &Statement{
		Type:          StatementTypeV1,
		Subjects:      []Subject{{Name: "dist/app-1.0_linux_amd64.tar.gz", Digest: map[string]string{"sha256": hex256, "sha512": hex512}}},
		PredicateType: PredicateSLSAProvenanceV1,
		Predicate: json.RawMessage(`{"buildDefinition":{"buildType":"https://actions.github.io/buildtypes/workflow/v1","externalParameters":{"workflow":{"path":".github/workflows/release.yml","ref":"refs/heads/main","repository":"https://github.com/octocat/hello-world"}},` +
			`"internalParameters":{"github":{"event_name":"push","repository_id":"1296269","repository_owner_id":"583231","runner_environment":"github-hosted"}},"resolvedDependencies":[{"uri":"git+https://github.com/octocat/hello-world@refs/heads/main","digest":{"gitCommit":"c27d339ee6075c1f744c5d4b200f7901aad2c369"}}]},` +
			`"runDetails":{"builder":{"id":"https://assay.example.com/builders/github-actions/github-hosted"},"metadata":{"invocationId":"https://github.com/octocat/hello-world/actions/runs/1536140711/attempts/1"}}}`),
	}
}

func benchParts(b *testing.B) *BundleParts {
	payload, err := benchStatement().Marshal()
	if err != nil {
		b.Fatal(err)
	}
	p := testParts()
	p.Envelope.Payload = payload
	return p
}

func BenchmarkStatementMarshal(b *testing.B) {
	s := benchStatement()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Marshal(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseStatement(b *testing.B) {
	payload, err := benchStatement().Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStatement(payload); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckJSON(b *testing.B) {
	payload, err := benchStatement().Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckJSON(payload, MaxStatementBytes); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPAE(b *testing.B) {
	p := benchParts(b)
	b.ReportAllocs()
	for b.Loop() {
		PAE(p.Envelope.PayloadType, p.Envelope.Payload)
	}
}

func BenchmarkEnvelopeMarshal(b *testing.B) {
	p := benchParts(b)
	b.ReportAllocs()
	for b.Loop() {
		p.Envelope.Marshal()
	}
}

func BenchmarkMarshalBundle(b *testing.B) {
	p := benchParts(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := MarshalBundle(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseOwnBundle(b *testing.B) {
	data := mustMarshal(b, benchParts(b))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseOwnBundle(data); err != nil {
			b.Fatal(err)
		}
	}
}
