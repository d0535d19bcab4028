# Two commands do everything: `make simulate` and `make test`. Each makes its own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: simulate study leads bench bench-scale test parity check format clean help
.DEFAULT_GOAL := help

help: ## what can be made here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FedAli is developed on Python 3.11 or newer; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

simulate: $(READY) ## run the main job: FedAli and its baselines on real scanned digits, 20 heterogeneous clients
	$(BIN)/fedali simulate digits

study: $(READY) ## the tables of docs/results.md: MotionSense with 5 seeds, then the reference setting (an hour on 2 cores)
	$(BIN)/fedali simulate motionsense --set seeds=5
	$(BIN)/fedali simulate reference

leads: $(READY) ## FedAli's settings, one change at a time (hours)
	$(BIN)/fedali simulate leads

BENCH := .venv-bench
PFL := .venv-pfl

$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/requirements-bench.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements-bench.txt
	@touch $@

$(PFL)/.ready: pyproject.toml benchmarks/requirements-pfl.txt
	$(PYTHON) -m venv $(PFL)
	$(PFL)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements-pfl.txt
	@touch $@

bench: $(BENCH)/.ready $(PFL)/.ready ## speed of our engines, of Flower with Ray and of pfl-research: docs/performance.md
	$(BENCH)/bin/python -m benchmarks.bench --pfl-python $(PFL)/bin/python $(BENCH_ARGS)

bench-scale: $(BENCH)/.ready ## 10,000 clients in one process: memory and overhead
	$(BENCH)/bin/python -m benchmarks.scale $(BENCH_ARGS)

test: $(READY) ## run every test
	$(BIN)/python -m pytest -n 2 --dist loadgroup

parity: $(READY) ## the compiled engine against the loop, in double precision, for every model and method (a quarter of an hour)
	FEDALI_PARITY=all $(BIN)/python -m pytest -n 0 tests/integration/test_engines.py -k compiled_step

check: $(READY) ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
