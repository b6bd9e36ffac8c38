# Every target sets itself up.
#   make reproduce     train the laptop set; tables and figures go to runs/results/laptop, beside the committed results/laptop
#   make report        judge the claims by the committed records; tables, figures and page go to runs/report
#   make test          the fast tests
#   make test-slow     the tests that train or start many processes
#   make notebook      execute notebooks/the_argument.ipynb and store its outputs in it
#   make format        format the code; make lint checks format, style, types and import rules
VENV ?= .venv
PYTHON ?= python3
# more options for pip, for example: make reproduce PIP_EXTRA="--extra-index-url URL" with a URL that has CPU builds of torch
PIP_EXTRA ?=
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(PIP_EXTRA)
WORKERS ?= 2
# every run is a process of its own: without a bytecode cache each would compile torch and transformers again
unexport PYTHONDONTWRITEBYTECODE

CODE = src scripts benchmarks notebooks tests

.PHONY: reproduce reproduce-full report notebook test test-slow faults format lint benchmark clean

reproduce: $(VENV)/.installed
	$(VENV)/bin/python scripts/reproduce.py laptop

reproduce-full: $(VENV)/.installed
	$(VENV)/bin/python scripts/reproduce.py laptop_full

report: $(VENV)/.installed
	$(VENV)/bin/python scripts/report.py

notebook: $(VENV)/.installed-dev
	$(VENV)/bin/python notebooks/execute.py

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) -m slow --durations=10

faults: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 FAULT_TIMES=5 $(VENV)/bin/python -m pytest tests/faults -m slow

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format $(CODE)
	$(VENV)/bin/ruff check --fix $(CODE)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

benchmark: $(VENV)/.installed-dev
	$(VENV)/bin/python scripts/benchmark.py

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: $(PYTHON) is Python %d.%d, pitfalls needs 3.11 or newer; use make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the tested set of packages into $(VENV) (minutes, once)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the tested set of packages, with the tools for tests, into $(VENV) (minutes, once)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed
