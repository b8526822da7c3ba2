# Every target works on a fresh clone: it makes .venv and installs what it needs, once.
PYTHON ?= python3
CUDA ?= 12

RUN := .venv/bin/python

.PHONY: help demo test lint docs notebook site parity bench cupy gpu release
.NOTPARALLEL:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed  ## train a small CNN on MNIST, attack it with FGSM, and save fgsm_mnist.png
	$(RUN) examples/fgsm_mnist.py

test: .venv/.installed-test  ## run the test suite
	$(RUN) -m pytest

lint: .venv/.installed-dev  ## run ruff and mypy
	$(RUN) -m ruff check .
	$(RUN) -m mypy

docs: .venv/.installed-test  ## run every code block of docs/ and the README
	$(RUN) -m pytest tests/test_docs.py

notebook: .venv/.installed-notebook  ## execute notebooks/tour.py into notebooks/tour.ipynb
	$(RUN) notebooks/build.py

site: .venv/.installed-docs  ## build the site of the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

parity: .venv/.installed-test .venv/.installed-parity  ## compare with PyTorch, torchattacks, foolbox and ART
	$(RUN) -m pytest -m parity

bench: .venv/.installed-bench  ## compare speed with other libraries and the hardware: benchmarks.json, benchmarks.png
	$(RUN) -m benchmarks
	$(RUN) -m benchmarks.limits
	$(RUN) -m benchmarks.processes

cupy: .venv/.installed-test  ## run the tests of the GPU on the real CuPy, on this CPU (ONLY=cupy: a part of them)
	-$(RUN) -m pip install --quiet cupy-cuda12x==14.2.0
	PYTHONPATH=tests $(RUN) -m pytest -p cupy_on_cpu.plugin -m "$(or $(ONLY),gpu or cupy)" -n 2

gpu: .venv/.installed-test .venv/.installed-cuda$(CUDA)  ## tests, examples and speed beside PyTorch on a GPU: gpu.json
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m benchmarks.gpu

release: .venv/.installed-release  ## build sdist and wheel, try each in a clean environment (PYTHON=python3.11 NUMPY='numpy<2.1')
	rm -rf dist
	$(RUN) -m build
	for package in dist/*; do \
	    $(PYTHON) -m venv --clear .venv/clean && \
	    .venv/clean/bin/python -m pip install --quiet "$$package" $(NUMPY) && \
	    .venv/clean/bin/python tests/smoke.py || exit 1; \
	done

.venv/.installed: setup.py pyproject.toml tinyadv/VERSION
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tinyadv needs Python 3.11 or newer, \
	not " + sys.version.split()[0] + ": say which, as in make demo PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --editable .
	@touch $@

.venv/.installed-%: .venv/.installed
	$(RUN) -m pip install --editable '.[$*]'
	@touch $@
