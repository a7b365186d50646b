# Every command of the project. `make` alone lists them; CI runs the same targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
INSTALLED := .venv/.installed
ARGS ?=
export PYTHON
# Without compiled modules every process compiles again what it imports: Feast alone for seconds, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup fmt lint typecheck check test unit integration e2e bits kserve-client simulate overload cross-talk examples budgets fuzz endurance crashes calibration bench bench-compare demo up down doctor lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Install the locked environment into .venv (PYTHON=… chooses the interpreter)

# Re-done only when what is to be installed changes.
$(INSTALLED): pyproject.toml requirements.lock scripts/setup.sh
	@scripts/setup.sh
	@touch $@

fmt: $(INSTALLED) ## Format the code and fix what the linter can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: $(INSTALLED) ## Check rules, format and import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

typecheck: $(INSTALLED) ## Check types (mypy, strict)
	@$(BIN)/mypy

check: lint typecheck ## Lint and check types

# Each worker has servers of its own, shared by the tests of a file. Much of a test is waiting for processes, so there are
# twice as many workers as cores, up to four; files go out in the order of their folders, where the longest come first.
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell echo $$(( $(CORES) < 3 ? 2 * $(CORES) : 4 )))
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
test: $(INSTALLED) ## Run every test, with real servers (ARGS="-k name" narrows)
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

unit: $(INSTALLED) ## Run the tests that need no server
	@$(BIN)/pytest $(PARALLEL) tests/unit $(ARGS)

integration: $(INSTALLED) ## Run the tests against real Valkey and Triton
	@$(BIN)/pytest $(PARALLEL) tests/contract tests/integration tests/endurance $(ARGS)

e2e: $(INSTALLED) ## Run the tests of the whole stack
	@$(BIN)/pytest tests/e2e $(ARGS)

bits: ## Check stored and fitted transforms bit for bit under another Python (PYTHON=/path/to/python3)
	@VENV=.venv-other scripts/setup.sh
	@.venv-other/bin/pytest tests/unit/test_transform_stored.py tests/unit/test_transform_fitting.py tests/unit/test_golden.py

kserve-client: $(INSTALLED) ## Install KServe's client beside, for its test (its pins clash with ours)
	@$(BIN)/uv venv --quiet --allow-existing .kserve && $(BIN)/uv pip install --quiet --python .kserve/bin/python kserve==0.21.0

simulate: $(INSTALLED) ## Simulate rollouts at length: false alarms and delays (MORE=20 times as much as the tests)
	@SKEWLESS_TEST_SIMULATIONS=$${MORE:-20} $(BIN)/pytest tests/unit/test_rollout_confidence.py \
		tests/unit/test_rollout_shadow.py tests/unit/test_rollout_progression.py tests/unit/test_rollout_bandit.py $(ARGS)

overload: $(INSTALLED) ## Flood a gateway with five times what it can answer, at length (SECONDS_EACH=60)
	@SKEWLESS_TEST_OVERLOAD_S=$${SECONDS_EACH:-60} $(BIN)/pytest tests/integration/test_overload.py $(ARGS)

cross-talk: $(INSTALLED) ## Ask 100,000 mixed requests at once and compute every answer again (REQUESTS=…)
	@SKEWLESS_TEST_CROSS_TALK=$${REQUESTS:-100000} $(BIN)/pytest tests/integration/test_cross_talk.py $(ARGS)

examples: $(INSTALLED) ## Try property-based tests with far more examples than `make test` (TIMES=10)
	@SKEWLESS_TEST_EXAMPLES=$${TIMES:-10} $(BIN)/pytest $(PARALLEL) tests/unit $(ARGS)

budgets: $(INSTALLED) ## Accept what a prediction request costs now as the budgets of the hot path
	@SKEWLESS_TEST_ACCEPT_BUDGETS=1 $(BIN)/pytest tests/integration/test_hot_path_stages.py $(ARGS)

fuzz: $(INSTALLED) ## Send a gateway what no client should, at length (ATTEMPTS=50000, SEED=6)
	@SKEWLESS_TEST_FUZZ=$${ATTEMPTS:-50000} SKEWLESS_TEST_FUZZ_SEED=$${SEED:-6} SKEWLESS_TEST_SCHEMATHESIS=100 \
		$(BIN)/pytest tests/integration/test_http_fuzz.py tests/integration/test_schemathesis.py $(ARGS)

