# make repro: the whole pipeline on the embedded sample.  make test: lint, types, tests.  Both create .venv first.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: env repro test clean

env: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

repro: env
	ntulm verify
	dvc repro
	ntulm results

test: env
	ruff check .
	ruff format --check .
	mypy
	pytest

clean:
	rm -rf data metrics reports
