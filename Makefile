# One command each: `make demo`, `make run`, `make test`. All tools run from .venv.
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
# Tests that are told to go on for hours; otherwise one that takes five minutes hangs, and is ended.
ENDLESS := pytest -q -o faulthandler_timeout=0
# Measuring what the tests reach takes as long as running them.
COVERAGE ?=
# Hours of `soak`; empty means three.
SOAK_HOURS ?=
# Names of benchmarks; empty means all of them.
BENCH ?=
# Anything but empty decides anew on the golden recording that there is.
KEEP ?=
# Every so many mistakes of those that there are.
MUTANTS_EVERY ?= 1

# With it set, imports cost five times as much, and the demo starts two processes.
unexport PYTHONDONTWRITEBYTECODE

seed_option = $(if $(SEED),--seed $(SEED))
port_option = $(if $(PORT),--port $(PORT))
replay_option = $(if $(REPLAY),--replay $(REPLAY)) $(if $(REPLAY_FROM),--replay-from $(REPLAY_FROM))

.PHONY: help service setup check test versions demo run sandbox fuzz long stateful bench chaos soak golden mutants lock docs format clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

# Two parts: `service` is enough to run; `setup` adds the tests, linters and research.
# A parquet replay needs one package more than the service.
service: $(if $(filter %.parquet %.pq,$(REPLAY)),$(VENV)/.replay,$(VENV)/.service) ## make .venv with what the service needs
setup: $(VENV)/.installed ## make .venv with tests and linters as well (only when something changed)

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

test: setup ## all tests but the long ones; COVERAGE=1 also demands what they must reach
	@$(RUN) compileall -q app  # once, not by each of pytest's processes
	OPENBLAS_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadgroup -m "not long" -p no:schemathesis \
		$(if $(COVERAGE),--cov --cov-report=)
	$(if $(COVERAGE),$(RUN) coverage report --skip-covered --fail-under=90)
	$(if $(COVERAGE),$(RUN) coverage report --skip-covered --include='app/*/domain/*' --fail-under=100)

versions: ## `test` on other interpreters, a .venvs/VERSION for each: PYTHONS="python3.12 python3.13"
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

fuzz: setup ## hostile request bodies by the million, and many requests from the OpenAPI document
	MYTESTS_HOSTILE_BODIES=$(FUZZ_BODIES) $(RUN) $(ENDLESS) tests/foundation/http/test_hostile_bodies.py
	MYTESTS_GENERATED_EXAMPLES=$(FUZZ_EXAMPLES) $(RUN) $(ENDLESS) tests/foundation/http/test_generated_requests.py

long: setup ## the tests that take their time: all changes, jobs, stream, engine, alert scenes
	OPENBLAS_NUM_THREADS=1 $(RUN) pytest -n auto --dist loadgroup -m long -o faulthandler_timeout=1200
	MYTESTS_TAMPERINGS=500 MYTESTS_HOSTILE_BODIES=20000 MYTESTS_STATEFUL_EXAMPLES=20 $(RUN) $(ENDLESS) \
		tests/operations/storage/test_audit.py tests/foundation/http/test_hostile_bodies.py tests/stateful

stateful: setup ## random lives of the portfolio on both databases, many more than `test` has
	MYTESTS_STATEFUL_EXAMPLES=$(STATEFUL_LIVES) MYTESTS_STATEFUL_STEPS=60 \
		$(RUN) $(ENDLESS) tests/stateful

bench: setup ## how long things take, each beside a peer of the same run, and one table of all: BENCH="scoring board_writes" for some
	$(RUN) benchmarks $(BENCH)

chaos: setup ## days of faults in the feed, what is refused while it dies; a day without refusals and the history of an hour with faults; three real processes, and how long each fault takes to heal
	$(RUN) benchmarks.feed_storms
	OPENBLAS_NUM_THREADS=1 $(RUN) benchmarks.feed_deaths
	OPENBLAS_NUM_THREADS=1 $(RUN) benchmarks.decisions
	OPENBLAS_NUM_THREADS=1 $(RUN) benchmarks.chaos

soak: setup ## the demo for SOAK_HOURS (3) hours: memory, descriptors and tasks must not grow
	SOAK_HOURS="$(SOAK_HOURS)" $(RUN) benchmarks.soak

golden: setup ## record the golden hours anew and rewrite tests/golden (say why in docs/decisions); KEEP=1 keeps the recording and decides anew
	OPENBLAS_NUM_THREADS=1 $(RUN) tests.golden $(if $(KEEP),--keep)

mutants: setup ## one mistake at a time in weights and scores, and which of them no test notices (an hour; MUTANTS_EVERY=6 a part)
	OPENBLAS_NUM_THREADS=1 MUTANTS_EVERY=$(MUTANTS_EVERY) $(RUN) benchmarks.mutation_testing

lock: setup ## resolve pyproject.toml anew into both locks
	$(RUN) uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" \
		--extra replay --extra research --group test --group lint --group build \
		pyproject.toml --output-file requirements.lock
	$(RUN) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --constraint requirements.lock \
		--group build pyproject.toml --output-file requirements-runtime.lock

docs: service ## generate docs/configuration.md and docs/cli.md
	@$(BIN)/my-symbols configuration document > docs/configuration.md
	@$(BIN)/typer app.cli.application utils docs --name my-symbols --title "Command line" --output docs/cli.md

format: setup ## let ruff format and sort
	$(RUN) ruff format .
	$(RUN) ruff check --fix --select I .

clean: ## remove what make made; the databases under var/ stay
	rm -rf .venv .venvs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis htmlcov
	rm -f .coverage .coverage.*
