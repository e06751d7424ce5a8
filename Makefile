# make repro: the whole pipeline on the embedded sample.  make test: lint, types, tests.
# make bench: every loop beside its peers, half an hour; writes docs/benchmarks.md.
# make audit: licences, copyleft, pins, known vulnerabilities and a bill of materials of what is installed, in build/audit.
# make lock: build/requirements.lock, every package with its hash; make env LOCK=build/requirements.lock installs these bytes alone.
# make faults: kills stages, DVC and flows at random moments and compares, KILLS=200 in all; then fills the disk under each
#   stage, makes it read-only, takes its memory and sets the clock.
# make fuzz: damages small valid files and reads them; MINUTES=30 in all.
# make docs: the site of docs/ in build/site, with every link checked.
# make up, make down: a local Prefect with its UI.  make e2e: the slow tests, which start the real thing.
# All but `down` create .venv first.
PYTHON ?= python3.11
KILLS ?= 200
MINUTES ?= 30
SEED ?= 0
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: env repro test e2e bench audit lock faults fuzz docs up down clean

env: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt $(LOCK)
	$(PYTHON) -m venv --clear .venv
ifdef LOCK
	$(BIN)/pip install --quiet --disable-pip-version-check --report .venv/installed.json --require-hashes --requirement $(LOCK)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
else
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --report .venv/installed.json --editable '.[dev]'
endif
	touch $@

repro: env
	ntulm verify
	dvc repro
	ntulm results

test: env
	ruff check .
	ruff format --check .
	mypy
	pytest --numprocesses auto --maxprocesses 4 --dist loadfile

e2e: env
	pytest tests/e2e

bench: env
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	python -m benchmarks.all

audit: env
	python -m deploy.audit

lock: env
	python -m deploy.lock

faults: env
	OMP_NUM_THREADS=1 PYTHONPATH=. python tests/faults.py --kills $(KILLS) --seed $(SEED)
	OMP_NUM_THREADS=1 PYTHONPATH=. python tests/machine_faults.py

fuzz: env
	OMP_NUM_THREADS=1 PYTHONPATH=. python tests/fuzz.py --minutes $(MINUTES) --seed $(SEED)

docs: env
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --config-file docs/site/mkdocs.yml

up: env
	python deploy/local.py up

down:
	python deploy/local.py down

clean:
	rm -rf data metrics reports
