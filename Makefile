# Makes .venv from the lock file on a machine with nothing but Python 3.11 and make.
#
#   make demo [IMAGES=folder] [COUNT=24]   the main job, on this machine alone
#   make tune [P95=2s] [MODEL=folio]       the fastest settings on this machine
#   make test                              the tests, but for the slow ones:
#   make test-slow                         a Ray cluster whose parts are killed, 10,000 requests, ...
#   make test-scaling                      how replicas follow the backlog; wants quiet cores
#   make chaos [SEED=n] [JOBS=2000]        many jobs while something breaks every few seconds
#   make bench-ingest                      messages/s, CPU and memory of one consumer
#   make lint                              style and types
#   make bench                             what the application costs beside the bare loop
#   make bench-peers                       Foreedge beside rembg's own commands, LitServe, Mosec
#   make compare-rembg                     /api/remove beside rembg's own server
#   make fuzz                              many more mutated images and requests (3 minutes)
#   make bench-overload                    200 clients at once on this machine
#   make bench-ledger                      status, report and verify of a run of a million
#   make loadtest [HOST=url] [ARGS=...]    locust on a running application
#   make soak                              memory over 2,000 images of mixed sizes
#   make lock                              new versions into the lock file (needs uv)
PYTHON ?= python3.11
COUNT ?= 24
JOBS ?= 2000
HOST ?= http://127.0.0.1:8000
VENV := .venv
PEERS := .venv-peers

.PHONY: demo test test-slow test-scaling chaos fuzz lint lock tune loadtest soak \
	bench bench-ingest bench-ledger bench-overload bench-peers compare-rembg
demo: $(VENV)/installed
	$(VENV)/bin/foreedge demo --count $(COUNT) $(if $(IMAGES),--images "$(IMAGES)")

tune: $(VENV)/installed
	$(VENV)/bin/python -m loadtests.tuner $(if $(P95),--p95 $(P95)) $(if $(MODEL),--model $(MODEL))

test: $(VENV)/compiled
	$(VENV)/bin/python -m pytest -m "not slow"

test-slow: $(VENV)/compiled
	$(VENV)/bin/python -m pytest -m slow --ignore tests/cluster/test_scaling.py

test-scaling: $(VENV)/installed
	$(VENV)/bin/python -m pytest tests/cluster/test_scaling.py

chaos: $(VENV)/installed
	$(VENV)/bin/python -m tests.faults.chaos --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

bench-ingest: $(VENV)/installed
	$(VENV)/bin/python -m loadtests.benchmarks.consumer

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/installed
	$(VENV)/bin/python -m loadtests.benchmarks.overhead --write-docs

loadtest: $(VENV)/compiled
	mkdir -p out/bench/locust
	$(VENV)/bin/locust -f loadtests/load/locustfile.py --host $(HOST) \
		--csv out/bench/locust/run --html out/bench/locust/report.html $(ARGS)

soak: $(VENV)/installed
	$(VENV)/bin/python -m loadtests.benchmarks.soak

bench-peers: $(VENV)/installed $(PEERS)/installed
	$(VENV)/bin/python -m loadtests.peers --write-docs

compare-rembg: $(VENV)/installed $(PEERS)/installed
	$(VENV)/bin/python -m loadtests.peers.rembg_api --write-docs

fuzz: $(VENV)/installed
	$(VENV)/bin/python -m pytest --hypothesis-profile=fuzz --timeout=1800 \
		tests/integration/test_http_fuzz.py tests/integration/test_http_schema.py

bench-overload: $(VENV)/installed
	$(VENV)/bin/python -m loadtests.benchmarks.overload

bench-ledger: $(VENV)/installed
	$(VENV)/bin/python -m loadtests.benchmarks.runs

lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements.lock
	uv pip compile requirements-peers.in --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet -o requirements-peers.lock

# Numba compiles pymatting at its first import, for longer than a test waits for matting.
$(VENV)/compiled: $(VENV)/installed
	$(VENV)/bin/python -c "import pymatting"
	touch $@

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps -e .
	touch $@

# The lock is complete, and pip refuses the extras that it names without a version: --no-deps.
$(PEERS)/installed: requirements-peers.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-peers.lock
	touch $@
