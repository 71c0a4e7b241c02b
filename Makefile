# `make demo` and `make test` work on a fresh machine: each first prepares .venv and
# the software renderer. PYTHON=... chooses the interpreter, WORKDIR=... the folder.
VENV ?= .venv
WORKDIR ?= runs/demo
BIN := $(VENV)/bin
export VENV PYTHON

.PHONY: help demo test clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    collect, train, evaluate, export, report; see $(WORKDIR)/report.html"
	@echo "make test    lint, types and the fast tests"
	@echo "make clean   remove caches and $(VENV) (results under runs/ stay)"

demo:
	@.ci/environment run
	@$(BIN)/python -m experiments.setup_gl
	@$(BIN)/python -m experiments.demo --workdir=$(WORKDIR)

test:
	@.ci/environment dev
	@$(BIN)/python -m experiments.setup_gl
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist=loadfile

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
