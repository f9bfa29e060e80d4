# SPDX-License-Identifier: EUPL-1.2
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-long bench bench-control check crds web build images install test-web test-rust test-go e2e screenshots clean-e2e FORCE

TARGET := $(or $(CARGO_TARGET_DIR),target)
WEB := control-plane/web
# One graph of features for everything, so that each crate is built once: bins and tests of the whole workspace.
CARGO_ALL := --locked --workspace --bins --tests
step = @printf '\n== %s (%s)\n' "$(1)" "$$(date +%T)"

help: ## Lists the verbs
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | while IFS=$$'\t' read -r verb text; do printf '  %-12s %s\n' "$$verb" "$$text"; done

run: $(WEB)/dist/index.html ## Builds what is missing and runs the quickstart: people meet with nothing but a browser
	cargo build --locked --workspace --bins
	$(TARGET)/debug/plenum up -f docs/examples/quickstart

test: export PLENUM_KUBERNETES = required
test: install kubernetes test-web test-rust test-go e2e ## Runs everything that must hold: rules, units, pages, browsers, SDK

test-long: install kubernetes $(WEB)/dist/index.html ## What takes longer: scale, long outages, other versions of Kubernetes; hours
	.ci/long $(STEPS)

bench: ## Prints the figures of docs/benchmarks.md
	cargo bench --locked --package media-sim --bench forward
	cargo bench --locked --package media-sim --bench capacity
	cargo bench --locked --package media-node --bench start
	cd media-node/compare && cargo run --locked --release

bench-control: ## Loads the control plane: 2,000 nodes, 300,000 joins, 20,000 sessions, a real Redis; minutes
	cargo build --locked --release --package control-plane --package control-load --bins
	$(TARGET)/release/control-load run $(LOAD)

check: ## Lints without running anything
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	.ci/purity
	command -v cargo-machete >/dev/null || cargo install --quiet --locked cargo-machete
	cargo machete
	command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
	cargo deny --locked check bans licenses sources
	cd e2e/go && go vet ./... && test -z "$$(gofmt -l .)"

crds: ## Writes crds/ and the reference pages of docs/ from the types and the chart
	cargo run --locked --package plenum-api --bin crdgen

web: $(WEB)/dist/index.html ## Builds the page

build: $(WEB)/dist/index.html ## Builds all binaries and tests
	cargo build $(CARGO_ALL)

images: $(WEB)/dist/index.html ## Builds static binaries and packs them as OCI archives
	.ci/images release

install: ## Installs by package name what the tests need
	@.ci/install

kubernetes: ## Builds the programs of the test cluster; 10 minutes the first time, then they are cached
	@.ci/kubernetes

cluster: install kubernetes $(WEB)/dist/index.html ## Starts a real Kubernetes of two nodes on this machine and prints KUBECONFIG
	cargo build --locked --workspace --bins
	$(TARGET)/debug/cluster up

cluster-down: ## Ends it and leaves nothing behind
	$(TARGET)/debug/cluster down

$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	cd $(WEB) && npm ci

$(WEB)/dist/index.html: $(WEB)/node_modules/.package-lock.json $(shell find $(WEB)/src $(WEB)/index.html $(WEB)/vite.config.ts -type f 2>/dev/null)
	cd $(WEB) && npm run build
	@touch $@

test-web: install $(WEB)/node_modules/.package-lock.json ## Units of the page, its build, its size, no foreign host
	$(call step,the page: units and build)
	cd $(WEB) && npm test
	@touch $(WEB)/dist/index.html

test-rust: install test-web e2e/browser/node_modules/.package-lock.json ## Units of all crates; crds/ as the types say; pure crates are pure
	$(call step,Rust: build)
	cargo build $(CARGO_ALL)
	$(call step,Rust: rules and units)
	$(TARGET)/debug/crdgen --check
	.ci/purity
	cargo test --locked --workspace

test-go: install ## Builds the program of the Go SDK
	$(call step,Go: build)
	mkdir -p $(TARGET)/e2e
	cd e2e/go && go vet ./... && go test -c -o $(abspath $(TARGET))/e2e/lab.test .

e2e/browser/node_modules/.package-lock.json: e2e/browser/package.json e2e/browser/package-lock.json
	cd e2e/browser && npm ci

e2e: install test-rust test-go e2e/browser/node_modules/.package-lock.json ## Real browsers, SDK and faults against the running system
	$(call step,end to end)
	rm -rf $(TARGET)/e2e/failures $(TARGET)/e2e/logs
	cd e2e/browser && CARGO_TARGET_DIR=$(abspath $(TARGET)) node run.mjs

screenshots: build test-go e2e/browser/node_modules/.package-lock.json ## Takes the pictures of docs/images anew
	cd e2e/browser && CARGO_TARGET_DIR=$(abspath $(TARGET)) E2E_PICTURES=$(abspath docs/images) node run.mjs pictures.mjs

clean-e2e: ## Removes films, logs and pictures of the end-to-end tests
	rm -rf $(TARGET)/e2e