endurance: $(INSTALLED) ## Ask a gateway a million mixed requests and see that it holds no more than before (REQUESTS=1000000)
	@SKEWLESS_TEST_ENDURANCE=$${REQUESTS:-1000000} $(BIN)/pytest tests/endurance $(ARGS)

crashes: $(INSTALLED) ## Kill gateways, shipper, ingestion, materialization, Valkey and a consumer for long (SECONDS_EACH=600, SEED=…)
	@SKEWLESS_TEST_CRASHES_S=$${SECONDS_EACH:-600} SKEWLESS_TEST_CRASHES_SEED=$${SEED:-7} \
		SKEWLESS_TEST_REGISTRY_DEATHS=40 SKEWLESS_TEST_SHIPPER_STEPS=1 \
		SKEWLESS_TEST_INGEST_DEATHS=300 SKEWLESS_TEST_INGEST_SEED=$${SEED:-7} \
		SKEWLESS_TEST_MATERIALIZE_TRIALS=200 SKEWLESS_TEST_MATERIALIZE_SEED=$${SEED:-7} $(BIN)/pytest -s \
		tests/integration/test_log_crashes.py tests/integration/test_registry_crashes.py \
		tests/integration/test_shipper_crashes.py tests/integration/test_ingest_crashes.py \
		tests/integration/test_materialize_crashes.py $(ARGS)

calibration: $(INSTALLED) ## Simulate the drift detector at length: false alarms and delays (WORLDS=16)
	@$(BIN)/python -m bench.drift_calibration run --worlds $${WORLDS:-16} $(ARGS)

bench: $(INSTALLED) ## Measure against floors in the same run (ARGS="reads --quick" narrows)
	@$(BIN)/python -m bench run $(ARGS)

bench-compare: $(INSTALLED) ## Compare the newest result with that of a revision (REV=…)
	@$(BIN)/python -m bench compare $(REV)

demo: $(INSTALLED) ## Run the shipped example end to end (ARGS=--exit stops the stack at its end)
	@$(BIN)/skewless demo $(ARGS)

up: $(INSTALLED) ## Start the embedded stack in the foreground
	@$(BIN)/skewless up $(ARGS)

down: $(INSTALLED) ## Stop the embedded stack
	@$(BIN)/skewless down $(ARGS)

doctor: $(INSTALLED) ## Say what is missing or unhealthy, and what to do
	@$(BIN)/skewless doctor $(ARGS)

# The images' locks hold a subset of the versions of requirements.lock.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock"
lock: $(INSTALLED) ## Resolve dependencies again, keeping pins that still fit (ARGS=--upgrade moves them)
	@$(COMPILE) $(ARGS) pyproject.toml --all-extras --group dev --output-file requirements.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra gateway --extra postgres --extra s3 --extra tracing --group build --constraints requirements.lock \
		--output-file services/skewless_gateway/requirements.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra log --extra kafka --extra s3 --group build --constraints requirements.lock \
		--output-file services/skewless_shipper/requirements.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra monitor --extra training --extra kafka --extra s3 --extra postgres --group build \
		--constraints requirements.lock --output-file monitoring/skewless_monitor/requirements.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra ingest --extra kafka --extra s3 --extra postgres --group build \
		--constraints requirements.lock --output-file services/skewless_ingest/requirements.lock
	@$(COMPILE) $(ARGS) pyproject.toml --extra scheduler --extra training --extra s3 --extra postgres --group build \
		--constraints requirements.lock --output-file services/skewless_scheduler/requirements.lock
	@$(COMPILE) $(ARGS) --group triton --constraints requirements.lock \
		--output-file services/skewless_triton/requirements.lock

clean: ## Stop the stack and remove everything that was installed or made
	@if [ -x $(BIN)/skewless ] && [ -e .skewless/stack.json ]; then $(BIN)/skewless down; fi
	@rm -rf .skewless .venv .venv-other .kserve .peers .boot dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
