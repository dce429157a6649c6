# bgan: `make help` lists what can be made.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BGAN := $(BIN)/bgan
# uv, where there is one, in a third of the time of pip. Not for torch: it would take the build for CUDA.
SERVE_INSTALL := $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/pip install)
READY := $(VENV)/.ready
SERVE_READY := $(VENV)/.serve-ready
BENCH_READY := $(VENV)/.bench-ready
DOCS_READY := $(VENV)/.docs-ready
SOAK_READY := $(VENV)/.soak-ready
DIST := .tools/dist
DIST_READY := $(DIST)/.ready
DIST_PYTHON := $(abspath $(DIST))/bin/python
BENCH ?=
SOAK ?=
SCHEDULES ?= 10000
ABLATION ?=
PORTABILITY ?=
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --dist loadfile --no-loadscope-reorder
TRITON := .tools/triton
TRITON_READY := $(TRITON)/.ready
FAKETIME := .tools/faketime
FAKETIME_READY := $(FAKETIME)/.ready
TYPED := .tools/typed
# Stubs work with grpcio and protobuf from their generator's version on, so it is the oldest that clients may have.
PROTOC_VERSION := 1.73.0
PROTOC := .tools/protoc-$(PROTOC_VERSION)/bin/python
BUF := .tools/node_modules/.bin/buf
BUF_VERSION := 1.75.0
WEB_RUNTIME := clients/browser/onnxruntime-web
WEB_RUNTIME_VERSION := 1.30.0
WEB_RUNTIME_READY := $(WEB_RUNTIME)/.ready-$(WEB_RUNTIME_VERSION)
WEB_RUNTIME_FILES := ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm
MODELS ?=
PORT ?= 50051
STUBS := proto
# tritonclient and kserve register the package `inference` as well, so our stubs of it have a pool of their own.
SERVICES := proto/bgan/v1/sampling.proto proto/bgan/inference/open_inference_grpc.proto
PROTOS := $(SERVICES) proto/bgan/v1/model.proto
NOTEBOOKS := first-steps own-network
PUBLISHED ?=

# The models that come with bgan: what each is trained with on MNIST, in a run of its name.
SHIPPED := serving/shipped
SHIPPED_MODELS := mlp-dbn mlp-sbn cnn-dbn cnn-sbn
RECIPE_mlp-dbn := --preset modern --conditional --network mlp --learning-rate-decay cosine --epochs 100
RECIPE_mlp-sbn := $(RECIPE_mlp-dbn) --neuron sbn
RECIPE_cnn-dbn := --preset modern --conditional --discriminator mlp --epochs 60
RECIPE_cnn-sbn := $(RECIPE_cnn-dbn) --neuron sbn

export BGAN_DATA_DIR
# Where it is set, every process compiles again what it imports, the tests' rewritten asserts too.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo serve browser test-fast test test-long test-all snapshots bench soak portability ablation gates models cards classifiers $(SHIPPED_MODELS) check lint types format proto \
	proto-check proto-lint proto-breaking test-floors test-kserve test-pythons dist docs notebooks clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything in it, at the versions that were tested

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bgan needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,serve,trace,data,bulk,s3,hub,dev]'
	@touch $(SERVE_READY) $@

$(SERVE_READY): pyproject.toml constraints.txt | $(BIN)/pip
	$(SERVE_INSTALL) --quiet --constraint constraints.txt --editable '.[serve]'
	@touch $@

demo: $(READY) ## Train a small generator on the bundled digits, export it, serve it, sample it into demo/digits.png
	$(BGAN) train --dataset digits --epochs 80 --learning-rate 3e-4 --slope-cap 4 --name digits --runs-dir demo/runs
	$(BGAN) export digits --runs-dir demo/runs --models demo/models
	@$(BGAN) serve --models demo/models --port 0 2> demo/server.log & server=$$!; \
	trap 'kill $$server; wait $$server 2> /dev/null' EXIT; \
	until port=$$(sed -n 's/.*serving on .*:\([0-9]*\)$$/\1/p' demo/server.log) && [ -n "$$port" ]; do \
		kill -0 $$server 2> /dev/null || { cat demo/server.log >&2; exit 1; }; sleep 0.1; \
	done; \
	echo "$(BGAN) serve --models demo/models --port $$port"; \
	$(BGAN) sample --server localhost:$$port --count 64 --seed 1 --overwrite --output demo/digits.png && \
	echo "The picture is $(CURDIR)/demo/digits.png" && \
	echo "To look at more, run $(BGAN) serve --models demo/models --http-port 8080 and open http://localhost:8080/"

