.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run lab test check testbed image bench fuzz clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sidestep needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(VENV)/.installed  ## the proxy with its defaults: no root, no cluster
	$(BIN)/sidestep run $(ARGS)

lab: $(VENV)/.installed  ## how kube-proxy loses UDP, and the same with Sidestep; needs root and make testbed
	$(BIN)/sidestep lab $(ARGS)

test: $(VENV)/.installed  ## every test; those that need root or a peer skip with the reason where they can't run
	$(BIN)/pytest $(ARGS)

check: $(VENV)/.installed  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

testbed:  ## a real kube-apiserver and other servers that tests run against, built once into ~/.cache/sidestep
	tests/testbed/build

image:  ## the container image sidestep:VERSION, with docker, podman or buildah; ARGS='--build-arg BASE=...' for another base
	@for tool in docker podman buildah none; do "$$tool" info >/dev/null 2>&1 && break; done; \
	[ "$$tool" != none ] || { echo 'docker, podman or buildah is needed, and none works here' >&2; exit 1; }; \
	version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' proxy/__init__.py); \
	set -x; "$$tool" build $(ARGS) --tag "sidestep:$$version" .

bench: $(VENV)/.installed  ## side by side with unbound, dnsmasq and CoreDNS, in one run
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(VENV)/.installed  ## 10 million mutated packets through the scanner, 1 million through a running worker
	$(BIN)/python -m tests.fuzz $(ARGS)

clean:  ## remove what make made here
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
