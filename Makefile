# The commands. Each does its own set-up, asks nothing, and works for root and for an ordinary user.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON_IN_VENV := .venv/bin/python
# Debian keeps servers where ordinary users don't look for programs.
export PATH := $(PATH):/usr/sbin:/sbin
# Python keeps what it compiled, even where the environment says otherwise: a run of the tests starts the product a
# hundred times.
unexport PYTHONDONTWRITEBYTECODE

# More words for the command behind a target: make run ARGS="--listen 0.0.0.0:8443", make test ARGS="-k audit".
ARGS ?=
WORKERS ?= 2
# file or dns.
DEMO ?= file

.PHONY: help setup assets servers run test walks check fmt fuzz demo bench lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | while IFS= read -r line; do \
		printf '  make %-8s %s\n' "$${line%%:*}" "$${line##*## }"; done

setup:
	@scripts/setup

assets: setup ## fetch the console's style sheet and scripts
	@$(PYTHON_IN_VENV) hatch_build.py

run: assets ## set everything up and start the product on https://127.0.0.1:8443
	@exec $(PYTHON_IN_VENV) -m certwright serve $(ARGS)

servers:
	@scripts/servers nginx named knotd pebble chromium faketime haproxy apache2 keytool tomcat10 softhsm2-util \
		pkcs11-tool p11-kit p11-kit-client swtpm tpm2-pkcs11 tcti-swtpm softokn cc libc6-dev \
		lego dehydrated uacme

test: assets servers ## install the real servers where allowed, then run every test
	@$(PYTHON_IN_VENV) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

walks: assets servers ## long random walks and every kill alone: CERTWRIGHT_WALKS of them (default 5000)
	@CERTWRIGHT_CHANCE=1 CERTWRIGHT_WALKS=$${CERTWRIGHT_WALKS:-5000} $(PYTHON_IN_VENV) -m pytest -n $(WORKERS) -s \
		tests/certificates/test_random_walks.py tests/flows/test_every_operation.py tests/authorities/test_life.py \
		tests/acme_server/test_acme_walks.py tests/acme_server/test_acme_kills.py \
		tests/acme_server/test_acme_sigkill.py $(ARGS)

fuzz: setup ## new inputs for every reader of foreign bytes, FUZZ_SECONDS each (default 600), and for every pure rule
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(PYTHON_IN_VENV) -m pytest -n $(WORKERS) tests/fuzz $(ARGS)
	@CERTWRIGHT_CHANCE=$${CERTWRIGHT_CHANCE:-10} $(PYTHON_IN_VENV) -m pytest -n $(WORKERS) -m hypothesis \
		tests/x509 tests/acme tests/kernel tests/platform tests/*/test_rules.py $(ARGS)

check: setup ## linter, formatter, types, and the floors imports may cross
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m mypy
	@.venv/bin/lint-imports

fmt: setup ## format the source and repair what the linter can
	@$(PYTHON_IN_VENV) -m ruff check --fix .
	@$(PYTHON_IN_VENV) -m ruff format .

demo: assets ## the main job on a real nginx; DEMO=dns validates at a real DNS server
	@scripts/servers nginx $(if $(filter dns,$(DEMO)),knotd)
	@$(PYTHON_IN_VENV) -m certwright.entry.demo $(DEMO) $(ARGS)

bench: assets ## print our figures with the machine's description
	@scripts/servers nginx wrk knotd pebble lego cfssl
	@scripts/peers
	@$(PYTHON_IN_VENV) bench/run.py $(ARGS)

lock: ## write requirements.lock anew from pyproject.toml
	@scripts/lock

clean: ## remove .venv, caches and fetched assets; never touches a data directory
	@rm -rf .venv .state .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build \
		src/certwright/entry/console/static/vendor
	@find bench scripts src tests -name __pycache__ -prune -exec rm -rf {} +
