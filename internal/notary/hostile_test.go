package notary

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/assay-build/assay/internal/attest"
	"github.com/assay-build/assay/internal/refusal"
)

const imageManifest = "application/vnd.oci.image.manifest.v1+json"

// Each case changes one thing of a signature that verifies, before it is signed, so that
// only the check it is about can refuse it.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	set := func(name string, value any) func(*draft) { return func(d *draft) { d.header[name] = value } }
	drop := func(name string) func(*draft) { return func(d *draft) { delete(d.header, name) } }
	target := func(name string, value any) func(*draft) { return func(d *draft) { d.target[name] = value } }
	crit := func(names ...string) func(*draft) { return set("crit", names) }
	after := func(f func(w wire)) func(*draft) {
		return func(d *draft) { d.after = func(w wire) error { f(w); return nil } }
	}
	unsigned := func(name string, value any) func(*draft) {
		return after(func(w wire) { w["header"].(map[string]any)[name] = value })
	}
	at := func(d time.Duration) string { return l.clock.Now().Add(d).Format(time.RFC3339) }
	all := []string{headerScheme, headerTime, headerExpiry, headerPlugin, headerProfile, headerJob}
	for name, c := range map[string]struct {
		change func(*draft)
		want   refusal.Code
	}{
		// Shape.
		"unknown member":         {after(func(w wire) { w["x"] = 1 }), CodeMalformed},
		"case variant":           {after(func(w wire) { w["Payload"] = w["payload"] }), CodeMalformed},
		"no payload":             {after(func(w wire) { delete(w, "payload") }), CodeMalformed},
		"no protected":           {after(func(w wire) { w["protected"] = nil }), CodeMalformed},
		"no signature":           {after(func(w wire) { w["signature"] = "" }), CodeMalformed},
		"padded base64":          {after(func(w wire) { w["signature"] = w["signature"].(string) + "=" }), CodeMalformed},
		"line break in payload":  {after(func(w wire) { w["payload"] = w["payload"].(string) + "\n" }), CodeMalformed},
		"general serialization":  {after(func(w wire) { w["signatures"] = []any{} }), CodeMalformed},
		"unknown unsigned":       {unsigned("alg", "none"), CodeMalformed},
		"timestamp nobody reads": {unsigned("io.cncf.notary.timestampSignature", "AAAA"), CodeMalformed},
		"long signing agent":     {unsigned("io.cncf.notary.signingAgent", strings.Repeat("a", 257)), CodeMalformed},
		"no chain":               {unsigned("x5c", []string{}), CodeMalformed},
		"leaf alone":             {func(d *draft) { d.chain = d.chain[:1] }, CodeMalformed},
		"long chain":             {func(d *draft) { d.chain = append(append(d.chain[:4:4], d.chain...), d.chain...) }, CodeMalformed},
		"certificate not DER":    {unsigned("x5c", []string{"AAAA", "AAAA"}), CodeMalformed},
		"payload not JSON":       {func(d *draft) { d.payload = []byte("x") }, CodeMalformed},
		"payload twice":          {func(d *draft) { d.payload = []byte(`{"targetArtifact":{},"targetArtifact":{}}`) }, CodeMalformed},
		"payload with platform":  {target("platform", map[string]string{"os": "linux"}), CodeMalformed},
		"payload too large":      {target("annotations", map[string]string{AnnotationPredicateType: strings.Repeat("a", 4096)}), CodeMalformed},
		"size a fraction":        {target("size", 1.5), CodeMalformed},
		"protected duplicate":    {func(d *draft) { d.raw = []byte(`{"alg":"ES384","alg":"ES384"}`) }, CodeMalformed},

		// Algorithm.
		"alg none":    {set("alg", "none"), CodeAlgorithm},
		"alg HS384":   {set("alg", "HS384"), CodeAlgorithm},
		"alg ES256":   {set("alg", "ES256"), CodeAlgorithm},
		"alg es384":   {set("alg", "es384"), CodeAlgorithm},
		"alg missing": {drop("alg"), CodeAlgorithm},

		// Attributes.
		"cty of a JWT":         {set("cty", "JWT"), CodeAttributes},
		"cty with parameter":   {set("cty", contentType+";v=1"), CodeAttributes},
		"scheme x509":          {set(headerScheme, "notary.x509"), CodeAttributes},
		"another plugin":       {set(headerPlugin, "com.example.plugin"), CodeAttributes},
		"no plugin":            {drop(headerPlugin), CodeAttributes},
		"unknown attribute":    {set("com.example.claim", "x"), CodeAttributes},
		"plugin version":       {set("io.cncf.notary.verificationPluginMinVersion", "1.0.0"), CodeAttributes},
		"key in the header":    {set("jwk", map[string]string{}), CodeAttributes},
		"crit missing":         {drop("crit"), CodeAttributes},
		"crit empty":           {crit(), CodeAttributes},
		"crit without expiry":  {crit(headerScheme, headerTime, headerPlugin, headerProfile, headerJob), CodeAttributes},
		"crit without time":    {crit(headerScheme, headerExpiry, headerPlugin, headerProfile, headerJob), CodeAttributes},
		"crit without scheme":  {crit(all[1:]...), CodeAttributes},
		"crit without plugin":  {crit(headerScheme, headerTime, headerExpiry, headerProfile, headerJob), CodeAttributes},
		"crit unknown":         {crit(append(all[:6:6], "b64")...), CodeAttributes},
		"crit registered":      {crit(append(all[:6:6], "alg")...), CodeAttributes},
		"crit twice":           {crit(append(all[:6:6], headerJob)...), CodeAttributes},
		"no expiry":            {drop(headerExpiry), CodeAttributes},
		"expiry null":          {set(headerExpiry, nil), CodeAttributes},
		"expiry before time":   {set(headerExpiry, at(-time.Hour)), CodeAttributes},
		"no time":              {drop(headerTime), CodeAttributes},
		"time not RFC 3339":    {set(headerTime, "yesterday"), CodeAttributes},
		"time a number":        {set(headerTime, 1700000000), CodeAttributes},
		"time zero":            {set(headerTime, "0001-01-01T00:00:00Z"), CodeAttributes},
		"signingTime as well":  {set("io.cncf.notary.signingTime", at(-time.Minute)), CodeAttributes},
		"profile, no version":  {set(headerProfile, testProfile), CodeAttributes},
		"profile, wildcard":    {set(headerProfile, testProfile+"/*"), CodeAttributes},
		"no profile":           {drop(headerProfile), CodeAttributes},
		"no job":               {drop(headerJob), CodeAttributes},
		"a job that is none":   {set(headerJob, testVersion), CodeAttributes},
		"job of other region":  {set(headerJob, strings.Replace(testJob, testRegion, "us-east-1", 1)), CodeAttributes},
		"job of other country": {set(headerJob, strings.Replace(testJob, "arn:aws:", "arn:aws-cn:", 1)), CodeAttributes},

		// Signature.
		"a changed signature": {func(d *draft) { d.sig = func(s []byte) []byte { s[0] ^= 1; return s } }, CodeSignatureInvalid},
		"zero signature":      {func(d *draft) { d.sig = func(s []byte) []byte { clear(s); return s } }, CodeSignatureInvalid},
		"short signature":     {func(d *draft) { d.sig = func(s []byte) []byte { return s[:95] } }, CodeSignatureInvalid},
		"DER signature":       {func(d *draft) { d.sig = func([]byte) []byte { return []byte{0x30, 6, 2, 1, 1, 2, 1, 1} } }, CodeSignatureInvalid},
		"another's signature": {func(d *draft) { d.key = newAuthority(t, l.clock.Now(), changes{}).key }, CodeSignatureInvalid},
		"payload swapped after": {after(func(w wire) {
			w["payload"] = base64.RawURLEncoding.EncodeToString([]byte(`{"targetArtifact":{"mediaType":"x","digest":"x","size":1}}`))
		}), CodeSignatureInvalid},

		// Profile.
		"another version":   {set(headerProfile, testProfile+"/0000000000"), CodeProfileNotAllowed},
		"version's case":    {set(headerProfile, strings.ToLower(testVersion)), CodeProfileNotAllowed},
		"another profile":   {set(headerProfile, strings.Replace(testVersion, "release", "releases", 1)), CodeProfileNotAllowed},
		"another account":   {set(headerProfile, strings.Replace(testVersion, testAccount, "111122223334", 1)), CodeProfileNotAllowed},
		"another partition": {func(d *draft) { both(d, "arn:aws:", "arn:aws-us-gov:") }, CodeProfileNotAllowed},
		"another region":    {func(d *draft) { both(d, testRegion, "us-west-2") }, CodeProfileNotAllowed},

		// Descriptor.
		"an image":            {target("mediaType", imageManifest), CodeMediaType},
		"an image index":      {target("mediaType", "application/vnd.oci.image.index.v1+json"), CodeMediaType},
		"an image config":     {target("mediaType", "application/vnd.oci.image.config.v1+json"), CodeMediaType},
		"a docker manifest":   {target("mediaType", "application/vnd.docker.distribution.manifest.v2+json"), CodeMediaType},
		"a docker list":       {target("mediaType", "application/vnd.docker.distribution.manifest.list.v2+json"), CodeMediaType},
		"bare in-toto":        {target("mediaType", attest.PayloadTypeInToto), CodeDescriptorMismatch},
		"media type's case":   {target("mediaType", "application/vnd.DSSE.envelope.v1+json"), CodeDescriptorMismatch},
		"no media type":       {func(d *draft) { delete(d.target, "mediaType") }, CodeDescriptorMismatch},
		"no target":           {func(d *draft) { d.payload = []byte(`{}`) }, CodeDescriptorMismatch},
		"null target":         {func(d *draft) { d.payload = []byte(`{"targetArtifact":null}`) }, CodeDescriptorMismatch},
		"size":                {target("size", len(l.envelope)+1), CodeDescriptorMismatch},
		"digest":              {target("digest", "sha256:"+strings.Repeat("0", 64)), CodeDescriptorMismatch},
		"digest in capitals":  {target("digest", "sha256:"+strings.ToUpper(l.digest256())), CodeDescriptorMismatch},
		"sha384 of sha256":    {target("digest", "sha384:"+l.digest256()), CodeDescriptorMismatch},
		"sha512":              {target("digest", "sha512:"+strings.Repeat("0", 128)), CodeDescriptorMismatch},
		"no digest":           {target("digest", ""), CodeDescriptorMismatch},
		"no annotations":      {func(d *draft) { delete(d.target, "annotations") }, CodeDescriptorMismatch},
		"another predicate":   {target("annotations", map[string]string{AnnotationPredicateType: attest.PredicateVSA}), CodeDescriptorMismatch},
		"one more annotation": {target("annotations", map[string]string{AnnotationPredicateType: attest.PredicateSLSAProvenanceV1, "x": "y"}), CodeDescriptorMismatch},

		// Time.
		"in the future": {func(d *draft) { d.header[headerTime] = at(6 * time.Minute) }, CodeTimeInvalid},
		"before the certificates": {func(d *draft) {
			d.header[headerTime] = at(-25 * time.Hour)
		}, CodeTimeInvalid},
		"after the certificates": {func(d *draft) {
			d.header[headerTime], d.header[headerExpiry] = at(49*time.Hour), at(50*time.Hour)
		}, CodeTimeInvalid},
		"expired": {func(d *draft) {
			d.header[headerTime], d.header[headerExpiry] = at(-2*time.Hour), at(-time.Hour)
		}, CodeExpired},

		// Chain.
		"no root":           {func(d *draft) { d.chain = d.chain[:3] }, CodeUntrusted},
		"order":             {func(d *draft) { c := d.chain; d.chain = []*x509.Certificate{c[0], c[2], c[1], c[3]} }, CodeUntrusted},
		"a gap":             {func(d *draft) { c := d.chain; d.chain = []*x509.Certificate{c[0], c[2], c[3]} }, CodeUntrusted},
		"root twice":        {func(d *draft) { d.chain = append(d.chain[:4:4], d.chain[3]) }, CodeUntrusted},
		"another authority": {func(d *draft) { a := newAuthority(t, l.clock.Now(), changes{}); d.chain, d.key = a.chain, a.key }, CodeUntrusted},
		"a root attached": {func(d *draft) {
			a := newAuthority(t, l.clock.Now(), changes{})
			d.chain, d.key = append(a.chain[:3:3], l.authority.root), a.key
		}, CodeUntrusted},
	} {
		d := l.draft(t)
		c.change(d)
		_, err := l.verifier.Verify(t.Context(), l.envelope, d.sign(t))
		if refusal.CodeOf(err) != c.want {
			t.Errorf("%s: got %v; want %s", name, err, c.want)
		}
	}
	if l.word.times() != 0 || l.verifier.known.Len() > 2 { // those refused for the time of day
		t.Errorf("%d questions about signatures that do not verify; %d remembered", l.word.times(), l.verifier.known.Len())
	}
}

