# Everything a developer types. `make help` lists it.
#
#   PYTHON=python3.12 make install    another interpreter than the first found
#   PYTEST='-k store' make test       further arguments for pytest
#   PAPER='--only fig02' make paper   these of the paper's experiments alone

VENV  := .venv
STAMP := $(VENV)/.installed
BIN   := $(VENV)/bin

# The first interpreter that runs: a version manager's shim may be there and still not work.
CANDIDATES := python3.11 python3.12 python3.13 python3
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)

# One thread a process: the tests run two processes at a time, and the parallel ones start ranks of their own.
# They start hundreds of processes, each of which would compile the package again if it might not keep that.
SERIAL := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Each takes tests that follow one another, with the runs that they share, and at the end some from the other.
TWO := -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test lint type layers weights pytest coverage quick format notebooks docs bench paper clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with mcrdist (editable) and the tools; does nothing when up to date

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo 'mcrdist needs Python 3.11, 3.12 or 3.13; name one with PYTHON=' >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@

demo: install  ## reconstruct 64 x 64 x 64 voxels from the built-in micrograph
	$(BIN)/mcrdist reconstruct micrograph.path=synthetic:gaussian volume.size=64 seed=0 \
		run.dir=demo/$$(date +%Y-%m-%d-%H%M%S)

test: lint type layers weights pytest  ## all checks and all tests

lint: install  ## ruff, and whether the files are formatted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install  ## mypy --strict
	$(BIN)/mypy

layers: install  ## imports point one way
	$(BIN)/lint-imports

weights: install  ## the network that Gram matrices need; without a network their tests on real weights are skipped
	-@$(BIN)/mcrdist weights

pytest: install
	$(SERIAL) $(BIN)/python -m pytest $(TWO) --slow $(PYTEST)

coverage: install weights  ## all tests, and which lines they run: a process starts a third slower for it
	$(SERIAL) $(BIN)/python -m pytest $(TWO) --slow --cov --cov-report=term $(PYTEST)

quick: install  ## the tests that take seconds
	$(SERIAL) $(BIN)/python -m pytest $(TWO) $(PYTEST)

format: install  ## put the files into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: install  ## execute the notebooks: each .py becomes an .ipynb with its results (some minutes)
	$(BIN)/python notebooks/make.py

docs: install  ## build the documentation site into site/; a broken link is an error
	$(BIN)/mkdocs build --strict

bench: install  ## the benchmarks of README.md, one JSON line each
	@for script in $(filter-out benchmarks/table.py benchmarks/paper.py benchmarks/results_page.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python "$$script" || exit 1; done

paper: install  ## the paper's experiments (an hour or two; PAPER='--most-minutes 90' for all), then docs/results.md
	$(BIN)/python benchmarks/paper.py $(PAPER); status=$$?; \
	$(BIN)/python benchmarks/results_page.py && exit $$status

clean:  ## remove everything that can be made again, but no run
	rm -rf $(VENV) build dist site .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
