# The front door: every recipe is one script. `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# A variable that nothing reads would be ignored without a word: EPOCH=50 for EPOCHS=50, or RAY_ADDRESS
# for the baseline. What a target reads stands in brackets at the end of its line of help.
EVERYWHERE := $(shell sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' .env.example) DEBUG PYTHON VENV SHELL
READ := $(foreach goal,$(MAKECMDGOALS),$(shell sed -n 's/^$(goal):.*\[\([A-Z0-9_ ]*\)\]$$/\1/p' Makefile))
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(v)))
UNREAD := $(filter-out $(EVERYWHERE) $(READ),$(GIVEN))
ifneq ($(UNREAD),)
$(error $(or $(MAKECMDGOALS),help) reads no $(UNREAD). Settings are in .env.example, other variables beside their targets in `make help`)
endif

# These skip questions and gates, or lead to another cluster: only what is typed behind the target counts.
ASIDE := $(strip $(foreach v,FORCE RAY_ADDRESS,$(if $(filter environment%,$(origin $(v))),$(if $($(v)),$(v)))))
ifneq ($(ASIDE),)
unexport $(ASIDE)
$(shell echo '$(ASIDE) from the environment: left aside; write it behind the target where it is meant' >&2)
endif

##@ Stack
.PHONY: help setup up stack status logs doctor support credentials down prune clean
help: ## List the targets
	@scripts/show-help.sh Makefile
setup: ## Install .venv from the lock; make .env with random secrets
	@scripts/ensure-setup.sh
up: setup ## Start the services, wait until they are healthy, show where
	@scripts/start-services.sh $(if $(filter up,$(MAKECMDGOALS)),--show)
# As a mere prerequisite, `stack` trusts its fingerprint; asked for by name, it looks.
stack: up ## Bring buckets, users and the ZenML stack in line with .env
	@scripts/converge-stack.sh $(if $(filter stack,$(MAKECMDGOALS)),,--trust-fingerprint)
status: ## Show what runs
	@scripts/show-status.sh
logs: ## Show the services' logs (SERVICE=zenml, FOLLOW=1) [SERVICE LINES FOLLOW]
	@scripts/show-logs.sh
doctor: ## Check the machine, the settings, the services; say what to do
	@scripts/check-health.sh
support: ## Gather versions, states and ends of logs for an issue
	@scripts/gather-support.sh
credentials: ## Print addresses, user names and passwords
	@scripts/show-credentials.sh
down: ## Stop the services, keep every byte
	@scripts/stop-services.sh
prune: stack ## Free what was deleted in the pages; asks unless FORCE=1 [FORCE]
	@scripts/prune-storage.sh
clean: ## Delete all data of services and lab; asks unless FORCE=1 [FORCE]
	@scripts/clean-checkout.sh

##@ Training
.PHONY: data baseline grid report promote rollback predict
# FORCE=1 of a training is about its cache, not about what you changed in the data set.
data: stack ## Build or import DATASET, push it; FORCE=1 rebuilds [NAME FORCE]
	@$(if $(filter data,$(MAKECMDGOALS)),,FORCE=) scripts/ensure-dataset.sh
baseline: data ## Train the baseline; FORCE=1 ignores the cache [EPOCHS IMGSZ BATCH SEED NAME FORCE]
	@scripts/run-pipeline.sh baseline
grid: data ## Train a grid's cells side by side; FORCE=1 ignores the cache [GRID JOBS EPOCHS IMGSZ BATCH SEED NAME FORCE RAY_ADDRESS]
	@scripts/run-pipeline.sh grid

##@ Decision
report: ## Compare the latest grid, decide, write reports/ [NAME FORCE REASON]
	@scripts/run-decision.sh report
promote: ## Make RUN's weights the champion if the gate agrees [RUN NAME FORCE REASON]
	@scripts/run-decision.sh promote
rollback: ## Go back to the previous champion [NAME]
	@scripts/run-decision.sh rollback
predict: ## Detect in SOURCE: a picture, folder, video or 'pattern' [SOURCE NAME]
	@scripts/run-decision.sh predict

##@ Use
.PHONY: serve stop-serve export
serve: setup ## Serve the champion on SERVE_PORT; follows promote and rollback [NAME]
	@scripts/serve-champion.sh start
stop-serve: ## Stop serving the champion [NAME]
	@scripts/serve-champion.sh stop
export: ## Write the champion to exports/: onnx, openvino, … [FORMAT NAME]
	@scripts/run-decision.sh export

##@ Cluster
.PHONY: ray-head ray-worker ray-stop
ray-head: setup ## Make this machine the head of a Ray cluster [RAY_PORT NODE_ADDRESS CPUS]
	@scripts/start-ray-node.sh head
ray-worker: setup ## Add this machine to a cluster [RAY_ADDRESS NODE_ADDRESS CPUS]
	@scripts/start-ray-node.sh worker
ray-stop: ## Stop this machine's Ray node
	@scripts/stop-ray-node.sh

##@ For you, and for CI
.PHONY: open shell completion api-key revoke screenshots
open: ## Open a page in the browser: zenml, mlflow or object-store [SERVICE]
	@scripts/open-page.sh
shell: ## A shell in which zenml, mlflow, dvc and yolo find this stack
	@scripts/open-shell.sh
completion: ## Print what completes make's targets: eval "$$(make completion)"
	@scripts/print-completion.sh
api-key: stack ## Make an account NAME for a CI runner, print its key once [NAME]
	@scripts/manage-api-keys.sh create
revoke: stack ## Delete the account NAME and its key [NAME]
	@scripts/manage-api-keys.sh revoke
screenshots: stack ## Take the README's pictures in a real browser (after a report)
	@scripts/run-tests.sh screenshots

##@ Development
.PHONY: test test-docker test-browser test-faults test-lab test-own-data test-serve test-statistics lint audit lock
test: setup ## Unit, shell and end-to-end tests (ONLY=unit, shell or e2e) [ONLY]
	@scripts/run-tests.sh unit shell e2e
test-docker: setup ## The same end-to-end tests on Docker
	@scripts/run-tests.sh docker
test-browser: stack ## Follow this stack's links in a real browser (after a report)
	@scripts/run-tests.sh browser
test-faults: setup ## Bad days, in pairs too, and kills (hours; MODE=docker too)
	@scripts/run-tests.sh faults
test-statistics: setup ## Simulate decisions: how often the gate errs (minutes)
	@scripts/run-tests.sh statistics
test-lab: setup ## Each command of docs/lab.md, on a stack of its own (minutes; MODE=docker too)
	@scripts/run-tests.sh lab
test-own-data: setup ## Data sets of one's own, end to end (minutes; MODE=docker too)
	@scripts/run-tests.sh own_data
test-serve: setup ## The champion's service under load (minutes; MODE=docker too)
	@scripts/run-tests.sh serve
lint: setup ## ruff, mypy, shellcheck, shfmt (FIX=1 mends what it can) [FIX]
	@scripts/run-linters.sh
audit: setup ## Look up known vulnerabilities of the locked packages
	@scripts/audit-packages.sh
lock: ## Compile requirements.txt and requirements-dev.txt with uv [UV]
	@scripts/compile-requirements.sh