func both(d *draft, old, new string) {
	d.header[headerProfile] = strings.Replace(testVersion, old, new, 1)
	d.header[headerJob] = strings.Replace(testJob, old, new, 1)
}

// The authority itself is trusted, and issued a certificate that must not sign.
func TestVerifyRefusesCertificates(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, c := range map[string]struct {
		changes changes
		want    refusal.Code
	}{
		"P-256 key":        {changes{curve: elliptic.P256()}, CodeAlgorithm},
		"P-521 key":        {changes{curve: elliptic.P521()}, CodeAlgorithm},
		"leaf is CA":       {changes{leaf: func(c *x509.Certificate) { c.IsCA = true }}, CodeUntrusted},
		"no key usage":     {changes{leaf: func(c *x509.Certificate) { c.KeyUsage = 0 }}, CodeUntrusted},
		"wrong key usage":  {changes{leaf: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }}, CodeUntrusted},
		"for servers":      {changes{leaf: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }}, CodeUntrusted},
		"for anything":     {changes{leaf: func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageTimeStamping) }}, CodeUntrusted},
		"issuer no CA":     {changes{region: func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, 0, false }}, CodeUntrusted},
		"issuer signs not": {changes{region: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }}, CodeUntrusted},
		"issuer for servers": {changes{region: func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}}, CodeUntrusted},
		"issuer expired": {changes{region: func(c *x509.Certificate) { c.NotAfter = l.clock.Now().Add(-time.Hour) }}, CodeTimeInvalid},
		"leaf not yet":   {changes{leaf: func(c *x509.Certificate) { c.NotBefore = l.clock.Now() }}, CodeTimeInvalid},
	} {
		a := newAuthority(t, l.clock.Now(), c.changes)
		d := a.draft(t, l.envelope, l.clock.Now().Add(-time.Minute))
		_, err := l.trusting(t, a).Verify(t.Context(), l.envelope, d.sign(t))
		if refusal.CodeOf(err) != c.want {
			t.Errorf("%s: got %v; want %s", name, err, c.want)
		}
	}
}

