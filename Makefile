# What one types here. Each target makes what it needs: a virtual environment in .venv, and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= etc/apis.yaml
WORKERS ?= $(if $(CI),4,8)
PYTEST = $(BIN)/python -m pytest --reruns 2 -r R $(if $(CI),,--without-long)

.PHONY: help demo run test test-all test-without-fast-path check bench endurance ground-truth roll-test crash-test cache-tests cache-memory fuzz fuzz-management fuzz-http format schema clean

help:           ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 24

$(BIN)/.run: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[speed]'
	@touch $@

$(BIN)/.dev: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(BIN)/.run  ## a daemon, a simulated provider, a project, a token, one streamed answer; ONCE=1 ends after it
	@$(BIN)/python -m llmproxy.simulator.demo $(if $(ONCE),--once)

run: $(BIN)/.run   ## the daemon in front of the real providers of $(CONFIG)
	$(BIN)/twistd -n llmproxy --config $(CONFIG)

# Without compiled modules on disk, each of the hundreds of processes that tests start compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

test: $(BIN)/.dev  ## all tests but those that take long; in CI all of them, real servers included; WORKERS=n processes
	@$(BIN)/python -m compileall -q llmproxy
	$(PYTEST) --processes $(WORKERS)

test-without-fast-path: $(BIN)/.dev ## the tests that are not long, of a daemon that takes the ordinary way for each request
	@$(BIN)/python -m compileall -q llmproxy
	LLMPROXY_SERVER_FAST_PATH=false $(PYTEST) --without-long --processes $(WORKERS) -m "not alone"

test-all:          ## all tests, as in CI
	@$(MAKE) --no-print-directory test CI=true

check: $(BIN)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(BIN)/.run ## next to nginx and a Go proxy ($$GO names the compiler), ratios; ARGS='-k j32 -r 1' for less
	@$(BIN)/python bench/run.py $(ARGS)

endurance: $(BIN)/.run ## what wears daemons down, twelve minutes; ARGS='stalled crowd' for less
	@$(BIN)/python bench/endurance.py $(ARGS)

fuzz-management: $(BIN)/.dev ## schemathesis (not in any extra: pip install it) over the management API
	@$(BIN)/python bench/management.py $(ARGS)

fuzz: $(BIN)/.dev  ## every property of the suite on all its examples, 100 at least; EXAMPLES=n for more
	HYPOTHESIS_EXAMPLES=$(or $(EXAMPLES),100) $(BIN)/python -m pytest --processes $(WORKERS) -m hypothesis

fuzz-http: $(BIN)/.dev ## 50,000 examples for every property of the HTTP parser; EXAMPLES=n for more or less
	HYPOTHESIS_EXAMPLES=$(or $(EXAMPLES),50000) $(BIN)/python -m pytest tests/unit/wire/test_parser.py tests/unit/wire/test_body_framing.py tests/unit/wire/server/test_request_decoder.py tests/unit/wire/test_parser_elsewhere.py --hypothesis-show-statistics

ground-truth: $(BIN)/.dev ## 2,000 calls of all dialects: the ledger against the simulator's invoice, in cents; ARGS='CALLS SEED'
	@$(BIN)/python -m tests.groundtruth $(ARGS)

roll-test: $(BIN)/.dev ## 200 streams and 100 requests a second through 40 reloads and 5 rolls; ARGS='rolls | kills | single …'
	@$(BIN)/python bench/workers.py $(or $(ARGS),rolls)

crash-test: $(BIN)/.dev ## twenty times kill -9 under load: counts and budgets against the ledger; ARGS='TIMES SECONDS'
	@$(BIN)/python -m tests.crashes $(ARGS)

cache-tests: $(BIN)/.run ## the public HTTP cache suite (npm http-cache-tests) against the daemon; ARGS='--only ID'
	@$(BIN)/python tests/cachesuite/run.py $(ARGS)

cache-memory: $(BIN)/.run ## a million distinct answers through the cache, and what memory that takes
	@$(BIN)/python tests/cachesuite/fill.py $(ARGS)

format: $(BIN)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(BIN)/.dev ## write etc/apis.schema.json anew, and the script that makes a new SQLite database
	$(BIN)/python -m llmproxy.config.schema > etc/apis.schema.json
	$(BIN)/python -m llmproxy.store.write_baseline

clean:
	rm -rf $(VENV) .demo build dist *.egg-info
