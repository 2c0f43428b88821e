# make demo    see a match: synthesize music, index it, query noisy clips of it
# make test    all tests, and what they cover
# make check   format, lint, types, which package may import which, documentation
# make docs    the documentation site, in build/docs; a broken link is an error
# make matrix  the wheel with each Python that is here, from wheels only (part of make check-all)
# make hooks   let git run the quick ones before each commit
# Each makes the environment it needs in .venv; only Python 3.11, 3.12 or 3.13 and make must be there.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
FAISS ?= cpu# gpu on machines with one
TOOLS ?= ,dev,docs# empty: what jobs need, no more
BIN := .venv/bin
READY := .venv/ready-$(FAISS)

.PHONY: demo test check check-all matrix style types imports docs hooks format lock env clean

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/one"; exit 1; }
	@echo "Making the environment in .venv (about 5 GB, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet -c constraints.txt -e '.[$(FAISS)$(TOOLS)]'
	@touch $@

demo: $(READY)
	@$(BIN)/python jobs/demo.py $(if $(AUDIO),--audio '$(AUDIO)')

test: $(READY)
	$(BIN)/python -m pytest --cov

check: style types imports docs

style: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-logo

docs: $(READY)
	$(BIN)/sphinx-build -W -n --keep-going -b html docs build/docs

# The slower checks too.
check-all: check matrix
	GRAFP_KILLS=50 $(BIN)/python -m pytest -m ''

matrix: $(READY)
	$(BIN)/python tests/support/matrix.py

hooks: $(READY)
	$(BIN)/pre-commit install

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# After a change of dependencies.
lock: $(READY)
	@mkdir -p build
	for faiss in cpu gpu; do \
		$(BIN)/uv export --quiet --no-emit-project --no-hashes --no-annotate --no-header \
			--extra $$faiss --extra dev --extra docs -o build/$$faiss.txt || exit 1; \
	done
	LC_ALL=C sort -t= -k1,1 -k2 build/cpu.txt build/gpu.txt | uniq > constraints.txt

clean:
	rm -rf .venv demo-out build *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .coverage
