package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/assay-build/assay/internal/store"
)

// sbomMaker makes SBOMs as they are found: most components are in many of them, a few
// in no other. One maker is for one goroutine.
type sbomMaker struct {
	rng  *rand.Rand
	zipf *rand.Zipf
}

// universe is how many components there are that several SBOMs hold.
const universe = 20_000

func newSBOMMaker(seed uint64) *sbomMaker {
	rng := rand.New(rand.NewPCG(seed, 4))
	return &sbomMaker{rng, rand.NewZipf(rng, 1.1, 20, universe-1)}
}

// universal is the i-th component of the universe, the most popular first: of every
// name there are up to 40 versions, spread over it.
func universal(i int) store.Component {
	licenses := []string{"MIT", "Apache-2.0", "MIT", "ISC", "BSD-3-Clause", "MIT", "GPL-2.0-or-later", "LGPL-2.1-only"}
	name, version := fmt.Sprintf("library-%d", i%500), fmt.Sprintf("%d.%d.%d", i/500%7, i/500, i%11)
	return store.Component{
		PURL: "pkg:maven/org.example/" + name + "@" + version, Type: "maven", Namespace: "org.example",
		Name: name, Version: version, Licenses: []string{licenses[i%len(licenses)]},
	}
}

// make makes an SBOM of n common components and some that are of this artifact alone.
func (m *sbomMaker) make(n, own int, id string) *store.SBOM {
	b := &store.SBOM{Complete: true, Format: "cyclonedx"}
	seen := make(map[uint64]bool, n)
	for len(b.Components) < n {
		i := m.zipf.Uint64()
		if len(seen) > n/2 {
			i = m.rng.Uint64N(universe) // a Zipf sample without repetition takes for ever
		}
		if !seen[i] {
			seen[i] = true
			b.Components = append(b.Components, universal(int(i)))
		}
	}
	b.Components = append(b.Components, unique(own, id)...)
	return b
}

// unique are components that no other SBOM has.
func unique(n int, id string) (out []store.Component) {
	for i := range n {
		v := fmt.Sprintf("0.0.%d-%s", i, id[:12])
		out = append(out, store.Component{PURL: "pkg:npm/app@" + v, Type: "npm", Name: "app", Version: v, Licenses: []string{"MIT"}})
	}
	return out
}

// bundle is as large as that of the statement of such an SBOM, and as compressible.
func (m *sbomMaker) bundle(b *store.SBOM) []byte {
	type hash struct{ Alg, Content string }
	type component struct {
		Type, Name, Version, PURL, Ref string
		Licenses                       []string
		Hashes                         []hash
	}
	var doc struct{ Components []component }
	random := func(n int) string {
		var text strings.Builder
		for text.Len() < n {
			fmt.Fprintf(&text, "%016x", m.rng.Uint64())
		}
		return text.String()[:n]
	}
	for _, c := range b.Components {
		doc.Components = append(doc.Components, component{"library", c.Name, c.Version, c.PURL, c.PURL, c.Licenses, []hash{{"SHA-1", random(40)}}})
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		return nil // strings alone: it has none
	}
	return []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":"` +
		base64.StdEncoding.EncodeToString(payload) + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"` +
		random(3200) + `"}]}}`)
}