func TestVerifyBytes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	verify := func(envelope, jws []byte) error {
		_, err := l.verifier.Verify(t.Context(), envelope, jws)
		return err
	}
	wantCode(t, verify(nil, signed), CodeMalformed)
	wantCode(t, verify(l.envelope, nil), CodeMalformed)
	wantCode(t, verify(l.envelope, append(signed[:len(signed):len(signed)], ' ', '{', '}')), CodeMalformed)
	wantCode(t, verify(l.envelope, append(bytes.Repeat([]byte(" "), MaxSignatureBytes), signed...)), CodeMalformed)
	wantCode(t, verify(append(l.envelope[:len(l.envelope):len(l.envelope)], '\n'), signed), CodeDescriptorMismatch)
	// The same size, and even the same meaning to JSON readers, but other bytes.
	other := bytes.Replace(l.envelope, []byte(`"keyid":"k"`), []byte(`"keyid":"l"`), 1)
	wantCode(t, verify(other, signed), CodeDescriptorMismatch)
	wantCode(t, verify(l.envelope, signed), "")
}

// Bytes that are no envelope are refused, though the descriptor is theirs.
func TestVerifyNoEnvelope(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	image := &attest.Envelope{PayloadType: "application/json", Payload: []byte("{}"), Signatures: []attest.Signature{{Sig: []byte("s")}}}
	statement := &attest.Envelope{PayloadType: attest.PayloadTypeInToto, Payload: []byte("{}"), Signatures: []attest.Signature{{Sig: []byte("s")}}}
	for _, raw := range [][]byte{[]byte(`{"schemaVersion":2}`), []byte("x"), image.Marshal(), statement.Marshal()} {
		signed := l.authority.draft(t, raw, l.clock.Now().Add(-time.Minute)).sign(t)
		_, err := l.verifier.Verify(t.Context(), raw, signed)
		wantCode(t, err, CodeMalformed)
	}
}

