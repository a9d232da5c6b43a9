# Two commands do everything from an empty start: `make demo` and `make test`. The rest is for those who change code.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ROOT ?= runs/demo
INSTALLED = $(VENV)/.installed
UV_VERSION = 0.13.9
PYTEST = $(BIN)/python -m pytest
SIDE_BY_SIDE = -n 2 --dist loadfile
# uv unpacks the lock file faster than pip; it is told of the wheels and the index that pip knows.
UV_INSTALL = UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$PIP_INDEX_URL}" \
  $(BIN)/uv pip install -q --python $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help install models demo demo-s3 demo-job test test-fast lint format bench lock clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Caravela needs Python 3.11 or newer, found $$($(PYTHON) --version); set PYTHON=python3.11"; exit 1; }
	@echo "Installing into $(VENV) from requirements.lock (two to four minutes, about 2 GB) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV_INSTALL) -r requirements.lock
	@$(UV_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

install: $(INSTALLED) ## virtual environment with everything in requirements.lock

models: $(INSTALLED) ## language-identification model, pinned by SHA-256
	@$(BIN)/python jobs/fetch_models.py

demo: models ## the whole road on the sample crawl: WARC files to a trained model and a report
	@$(BIN)/python jobs/pipeline.py --config jobs/configs/demo.toml --set root=$(ROOT)

demo-s3: models ## the same road with everything in object storage, on an S3 server of its own
	@$(BIN)/python jobs/with_local_s3.py -- $(BIN)/python jobs/pipeline.py \
	  --config jobs/configs/demo.toml --set root=s3://caravela/demo

test: models ## every test: two files at a time, then, one by one, those that start Ray, which take both cores
	@$(PYTEST) $(SIDE_BY_SIDE) -m "not ray"
	@$(PYTEST) -m ray

test-fast: models ## tests that start no Ray, server or training
	@$(PYTEST) $(SIDE_BY_SIDE) -m "not slow"

lint: $(INSTALLED) ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(INSTALLED) ## lets ruff mend what it can
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: ## requirements.lock anew from pyproject.toml
	@rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	@.lock-venv/bin/pip install -qq --disable-pip-version-check ".[train,dev]"
	@{ echo "# Exact versions of everything that pyproject.toml asks for; made by 'make lock'."; \
	  .lock-venv/bin/pip freeze --exclude caravela | sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/'; } > requirements.lock
	@rm -rf .lock-venv

clean: ## runs and caches, not the virtual environment
	rm -rf runs .pytest_cache .ruff_cache .mypy_cache
