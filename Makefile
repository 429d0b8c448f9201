# One truth for people and for CI. Tools are installed at pinned versions into .tmp/bin.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
TOOLS := $(CURDIR)/.tmp/bin
export PATH := $(TOOLS):$(PATH)

BUF_VERSION           := v1.75.0
PROTOC_GEN_GO         := v1.36.12
PROTOC_GEN_GO_GRPC    := v1.6.2
GRPC_GATEWAY          := v2.32.0
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.1.4
COSIGN_VERSION        := v3.1.3
HCLFMT_VERSION        := v2.25.0
VERSITYGW_VERSION     := v1.8.0
SCALIBR_VERSION       := v0.5.3
SYFT_VERSION          := v1.54.1

# Programs are stripped: symbols are in the source, the version is in the build info.
# grpcnotrace leaves out gRPC's trace pages: html/template, and all that it keeps alive.
GOBUILD := CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags='-s -w'

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: build
build: ## Build assay, assayd and assay-dev into bin/
	mkdir -p bin
	$(GOBUILD) -o bin/ ./cmd/assay ./cmd/assayd ./cmd/assay-dev

.PHONY: demo
demo: build ## Attest, verify and tamper, on this machine, in a temporary directory
	.ci/demo bin

.PHONY: test
test: ## Run the tests; no network beyond the module cache
	go test -short -timeout 5m ./...

RACE_IN_FULL := -e /internal/store$$ -e /internal/tlog -e /internal/signing -e /internal/notary -e /internal/outage -e /internal/tsaclient -e /internal/identity

# A real server with the race detector takes a second to start, and one that scans starts
# further such processes: of server's tests those run that have several callers at once.
RACE_SERVER := Race|Once|Busy|Retry|Draining|Released|WhilePending|Throughout|Stale|Circuit|Fair|Guard|NewDecisions|SlowLog|Intermediates|InFlight|Concurrent|AuthorityRevoked

.PHONY: race
race: ## Run the tests with the race detector: in full where goroutines share memory, of server what has several callers, else with -short
	go test -race -timeout 20m $$(go list ./... | grep $(RACE_IN_FULL))
	go test -race -short -timeout 20m -run '$(RACE_SERVER)' ./server
	go test -race -short -timeout 20m $$(go list ./... | grep -v -e '/server$$' $(RACE_IN_FULL))

.PHONY: fuzz
fuzz: ## Fuzz every parser of outside bytes, FUZZTIME each (default 30s)
	.ci/fuzz $(or $(FUZZTIME),30s)

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION) $(TOOLS)/buf-$(BUF_VERSION) ## Vet, golangci-lint, buf lint and breaking, go.mod tidy
	go vet ./...
	golangci-lint run ./...
	buf lint
	.ci/breaking
	go mod tidy -diff

.PHONY: vuln
vuln: $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION) ## Look for known vulnerabilities; GOVULNDB names an offline database
	govulncheck $(if $(GOVULNDB),-db $(GOVULNDB)) ./...

.PHONY: generate
generate: $(TOOLS)/buf-$(BUF_VERSION) $(TOOLS)/protoc-gen-go-$(PROTOC_GEN_GO) $(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC) $(TOOLS)/protoc-gen-grpc-gateway-$(GRPC_GATEWAY) $(TOOLS)/protoc-gen-openapiv2-$(GRPC_GATEWAY) ## Generate code and OpenAPI from proto/
	buf generate

.PHONY: check-generate
check-generate: generate ## Fail where generated code differs from what is committed
	git diff --exit-code -- proto docs/api
	test -z "$$(git ls-files --others --exclude-standard -- proto docs/api)"

# Building syft takes minutes of processor time. Where it cannot be had, or the others,
# the figures say so and go on without.
.PHONY: bench
bench: build ## Measure; prints the machine, medians and ratios to limits of the same run
	for tool in scalibr-$(SCALIBR_VERSION) syft-$(SYFT_VERSION) cosign-$(COSIGN_VERSION); do \
		$(MAKE) --no-print-directory "$(TOOLS)/$$tool" || echo "$$tool did not install" >&2; \
	done
	.ci/bench $(BENCHFLAGS)

.PHONY: interop
interop: build $(TOOLS)/cosign-$(COSIGN_VERSION) ## Verify attestations with cosign, sigstore-go and @sigstore/verify, offline; cosign initialize from our TUF repository
	.ci/interop bin
	ASSAY_COSIGN=$(TOOLS)/cosign go test -count=1 -run TestCosign -v ./internal/tufrepo/ | grep -E '^(---|ok|FAIL|panic)|_test.go'

# hclfmt's -check only parses, and its formatting passes over what does not parse.
# What terraform validate would check needs the provider's registry: a test in
# internal/testenv does without.
.PHONY: terraform
terraform: $(TOOLS)/hclfmt-$(HCLFMT_VERSION) ## Check that docs/deploy/terraform parses and is formatted
	hclfmt -check docs/deploy/terraform/*/*.tf >/dev/null
	for f in docs/deploy/terraform/*/*.tf; do \
		hclfmt -require-no-change "$$f" >/dev/null || { hclfmt "$$f" | diff -u "$$f" - || true; exit 1; }; \
	done

.PHONY: s3
s3: $(TOOLS)/versitygw-$(VERSITYGW_VERSION) ## Hold versitygw, an S3 that others wrote, to the tests of the stand-in
	ASSAY_VERSITYGW=$(TOOLS)/versitygw go test -count=1 -timeout 5m -run TestS3Versitygw -v ./internal/testenv/awstest/

.PHONY: truth
truth: ## Compare SBOMs with what npm, pip, go, dpkg, rpm and Maven say of the same; needs the npm registry
	ASSAY_TRUTH=1 go test -count=1 -timeout 15m -run TestTruth -v ./internal/sbom/scan/ | grep -E '^(---|===|ok|FAIL|panic)|^ +[a-z_]+_test.go|^ +---' | grep -v '^=== '

.PHONY: large
large: ## The tests that -short and the race detector leave out: bombs, documents of 50 MiB, the sandbox of the real program
	go test -count=1 -timeout 10m ./internal/sbom/...
	go test -count=1 -timeout 10m -run 'TestHostileArtifacts|TestLargeEvidence|TestAttachTooLarge|TestAttestEdges|TestManyLargeArtifacts' ./server/

.PHONY: crash
crash: ## kill -9 the service while it attests, ROUNDS times (default 50)
	ASSAY_CRASH_ROUNDS=$(or $(ROUNDS),50) go test -count=1 -timeout 20m -run TestCrash -v ./server/

.PHONY: check
check: lint test race vuln ## What a change must pass before it is sent

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin .tmp

# A tool is installed under its version, so that a new version is a new file.
define tool
$(TOOLS)/$(1)-$(2):
	mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) GOFLAGS=-buildvcs=false go install $(3)@$(2)
	touch $$@
endef
$(eval $(call tool,buf,$(BUF_VERSION),github.com/bufbuild/buf/cmd/buf))
$(eval $(call tool,protoc-gen-go,$(PROTOC_GEN_GO),google.golang.org/protobuf/cmd/protoc-gen-go))
$(eval $(call tool,protoc-gen-go-grpc,$(PROTOC_GEN_GO_GRPC),google.golang.org/grpc/cmd/protoc-gen-go-grpc))
$(eval $(call tool,protoc-gen-grpc-gateway,$(GRPC_GATEWAY),github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway))
$(eval $(call tool,protoc-gen-openapiv2,$(GRPC_GATEWAY),github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2))
$(eval $(call tool,golangci-lint,$(GOLANGCI_LINT_VERSION),github.com/golangci/golangci-lint/v2/cmd/golangci-lint))
$(eval $(call tool,govulncheck,$(GOVULNCHECK_VERSION),golang.org/x/vuln/cmd/govulncheck))
$(eval $(call tool,cosign,$(COSIGN_VERSION),github.com/sigstore/cosign/v3/cmd/cosign))
$(eval $(call tool,hclfmt,$(HCLFMT_VERSION),github.com/hashicorp/hcl/v2/cmd/hclfmt))
$(eval $(call tool,scalibr,$(SCALIBR_VERSION),github.com/google/osv-scalibr/binary/scalibr))
$(eval $(call tool,syft,$(SYFT_VERSION),github.com/anchore/syft/cmd/syft))
$(eval $(call tool,versitygw,$(VERSITYGW_VERSION),github.com/versity/versitygw/cmd/versitygw))
