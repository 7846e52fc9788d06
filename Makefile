# Every target sets up what it needs: a virtual environment in .venv, PyTorch included. On Linux
# pip may fetch PyTorch's CUDA build, of several GB; PIP_EXTRA_INDEX_URL can point at its CPU builds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Type stubs of TensorRT, which tests compare the code with. Without --no-deps they would bring
# TensorRT itself, which cannot be installed everywhere.
STUBS := tensorrt-stubs==10.13.0.35.1
# Test files are dealt out to processes, each of which takes about 1 GB.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

SECONDS ?= 600

.PHONY: help demo test test-fast test-gpu fuzz soak check lint types format clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".[cpu,export,eval,report,sign,demo,dev,tensorrt-rtx]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(STUBS)
	@touch $@

demo: $(READY)  ## Export, verify and run the embedded model; pictures land in demo-output/
	$(BIN)/dyninfer demo

test: $(READY)  ## Run the whole test suite
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(READY)  ## Run the tests that take less than ten seconds each
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-gpu: $(READY)  ## Run everything that needs an NVIDIA GPU and write gpu-report.json
	DYNINFER_GPU_REPORT=gpu-report.json $(BIN)/python -m pytest -m gpu tests/gpu

fuzz: $(READY)  ## Feed made-up files and command lines for SECONDS; what is found is in fuzz-findings/
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $$(date +%s)

soak: $(READY)  ## Threads, forks, signals and failing engines at once for SECONDS; tells what grows
	$(BIN)/python -m tests.soak --seconds $(SECONDS) --seed $$(date +%s)

lint: $(READY)  ## Style, imports, docstrings, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## Strict type checks of the four packages and of training
	$(BIN)/mypy

check: lint types test  ## Everything that CI runs

format: $(READY)  ## Rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove everything that was made, the virtual environment included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
