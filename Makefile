# Main targets: `make demo`, `make run`, `make test`. All tools run from .venv.
VENV = .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m

# Options of demo, run and sandbox; empty means the default of `my-symbols ... --help`.
REPLAY ?=
REPLAY_FROM ?=
SEED ?=
PORT ?=
FUZZ_BODIES ?= 1000000
FUZZ_EXAMPLES ?= 200
STATEFUL_LIVES ?= 300
# Tests without a time limit; an ordinary test is ended after five minutes.
ENDLESS := pytest -q -o faulthandler_timeout=0
# Coverage doubles the time of the tests.
COVERAGE ?=
# Hours of `soak`; empty means 3.
SOAK_HOURS ?=
# Names of benchmarks; empty means all of them.
BENCH ?=
# Non-empty: keep the golden recording and repeat only its decisions.
KEEP ?=
# Test only every n-th mutant.
MUTANTS_EVERY ?= 1

# If set, imports take five times as long, and the demo starts two processes.
unexport PYTHONDONTWRITEBYTECODE

seed_option = $(if $(SEED),--seed $(SEED))
port_option = $(if $(PORT),--port $(PORT))
replay_option = $(if $(REPLAY),--replay $(REPLAY)) $(if $(REPLAY_FROM),--replay-from $(REPLAY_FROM))

.PHONY: help service setup check test versions demo run sandbox fuzz long stateful bench chaos soak golden mutants lock audit docs format clean
.DEFAULT_GOAL := help

help: ## list of targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

# Two parts: `service` is enough to run; `setup` adds the tests, linters and research.
# A parquet replay needs one more package than the service.
service: $(if $(filter %.parquet %.pq,$(REPLAY)),$(VENV)/.replay,$(VENV)/.service) ## create .venv with the packages of the service
setup: $(VENV)/.installed ## create .venv with tests and linters as well (only after a change)

$(VENV)/.service: requirements-runtime.lock pyproject.toml .ci/setup
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh .ci/setup service

$(VENV)/.replay: requirements.lock requirements-runtime.lock pyproject.toml .ci/setup
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh .ci/setup replay

$(VENV)/.installed: requirements.lock pyproject.toml .ci/setup
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh .ci/setup all

check: setup ## format, lint, types, import contracts, migrations
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy app tests
	PYTHONPATH=. $(BIN)/lint-imports
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
		export MYSYMBOLS_DATABASE__URL="sqlite+aiosqlite:///$$scratch/check.sqlite3" && \
		$(RUN) alembic upgrade head && $(RUN) alembic check

test: setup ## all tests except the long ones; COVERAGE=1 also checks the coverage limits
	@$(RUN) compileall -q app  # once, instead of in each pytest process
	OPENBLAS_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadgroup -m "not long" -p no:schemathesis \
		$(if $(COVERAGE),--cov --cov-report=)
	$(if $(COVERAGE),$(RUN) coverage report --skip-covered --fail-under=90)
	$(if $(COVERAGE),$(RUN) coverage report --skip-covered --include='app/*/domain/*' --fail-under=100)

versions: ## `test` on other interpreters, each with its own .venvs/VERSION: PYTHONS="python3.12 python3.13"
	@test -n "$(PYTHONS)" || { echo 'versions: name interpreters: PYTHONS="python3.12 python3.13"'; exit 2; }
	@set -e; for python in $(PYTHONS); do \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "versions: $$version"; \
		$(MAKE) --no-print-directory test VENV=".venvs/$$version" PYTHON="$$python"; \
	done

demo: service ## local exchange and service together, first board, portfolio of ten, docs UI
	$(BIN)/my-symbols demo $(seed_option) $(port_option) $(replay_option)

run: service ## the service against live KuCoin (no key needed)
	$(BIN)/my-symbols serve $(port_option)

sandbox: service ## the local exchange alone
	$(BIN)/my-symbols sandbox $(seed_option) $(port_option) $(replay_option)

fuzz: setup ## millions of hostile request bodies, and many requests generated from the OpenAPI document
	MYTESTS_HOSTILE_BODIES=$(FUZZ_BODIES) $(RUN) $(ENDLESS) tests/foundation/http/test_hostile_bodies.py
	MYTESTS_GENERATED_EXAMPLES=$(FUZZ_EXAMPLES) $(RUN) $(ENDLESS) \
		tests/foundation/http/test_generated_requests.py tests/security/api/test_generated_roles.py

long: setup ## the slow tests: all changes, jobs, stream, engine, alert scenes
	OPENBLAS_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadgroup -m long -o faulthandler_timeout=1200
	MYTESTS_TAMPERINGS=500 MYTESTS_HOSTILE_BODIES=20000 MYTESTS_STATEFUL_EXAMPLES=20 $(RUN) $(ENDLESS) \
		tests/operations/storage/test_audit.py tests/foundation/http/test_hostile_bodies.py tests/stateful

stateful: setup ## random portfolio histories on both databases, many more than in `test`
	MYTESTS_STATEFUL_EXAMPLES=$(STATEFUL_LIVES) MYTESTS_STATEFUL_STEPS=60 \
		$(RUN) $(ENDLESS) tests/stateful

bench: setup ## benchmarks, each compared with a reference of the same run, in one table: BENCH="scoring board_writes" selects some
	$(RUN) benchmarks $(BENCH)

chaos: setup ## fault injection: feed faults and refused decisions, a day of decisions with faults, and recovery times of three real processes
	$(RUN) benchmarks.feed_storms
	OPENBLAS_NUM_THREADS=1 $(RUN) benchmarks.feed_deaths
	OPENBLAS_NUM_THREADS=1 $(RUN) benchmarks.decisions
	OPENBLAS_NUM_THREADS=1 $(RUN) benchmarks.chaos

soak: setup ## the demo for SOAK_HOURS (3) hours: memory, descriptors and tasks must not grow
	SOAK_HOURS="$(SOAK_HOURS)" $(RUN) benchmarks.soak

golden: setup ## record the golden hours again and rewrite tests/golden (give the reason in docs/decisions); KEEP=1 keeps the recording and repeats the decisions
	OPENBLAS_NUM_THREADS=1 $(RUN) tests.golden $(if $(KEEP),--keep)

mutants: setup ## mutation tests of weights and scores: lists mutants that no test detects (an hour; MUTANTS_EVERY=6 for a part)
	OPENBLAS_NUM_THREADS=1 MUTANTS_EVERY=$(MUTANTS_EVERY) $(RUN) benchmarks.mutation_testing

lock: setup ## resolve pyproject.toml into both lock files
	$(RUN) uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" \
		--extra replay --extra research --group test --group lint --group build \
		pyproject.toml --output-file requirements.lock
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --constraint requirements.lock \
		--group build pyproject.toml --output-file requirements-runtime.lock

audit: setup ## bill of materials of the runtime lock (var/sbom.cdx.json), and its known vulnerabilities if a database answers
	$(RUN) tests.supply_chain

docs: service ## generate docs/configuration.md, docs/cli.md, docs/asyncapi.json and docs/openapi.json
	@$(BIN)/my-symbols config document > docs/configuration.md
	@$(BIN)/typer app.cli.application utils docs --name my-symbols --title "Command line" --output docs/cli.md
	@$(BIN)/python -m app.operations.api.event_schemas > docs/asyncapi.json
	@$(BIN)/python -m app.container.api_document > docs/openapi.json

format: setup ## format and sort imports with ruff
	$(RUN) ruff format .
	$(RUN) ruff check --fix --select I .

clean: ## remove everything that make created; databases under var/ stay
	rm -rf .venv .venvs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov
	rm -f .coverage .coverage.*
