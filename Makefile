# SPDX-License-Identifier: EUPL-1.2
.PHONY: help test check crds

help: ## Lists the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/'

test: ## Runs all tests; fails where crds/ differs from the types
	cargo run --locked --package plenum-api --bin crdgen -- --check
	cargo test --locked --workspace

check: ## Lints without running anything
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

crds: ## Writes crds/ from the types
	cargo run --locked --package plenum-api --bin crdgen
