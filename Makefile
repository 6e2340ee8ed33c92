# `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

# `make test` runs these, test-all the others too.
SHORT_SCENARIOS := local_e2e default docker_engine docker_firewall nvidia_container_toolkit model_snapshot vllm_image vllm_server \
                   modules load_balancer rollout rollout_failure rollout_unreachable
ALL_SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
# First and alone: on a fresh machine local_e2e meets one without Docker, and default makes the images that most test hosts have.
FIRST_SCENARIOS := local_e2e default
# Alone: a real engine in this machine's own Docker wants all of its cores. The others run two at a time.
ENGINE_SCENARIOS := diagnosis engine rollout_engine

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

.PHONY: setup
setup: ## make .venv with the pinned tools, and this checkout usable as llmops.vllm
	@tools/setup.sh

.PHONY: wheels hub demo
wheels: setup
	@tools/cpu_wheels.sh
hub: setup
	@tools/demo_hub.sh start
demo: setup # what inventories/local needs, side by side
	@$(MAKE) --no-print-directory -j2 wheels hub

.PHONY: deploy
deploy: demo ## serve a real AWQ model with a real vLLM on this machine
	@ansible-playbook -i inventories/local site.yml

.PHONY: stop
stop: setup ## stop the server of `make deploy`; deploy starts it again
	@ansible-playbook -i inventories/local playbooks/stop.yml

.PHONY: clean
clean: setup ## take away everything that deploy and test made
	@if docker version >/dev/null 2>&1; then \
	    for scenario in local_e2e diagnosis engine rollout_engine; do \
	        molecule destroy -s $$scenario >/dev/null 2>&1 || echo "clean: molecule destroy -s $$scenario failed"; \
	    done; \
	    for image in $$(docker image ls -q llmops-test-host | sort -u); do \
	        docker ps -aq --filter ancestor=$$image | xargs -r docker rm --force --volumes >/dev/null; \
	        docker rmi --force $$image >/dev/null; \
	    done; \
	fi
	@ansible-playbook -i inventories/local playbooks/absent.yml -e vllm_absent_all=true
	@tools/demo_hub.sh stop
	@rm -rf .work .ansible .pytest_cache .ruff_cache .venv inventories/local/vllm.lock.yml
	@echo "clean: only packages that are tools stay (mmdebstrap, python3-venv)"

.PHONY: lint
lint: setup ## static checks, secrets (a minute on two cores)
	@tools/lint.sh

.PHONY: test-unit
test-unit: setup ## unit tests (a minute)
	@pytest -q -n 2 tests/unit

.PHONY: coverage
coverage: setup ## unit tests, and which lines of plugins/ they do not reach
	@mkdir -p .work/coverage
	@pytest -q -n 2 tests/unit --cov --cov-report=term

.PHONY: test-integration
test-integration: setup ## hf_snapshot with each generation of the Hub's client
	@pytest -q tests/integration

.PHONY: test-sanity
test-sanity: setup ## ansible-test sanity
	@tools/sanity.sh

.PHONY: docs
docs: setup ## the documentation site, .work/docs/html
	@tools/docs.sh

.PHONY: docs-links
docs-links: setup ## the external links of the site; needs a network
	@tools/docs.sh linkcheck

.PHONY: test-docs
test-docs: docs ## the site against the specs of plugins and roles
	@pytest -q tests/docs

.PHONY: test-packaging
test-packaging: setup ## the tarball: what is in it, and that it works where it is installed
	@pytest -q tests/packaging

.PHONY: checks
checks: lint coverage test-docs test-integration test-packaging test-sanity ## all that needs no test host

.PHONY: test
test: checks ## what a change must pass: all but the long scenarios
	@tools/scenarios.sh $(FIRST_SCENARIOS) --jobs 2 $(filter-out $(FIRST_SCENARIOS),$(SHORT_SCENARIOS))

.PHONY: list-short
list-short:
	@echo $(SHORT_SCENARIOS)

.PHONY: test-all
test-all: checks ## every scenario as well
	@FLEET_CASES=all tools/scenarios.sh $(FIRST_SCENARIOS) --jobs 2 $(filter-out $(FIRST_SCENARIOS) $(ENGINE_SCENARIOS),$(ALL_SCENARIOS)) \
	    --jobs 1 $(ENGINE_SCENARIOS)

.PHONY: test-matrix
test-matrix: setup ## the tarball on other controllers, and hf_snapshot with other clients of the Hub (half an hour)
	@python tools/matrix.py

.PHONY: test-importer
test-importer: setup ## what Galaxy looks at when the tarball is uploaded (a minute)
	@tools/galaxy_importer.sh

.PHONY: audit
audit: setup ## known vulnerabilities of the pins, and secrets; "Error 3" where no advisory service can be asked
	@python tools/audit.py

.PHONY: build
build: setup ## the collection's tarball
	@tools/build.sh

.PHONY: lock
lock: setup ## resolve the pins of the tools anew
	@for folder in tools tools/galaxy_importer; do \
	    uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --upgrade $$folder/requirements.in -o $$folder/requirements.txt; \
	done