serve: $(SERVE_READY) ## Serve the models in models/, or else those that come with bgan: MODELS=folder PORT=50051
	$(BGAN) serve --port $(PORT) $(if $(MODELS),--models $(MODELS))

browser: $(WEB_RUNTIME_READY) ## Fetch onnxruntime-web, with which the gallery computes images in the page

# npm's package names its licence without its text; Python's, of the same sources, has that.
$(WEB_RUNTIME_READY): | $(SERVE_READY)
	@command -v npm > /dev/null || { echo "onnxruntime-web comes as an npm package; install Node.js and npm" >&2; exit 1; }
	npm install --silent --no-save --ignore-scripts --prefix .tools/web onnxruntime-web@$(WEB_RUNTIME_VERSION)
	rm -rf $(WEB_RUNTIME) && mkdir $(WEB_RUNTIME)
	cp $(WEB_RUNTIME_FILES:%=.tools/web/node_modules/onnxruntime-web/dist/%) $(WEB_RUNTIME)
	from=$$($(BIN)/python -c "import importlib.util as util; print(*util.find_spec('onnxruntime').submodule_search_locations)") \
		&& cp $$from/LICENSE $(WEB_RUNTIME)/LICENSE.txt && cp $$from/ThirdPartyNotices.txt $(WEB_RUNTIME)
	@touch $@

# A test's tier is told from what it uses: tests/kit/tiers.py.
test-fast: $(READY) ## Run the tests that start no process, export nothing and train for 50 steps at most
	$(PYTEST) --numprocesses 2 --dist worksteal -m "not (process or training or exporting or long)"

# Three at a time fill two cores: these tests wait for their servers a third of the time.
test: $(READY) ## Run all tests but the long ones, on two cores
	$(PYTEST) --numprocesses 3 -m "not long"

test-long: $(READY) ## Run the tests that take long: streams over many kills, the reproduction, faults
	$(PYTEST) --numprocesses 3 -m long

test-all: $(READY) ## Run all tests
	$(PYTEST) --numprocesses 3

# The clients in other environments, against this one's server. Each is pinned by tests/environments/NAME.txt.
CLIENT_TESTS := --numprocesses 2 --dist loadfile -m "not long" --ignore tests/clients/browser tests/clients

test-floors: .tools/environment-floors/.ready $(READY) ## Run the clients' tests with the oldest packages that they may have
	OMP_NUM_THREADS=1 BGAN_TEST_SERVER=$(CURDIR)/$(BGAN) $(<D)/bin/pytest $(CLIENT_TESTS)

test-kserve: .tools/environment-kserve/.ready $(READY) ## Run the clients' tests beside kserve and tritonclient[grpc]
	OMP_NUM_THREADS=1 BGAN_TEST_SERVER=$(CURDIR)/$(BGAN) $(<D)/bin/pytest $(CLIENT_TESTS)

# Those that are not installed, by pyenv too, are unpacked from Debian's packages: VERSION:RELEASE. It has no 3.12.
PYTHONS := 3.12: 3.13:trixie 3.14:sid
PYTHON_TESTS := $(CLIENT_TESTS) tests/serving/models tests/serving/security/test_tokens.py \
	tests/serving/rpc/test_sampling.py tests/serving/rpc/test_open_inference.py

