# What one types. `make` alone lists it; every target may be called again and does only what is still to do.

SHELL := /bin/bash
PYTHON ?= python3

ONNXRUNTIME := .onnxruntime/libonnxruntime.so.1.31.1
CLIENTS     := .venv/clients
SCHEMA      := .venv/schema
MLSERVER    := .venv/mlserver
GO          := .venv/go
JAVASCRIPT  := .venv/js
TRAINING    := .venv/models
GPU         := .venv/gpu
CUDA        := .venv/cuda
GOLDENS     := .venv/goldens
DELIVERY    := .venv/delivery
HELM        := .venv/helm
MINILM      := .models/minilm/1/model.safetensors
MINILM_ONNX := .models/minilm-onnx/1/model.onnx

# The tests of the whole process, tests/*.rs: they run once on each engine.
PROMISES := $(patsubst tests/%.rs,--test=%,$(wildcard tests/*.rs))

# Safetensors and tract too; `make serve` leaves them out, to be there soon. What is tested is built by BINARY, and by nothing else.
FEATURES := --features sluicegate-server/candle,sluicegate-tests/candle
BINARY   := cargo build --locked --package sluicegate-server --features candle

FUZZ_PAGE = loadtests/results/$(shell date +%F)-$(shell git rev-parse --short=9 HEAD)-fuzz.md

# Where the packages of $(GPU) put their libraries, for the loader.
GPU_LIBRARIES = ORT_DYLIB_PATH=$$(echo $(CURDIR)/$(GPU)/lib/python3*/site-packages/onnxruntime/capi) \
	LD_LIBRARY_PATH=$$(echo $(CURDIR)/$(GPU)/lib/python3*/site-packages/nvidia/*/lib | tr ' ' ':'):$$LD_LIBRARY_PATH

# How candle's kernels are compiled: for GPUs of this capability and newer ones (80: A100, L4, L40, H100 and so on; 75: T4 too, without
# BF16). Cargo's wrapper sees to it that the result starts where there is no driver.
CUDA_COMPUTE_CAP ?= 80
CUDA_BUILD = home=$$(echo $(CURDIR)/$(CUDA)/lib/python3*/site-packages/nvidia/cu13) && \
	CUDA_HOME=$$home CUDA_PATH=$$home PATH=$$home/bin:$$PATH CUDA_COMPUTE_CAP=$(CUDA_COMPUTE_CAP) CUDARC_CUDA_VERSION=13000 \
	RUSTC_WRAPPER=$(CURDIR)/tools/cuda/rustc RUSTFLAGS="-L native=$$home/lib" CARGO_TARGET_DIR=target/cuda

# $(call need,COMMAND,HOW TO GET IT)
need = @command -v $(1) >/dev/null || { echo "$(1) is missing: $(2)" >&2; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help serve quick-build release test test-rust test-clients fmt lint docs generate models minilm goldens
.PHONY: bench instructions compare encoders workloads soak fuzz deny ci clean test-schema cuda test-cuda test-gpu bench-gpu
.PHONY: test-delivery soak-delivery chart need-helm need-prometheus
.PHONY: onnxruntime need-rust need-python need-toolchains need-chromium need-postgres need-wrk need-h2load need-valgrind

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The optimiser is left out of our own crates here, and the download goes on beside the build: two minutes on two cores.
serve: need-rust ## fetch what is missing, build, and serve models/
	@$(MAKE) --no-print-directory --jobs=2 onnxruntime quick-build
	target/debug/sluicegate serve --models models

quick-build:
	CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=none cargo build --locked --no-default-features

release: need-rust ## the binary for production: target/release/sluicegate
	$(BINARY) --release

test: test-rust test-clients test-schema ## every test of the gateway, on both engines

test-rust: need-rust onnxruntime minilm need-postgres ## the tests in Rust
	$(BINARY)
	SLUICEGATE_REQUIRE_ONNXRUNTIME=1 SLUICEGATE_REQUIRE_MINILM=1 $(if $(CI),SLUICEGATE_REQUIRE_POSTGRES=1) cargo test --workspace --locked $(FEATURES)
	SLUICEGATE_TEST_ENGINE=tract cargo test --workspace --locked $(FEATURES) $(PROMISES)

test-clients: need-rust onnxruntime minilm need-chromium need-prometheus need-toolchains $(CLIENTS)/ready $(MLSERVER)/ready ## the gateway against foreign clients and a browser
	$(BINARY)
	cargo build --locked --package sluicegate-outbound --example emit
	$(CLIENTS)/bin/python -m pytest tests/clients --ignore-glob='*/test_kserve_*'
	@# KServe's package and Triton's both register the protocol's messages, which one process takes once.
	$(CLIENTS)/bin/python -m pytest $(wildcard tests/clients/test_kserve_*.py)

test-schema: need-rust onnxruntime $(SCHEMA)/ready ## thousands of requests made of the OpenAPI document
	$(BINARY)
	$(SCHEMA)/bin/python -m pytest tests/schema

test-delivery: need-rust onnxruntime need-helm need-prometheus need-postgres $(DELIVERY)/ready ## the chart, the image, the alerts: rendered, checked and lived by processes
	$(BINARY)
	$(DELIVERY)/bin/python -m pytest tests/delivery -m 'not soak' --numprocesses=2 --dist=loadfile

soak-delivery: need-rust onnxruntime need-helm $(DELIVERY)/ready ## models flipped 500 times under load, as the kubelet does it
	$(BINARY)
	$(DELIVERY)/bin/python -m pytest tests/delivery -m soak

chart: $(DELIVERY)/ready ## write the chart's table of values, its schema and its dashboards anew
	$(DELIVERY)/bin/python tools/chart_docs.py
	$(DELIVERY)/bin/python tools/dashboards.py

cuda: need-rust need-python $(CUDA)/ready ## the binary with candle's kernels for CUDA: target/cuda/release/sluicegate; needs no GPU
	$(call need,g++,apt-get install g++)
	$(CUDA_BUILD) $(BINARY),cuda --release

test-cuda: cuda onnxruntime ## that it starts and serves where there is no driver, and says what is missing
	$(PYTHON) tools/cuda/without_driver.py target/cuda/release/sluicegate

# $(call on-gpu,TARGET): does it where there is a GPU.
on-gpu = @if nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then $(MAKE) --no-print-directory $(1); else echo "skipped: nvidia-smi finds no GPU"; fi

test-gpu: ## the engine's suite and the started gateway on the first GPU; skipped where there is none
	$(call on-gpu,test-on-gpu)

bench-gpu: ## test-gpu's checks, then speed beside ONNX Runtime in process; writes a page to loadtests/results
	$(call on-gpu,bench-on-gpu)

.PHONY: test-on-gpu bench-on-gpu
test-on-gpu: need-rust need-python need-wrk $(GPU)/ready $(CUDA)/ready
	$(CUDA_BUILD) SLUICEGATE_TEST_DEVICE=cuda:0 SLUICEGATE_REQUIRE_ONNXRUNTIME=1 $(GPU_LIBRARIES) \
		cargo test --release --locked -p sluicegate-engine --features cuda --test conformance --test cuda --test hub
	$(CUDA_BUILD) $(BINARY),cuda --release
	$(GPU)/bin/python loadtests/gpu/gpu.py --gateway target/cuda/release/sluicegate --parts checks

bench-on-gpu: need-rust need-python need-wrk $(GPU)/ready
	cargo build --release --locked -p sluicegate-server -p sluicegate-loadtests
	$(GPU)/bin/python loadtests/gpu/gpu.py

fmt: need-rust ## format the code
	cargo fmt --all

lint: need-rust ## formatting and clippy, with warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked $(FEATURES) -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings

docs: need-rust ## the documents of the code, with warnings denied
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked $(FEATURES)

generate: need-rust ## write docs/config.md, docs/config.schema.json and docs/metrics.md anew
	SLUICEGATE_BLESS=1 cargo test --locked -p sluicegate-config --test generated

models: $(TRAINING)/ready ## train the sample models anew
	$(TRAINING)/bin/python models/train.py

minilm: $(MINILM) $(MINILM_ONNX) ## a sentence encoder in .models: in safetensors, and as ONNX

goldens: $(GOLDENS)/ready $(MINILM) ## what PyTorch says, to be compared with: tests/goldens
	$(GOLDENS)/bin/python tests/goldens/minilm.py
	$(GOLDENS)/bin/python tests/goldens/digits_net.py
	$(GOLDENS)/bin/python tests/goldens/hub.py

bench: need-rust onnxruntime need-wrk need-h2load ## codecs and policy without sockets, then one row over HTTP and gRPC beside empty handlers, and what traces cost
	cargo bench --locked -p sluicegate-benches
	cargo build --release --locked -p sluicegate-server -p sluicegate-loadtests
	target/release/http
	target/release/grpc
	target/release/traces

instructions: need-rust need-valgrind onnxruntime ## instructions of the parts, beside the recorded ones, and of a request, alone and with rollouts and traces; WRITE=1 records them
	cargo bench --locked -p sluicegate-benches --bench instructions -- $(if $(WRITE),--write)
	$(BINARY) --release
	$(PYTHON) loadtests/requests.py $(if $(WRITE),--write)

compare: need-rust need-python onnxruntime need-wrk ## the gateway beside other model servers, measured on this machine
	cargo build --release --locked -p sluicegate-server -p sluicegate-loadtests
	$(PYTHON) loadtests/peers/compare.py

encoders: need-rust need-python onnxruntime need-wrk minilm ## sentences a second of both engines, beside sentence-transformers
	$(BINARY) --release
	$(PYTHON) loadtests/peers/encoders.py

workloads: need-rust onnxruntime need-wrk ## batching, overload, a thousand models, and a neighbour that is swapped, as ratios
	cargo build --release --locked -p sluicegate-server -p sluicegate-loadtests
	target/release/workloads

soak: workloads test-cuda ## 1,000 swaps under load, after the workloads; 10,000 simulated rollouts, 100,000 requests that are split; CUDA without a driver
	target/release/swaps
	target/release/rollouts
	SLUICEGATE_TEST_ROLLOUTS=10000 cargo test --locked -p sluicegate-rollout --test simulation
	$(BINARY)
	SLUICEGATE_TEST_SPLIT=100000 cargo test --locked -p sluicegate-tests --features candle --test split

fuzz: need-rust ## mutated inputs for all that reads a stranger's bytes; SECONDS=600 each, WRITE=1 keeps the figures
	cargo run --locked -p sluicegate-fuzz -- --seconds $(or $(SECONDS),60) $(if $(WRITE),--report $(FUZZ_PAGE))

deny: need-rust ## licences, sources and known weaknesses of the dependencies
	@cargo deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 2; }
	cargo deny --locked check

ci: ## what the continuous integration runs
	CI=true .ci/run

clean: ## remove all that was built or fetched
	rm -rf target .onnxruntime .models .venv

onnxruntime: $(ONNXRUNTIME)

$(ONNXRUNTIME):
	$(call need,$(PYTHON),apt-get install python3)
	@$(PYTHON) tools/fetch_onnxruntime.py $(@D)

$(MINILM): | need-python
	@$(PYTHON) models/minilm.py .models

$(MINILM_ONNX): | $(MINILM) $(TRAINING)/ready
	$(TRAINING)/bin/python models/minilm_onnx.py .models

# A virtual environment is `ready` when all of its packages are in it.
$(CLIENTS)/ready: tests/clients/requirements.txt tests/clients/constraints.txt
$(MLSERVER)/ready: tests/clients/mlserver/requirements.txt tests/clients/mlserver/constraints.txt
$(SCHEMA)/ready: tests/schema/requirements.txt tests/schema/constraints.txt
$(TRAINING)/ready: models/requirements.txt
$(GOLDENS)/ready: tests/goldens/requirements.txt
$(GPU)/ready: loadtests/gpu/requirements.txt
$(CUDA)/venv: tools/cuda/requirements.txt
$(DELIVERY)/ready: tests/delivery/requirements.txt tests/delivery/constraints.txt

$(CLIENTS)/ready $(MLSERVER)/ready $(SCHEMA)/ready $(TRAINING)/ready $(GOLDENS)/ready $(GPU)/ready $(CUDA)/venv $(DELIVERY)/ready: | need-python
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Packages lose what may be executed. The linker is given the runtime that needs no library under the name that candle asks for.
$(CUDA)/ready: $(CUDA)/venv
	cd $(CUDA)/lib/python3*/site-packages/nvidia/cu13 && chmod +x bin/* nvvm/bin/* && ln -sf libcudart_static.a lib/libcudart.a
	@touch $@

# Programs in Go that make and ask gRPC, and packages in JavaScript: in the versions that go.mod and the lock file say.
$(GO)/ready: tests/clients/go/go.mod tests/clients/go/go.sum
	mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) go -C tests/clients/go install -mod=readonly tool
	@touch $@

$(JAVASCRIPT)/ready: tests/clients/js/package.json tests/clients/js/package-lock.json
	mkdir -p $(@D)
	cp $^ $(@D)
	npm --prefix $(@D) ci --no-audit --no-fund --ignore-scripts
	@touch $@

# Helm, and the definitions of the foreign objects that the chart makes, in pinned versions.
$(HELM)/ready: tests/delivery/crds.py
	mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) go install helm.sh/helm/v3/cmd/helm@v3.21.4
	$(PYTHON) tests/delivery/crds.py $(@D)/crds
	@touch $@

# Where Go or Prometheus is missing, what needs them says that it was skipped; on CI it fails.
need-helm: | need-python
	@if command -v go >/dev/null; then $(MAKE) --no-print-directory $(HELM)/ready; else echo "go is missing: install it for the tests of the chart" >&2; fi

need-prometheus:
	@tools/install_packages prometheus:prometheus promtool:prometheus prometheus-alertmanager:prometheus-alertmanager curl:curl || true

need-rust:
	$(call need,cargo,install Rust by rustup; rust-toolchain.toml says which)
	$(call need,cc,apt-get install gcc)

need-python:
	$(call need,$(PYTHON),apt-get install python3)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.13 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "venv is missing: apt-get install python3-venv" >&2; exit 2; }

# Where Go or Node.js is missing, the examples in that language say that they were skipped; on CI they fail.
need-toolchains:
	@if command -v go >/dev/null; then $(MAKE) --no-print-directory $(GO)/ready; else echo "go is missing: install it for the tests in Go" >&2; fi
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(JAVASCRIPT)/ready; else echo "npm is missing: install it for the tests in JavaScript" >&2; fi

# The browser is for one test; where it cannot be installed, that test says that it was skipped.
need-chromium:
	@tools/install_packages chromium:chromium chromedriver:chromium-driver || true

# The server that replicas share; where it cannot be installed, its tests say that they were skipped, and on CI they fail.
need-postgres:
	@tools/install_packages pg_ctlcluster:postgresql || true

need-wrk:
	@tools/install_packages wrk:wrk

need-h2load:
	@tools/install_packages h2load:nghttp2-client

need-valgrind:
	@tools/install_packages valgrind:valgrind
