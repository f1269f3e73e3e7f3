# Every target installs what it needs first; `make` alone lists them.

PYTHON     ?= python3
EXPERIMENT ?= tiny
PROFILE    ?= default
# GPUs of this machine, instead of the profile's number.
GPUS       ?=
# Processes that run tests side by side, one thread each.
TEST_JOBS  ?= 2

BIN       := .venv/bin
PIP       := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install
CONFIG     = config/$(EXPERIMENT).yaml
# Merged over the experiment's configuration, e.g. config/overlays/smollm2-cpu.yaml.
OVERLAY    ?=
# What `make fetch` brought is used, unless the environment names another mirror.
export MARS_HUB_MIRROR ?= $(if $(wildcard mirror/fetched.json),$(CURDIR)/mirror)
# Rules call `mars`, so the environment's programs come first on the path.
SNAKEMAKE  = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake \
             --profile workflow/profiles/$(PROFILE) --configfile $(CONFIG) $(OVERLAY) \
             $(if $(GPUS),--resources gpu=$(GPUS))
# Named after what was installed: other contents, another stamp, another installation.
STAMP     := .venv/.installed-$(shell cat requirements.lock pyproject.toml | cksum | tr ' ' '-')

.DEFAULT_GOAL := help
.PHONY: help install fetch reproduce report plan audit test test-slurm lint lock known-experiment

help:
	@echo "make reproduce                     install, run the tiny experiment, print its main table"
	@echo "make reproduce EXPERIMENT=paper PROFILE=gpu-node GPUS=8"
	@echo "                                   the same for config/paper.yaml on a machine with GPUs"
	@echo "make reproduce EXPERIMENT=paper PROFILE=slurm"
	@echo "                                   the same through Slurm; see docs/running-the-paper.md"
	@echo "make reproduce EXPERIMENT=smollm2 OVERLAY=config/overlays/smollm2-cpu.yaml"
	@echo "                                   the same with a configuration merged over another"
	@echo "make fetch [EXPERIMENT=]           what it needs from the hub into mirror/, for a run without network"
	@echo "make plan [EXPERIMENT=]            what 'make reproduce' would run, why, and its cost; runs nothing"
	@echo "make report [EXPERIMENT=]          one HTML page of all that was run: results/<experiment>/report.html"
	@echo "make audit [EXPERIMENT=]           whether every number still is what its records say"
	@echo "make test                          install, run the tests"
	@echo "make test-slurm                    the ci experiment through a Slurm started for it (root, slurm-wlm)"
	@echo "make install                       virtual environment in .venv from requirements.lock"
	@echo "make lint                          style, types and workflow checks"
	@echo "make lock                          write requirements.lock and environment.yml from .venv"

install: $(STAMP)

# torch comes first and with its dependencies, which on a GPU machine are the CUDA packages; the
# lock is complete for all the rest. No index is named here: pip's own configuration decides.
$(STAMP): | .venv/bin/pip
	$(PIP) -c requirements.lock torch
	$(PIP) --no-deps -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@rm -f .venv/.installed-*
	@touch $@

.venv/bin/pip:
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "$(PYTHON) is not here; install Python 3.11 or newer, or say make PYTHON=<path>."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed: make PYTHON=<path>."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv)."; exit 2; }
	$(PYTHON) -m venv .venv

# The lock is the kernel's: it ends with the last process of a run, killed or not, so nothing has to
# be unlocked by hand (Snakemake's own lock outlives a kill), and no two runs share the results.
reproduce: known-experiment install
	@$(BIN)/mars check $(CONFIG) $(OVERLAY)
	@mkdir -p .snakemake
	@flock --nonblock --conflict-exit-code 75 .snakemake/run.lock env $(SNAKEMAKE) --nolock || { code=$$?; \
	  test $$code -ne 75 || echo "Another run, or the last jobs of a killed one, is busy here; wait for it."; \
	  exit $$code; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mars ledger $(addprefix --config ,$(CONFIG) $(OVERLAY))
	@$(BIN)/mars show $(addprefix --config ,$(CONFIG) $(OVERLAY))

# Into the mirror, from which the other targets then take everything, with the hub switched off.
fetch: known-experiment install
	@$(BIN)/mars fetch $(addprefix --config ,$(CONFIG) $(OVERLAY)) --to "$${MARS_HUB_MIRROR:-mirror}"

plan: known-experiment install
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mars plan $(addprefix --config ,$(CONFIG) $(OVERLAY))

audit: known-experiment install
	@$(BIN)/mars audit --all $(addprefix --config ,$(CONFIG) $(OVERLAY))

# From what is there; `make reproduce` writes it too, after everything it shows.
report: known-experiment install
	@$(BIN)/mars report --spec "$$($(BIN)/mars spec report $(addprefix --config ,$(CONFIG) $(OVERLAY)))" \
	  --output results/$(EXPERIMENT)/report.html --record results/$(EXPERIMENT)/provenance/report.json
	@echo "results/$(EXPERIMENT)/report.html is written; open it in a browser."

known-experiment:
	@test -f $(CONFIG) || { echo "EXPERIMENT=$(EXPERIMENT) is not known; choose one of:" \
	  $(basename $(notdir $(wildcard config/*.yaml))); exit 2; }
	@test -d workflow/profiles/$(PROFILE) || { echo "PROFILE=$(PROFILE) is not known; choose one of:" \
	  $(notdir $(wildcard workflow/profiles/*)); exit 2; }

# worksteal: the ci experiment, which several tests look at, starts first; the other process takes
# what is left.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

# A Slurm of its own on this machine: apt-get install slurm-wlm munge, as root.
test-slurm: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/end_to_end/test_slurm.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mars tools
	$(BIN)/snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint
	$(BIN)/python tools/lock.py --check

lock:
	$(BIN)/python tools/lock.py
