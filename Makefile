# make demo   install into .venv, then prune the embedded detector with the default settings
# make test   install with the test tools, then ruff, mypy and the test suite
# Both need a Python from 3.10 to 3.13 and nothing else. PYTHON=/path/to/python picks one.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off

.PHONY: help demo test test-fast contracts quality style bench docs clean

help:
	@echo 'make demo       prune the embedded detector: weights/yolov8n-digits.pt at half its GFLOPs'
	@echo 'make test       all checks and the whole test suite, on all cores'
	@echo 'make test-fast  the core, a sample of the operators and one run: under two minutes on two cores'
	@echo 'make contracts  what is used of internals, in the oldest and the newest Ultralytics; portable files in an older one'
	@echo 'make quality    ruff and mypy alone'
	@echo 'make style      let ruff mend what it can'
	@echo 'make bench      graph speed beside torch-pruning (minutes)'
	@echo 'make docs       the documentation as a site, in site/; a broken link is an error'
	@echo 'make clean      remove .venv and the caches'

demo: $(VENV)/.installed
	$(BIN)/yoloprune v8

test: quality
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=30

test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow' tests/graph/test_trace.py tests/graph/test_operators.py \
	  tests/criteria tests/recovery tests/sparsity/test_regulariser.py tests/pipeline/test_options.py \
	  tests/detectors/test_third_family.py

# A version is installed into a folder of its own, which comes before the environment's: nothing else is fetched.
# The older one, which yoloprune does not run in, trains portable checkpoints; it has no YOLO26, and its ONNX export
# needs onnxscript beside a torch of today.
OLDEST := 8.4.165
OLDER := 8.3.200
contracts: $(VENV)/.installed-test
	@for version in '==$(OLDEST)' '>=$(OLDEST),<8.5'; do \
	  rm -rf .contracts && $(PIP) --quiet --no-deps --target .contracts "ultralytics$$version" && \
	  PYTHONPATH=.contracts $(BIN)/python -m pytest -m contract -q -p no:cacheprovider || exit 1; \
	done; \
	rm -rf .contracts && $(PIP) --quiet --no-deps --target .contracts ultralytics==$(OLDER) onnxscript onnx-ir && \
	YOLOPRUNE_STOCK=$(CURDIR)/.contracts $(BIN)/python -m pytest -q -p no:cacheprovider \
	  tests/detectors/ultralytics/test_portable.py -k 'stock_ultralytics_trains and not yolo26n' || exit 1; \
	rm -rf .contracts

quality: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/graph.py --json benchmarks/graph.json

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .contracts .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist site

# A stamp says that this extra of this pyproject.toml is installed; it is written last, so a broken install is repeated.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[$*]'
	@touch $@ $(VENV)/.installed

# The first candidate that runs and is in range: a name on the path may be a shim for a version that is not there.
$(BIN)/python:
	@for python in $${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do \
	  if $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "Using $$($$python --version): $$(command -v $$python)"; \
	    $$python -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); echo "$$python could not make a virtual environment"; \
	  fi; \
	done; \
	echo 'No Python from 3.10 to 3.13 with the venv module was found; name one: make PYTHON=/path/to/python' >&2; exit 1