// Ours can never pass as an image's signature: notation-go, as a registry's client uses
// it, refuses it for an image of the very same digest and size.
func TestNotAnImageSignature(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	judge := func(mediaType string, signed []byte) error {
		v, err := verifier.NewWithOptions(l.verifier.policy(), memoryStore{l.verifier.trust}, onePlugin{&signerPlugin{trust: l.verifier.trust}},
			verifier.VerifierOptions{RevocationCodeSigningValidator: noRevocation{}, RevocationTimestampingValidator: noRevocation{}})
		if err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: mediaType, Size: int64(len(l.envelope))}
		setText(&d.Digest, "sha256:"+l.digest256())
		_, err = v.Verify(t.Context(), d, signed, notation.VerifierVerifyOptions{
			ArtifactReference: judgeScope + "@sha256:" + l.digest256(), SignatureMediaType: MediaTypeSignature,
		})
		return err
	}
	ours := l.jws(t)
	if err := judge(MediaTypeEnvelope, ours); err != nil {
		t.Errorf("notation-go refuses ours for an envelope: %v", err)
	}
	for _, image := range []string{imageManifest, "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v2+json"} {
		if err := judge(image, ours); err == nil || !strings.Contains(err.Error(), "descriptor mismatch") {
			t.Errorf("notation-go takes ours for %s: %v", image, err)
		}
	}
	d := l.draft(t)
	d.target["mediaType"] = imageManifest
	theirs := d.sign(t)
	if err := judge(imageManifest, theirs); err != nil {
		t.Errorf("notation-go refuses an image's: %v", err)
	}
	_, err := l.verifier.Verify(t.Context(), l.envelope, theirs)
	wantCode(t, err, CodeMediaType)
}

