# Every target sets up what it needs in the virtual environment .venv, at the versions and hashes of
# requirements.lock. PyTorch comes beside it, at the version of constraints.txt and in the build
# that pip finds: on Linux that may be the CUDA build, of several GB; PIP_EXTRA_INDEX_URL can point
# at its CPU builds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST := .venv-lowest
# The lowest Python, too, where there is one: pyenv's command of that name may only say that there is
LOWEST_PYTHON = $(shell for python in python3.10 $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python) \
	$(PYTHON); do "$$python" -c "" 2> /dev/null && echo "$$python" && break; done)
PIP := -m pip install --quiet --disable-pip-version-check
EXTRAS := cpu,openvino,export,prune,eval,report,sign,video,track,demo,dev
COMMA := ,
# Test files are dealt out to processes, each of which takes about 1 GB.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

SECONDS ?= 600
# Of make mutants: how many for each module, and which modules; all that decide answers if empty.
# A seed draws the same again; a record is a file to go on from
EACH ?= 2
MODULES ?=
SEED ?= 0
RECORD ?=

.PHONY: help demo test test-fast test-lowest test-gpu test-cuda fuzz soak mutants check lint types format lock clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml requirements.lock constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python $(PIP) --constraint constraints.txt torch
	$(BIN)/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)  ## Export, verify and run the embedded model; pictures land in demo-output/
	$(BIN)/dyninfer demo

test: $(READY)  ## Run the whole test suite
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(READY)  ## Run the tests that take less than ten seconds each
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-lowest: $(READY)  ## Run the fast tests with the lowest versions that pyproject.toml allows
	$(LOWEST_PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python $(PIP) --no-deps "$$(sed -n 's/.*"torch>=\(.*\)",.*/torch==\1/p' pyproject.toml)"
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct \
		--overrides .ci/overrides.txt --editable ".[$(EXTRAS)]"
	DYNINFER_LOWEST=1 $(LOWEST)/bin/python -m pytest $(PARALLEL) -m "not slow"

test-gpu: $(READY)  ## Install the TensorRT that fits this GPU, test on it; gpu-report.json
	$(BIN)/python -m tests.gpu tensorrt

test-cuda: $(READY)  ## As test-gpu, with PyTorch in TensorRT's place, for GPUs that have none
	$(BIN)/python -m tests.gpu cuda

fuzz: $(READY)  ## Feed generated files and command lines for SECONDS; what is found is in fuzz-findings/
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $$(date +%s)

soak: $(READY)  ## Threads, forks, signals and failing engines at once for SECONDS; tells what grows
	$(BIN)/python -m tests.soak --seconds $(SECONDS) --seed $$(date +%s)

mutants: $(READY)  ## Change single things in what decides answers; tells what no test notices
	$(BIN)/uv pip install --quiet --python $(VENV) --group mutants
	$(BIN)/python -m tests.mutants --each $(EACH) --seed $(SEED) $(addprefix --record ,$(RECORD)) \
		$(MODULES)

lint: $(READY)  ## Style, imports, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## Strict type checks of the four packages and of training
	$(BIN)/mypy

check: lint types test  ## Style, types and all tests; CI runs test-lowest, too

format: $(READY)  ## Rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## Renew requirements.lock: the newest versions of everything, with hashes
	$(BIN)/uv --config-file .ci/lock.toml pip compile --quiet --upgrade --universal \
		--python-version 3.10 --generate-hashes --no-header --no-annotate --no-emit-package torch \
		--no-emit-package opencv-python \
		--constraint constraints.txt --overrides .ci/overrides.txt --extra tensorrt-rtx \
		$(addprefix --extra ,$(subst $(COMMA), ,$(EXTRAS))) pyproject.toml \
		--output-file requirements.lock

clean:  ## Remove everything that was made, the virtual environment included
	rm -rf $(VENV) $(LOWEST) .gpu-packages build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
