# Two commands on a bare machine with Python 3.11+ and make: `make demo`, `make test`.
# `make` alone tells the others; the help is made from the `##` comments below.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python on the path that Airflow runs on; or name one: make setup PYTHON=…
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for each in $(PYTHONS); do \
    "$$each" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' \
      2>/dev/null && echo "$$each" && exit; done; echo python3)

VENV := .venv/bin
READY := .venv/.ready
PROGRAM := $(VENV)/python -m demo

# What the caller's shell has for another Airflow, or another Python, is not for us.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
unexport $(filter AIRFLOW_% _AIRFLOW_%,$(.VARIABLES))

.PHONY: help setup browser demo down test test-fast machine fuzz faults bench check docs lock sbom audit clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Install everything the project needs into .venv (done by itself)

$(READY): requirements-dev.txt requirements.in pyproject.toml tools/bootstrap.py
	@command -v $(PYTHON) >/dev/null || { \
	  echo "setup: No Python found. Install Python 3.11 or newer, then run this again." >&2; \
	  exit 1; }
	@$(PYTHON) tools/bootstrap.py

demo: setup  ## Run the whole thing here: database, Airflow, a local Graph API, two DAGs
	@$(PROGRAM) up

down: ## Stop what the demo started
	@if [ -x $(VENV)/python ]; then $(PROGRAM) down; else echo "Nothing runs: no .venv."; fi

browser: setup  ## See to it that the browser tests have a Chromium
	@$(VENV)/python -m tools.browser

test: check browser  ## Check and test everything, as CI does
	$(VENV)/python -m pytest

test-fast: setup  ## Test without the tests that drive real processes
	$(VENV)/python -m pytest -m "not slow"

machine: setup  ## Walk a million steps of the protocol's state machine (MACHINE="--seed 7" for one)
	$(VENV)/python -m tests.ledger.machine_run --steps 1400000 --seeds 64 --shards 2 --folder .test/machine $(MACHINE)

fuzz: setup  ## Build a million hostile rows, and read hostile feeds (FUZZ="--seed 7" repeats)
	$(VENV)/python -m tests.fuzz --rows 1000000 --shards 2 --folder .test/fuzz $(FUZZ)

faults: setup  ## Kill ten thousand workers, and close the books (FAULTS="--seed 7" repeats)
	$(VENV)/python -m tests.faults --kills 10000 --failpoints 100 --restarts 200 \
	  --sleeps 200 --naive 100 --others 50 --shards 2 --folder .test/faults $(FAULTS)

# The peers' packages are no part of the product: they live in an environment of their own.
PEERS := .bench/peers/.ready

$(PEERS): bench/requirements.txt | setup
	.boot/bin/uv venv --quiet --clear --python $(VENV)/python .bench/peers
	VIRTUAL_ENV=.bench/peers UV_PYTHON_DOWNLOADS=never \
	  .boot/bin/uv pip sync --quiet --require-hashes bench/requirements.txt
	touch $@

bench: setup $(PEERS)  ## Measure us beside our peers, 25 minutes (BENCH="build gate --rows 100k" for some)
	$(VENV)/python -m bench $(BENCH)

check: setup  ## Lint, formatting, types, and the rules of the house
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/python -m pytest -q tests/test_house_rules.py

docs: setup  ## Write the generated pages anew (a test compares them)
	$(VENV)/python -m tools.write_docs

lock: setup  ## Pin every package anew, with hashes, from the two .in files
	.boot/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header \
	  --generate-hashes requirements.in --output-file requirements.txt
	.boot/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header \
	  --generate-hashes requirements-dev.in --output-file requirements-dev.txt
	.boot/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header \
	  --generate-hashes bench/requirements.in --output-file bench/requirements.txt

# Both tools live in an environment of their own, thrown away afterwards.
sbom: setup  ## Write a bill of materials, sbom.json, of what the containers install
	.boot/bin/uvx --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.txt \
	  --output-reproducible --output-file sbom.json

audit: setup  ## Ask for known vulnerabilities of what is locked (needs the network)
	.boot/bin/uvx pip-audit==2.10.1 --strict --require-hashes --disable-pip --requirement requirements.txt

clean: down  ## Stop the demo and remove everything made here
	rm -rf .bench .demo .test .hypothesis .mypy_cache .pytest_cache .ruff_cache .venv .boot
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
