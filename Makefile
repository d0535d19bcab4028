# Two commands do everything: `make simulate` and `make test`. Each makes its own environment: what a simulation needs,
# or all that developing takes; the second contains the first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIM := $(VENV)/.sim
READY := $(VENV)/.ready

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE  # hundreds of processes would compile our sources anew

FLOWER := 1.41 1.42  # the oldest and the newest that pyproject.toml allows; constraints.txt has the newest

EDGE := 1.19 newest

.PHONY: soak simulate study study-quick ideas reference leads peers study-encodings bench bench-cold bench-scale bench-edge bench-gateway bench-joined test test-rest test-all test-edge-matrix $(EDGE:%=test-edge-%) test-flower-matrix test-flower-oldest $(FLOWER:%=test-flower-%) edge-arm64 parity proto vectors check-proto check format clean help
.DEFAULT_GOAL := help

help: ## what can be made here
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

# Not compiled: a simulation compiles what it imports, in a tenth of the time; tests start hundreds of processes.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FedAli is developed on Python 3.11 or newer; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(SIM): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[sim]'
	@touch $@

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@PYTHONWARNINGS=ignore $(BIN)/python -m compileall -qq -j 2 $(VENV)/lib || true
	@touch $(SIM) $@

simulate: $(SIM) ## run the main job: FedAli and its baselines on real scanned digits, 20 heterogeneous clients
	$(BIN)/fedali simulate digits --set methods=fedali,fedali-paper,fedavg+gate,fedavg,fedper,local

study: $(READY) ## the tables of docs/results.md, from run folders that go on where they were (hours on 2 cores; MotionSense from FEDALI_DATA)
	$(BIN)/python -m benchmarks.study --write docs/results.md

study-quick: $(READY) ## the same with two seeds and few methods, printed (minutes for digits)
	$(BIN)/python -m benchmarks.study --quick

ideas: $(READY) ## what was tried to make FedAli better, on validation data (half an hour)
	$(BIN)/python -m benchmarks.ideas digits
	$(BIN)/python -m benchmarks.ideas digits --set partition.kind=shards
	$(BIN)/python -m benchmarks.ideas motionsense --seeds 20,21 --set split.order=time --lines "fedali; fedali, balance 0 (FedAvg)"

reference: $(SIM) ## the paper's setting, small: HART on six people of MotionSense
	$(BIN)/fedali simulate reference

leads: $(SIM) ## FedAli's settings, one change at a time (hours)
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

bench-cold: $(READY) ## `make simulate`'s scenario from the start of a process against a plain torch loop (two minutes)
	$(BIN)/python -m benchmarks.cold $(BENCH_ARGS)

bench-scale: $(BENCH)/.ready ## 10,000 clients in one process: memory and overhead
	$(BENCH)/bin/python -m benchmarks.scale $(BENCH_ARGS)

bench-edge: $(READY) ## the edge client against torch: docs/edge-performance.md (ten minutes; MotionSense from FEDALI_DATA)
	$(BIN)/python -m benchmarks.edge $(BENCH_ARGS)

study-encodings: $(READY) ## what float16 and int8 updates cost: docs/encodings.md (an hour; MotionSense from FEDALI_DATA)
	$(BIN)/python -m benchmarks.encodings $(BENCH_ARGS)

peers: $(SIM) ## our methods beside PFLlib's, trained by its code on the same data: docs/peers.md (half an hour; gets PFLlib by git)
	$(BIN)/python -m benchmarks.peers $(PEERS_ARGS)

bench-gateway: $(READY) ## 50 to 500 devices at one gateway: docs/gateway-performance.md (five minutes on 2 cores)
	$(BIN)/python -m benchmarks.gateway $(BENCH_ARGS)

bench-joined: $(READY) ## what a joined device takes: memory, seconds and bytes of its rounds at a real gateway
	$(BIN)/python -m benchmarks.joined $(BENCH_ARGS)

