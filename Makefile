# make pretrain | test | test-fast | test-all | bench | figures | gpu | lint: each sets up what it needs in .venv (the first time takes a few minutes).

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := $(shell find csrc -type f)

# Tests of one file share what they build, so a file stays with one process.
PROCESSES ?= 2
PYTEST := $(RUN) -m pytest --numprocesses $(PROCESSES) --dist loadfile

# Threads that spin while they wait take the core from those that work.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: pretrain test test-fast test-all bench figures gpu lint format clean

pretrain: $(VENV)/.built
	$(RUN) -m ortho_kernels.trainer.compare experiment=quick/fashion_mnist

test: $(VENV)/.built
	$(PYTEST) -m "not slow"

# Under two minutes on two cores: the numbers, and one of each idea.
STARTING_PROCESSES := $(addprefix tests/,test_docs.py test_backends.py test_wrapped_weights.py penalty/test_ranks.py)
FAST := $(filter-out $(STARTING_PROCESSES),$(wildcard tests/test_*.py tests/penalty/test_*.py)) \
	$(addprefix tests/native/,test_cpu_kernels.py test_plan.py test_cuda_plan.py) \
	$(addprefix tests/triton_backend/,test_heuristics.py test_launch_plan.py test_tables.py) \
	$(addprefix tests/trainer/,test_config.py test_evaluation.py test_memory.py test_method_options.py test_methods.py \
	test_optimizers.py test_rooms.py test_stream.py test_views.py)

test-fast: $(VENV)/.built
	$(PYTEST) -m "not slow" $(FAST)

test-all: $(VENV)/.built
	$(PYTEST)

bench: $(VENV)/.built
	$(RUN) -m pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds --benchmark-sort=name

figures: bench
	$(RUN) -m benchmarks.throughput
	$(RUN) -m benchmarks.picture_pipeline
	$(RUN) -m ortho_kernels.trainer.compare experiment=quick/fashion_mnist \
		runs=benchmarks/results/runs/$$(git describe --always --abbrev=12 --dirty=+)
	$(RUN) -m benchmarks.tables

gpu: $(VENV)/.built
	$(RUN) benchmarks/gpu_day.py --seconds 400

lint: $(VENV)/.built
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $$(find csrc tests/native tests/emulation -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

format: $(VENV)/.built
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(VENV)/bin/clang-format -i $$(find csrc tests/native tests/emulation -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

clean:
	rm -rf build *.egg-info ortho_kernels/*.so $(VENV)/.built

# The environment, what is installed in it, and the native library, each made when what it comes from changes.

$(VENV)/.created:
	$(PYTHON) scripts/create_venv.py $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing torch and what builds the kernels ..."
	$(PIP) torch torchvision setuptools wheel ninja pybind11
	@echo "Installing the trainer, the tests, the benchmarks and the linters ..."
	ORTHO_KERNELS_NO_NATIVE=1 $(PIP) --no-build-isolation --editable ".[trainer,test,bench,lint]"
	@touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(SOURCES)
	@echo "Building the kernels ..."
	$(PIP) --no-build-isolation --no-deps --editable .
	@$(RUN) -m ortho_kernels.doctor
	@touch $@