test-pythons: ## Run the clients' and the server's tests with other Pythons: PYTHONS="3.13:trixie 3.14:sid"
	@for each in $(PYTHONS); do version=$${each%:*} release=$${each#*:}; folder=.tools/python$$version; \
		python=$$(PYENV_VERSION=$$(pyenv latest $$version 2> /dev/null) python$$version -c "import sys; print(sys.executable)" 2> /dev/null) || \
			{ [ -n "$$release" ] || { echo "test-pythons: there is no Python $$version here" >&2; continue; }; \
			python=$$folder/usr/bin/python$$version && tests/environments/debian_python.sh $$version $$release $$folder; } || exit 1; \
		environment=.tools/environment-$$version; \
		[ -e $$environment/.ready ] || { $$python -m venv --without-pip $$environment && \
			$(PYTHON) -m pip --python $$environment/bin/python install --quiet --requirement tests/environments/python$$version.txt && \
			$(PYTHON) -m pip --python $$environment/bin/python install --quiet --no-deps --editable . && \
			touch $$environment/.ready; } || exit 1; \
		OMP_NUM_THREADS=1 $$environment/bin/python -m pytest $(PYTHON_TESTS) || exit 1; \
	done

.tools/environment-%/.ready: tests/environments/%.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	$(@D)/bin/pip install --quiet --no-deps --editable .
	@touch $@

snapshots: $(READY) ## Renew the snapshots of help, presets, names and weights; read the difference before you commit
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_snapshots.py tests/test_documentation.py --snapshot-update

bench: $(BENCH_READY) $(TRITON_READY) ## Measure, or some parts only: BENCH="calls streaming"; a table and a JSON line
	@$(BIN)/python -m tests.benchmarks $(BENCH)

soak: $(SOAK_READY) $(FAKETIME_READY) ## 10,000 simulated schedules; then faults, fuzzing, a leak gate for 10 minutes: SOAK="--minutes 120"
	@$(BIN)/python -m tests.simulation --first $$(date +%s)0 --count $(SCHEDULES) --jobs $$(nproc)
	@$(BIN)/python -m tests.reliability $(SOAK)

portability: $(READY) ## Count the images that have other bits elsewhere: PORTABILITY="native web --models FOLDER"
	@$(BIN)/python -m tests.portability $(PORTABILITY)

models: $(SHIPPED_MODELS) ## Train, export and measure the models that come with bgan: hours; goes on where it stopped
	@$(MAKE) cards

$(SHIPPED_MODELS): %: $(READY)
	OMP_NUM_THREADS=1 $(BGAN) train --dataset mnist --name $@ $(RECIPE_$@)
	$(BGAN) export $@ --arithmetic integer --models $(SHIPPED)

cards: $(READY) ## Measure those models and write their cards and picture: PUBLISHED=samples.npz of the published code
	$(BGAN) card $(SHIPPED_MODELS:%=$(SHIPPED)/%.onnx) --license "MIT, as bgan itself" \
		--picture docs/samples/shipped.png $(if $(PUBLISHED),--published-samples $(PUBLISHED))

# `bgan evaluate` trains what its cache lacks, and the shipped folder is laid out as the cache.
classifiers: $(READY) ## Train the classifiers that ship with bgan again, and measure their floors
	rm -f trainer/evaluation/shipped/*
	for dataset in digits mnist; do BGAN_CACHE_DIR=trainer/evaluation/shipped OMP_NUM_THREADS=1 \
		$(BGAN) evaluate $(SHIPPED)/mlp-dbn.onnx --dataset $$dataset || exit 1; done

ablation: $(READY) ## Train the modern recipe with one change a line, for hours: ABLATION="--seeds 3 --models cnn-dbn"
	@$(BIN)/python -m tests.benchmarks.ablation $(ABLATION)

gates: $(READY) ## Train gated generators and dense ones, for hours, and measure both: GATES="--seeds 3 --parts mnist"
	@$(BIN)/python -m tests.benchmarks.gates $(GATES)

$(BENCH_READY): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(SOAK_READY): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[soak]'
	@touch $@

# The library by which a clock jumps is a Debian package: it is unpacked here, not installed.
$(FAKETIME_READY):
	@mkdir -p $(FAKETIME) && cd $(FAKETIME) && apt-get download --quiet libfaketime && dpkg -x libfaketime_*.deb . && \
		touch .ready || echo "libfaketime cannot be had here; the soak goes on without jumps of the clock" >&2

$(TRITON_READY): tests/benchmarks/triton.txt
	@$(PYTHON) -m venv $(TRITON) && $(TRITON)/bin/pip install --quiet --requirement $< && touch $@ || \
		{ rm -rf $(TRITON); echo "pytriton cannot be installed here; the benchmarks go on without it" >&2; }

docs: $(DOCS_READY) ## Build the documentation as a site, build/site, and check its links
	$(BIN)/python -m sphinx --quiet --fresh-env --nitpicky --fail-on-warning --keep-going \
		--conf-dir docs/site --doctree-dir build/doctrees . build/site
	$(BIN)/python docs/site/check.py build/site
	@echo "The site is $(CURDIR)/build/site/index.html"

notebooks: $(DOCS_READY) ## Run the notebooks of the documentation, and keep what they show
	for name in $(NOTEBOOKS); do folder=$$(mktemp -d) && cp docs/tutorials/$$name.ipynb $$folder && (cd $$folder && \
		OMP_NUM_THREADS=1 $(abspath $(BIN))/jupyter-execute --inplace $$name.ipynb) && \
		cp $$folder/$$name.ipynb docs/tutorials && rm -r $$folder || exit 1; done

$(DOCS_READY): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

dist: $(DIST_READY) ## Build sdist, wheel and SBOM into dist/, and check them
	rm -rf dist *.egg-info
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(DIST_PYTHON) -m build --outdir dist .
	$(DIST_PYTHON) -m twine check --strict dist/*
	$(DIST)/bin/check-wheel-contents --no-config dist/*.whl
	$(DIST)/cff/bin/cffconvert --validate --infile CITATION.cff
	@environment=$$(mktemp -d) && trap 'rm -rf $$environment' EXIT && $(PYTHON) -m venv $$environment && \
	$$environment/bin/pip install --quiet --constraint constraints.txt "$$(echo dist/*.whl)[serve]" && \
	$$environment/bin/bgan --version && $$environment/bin/pip uninstall --quiet --yes pip setuptools && \
	$(DIST)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --validate \
		--output-file dist/bgan-sbom.cdx.json $$environment/bin/python
	@ls -l dist

$(DIST_READY): .ci/dist.txt
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/pip install --quiet --requirement $<
	$(PYTHON) -m venv $(DIST)/cff && $(DIST)/cff/bin/pip install --quiet cffconvert==2.0.0 # needs an old jsonschema
	@touch $@

check: lint types proto-check proto-lint proto-breaking ## Run the static checks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy trainer serving clients
	@mkdir -p $(TYPED)/bgan && ln -sfn $(CURDIR)/clients $(TYPED)/bgan/clients
	MYPYPATH=$(TYPED) $(BIN)/mypy clients/examples/*.py

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(READY) $(PROTOC) ## Generate the stubs under proto/ anew
	$(PROTOC) -m grpc_tools.protoc --proto_path proto \
		--plugin protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(STUBS) --mypy_out=quiet:$(STUBS) $(PROTOS)
	$(PROTOC) -m grpc_tools.protoc --proto_path proto \
		--plugin protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(SERVICES)
	sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' $(STUBS)/bgan/inference/*_pb2.py

$(PROTOC):
	$(PYTHON) -m venv .tools/protoc-$(PROTOC_VERSION)
	$@ -m pip install --quiet grpcio-tools==$(PROTOC_VERSION) || { rm $@; exit 1; }

proto-check: $(READY) ## Check that the committed stubs are what the protos give
	@stubs=$$(mktemp -d) && trap 'rm -rf $$stubs' EXIT && $(MAKE) --silent proto STUBS=$$stubs && \
	for stub in $$(cd $$stubs && find bgan -name '*_pb2*'); do \
		diff -u proto/$$stub $$stubs/$$stub || \
		{ echo "the stubs are out of date; run make proto" >&2; exit 1; }; \
	done

proto-lint: $(BUF)
	$(BUF) lint proto

# A shallow clone has no tags: the newest is fetched. Before the first release there is none to compare with.
proto-breaking: $(BUF)
	@[ -n "$$(git tag --list 'v*')" ] || git fetch --quiet --depth 1 origin 'refs/tags/v*:refs/tags/v*' 2> /dev/null || true; \
	tag=$$(git tag --list 'v*' --sort=-version:refname | head -n 1); \
	[ -n "$$tag" ] || { echo "proto-breaking: there is no release yet to compare with" >&2; exit 0; }; \
	released=$$(mktemp -d) && trap 'rm -rf $$released' EXIT && git archive $$tag proto | tar -x -C $$released && \
	$(BUF) breaking proto --against $$released/proto || \
		{ echo "the protos break what $$tag has; read the lines above" >&2; exit 1; }

$(BUF):
	@command -v npm > /dev/null || { echo "buf comes as an npm package; install Node.js and npm" >&2; exit 1; }
	npm install --silent --no-save --prefix .tools @bufbuild/buf@$(BUF_VERSION)

clean: ## Remove what was made, but for runs/, models/ and data/
	rm -rf $(VENV) $(WEB_RUNTIME) .tools build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo
