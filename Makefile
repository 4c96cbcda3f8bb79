# make tables   set up .venv once, then train, score and print every table and figure (preset quick)
# make test     the same set-up, then the default test suite
# make coverage the default tests, and the lines that none of them runs
# make faults   every night: kills, disk errors, malformed inputs by the thousand, and mutants; about two hours
# make pages    docs/ as a site, written to site/
# make console  writes the command .venv/bin/dpbench again; a part of setup
# make lock     resolve requirements.in again (maintainers)

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
BIN := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin
# In the names of make's own targets a space must be escaped.
EMPTY :=
READY := $(subst $(EMPTY) ,\ ,$(VENV))/.ready
CORES ?= all
PRESET ?= quick
SNAKEMAKE ?= "$(BIN)/python" -m workflow.snakemake --quiet rules host
PYTEST_ARGS ?= -n auto

export PATH := $(BIN):$(PATH)
export PYTHONUNBUFFERED := 1

.PHONY: setup console tables test coverage faults lint pages lock
.DEFAULT_GOAL := tables

.DEFAULT:
	@echo "error: no target '$@'; valid: setup, console, tables, test, coverage, faults, lint, pages, lock" >&2; exit 2

setup: $(READY)

# Hashes cover all but torch, see requirements.in. torch comes last, when what it depends on is there and pinned.
$(READY): requirements.lock requirements-torch.txt
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 found; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON): about 1 GB with a CPU build of torch, a few minutes" >&2
	"$(PYTHON)" -m venv --clear "$(VENV)"
	"$(BIN)/python" -m pip install -qq --require-hashes --no-deps -r requirements.lock
	"$(BIN)/python" -m pip install -qq -r requirements-torch.txt
	@"$(BIN)/python" -m pip check
	@$(MAKE) --no-print-directory console
	@touch "$(VENV)/.ready"

# What `pip install -e .` would do, without its files beside the code: a container sets up before it has any code.
console:
	@printf '%s\n' "$(CURDIR)" > "$$("$(BIN)/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dpbench.pth"
	@printf '#!/usr/bin/env sh\nexec "%s" -P -m dpbench "$$@"\n' "$(BIN)/python" > "$(BIN)/dpbench"
	@chmod +x "$(BIN)/dpbench"

# The shell outlives Ctrl-C, which Snakemake answers in one line: of its end make would report a failure.
tables: $(READY)
	@trap 'interrupted=1' INT; $(SNAKEMAKE) --cores $(CORES) --config preset=$(PRESET); \
		status=$$?; [ "$$status$$interrupted" = 1301 ] || exit $$status

test: $(READY)
	"$(BIN)/python" -m pytest $(PYTEST_ARGS)

coverage: $(READY)
	"$(BIN)/python" -m pytest $(PYTEST_ARGS) --cov --cov-report=term

faults: $(READY)
	"$(BIN)/python" -m tests.faults.kills
	"$(BIN)/python" tests/faults/malformed.py
	"$(BIN)/python" -m tests.faults.mutate

lint: $(READY)
	"$(BIN)/ruff" check .

pages: $(READY)
	"$(BIN)/python" -m mkdocs build --strict

# One resolution for every Python >= 3.11, with the hashes of all published files of each version.
lock: $(READY)
	"$(BIN)/python" -m pip install --quiet uv
	echo torch | "$(BIN)/uv" pip compile requirements.in --excludes /dev/stdin --universal --python-version 3.11 \
		--prerelease disallow --generate-hashes --no-annotate --no-header --upgrade --output-file requirements.lock
	"$(BIN)/python" -m workflow.environment
