# Commands for people and scripts; “make help” lists them. Each prepares .venv first, which costs nothing once it is there.

SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: help venv demo up test test-browser check bench chaos chaos-mutations clean

PY = .venv/bin/python
SECONDS ?= 60
SEED ?= 1
# Whatever is started ends with this make, even when make is killed.
ENDS_WITH = exec env FLOTILLA_ENDS_WITH=$$PPID
export ONCE LEADS DEVICES QUICK

help: ## these lines
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

venv: ## Python environment with the locked packages (PYTHON=/path chooses the Python)
	@insist=; [ -z "$(PYTHON)" ] || insist=--insist; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11); do \
	  if "$$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec "$$python" -I config/stack/bootstrap.py $$insist; \
	  fi; \
	done; \
	echo "Flotilla needs Python 3.11 or newer$(if $(PYTHON),; $(PYTHON) is not,: none is on the PATH; PYTHON=/path/to/python names one)." >&2; \
	exit 1

demo: venv ## the whole thing with a campaign, until Ctrl-C (ONCE=1 ends by itself; LEADS=file.csv DEVICES=50)
	@$(ENDS_WITH) $(PY) manage.py demo

up: venv ## the same servers and programs without demo data, until Ctrl-C
	@$(ENDS_WITH) $(PY) manage.py stack up

test: venv ## the test suite, browser tests apart
	@exec $(PY) -m pytest -m "not browser"

test-browser: venv ## the browser tests; finds Chromium or installs it
	@chromium=$$($(PY) -m config.stack.browser) || exit 1; \
	FLOTILLA_CHROMIUM="$$chromium" exec $(PY) -m pytest -m browser

check: venv ## ruff, mypy, import-linter, migrations missing or unsafe, check --deploy
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache
	@echo "$(PY) manage.py makemigrations --check --dry-run"
	@$(ENDS_WITH) $(PY) -m config.stack run -- $(PY) manage.py makemigrations --check --dry-run
	@echo "$(PY) manage.py lint_migrations"
	@$(ENDS_WITH) $(PY) -m config.stack run -- $(PY) manage.py lint_migrations
	@echo "$(PY) manage.py check --deploy --fail-level WARNING"
	@FLOTILLA_ENV=production FLOTILLA_HOSTS=flotilla.example FLOTILLA_ORIGINS=https://flotilla.example \
	FLOTILLA_SECRET_KEY=$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(64))') \
	FLOTILLA_FIELD_KEYS=$$($(PY) -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())') \
	FLOTILLA_SUPPRESSION_KEYS=$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(32))') \
	exec $(PY) manage.py check --deploy --fail-level WARNING

bench: venv ## all benchmarks, a table and .local/bench/*.json (QUICK=1 for a short look)
	@$(ENDS_WITH) $(PY) manage.py bench

chaos: venv ## kill and cut at random under load, count lost, doubled and stuck (SECONDS=60 SEED=1)
	@$(ENDS_WITH) $(PY) manage.py chaos --seconds $(SECONDS) --seed $(SEED)

chaos-mutations: venv ## chaos against copies without one guard each, and whether it is noticed (SEED=1)
	@$(ENDS_WITH) $(PY) manage.py chaos --mutations --seed $(SEED)

clean: ## stop what runs; remove .venv, .local with its database, and caches
	@[ ! -d .local ] || [ ! -x $(PY) ] || $(PY) -m config.stack clean
	@rm -rf .venv .local .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage staticfiles
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
