module github.com/assay-build/assay

go 1.26.3

require (
	filippo.io/mldsa v1.0.0 // signing/mldsakey, verify: ML-DSA-65, which crypto lacks
	github.com/BurntSushi/toml v1.6.0 // sbom/scan: Cargo, Poetry, uv and PDM locks
	github.com/CycloneDX/cyclonedx-go v0.12.0 // sbom: the CycloneDX model and its encoding
	github.com/aws/aws-sdk-go-v2 v1.47.7 // stsproof: SigV4; codebuild: every AWS call
	github.com/aws/aws-sdk-go-v2/config v1.33.15 // server, client: the role a process runs as, however AWS hands it over
	github.com/aws/aws-sdk-go-v2/credentials v1.20.15 // codebuild: the reader role of each account
	github.com/aws/aws-sdk-go-v2/service/codebuild v1.69.0 // codebuild: builds and projects
	github.com/aws/aws-sdk-go-v2/service/iam v1.64.8 // codebuild: trust policies
	github.com/aws/aws-sdk-go-v2/service/kms v1.62.4 // signing/awskms: keys that never leave KMS
	github.com/aws/aws-sdk-go-v2/service/s3 v1.114.8 // codebuild: artifacts
	github.com/aws/aws-sdk-go-v2/service/signer v1.33.2 // notary: AWS Signer
	github.com/aws/aws-sdk-go-v2/service/sts v1.51.8 // codebuild: AssumeRole; client: web identity tokens
	github.com/aws/smithy-go v1.28.8 // codebuild: the error codes of AWS
	github.com/cedar-policy/cedar-go v1.9.0 // policy: Cedar, which decides every deploy
	github.com/coreos/go-oidc/v3 v3.21.0 // client: discovery and ID tokens of a login
	github.com/cyberphone/json-canonicalization v0.0.0-20241213102144-19d51d7fe467 // verify: JCS (RFC 8785), for signed entry timestamps
	github.com/digitorus/pkcs7 v0.0.0-20230818184609-3a137a874352 // verify: CMS, the shape of RFC 3161 tokens
	github.com/go-jose/go-jose/v4 v4.1.8 // identity: JSON Web Keys of OIDC issuers
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3 // attest: a JSON tokenizer that keeps duplicates and case apart
	github.com/google/osv-scalibr v0.5.3 // sbom/scan: extractors, one by one; sbom/versions: the order of versions
	github.com/google/uuid v1.6.0 // server: decision ids in order of time (UUIDv7)
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.32.0 // server: the RPCs as JSON
	github.com/hashicorp/golang-lru/v2 v2.0.7 // server, policy: bounded caches of what never changes
	github.com/in-toto/in-toto-golang v0.11.0 // provenance: the SLSA v1 predicate types
	github.com/klauspost/compress v1.20.3 // sbom/archive: gzip and zstd; store: zstd
	github.com/notaryproject/notation-core-go v1.3.0 // notary: the Notary JWS
	github.com/notaryproject/notation-go v1.3.2 // notary: the judge of Notary signatures
	github.com/notaryproject/notation-plugin-framework-go v1.0.0 // notary: what notation-go asks a plugin
	github.com/opencontainers/image-spec v1.1.1 // notary: the descriptor that is signed
	github.com/package-url/packageurl-go v0.1.7 // sbom: package URLs
	github.com/prometheus/client_golang v1.25.0 // server: /metrics
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3 // sbom/check: the schemas of CycloneDX; tests: those of our build types
	github.com/secure-systems-lab/go-securesystemslib v0.11.1 // verify: the keyid that DSSE verifiers accept
	github.com/sigstore/fulcio v1.8.8 // signing/ca: the extensions of Fulcio's certificates
	github.com/sigstore/protobuf-specs v0.5.2 // verify: bundles and trusted roots of others
	github.com/sigstore/rekor-tiles/v2 v2.3.0 // verify: Rekor v2 entries and note keys
	github.com/sigstore/sigstore v1.10.11 // verify: signature verifiers by key type
	github.com/sigstore/sigstore-go v1.3.0 // verify: the judge of foreign bundles
	github.com/spf13/cobra v1.10.2 // cmd: commands and their help
	github.com/spf13/pflag v1.0.10 // cmd/assay: flags that may be given once
	github.com/theupdateframework/go-tuf/v2 v2.4.2 // tufrepo: metadata; client: the updater
	github.com/transparency-dev/merkle v0.0.2 // tlog: proofs
	github.com/transparency-dev/tessera v1.0.4 // tlog/posix: the transparency log
	github.com/ulikunitz/xz v0.5.17 // sbom/archive: xz
	go.yaml.in/yaml/v3 v3.0.5 // server: configuration, strict and with line numbers
	golang.org/x/crypto v0.58.0 // verify: cryptobyte, for DER without surprises
	golang.org/x/mod v0.42.0 // sbom/scan: go.mod; tests: a second reader of our signed notes
	golang.org/x/oauth2 v0.37.0 // client: authorization code with PKCE, device flow
	golang.org/x/sync v0.24.0 // server: errgroup and singleflight
	golang.org/x/sys v0.49.0 // store, tlog/posix: file locks; server: disk-full errors
	golang.org/x/term v0.47.0 // cmd/assay: is it a terminal, and how wide
	golang.org/x/time v0.16.0 // server: how fast new decisions are made
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261012220534-4341edf3f941 // server, client: google.rpc error details
	google.golang.org/grpc v1.85.0 // the service
	google.golang.org/protobuf v1.36.12 // the wire contract
	k8s.io/klog/v2 v2.140.0 // cmd: Tessera logs through it; led into slog
	modernc.org/sqlite v1.60.0 // store: SQLite without cgo; 1.61.x requires a pprof version that cannot be fetched
)

