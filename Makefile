# `make train` is the first thing to try, `make test` runs everything that CI runs; `make help` lists the rest.
VENV := .venv
PYTHON ?= python3
NEWEST ?= python3.13
PORT ?= 8000
RUN := $(VENV)/bin/python

.PHONY: help train install test lint docs site rivals test-rivals test-newest clean
help:
	@echo "make train   train sparse autoencoders on layer 8 of the embedded demo (makes $(VENV) if there is none), and a page"
	@echo "             about the features of one: checkpoints/reading/report.html"
	@echo "make test    lint, format check, import contracts, types and the whole test suite"
	@echo "make lint    all of these but the last"
	@echo "make docs    the documentation as a site at http://127.0.0.1:8000 (make site builds it into site/)"
	@echo "make rivals  the libraries that scripts/compare_rivals.py compares with, in .venv-rivals (2.8 GB)"
	@echo "make test-rivals  our SAE files opened by their loaders, theirs by ours"
	@echo "make test-newest  what needs no torch, with the newest JAX (NEWEST=python3.13: its Python)"
	@echo "make clean   remove $(VENV) and caches"

# the original's SAE, then one whose features can be read, and a page to read them on; called again it goes on, or says that
# all is there
train: $(VENV)/.installed
	$(RUN) scripts/train.py --layer 8 --resume
	@echo
	$(RUN) scripts/train.py --layer 8 --recipe reading --split train --max-samples 600 --output checkpoints/reading --resume
	@echo
	$(RUN) scripts/inspect_sae.py --layer 8 --num-samples 200 --output checkpoints/reading --html checkpoints/reading/report.html
	@echo "note     a quick version: 600 of 3,200 texts; with --max-samples all twice as many features can be named (docs/tutorial.md)"
	@echo "read     checkpoints/reading/report.html in a browser, then docs/tutorial.md; words: docs/glossary.md"

install: $(VENV)/.installed
# exact versions: constraints.txt; what is needed and why: pyproject.toml
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing the pinned packages into $(VENV) (once; a minute or two) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# at its end, what was skipped and why; files in the order of tests/conftest.py, the longest first
test: lint
	$(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo --no-cache
	$(RUN) -m mypy

# the documentation as a site, without a network; every warning is an error. Sources are read and not imported, so neither
# JAX nor torch is here
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs serve --dev-addr 127.0.0.1:$(PORT)
site: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
.venv-docs/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > .venv-docs/needed.txt
	@echo "installing what builds the documentation into .venv-docs ..."
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r .venv-docs/needed.txt
	@touch $@

# their own environment: they pin much and bring gigabytes; torchvision comes along and fails beside a CPU build of torch
rivals: .venv-rivals/.installed
.venv-rivals/.installed: pyproject.toml
	@$(PYTHON) -m venv .venv-rivals
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check 'torch>=2.6,<2.14'
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check -e '.[rivals]'
	-.venv-rivals/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

# sparsify takes its kernels for GPUs where triton is, GPU or not
test-rivals: rivals
	SPARSIFY_DISABLE_TRITON=1 .venv-rivals/bin/python -m pytest -W default tests/convert/test_rivals.py tests/train/test_metrics_log.py

# torch-free: the newest JAX needs a newer Python than the oldest that we serve, and torch's wheels differ between them
test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
.venv-newest/.installed: pyproject.toml
	@$(NEWEST) -m venv .venv-newest
	@.venv-newest/bin/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*(d for d in p["dependencies"] + p["optional-dependencies"]["dev"] if not d.startswith("jaxsae[")), sep="\n")' > .venv-newest/needed.txt
	@echo "installing the newest versions of all but torch into .venv-newest ..."
	@.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-newest/needed.txt
	@.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) .venv-docs .venv-rivals .venv-newest site build *.egg-info .pytest_cache .ruff_cache .mypy_cache
