# "make" or "make help" lists the targets. Tools are pinned here and built into .tools/bin; nothing is installed globally.

GO            ?= go
VERSION       ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOLANGCI_LINT := v2.15.0
GOVULNCHECK   := v1.9.0
FUZZTIME      ?= 10s
PORT          ?= 8080
IMAGE         ?= api-router:$(VERSION)
TESTED_WITH   := go cc node python h2spec etcd iptables promtool otelcol chromium podman helm busybox shellcheck postgres
# Modules of their own: what they need, the router does not.
MODULES       := test/etcd test/console test/compose test/kubernetes

TOOLS   := $(CURDIR)/.tools/bin
LINT    := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT)
VULN    := $(TOOLS)/govulncheck-$(GOVULNCHECK)
LDFLAGS := -s -w -X main.release=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help run system smoke build image test lint fmt tidy arch fuzz vuln docs bench soak tools clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: build ## Build and start the router with a simulated model on :8080 (PORT=… moves it)
	@exec bin/api-router dev --listen 127.0.0.1:$(PORT)

system: build ## Run the whole system on this machine until Ctrl-C: routers, etcd, simulated vLLMs, collector, Prometheus (SYSTEM_ONCE=1: check and end)
	@scripts/prepare go etcd otelcol promtool redis postgres
	@exec scripts/system

smoke: ## Ask a running router what a client would: URL=http://localhost:8080 KEY=test-vllm-key [MODEL=gpt-oss-20b]
	@exec scripts/smoke

build: ## Build the static binary into bin/
	@scripts/prepare go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/api-router ./cmd/api-router

image: ## Build the image IMAGE=… with docker, podman or buildah (ENGINE=… chooses); nothing is pulled
	@scripts/prepare go
	@VERSION='$(VERSION)' scripts/image '$(IMAGE)'

test: ## Run every test with the race detector, published SDKs included
	@scripts/prepare $(TESTED_WITH)
	@set -e; for module in $(MODULES); do echo "$(GO) test -C $$module -race ./..."; $(GO) test -C $$module -race ./...; done
	$(GO) test -race -timeout 30m ./...

lint: $(LINT) ## Check the code with golangci-lint
	$(LINT) run --allow-parallel-runners ./...
	@set -e; for module in $(MODULES); do echo "lint $$module"; (cd $$module && $(LINT) run --allow-parallel-runners ./...); done

fmt: $(LINT) ## Format the code
	$(LINT) fmt ./...
	cd test/etcd && $(LINT) fmt ./...
	cd test/console && $(LINT) fmt ./...

tidy: ## Check that every go.mod and go.sum has what is needed and no more
	$(GO) mod tidy -diff
	@set -e; for module in $(MODULES); do echo "$(GO) -C $$module mod tidy -diff"; $(GO) -C $$module mod tidy -diff; done

arch: ## Hold the code to ARCHITECTURE.md
	$(GO) test ./test/arch

fuzz: ## Fuzz every target for FUZZTIME each (10s)
	@scripts/fuzz $(FUZZTIME)

vuln: $(VULN) ## Look for known vulnerabilities; the database is $VULNDB or an archive at $VULNDB_ARCHIVE
	@scripts/vuln $(VULN)

docs: ## Write the generated parts of the documentation
	UPDATE_DOCS=1 $(GO) test ./test/arch ./test/conformance ./test/ops ./internal/app -run '^TestDocs'

bench: build ## Measure the router beside nginx and HAProxy for nine minutes, into bench/README.md (BENCH=-help: its flags)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./bench
	@exec bin/bench $(BENCH)

soak: ## Run the tests ten times in random order, then fuzz each target for five minutes
	@scripts/prepare $(TESTED_WITH)
	@set -e; for module in $(MODULES); do $(GO) test -C $$module -race -shuffle=on -count=10 -timeout 60m ./...; done
	$(GO) test -race -shuffle=on -count=10 -timeout 60m ./...
	@scripts/fuzz 5m

tools: $(LINT) $(VULN) ## Build the pinned tools into .tools/bin

clean: ## Remove what the other targets made
	rm -rf bin dist .cache .tools test/conformance/node_modules test/conformance/prism/node_modules

$(LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	@mv $(TOOLS)/golangci-lint $@

$(VULN):
	GOBIN=$(TOOLS) $(GO) install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK)
	@mv $(TOOLS)/govulncheck $@