// Tests only.
require (
	github.com/digitorus/timestamp v0.0.0-20231217203849-220c5c2851b7 // a second reader of our RFC 3161 tokens
	github.com/erikvarga/go-rpmdb v0.0.0-20250523120114-a15a62cd4593 // a second reader of RPM databases
	github.com/google/certificate-transparency-go v1.3.3 // a second reader of our SCTs and of what they promise
	github.com/google/go-cmp v0.7.0 // differences a person can read
	github.com/in-toto/attestation v1.2.0 // a second reader of our statements
	github.com/rogpeppe/go-internal v1.14.1 // testscript, for the command line
	github.com/sigstore/timestamp-authority/v2 v2.1.3 // a third reader of our RFC 3161 tokens
	github.com/spdx/tools-golang v0.5.7 // a second reader of our SPDX
	github.com/transparency-dev/formats v0.1.1 // a second reader of our checkpoints
	golang.org/x/net v0.61.0 // raw HTTP/2 frames, for hostile clients
	pgregory.net/rapid v1.3.0 // properties of security rules
)

require (
	deps.dev/util/maven v0.0.0-20260528042559-b92437de09fd // indirect
	deps.dev/util/semver v0.0.0-20260529052642-cf1e78d92744 // indirect
	github.com/Azure/go-ntlmssp v0.0.0-20221128193559-754e69321358 // indirect
	github.com/anchore/go-lzo v0.1.0 // indirect
	github.com/anchore/go-struct-converter v0.1.0 // indirect
	github.com/asaskevich/govalidator v0.0.0-20230301143203-a9d515a09cc2 // indirect
	github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream v1.7.26 // indirect
	github.com/aws/aws-sdk-go-v2/feature/ec2/imds v1.20.7 // indirect
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.8.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/v4a v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding v1.13.24 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/checksum v1.11.11 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/presigned-url v1.14.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/s3shared v1.20.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/signin v1.12.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/sso v1.39.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/ssooidc v1.44.3 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/blang/semver v3.5.1+incompatible // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/danieljoos/wincred v1.2.2 // indirect
	github.com/davecgh/go-spew v1.1.2-0.20180830191138-d8f796af33cc // indirect
	github.com/diskfs/go-diskfs v1.7.0 // indirect
	github.com/djherbis/times v1.6.0 // indirect
	github.com/dsoprea/go-exfat v0.0.0-20190906070738-5e932fbdb589 // indirect
	github.com/dsoprea/go-logging v0.0.0-20200710184922-b02d349568dd // indirect
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/elliotwutingfeng/asciiset v0.0.0-20260129054604-cfde2086bc57 // indirect
	github.com/fxamacker/cbor/v2 v2.9.0 // indirect
	github.com/go-asn1-ber/asn1-ber v1.5.7 // indirect
	github.com/go-errors/errors v1.5.1 // indirect
	github.com/go-git/gcfg v1.5.1-0.20230307220236-3a3c6141e376 // indirect
	github.com/go-git/go-billy/v5 v5.9.0 // indirect
	github.com/go-git/go-git/v5 v5.19.1 // indirect
	github.com/go-ldap/ldap/v3 v3.4.10 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-openapi/analysis v1.0.0 // indirect
	github.com/go-openapi/errors v0.22.9 // indirect
	github.com/go-openapi/jsonpointer v1.0.1 // indirect
	github.com/go-openapi/jsonreference v1.0.2 // indirect
	github.com/go-openapi/loads v0.25.3 // indirect
	github.com/go-openapi/runtime v0.33.3 // indirect
	github.com/go-openapi/runtime/server-middleware v0.33.3 // indirect
	github.com/go-openapi/spec v1.0.1 // indirect
	github.com/go-openapi/strfmt v0.27.3 // indirect
	github.com/go-openapi/swag v0.29.2 // indirect
	github.com/go-openapi/swag/cmdutils v0.29.2 // indirect
	github.com/go-openapi/swag/conv v0.29.2 // indirect
	github.com/go-openapi/swag/fileutils v0.29.2 // indirect
	github.com/go-openapi/swag/jsonutils v0.29.2 // indirect
	github.com/go-openapi/swag/loading v0.29.2 // indirect
	github.com/go-openapi/swag/mangling v0.29.2 // indirect
	github.com/go-openapi/swag/netutils v0.29.2 // indirect
	github.com/go-openapi/swag/pools v0.29.2 // indirect
	github.com/go-openapi/swag/stringutils v0.29.2 // indirect
	github.com/go-openapi/swag/typeutils v0.29.2 // indirect
	github.com/go-openapi/swag/yamlutils v0.29.2 // indirect
	github.com/go-openapi/validate v1.0.0 // indirect
	github.com/go-restruct/restruct v1.2.0-alpha // indirect
	github.com/go-viper/mapstructure/v2 v2.5.0 // indirect
	github.com/gobwas/glob v0.2.3 // indirect
	github.com/golang-jwt/jwt/v4 v4.5.2 // indirect
	github.com/google/go-containerregistry v0.21.9 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jbenet/go-context v0.0.0-20150711004518-d14ea06fba99 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	github.com/lunixbochs/struc v0.0.0-20241101090106-8d528fa2c543 // indirect
	github.com/masahiro331/go-ext4-filesystem v0.0.0-20260423010602-fe51f5b5e52b // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/ncruces/go-strftime v1.1.0 // indirect
	github.com/notaryproject/tspclient-go v1.0.0 // indirect
	github.com/oklog/ulid/v2 v2.1.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/ossf/osv-schema/bindings/go v0.0.0-20260424063704-83285ce2a866 // indirect
	github.com/pierrec/lz4/v4 v4.1.26 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/pkg/xattr v0.4.12 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/remyoudompheng/bigfft v0.0.0-20230129092748-24d4a6f8daec // indirect
	github.com/shibumi/go-pathspec v1.3.0 // indirect
	github.com/sigstore/rekor v1.5.3 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/tidwall/gjson v1.19.0 // indirect
	github.com/tidwall/jsonc v0.3.3 // indirect
	github.com/tidwall/match v1.2.0 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/veraison/go-cose v1.3.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/log v1.47.0 // indirect
	go.opentelemetry.io/otel/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	golang.org/x/exp v0.0.0-20261014143641-f0251eb4aa3e // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	golang.org/x/xerrors v0.0.0-20240903120638-7835f813f4da // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20261019180522-ce908d29299b // indirect
	gopkg.in/warnings.v0 v0.1.2 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
	modernc.org/libc v1.77.1 // indirect
	modernc.org/mathutil v1.7.1 // indirect
	modernc.org/memory v1.12.1 // indirect
	oras.land/oras-go/v2 v2.5.0 // indirect
	www.velocidex.com/golang/go-ntfs v0.2.0 // indirect
)