// The plugin is a check of its own: notation-go refuses by it what the checks before it
// would have refused.
func TestJudge(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	signed := l.jws(t)
	digest, size := "sha256:"+l.digest256(), len(l.envelope)
	fresh := func() *token {
		tok, err := parseToken(signed)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	wantCode(t, l.verifier.judge(t.Context(), signed, fresh(), digest, size), "")

	for _, d := range []string{"", "sha256:" + strings.Repeat("0", 64)} {
		wantCode(t, l.verifier.judge(t.Context(), signed, fresh(), d, size), CodeSignatureInvalid)
	}
	wantCode(t, l.verifier.judge(t.Context(), signed, fresh(), digest, size+1), CodeSignatureInvalid)

	unpinned := *l.verifier
	trust := *l.verifier.trust
	trust.profiles = []profileARN{{"aws", testRegion, testAccount, "release", "0000000000"}}
	unpinned.trust = &trust
	wantCode(t, unpinned.judge(t.Context(), signed, fresh(), digest, size), CodeSignatureInvalid)

	rootless := *l.verifier
	trust = *l.verifier.trust
	trust.roots = nil
	rootless.trust = &trust
	wantCode(t, rootless.judge(t.Context(), signed, fresh(), digest, size), CodeSignatureInvalid)

	for name, change := range map[string]func(*token){
		"payload":     func(t *token) { t.content = append(t.content, ' ') },
		"signature":   func(t *token) { t.signature = nil },
		"time":        func(t *token) { t.signed = t.signed.Add(time.Second) },
		"expiry":      func(t *token) { t.expiry = time.Time{} },
		"certificate": func(t *token) { t.chain = t.chain[:3] },
		"profile":     func(t *token) { t.header.Profile = testProfile },
		"job":         func(t *token) { t.header.Job = "" },
	} {
		tok := fresh()
		change(tok)
		if err := l.verifier.judge(t.Context(), signed, tok, digest, size); refusal.CodeOf(err) != CodeSignatureInvalid {
			t.Errorf("%s: notation-go's reading is not held against ours: %v", name, err)
		}
	}
}

// The certificates name servers of CRLs and OCSP. Nobody calls there.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	t.Cleanup(server.Close)
	name := func(c *x509.Certificate) {
		c.OCSPServer, c.CRLDistributionPoints = []string{server.URL + "/ocsp"}, []string{server.URL + "/crl"}
		c.IssuingCertificateURL = []string{server.URL + "/issuer"}
	}
	a := newAuthority(t, l.clock.Now(), changes{leaf: name, region: name})
	signed := a.draft(t, l.envelope, l.clock.Now().Add(-time.Minute)).sign(t)
	if _, err := l.trusting(t, a).Verify(t.Context(), l.envelope, signed); err != nil {
		t.Error(err)
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// FuzzToken reads what an attacker wrote and signed himself.
func FuzzToken(f *testing.F) {
	l := newLab(f)
	d := l.draft(f)
	good, payload := mustJSON(f, d.header), mustJSON(f, map[string]any{"targetArtifact": d.target})
	f.Add(good, payload)
	f.Add([]byte(`{"alg":"none"}`), []byte(`{"targetArtifact":null}`))
	f.Add(bytes.Replace(good, []byte("ES384"), []byte("HS384"), 1), []byte(`{}`))
	chain := []string{}
	for _, cert := range d.chain {
		chain = append(chain, base64.StdEncoding.EncodeToString(cert.Raw))
	}
	f.Fuzz(func(t *testing.T, protected, payload []byte) {
		b64 := base64.RawURLEncoding.EncodeToString
		tok, err := parseToken(mustJSON(t, wire{
			"protected": b64(protected), "payload": b64(payload), "signature": "AAAA", "header": map[string]any{"x5c": chain},
		}))
		if err != nil {
			if refusal.CodeOf(err) == "" {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		h := tok.header
		if h.Algorithm != algES384 || h.Scheme != signingScheme || h.ContentType != contentType || h.Plugin != pluginName ||
			tok.profile.String() != h.Profile || tok.profile.version == "" || !tok.expiry.After(tok.signed) || len(h.Critical) < 4 || len(h.Critical) > 6 {
			t.Fatalf("accepted %q", protected)
		}
		var again notaryPayload
		if err := json.Unmarshal(payload, &again); err != nil || again.TargetArtifact.Digest != tok.target.Digest || again.TargetArtifact.MediaType != tok.target.MediaType {
			t.Fatalf("encoding/json reads %+v from %q, %v", again, payload, err)
		}
		_, _ = tok.target.checkIs(&signedEnvelope{raw: l.envelope})
	})
}

func FuzzVerify(f *testing.F) {
	l := newLab(f)
	signed := l.jws(f)
	f.Add(signed)
	f.Add(bytes.ReplaceAll(signed, []byte(`,"`), []byte(",\n \"")))
	f.Add(bytes.Replace(signed, []byte(`"header"`), []byte(`"\u0068eader"`), 1))
	for _, change := range []func(*draft){
		func(d *draft) { d.header["alg"] = "none" },
		func(d *draft) { d.header["crit"] = []string{} },
		func(d *draft) { d.target["mediaType"] = imageManifest },
		func(d *draft) { d.chain = d.chain[:2] },
	} {
		d := l.draft(f)
		change(d)
		f.Add(d.sign(f))
	}
	want, err := parseToken(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ev, err := l.verifier.Verify(t.Context(), l.envelope, raw)
		if err != nil {
			if refusal.CodeOf(err) == "" || ev != nil {
				t.Fatalf("a refusal without code, or with evidence: %v", err)
			}
			return
		}
		// Only one thing was ever signed well: what is accepted says the same.
		got, err := parseToken(raw)
		if err != nil || got.protected != want.protected || got.payload != want.payload || !bytes.Equal(got.signature, want.signature) {
			t.Fatalf("accepted what was not signed: %q", raw)
		}
	})
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{
		"signer:///release", "signer://release", "signer:///" + testProfile, "signer:///" + testVersion, "signer://" + testProfile,
		"signer:////x", "awskms:///alias/x", "signer:///a", "signer:///a-b", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			wantCode(t, err, CodeRefInvalid)
			return
		}
		again, err := ParseRef(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q is %+v, and %q is %+v, %v", s, ref, ref.String(), again, err)
		}
		if !isProfileName(ref.Profile) || strings.Count(s, "/") > 5 {
			t.Fatalf("%q accepted", s)
		}
	})
}

func TestParseRef(t *testing.T) {
	t.Parallel()
	full := Ref{"aws", testRegion, testAccount, "release"}
	for s, want := range map[string]Ref{
		"signer:///release":        {Profile: "release"},
		"signer://release_1":       {Profile: "release_1"},
		"signer:///" + testProfile: full,
		"signer:///arn:aws-us-gov:signer:us-gov-west-1:111122223333:/signing-profiles/ab": {"aws-us-gov", "us-gov-west-1", testAccount, "ab"},
	} {
		if got, err := ParseRef(s); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "signer:", "signer://", "signer:///", "signer:////release", "SIGNER:///release", "awskms:///release", "release",
		"signer:///a", "signer:///" + strings.Repeat("a", 65), "signer:///re-lease", "signer:///release/", "signer:///release/Ab3De5Gh7J",
		"signer:///release?region=x", "signer:///rel%65ase", "signer:///rélease", "signer:///release\n",
		"signer://" + testProfile, "signer:///" + testVersion, "signer:///" + testJob, "signer:///" + testProfile + "/",
		"signer:///arn:aws:signer:eu-west-1:111122223333:signing-profiles/release",
		"signer:///arn:aws:signer::111122223333:/signing-profiles/release", "signer:///arn:aws:signer:eu-west-1:1111:/signing-profiles/release",
		"signer:///arn:aws:signer:eu-west-1.evil.example/:111122223333:/signing-profiles/release",
	} {
		_, err := ParseRef(s)
		if refusal.CodeOf(err) != CodeRefInvalid {
			t.Errorf("%q: got %v", s, err)
		}
	}
}
