# python3 (3.11 to 3.13) and make are enough: a target that needs the environment makes it first, in .venv.
.DEFAULT_GOAL := help
.PHONY: help setup demo test slow check docs study bench gpu gpu-wheels coverage endurance fuzz mutants lint format types lock clean

PYTHON ?= python3
UV_VERSION := 0.13.9

BIN := .venv/bin
UV := .venv/uv/bin/uv
READY := .venv/ready
TEACHER ?= tiny
DEMO := runs/demo$(TEACHER:tiny%=%)
GPU_PYTHON ?= 3.12

help: ## show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make the environment in .venv, with the locked versions

demo: $(READY) ## distil the built-in teacher with BSA, score it, draw the figure (TEACHER=tiny-flow: the flow)
	$(BIN)/lightning fit --config configs/demo.yaml --config configs/teacher/$(TEACHER).yaml --run $(DEMO) --overwrite true
	$(BIN)/lightning test --config $(DEMO)/config.yaml
	$(BIN)/lightning report $(DEMO)

test: $(READY) ## run the tests (what is slow or needs a GPU or a download is left out)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

slow: $(READY) ## run the tests that take minutes: deaths, nodes, sharding, compilers
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --max-worker-restart 0 -m "slow and not gpu and not network"

check: lint types docs test slow ## all that a change must pass: lint, types, docs, test, slow (a quarter of an hour)

docs: $(READY) ## build the documentation as a website, in site/; a warning is an error
	$(BIN)/mkdocs build --strict --config-file docs/tools/mkdocs.yml

study: $(READY) ## the studies of weightings and methods (PARTS=... for some); hours, and it goes on where it stopped
	$(BIN)/python -m experiments.study.study $(PARTS)

bench: $(READY) ## what this project adds to the time of the networks alone (ratios, kept in experiments/benchmarks)
	$(BIN)/python -m experiments.benchmarks.bench

# A machine with a GPU has its own torch, which this does not replace; elsewhere, `make setup` comes first.
gpu: ## all that a GPU is needed for, in eight minutes (kept in experiments/benchmarks/gpu.md); small without one
	$(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m experiments.gpu $(PARTS)

gpu-wheels: $(READY) ## collect in .wheels what a machine with torch, lightning and transformers alone lacks
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version $(GPU_PYTHON) \
		--implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest .wheels \
		$(shell sed -n -E 's/^(accelerate|diffusers|importlib-metadata|jsonargparse|docstring-parser|typeshed-client|omegaconf|peft|psutil|soundfile|cffi|pycparser)==([^ ]*).*/\1==\2/p' requirements.lock)

coverage: $(READY) ## simulate the intervals that are printed; 95 % or wider (kept in experiments/coverage; some five minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.coverage.run $(PARTS)

endurance: $(READY) ## kill runs at random moments; each must end in the same bytes as one left alone (half an hour)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m endurance

fuzz: $(READY) ## wrong, good and mutated input of eight kinds; nothing wrong may be taken (some twenty minutes)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m fuzz

mutants: $(READY) ## change a line, see that a test fails, for each line that counts (half an hour; NAMES=... for some)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m mutants $(NAMES)

lint: $(READY) ## rules and format, nothing is changed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY) ## apply the format and the fixes that are safe
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(READY) ## check the types
	$(BIN)/mypy

lock: $(UV) ## resolve pyproject.toml anew into requirements.lock
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --group dev pyproject.toml --output-file requirements.lock

clean: ## remove the environment and the caches; runs/ and data/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv has an environment of its own, because the sync below removes whatever the lock does not name.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one that is: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(READY): requirements.lock pyproject.toml | $(UV)
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	$(UV) pip sync --python $(BIN)/python --compile-bytecode --require-hashes requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
