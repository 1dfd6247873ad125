# Names for what people run. The logic is in Rust (crates/xtask) and Python (tests/python).
# Everything uses the release profile and one build folder, so that each dependency compiles once.

CARGO ?= cargo
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
VENV := $(TARGET_DIR)/venv
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest run || echo test)

.PHONY: help run test check bench fuzz-smoke overload crash simulate soak docs proto setup setup-browser setup-clients
help: ## Lists these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: setup ## Builds and starts Spoor; ARGS='--data-dir elsewhere' passes flags
	$(CARGO) run --release -- $(ARGS)

test: setup setup-browser setup-clients fuzz-smoke ## Runs every test
	$(CARGO) $(NEXTEST) --release --workspace
	$(VENV)/bin/python -m pytest tests/python

check: setup ## Format, lints, documentation, repository rules, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --workspace --no-deps --document-private-items
	$(CARGO) run --release --quiet --package spoor-xtask
	CARGO_TARGET_DIR=$(TARGET_DIR) $(CARGO) run --release --quiet --manifest-path proto/generate/Cargo.toml -- --check

bench: setup ## Measures, on a corpus that it generates
	$(CARGO) bench --profile release

fuzz-smoke: setup ## Feeds every decoder with mutated input, for some seconds
	CARGO_TARGET_DIR=$(TARGET_DIR) $(CARGO) run --release --manifest-path tests/fuzz/Cargo.toml

overload: setup ## Clients at twice the sustainable rate for a minute
	SPOOR_OVERLOAD_SECONDS=60 $(CARGO) test --release --test overload -- --nocapture

crash: setup ## Two hundred seeded kills; SPOOR_CRASH_SEED=7 replays one
	SPOOR_CRASH_SEEDS=200 $(CARGO) test --release --test crash -- --nocapture

simulate: setup ## Two hundred seeded lives of a store; SPOOR_SIMULATION_SEED=7 replays one
	SPOOR_SIMULATION_SEEDS=200 $(CARGO) test --release --test simulation -- --nocapture

soak: setup ## Ten minutes of ingest, queries, merges and retention, sped up
	SPOOR_SOAK_SECONDS=600 $(CARGO) test --release --test soak -- --nocapture

docs: setup ## Writes the pages that are made from the code
	$(CARGO) run --release --quiet -- config reference > docs/configuration.md

proto: ## Writes crates/api/src/gen from the files in proto/
	CARGO_TARGET_DIR=$(TARGET_DIR) $(CARGO) run --release --quiet --manifest-path proto/generate/Cargo.toml

setup: ## Installs what is missing to build
	@.ci/setup

setup-browser: ## Installs a browser for the tests, if there is none
	@.ci/setup browser

setup-clients: setup $(VENV)/ready $(TARGET_DIR)/node/ready $(TARGET_DIR)/prometheus/ready ## Python, Node's SDK and a Prometheus, for the tests

$(VENV)/ready: tests/python/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement tests/python/requirements.txt
	touch $@

$(TARGET_DIR)/node/ready: tests/node/package.json tests/node/package-lock.json
	@.ci/setup node
	mkdir -p $(@D)
	cp $^ $(@D)
	cd $(@D) && npm ci --silent --ignore-scripts --no-audit --no-fund
	touch $@

$(TARGET_DIR)/prometheus/ready:
	mkdir -p $(@D)
	@.ci/setup prometheus $(@D)
	touch $@