soak: $(READY) ## a federation on loopback under random kills for half an hour: same bits, flat memory
	$(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

PYTEST := $(BIN)/python -m pytest -n 2

test: $(READY) ## the quick tests: minutes on two cores
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

test-rest: $(READY) ## the others: long kills, all models and methods, machines
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-all: test test-rest test-edge-matrix test-flower-oldest ## every test, and two versions of onnxruntime and of Flower

CASES := .edge/cases
ON_DEVICE := -p tests.device.recorded -p no:cacheprovider tests/device/test_device.py tests/unit/client tests/unit/bundle/test_keys.py \
	tests/e2e/edge

$(CASES)/.ready: $(READY) $(wildcard fedali/*.py fedali/models/*.py) server/fedali_server/export/bundle_export.py tests/bundles.py tests/device/prepare.py
	$(BIN)/python -m tests.device.prepare $(CASES)
	@touch $@

$(EDGE:%=.venv-edge-%/.ready): .venv-edge-%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-edge-$*
	.venv-edge-$*/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -e '.[client]' pytest hypothesis \
		$(if $(filter newest,$*),onnxruntime,'onnxruntime==$*.*')
	@touch $@

$(EDGE:%=test-edge-%): test-edge-%: $(CASES)/.ready .venv-edge-%/.ready
	FEDALI_DEVICE_CASES=$(CASES) .venv-edge-$*/bin/python -m pytest $(ON_DEVICE) $(PYTEST_ARGS)

test-edge-matrix: $(READY) ## the edge client without torch, with the oldest and the newest onnxruntime, side by side
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(EDGE:%=test-edge-%)

FEDERATED := tests/e2e/test_federation.py tests/e2e/test_federation_faults.py tests/e2e/test_sites.py tests/e2e/test_machines.py \
	tests/integration/flower tests/integration/site tests/integration/run/test_site_monitor.py tests/unit/flower
# Flower and FedAli, and what this Flower wants otherwise than the main environment has it; all else is that one's.
$(FLOWER:%=.venv-flower-%/.ready): .venv-flower-%/.ready: pyproject.toml $(READY)
	rm -rf .venv-flower-$*
	$(BIN)/python -m venv .venv-flower-$*
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$(.venv-flower-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth"
	.venv-flower-$*/bin/python -m pip install --quiet --disable-pip-version-check --ignore-installed --no-deps 'flwr==$*.*'
	.venv-flower-$*/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' 'flwr==$*.*'
	.venv-flower-$*/bin/python -m pip check --disable-pip-version-check
	@touch $@

$(FLOWER:%=test-flower-%): test-flower-%: .venv-flower-%/.ready
	.venv-flower-$*/bin/python -m pytest -n 2 $(FEDERATED) $(PYTEST_ARGS)

test-flower-matrix: $(FLOWER:%=test-flower-%) ## federations with the oldest and the newest Flower (a quarter of an hour)

test-flower-oldest: test-flower-$(firstword $(FLOWER))

edge-arm64: $(CASES)/.ready ## the edge client on an emulated 64-bit ARM Debian (root on Debian or Ubuntu: installs qemu-user-static)
	sh tests/device/arm64.sh $(BIN)/python .edge/arm64 $(CASES) $(ON_DEVICE) $(PYTEST_ARGS)

parity: $(READY) ## the compiled engine against the loop, in double precision, for every model and method, and every method over devices (half an hour)
	FEDALI_PARITY=all $(BIN)/python -m pytest -n 0 tests/integration/engines tests/integration/run/test_objects.py -k compiled
	FEDALI_PARITY=all $(BIN)/python -m pytest -n 0 tests/e2e/test_methods.py

PROTOC = $(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(wildcard proto/fedali/v1/*.proto)

proto: $(READY) ## generate fedali/v1 from proto/fedali/v1
	$(call PROTOC,.)

vectors: $(READY) ## record the session of proto/vectors anew, from which clients in any language are tested
	$(BIN)/python -m tests.vectors.record

check-proto: $(READY)
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(call PROTOC,"$$made") && \
		diff -rq -x __init__.py -x __pycache__ "$$made/fedali/v1" fedali/v1 >/dev/null || \
		{ echo "fedali/v1 is not what proto/fedali/v1 says: run \`make proto\` and commit what it changes"; exit 1; }

check: $(READY) check-proto ## lint, format, types, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
