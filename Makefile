# The front door: every recipe is one script. `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# A mistyped variable would be ignored without a word: EPOCH=50 for EPOCHS=50.
KNOWN := $(shell sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' .env.example) \
  EPOCHS IMGSZ BATCH SEED NAME FORCE DEBUG GRID JOBS RUN REASON SOURCE SERVICE LINES FOLLOW \
  RAY_ADDRESS RAY_PORT NODE_ADDRESS CPUS ONLY FIX FORMAT UV PYTHON VENV SHELL
UNKNOWN := $(filter-out $(KNOWN),$(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(v))))
ifneq ($(UNKNOWN),)
$(error unknown: $(UNKNOWN). Settings are in .env.example, other variables in `make help`)
endif

##@ Stack
.PHONY: help setup up stack status logs doctor credentials down prune clean
help: ## List the targets
	@scripts/show-help.sh Makefile
setup: ## Install .venv from requirements.txt; make .env with random secrets
	@scripts/ensure-setup.sh
up: setup ## Start the services, wait until they are healthy, print their addresses
	@scripts/start-services.sh
# As a mere prerequisite, `stack` trusts its fingerprint; asked for by name, it looks.
stack: up ## Bring buckets, users, policies and the ZenML stack in line with .env
	@scripts/converge-stack.sh $(if $(filter stack,$(MAKECMDGOALS)),,--trust-fingerprint)
status: ## Show what runs
	@scripts/show-status.sh
logs: ## Show the services' logs (SERVICE=zenml, LINES=100, FOLLOW=1)
	@scripts/show-logs.sh
doctor: ## Check this machine, the settings and the services; say what to do
	@scripts/check-health.sh
credentials: ## Print addresses, user names and passwords
	@scripts/show-credentials.sh
down: ## Stop the services, keep every byte
	@scripts/stop-services.sh
prune: stack ## Free what was deleted in the pages; shows it and asks first (FORCE=1 doesn't)
	@scripts/prune-storage.sh
clean: ## Delete services' data, runs, the lab's data set; asks first (FORCE=1 doesn't)
	@scripts/clean-checkout.sh

##@ Training
.PHONY: data baseline grid report promote rollback predict
# FORCE=1 of a training is about its cache, not about what you changed in the data set.
data: stack ## Build or import (DATASET, NAME) the data set, validate, version, push it (FORCE=1: again)
	@$(if $(filter data,$(MAKECMDGOALS)),,FORCE=) scripts/ensure-dataset.sh
baseline: data ## Run the baseline (EPOCHS, IMGSZ, BATCH, SEED; FORCE=1 ignores the cache)
	@scripts/run-pipeline.sh baseline
grid: data ## Run every cell of the grid side by side (JOBS, GRID, RAY_ADDRESS); done ones are cached
	@scripts/run-pipeline.sh grid

##@ Decision
report: ## Compare the latest grid, decide on the evidence, write reports/ (FORCE=1 REASON='…')
	@scripts/run-decision.sh report
promote: ## Make RUN's weights the champion if the gate agrees (FORCE=1 REASON='…')
	@scripts/run-decision.sh promote
rollback: ## Go back to the previous champion
	@scripts/run-decision.sh rollback
predict: ## Detect with the champion in SOURCE (picture, folder, video or 'pattern')
	@scripts/run-decision.sh predict

##@ Use
.PHONY: serve stop-serve export
serve: up ## Serve the champion over HTTP (SERVE_PORT); it follows promote and rollback
	@scripts/serve-champion.sh start
stop-serve: ## Stop serving it
	@scripts/serve-champion.sh stop
export: ## Write the champion to exports/ (FORMAT=onnx, openvino, torchscript, …)
	@scripts/run-decision.sh export

##@ Cluster
.PHONY: ray-head ray-worker ray-stop
ray-head: setup ## Make this machine the head of a Ray cluster (RAY_PORT, CPUS)
	@scripts/start-ray-node.sh head
ray-worker: setup ## Add this machine to a cluster (RAY_ADDRESS=host:port, CPUS)
	@scripts/start-ray-node.sh worker
ray-stop: ## Stop this machine's Ray node
	@scripts/stop-ray-node.sh

##@ Development
.PHONY: test test-docker test-faults test-own-data test-serve test-statistics lint audit lock
test: setup ## Unit, shell and end-to-end tests (ONLY=unit, shell or e2e); no engine needed
	@scripts/run-tests.sh unit shell e2e
test-docker: setup ## The same end-to-end tests on Docker
	@scripts/run-tests.sh docker
test-faults: setup ## Every bad day and their pairs (an hour; MODE=docker too): docs/reliability.md
	@scripts/run-tests.sh faults
test-statistics: setup ## Thousands of simulated decisions: how often the gate errs (minutes)
	@scripts/run-tests.sh statistics
test-own-data: setup ## Data sets of one's own, end to end (minutes; MODE=docker too)
	@scripts/run-tests.sh own_data
test-serve: setup ## The champion's service under 10,000 requests, and its speed (minutes; MODE=docker too)
	@scripts/run-tests.sh serve
lint: setup ## ruff, mypy, shellcheck, shfmt
	@scripts/run-linters.sh
audit: setup ## Look up known vulnerabilities of the locked packages
	@scripts/audit-packages.sh
lock: setup ## Compile requirements.txt and requirements-dev.txt anew
	@scripts/compile-requirements.sh
