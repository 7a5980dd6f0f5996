# `make demo` and `make test` do all the set-up that a fresh machine needs.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
RUN = $(VENV)/bin/python

.PHONY: demo test lint install clean

demo: $(VENV)/.installed
	$(RUN) -m ctp_jax.prepare moving_shapes --data_dir $(DEMO)/data
	$(RUN) -m ctp_jax.main --config configs/demo.py --workdir $(DEMO)/run \
	  --config.data.data_dir $(DEMO)/data
	$(RUN) -m ctp_jax.visualize --workdir $(DEMO)/run --zoom 3
	@echo "The exported encoder: $(DEMO)/run/encoder"
	@echo "The game, with true boxes (coloured) and predicted ones (dashed):"
	@echo "  $(DEMO)/run/game.png and $(DEMO)/run/game.gif"

test: $(VENV)/.installed-dev lint
	$(RUN) -m pytest

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

install: $(VENV)/.installed

# Installed anew when what is to be installed changes.
$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
