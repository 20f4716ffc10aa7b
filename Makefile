# What each target does: `make help`. Everything is set up by the targets themselves, in .venv and in the user's cache.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := uv==0.13.9
ENGINE ?= $(firstword $(shell which docker podman buildah 2> /dev/null))
TAG    ?= unfreeze
# The tag that the chart asks for.
VERSION := $(shell sed -n 's/^appVersion: //p' charts/unfreeze/Chart.yaml)

# No model hub is asked for anything, whatever a library would like to look up.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# A laptop that sleeps for a minute while packages are installed goes on.
export UV_COMPILE_BYTECODE_TIMEOUT := 3600
# Tests start hundreds of processes, each of which would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

# What differs between releases of Kubernetes: the CRD and its rules, and a job's life from its children to its end.
OLDEST := tests/crds tests/operator/test_gangs.py tests/operator/test_half_applied.py tests/operator/test_life.py tests/operator/test_rights.py tests/operator/test_suspend.py

.PHONY: bench-outcomes help setup cluster-binaries test-binaries demo demo-search test test-matrix test-fast test-oldest test-walk soak fmt lint bench crds chart images cluster-up cluster-down lock clean

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## The virtual environment in .venv, and the control plane's binaries (built once, cached)
	@$(MAKE) --no-print-directory -j2 $(READY) cluster-binaries

# Compiled here, since pods run as a user who may not write into it, and would compile it again at each start.
$(READY): requirements.lock pyproject.toml
	@echo "Installing the pinned packages into $(VENV) (about a minute) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is needed (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

cluster-binaries:
	@$(PYTHON) -m tests.cluster.binaries > /dev/null

demo: setup ## The main job: a cluster of two nodes, the operator, kubectl apply, the result explained
	@$(BIN)/python -m examples.demo

demo-search: setup ## A page where a drawing or a word finds pictures: trains a bridge in minutes; JOB=alignment-audio for spoken words too, alignment-languages for other languages
	@$(BIN)/python -m examples.search .demo $(JOB)

test-binaries: $(READY)
	@$(BIN)/python -m tests.cluster.binaries helm helm3 kubeconform kueue celcost celcost-tested \
	  versitygw fake-gcs-server azurite > /dev/null

test: setup ## All tests, in three processes that share the rooms (tests/rooms.py); some: T=FOLDER, T=FILE or T=FILE::TEST
ifdef T
	@$(MAKE) --no-print-directory test-binaries
	@$(BIN)/python -m pytest $(T)
else
	@$(MAKE) --no-print-directory -j2 lint test-binaries
	@$(BIN)/python -m pytest --numprocesses=3 --dist=loadscope --no-loadscope-reorder --slowest=30
endif

test-matrix: $(READY) ## All combinations of strategy, adapter, engine and task, and other products; `make test` has the pairs
	@$(BIN)/python -m pytest -m matrix tests/trainer

test-walk: setup ## Every field of the spec, changed while a job lives, and harm done to children by hand; some: L=template
	@$(BIN)/python -m tests.operator.walk $(L)

test-fast: $(READY) ## Pure code, in under a minute
	@$(BIN)/python -m pytest -q --numprocesses=2 --dist=loadfile --hypothesis-profile=fast -m "not cluster and not slow and not accelerator"

test-oldest: setup ## Some tests on the oldest Kubernetes that is supported, whose control plane is built once; others: T=FILE
	@UNFREEZE_TEST_KUBERNETES=oldest $(PYTHON) -m tests.cluster.binaries > /dev/null
	@UNFREEZE_TEST_KUBERNETES=oldest $(BIN)/python -m pytest -m cluster $(or $(T),$(OLDEST))

MINUTES ?= 60
soak: setup ## An hour of jobs by a fixed seed: memory of the operator, its writes, and jobs that end otherwise; less: MINUTES=5
	@$(BIN)/python -m bench.soak $(MINUTES)

fmt: $(READY) ## Formats the code, and mends what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(READY) ## ruff, mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

# Those that take a folder for real data are about outcomes. A table of accelerators is of nothing else.
OUTCOMES := $(patsubst bench/%.py,%,$(shell grep -l 'python -m bench\.[a-z]* FOLDER' bench/*.py))
SPEED    := $(filter-out soak $(OUTCOMES) $(if $(shell which nvidia-smi),,accelerator),$(patsubst bench/%.py,%,$(wildcard bench/[!_]*.py)))

bench: setup ## Benchmarks of speed, as ratios within one run, an hour or two; some: B="loop startup"; results as JSON in out/
	@mkdir -p out
	@for name in $(or $(B),$(SPEED)); do echo "bench.$$name ..." >&2; \
	  result=out/$$name.json; $(BIN)/python -m bench.$$name > $$result || exit 1; cat $$result; done

bench-outcomes: $(READY) ## Benchmarks of outcomes on real data beside plain libraries, for hours; a row that stands is kept; some: B="tags pairs"
	@mkdir -p out/data
	@for name in $(or $(B),$(OUTCOMES)); do echo "bench.$$name ..." >&2; \
	  result=out/$$name.json; $(BIN)/python -m bench.$$name out/data > $$result || exit 1; cat $$result; done

crds: $(READY) ## The CRD, its warnings, docs/api.md and the tables of docs/operations.md, from the models; CRD and warnings also in the chart
	@$(BIN)/python -m unfreeze_api.generate.crd --write
	@$(BIN)/python -m unfreeze_api.generate.policy --write
	@$(BIN)/python -m unfreeze_api.generate.reference --write
	@$(BIN)/python -m unfreeze_api.generate.tables --write
	@$(MAKE) --no-print-directory chart

chart: $(READY) ## What the chart generates: schema and README from values.yaml, CRD and rules from their rooms
	@$(BIN)/python charts/generate.py --write

images: ## The images of operator and trainer, by docker, podman or buildah: TAG=PREFIX, BASE=IMAGE, PUSH=1
	@test -n "$(ENGINE)" || { echo "docker, podman or buildah is needed (Debian: apt-get install buildah)"; exit 1; }
	@for target in operator trainer; do \
	  image=$(TAG)-$$target:$(VERSION); \
	  $(ENGINE) build $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg VERSION=$(VERSION) \
	    --build-arg REVISION="$$(git rev-parse HEAD)" --target $$target --tag $$image . || exit 1; \
	  $(if $(PUSH),$(ENGINE) push $$image || exit 1;) done

cluster-up: setup ## A control plane and two nodes to try things on
	@$(BIN)/python -m tests.cluster up

cluster-down: ## Stops it
	@$(BIN)/python -m tests.cluster down

lock: ## Pins anew, after a change of dependencies in pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  --all-extras pyproject.toml --output-file requirements.lock

clean: ## Removes what the targets made, but for the user's cache
	rm -rf $(VENV) .cluster .demo out .pytest_cache .mypy_cache .ruff_cache .hypothesis
