# Everything runs from .venv, which is made from uv.lock when it is missing or out of date.
# It takes make and Python >= 3.11; "make PYTHON=python3.12 ..." chooses another one than python3.

PYTHON ?= python3
RUN := .venv/bin/python -m

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:  # so that pytest's summary closes "make test"
.PHONY: help demo test check ruff mypy pyright layers docs browser postgres pytest ray parity mutants bench clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: .venv/.demo  ## watch a pipeline work
	@$(RUN) examples.flights

test: check docs pytest  ## everything that has to pass

check: ruff mypy pyright layers  ## lint, format, types and layers

ruff: .venv/.all
	$(RUN) ruff check
	$(RUN) ruff format --check

mypy pyright: .venv/.all
	$(RUN) $@

layers: .venv/.all
	.venv/bin/python .venv/bin/lint-imports --no-logo

docs: .venv/.all  ## build the documentation, warnings are errors
	$(RUN) sphinx --fresh-env --fail-on-warning --nitpicky --keep-going --quiet docs docs/_build/html

browser:  ## install Chromium for the tests of the web example, where it is missing
	@tools/browser.sh

postgres:  ## install PostgreSQL for the tests of the event log, where it is missing
	@tools/postgres.sh

# A file of tests stays with one process, which makes what they share once.
pytest: .venv/.all browser postgres  ## the tests alone
	$(RUN) pytest -n auto --dist loadfile

ray: .venv/.all  ## the tests on a Ray cluster of two nodes, in network namespaces of their own
	HEADGATE_RAY=1 $(RUN) pytest tests/ray

parity: .venv/.all  ## which behaviours of the originals are kept
	@$(RUN) tests.parity

mutants: .venv/.all  ## break the protocol on purpose and see that tests notice
	@$(RUN) tests.mutants

bench: .venv/.peers  ## measure, next to other libraries
	@$(RUN) benchmarks

clean:  ## remove all that was made, environments included
	rm -rf .venv .venv-tools .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache docs/_build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stamps: .all has every dependency group but that of engines to measure (.peers), .demo no more than the demo needs, for a quick first look.
# Each says for which tree and Python it was made: a copied .venv would go on importing the tree it comes from.
SOURCES := uv.lock pyproject.toml tools/bootstrap.sh tools/uv.txt
MADE_FOR := $(CURDIR):$(PYTHON)
stale = $(if $(filter $(MADE_FOR),$(shell cat $(1) 2>/dev/null)),,always)

.venv/.all: $(SOURCES) $(call stale,.venv/.all)
	@PYTHON='$(PYTHON)' tools/bootstrap.sh --all-groups --no-group peers
	@echo '$(MADE_FOR)' | tee .venv/.demo > $@

.venv/.peers: .venv/.all
	@PYTHON='$(PYTHON)' tools/bootstrap.sh --inexact --all-groups
	@echo '$(MADE_FOR)' > $@

.venv/.demo: $(SOURCES) $(call stale,.venv/.demo)
	@PYTHON='$(PYTHON)' tools/bootstrap.sh --inexact --no-default-groups --group demo
	@echo '$(MADE_FOR)' > $@

.PHONY: always
always:
