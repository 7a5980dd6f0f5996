# `make demo`, `make test` and `make check` do all the set-up that a fresh machine needs.

PYTHON ?= python3
VENV ?= .venv
NEWEST ?= python3.13
DEMO ?= demo
RUN = $(VENV)/bin/python
# A quarter of the labels: 15 videos of each of ten classes.
FINETUNE = $(RUN) -m ctp_jax.main --config configs/finetune_small.py \
  --config.data.data_dir $(DEMO)/data --config.data.fraction 0.25
RETRIEVE = $(RUN) -m ctp_jax.main --config configs/retrieval.py:small \
  --config.data.data_dir $(DEMO)/data --config.probe.num_clips 4
REPORT = $(RUN) -m ctp_jax.report --out $(DEMO)/comparison.html $(DEMO)/retrieval_random \
  $(DEMO)/retrieval_pretrained $(DEMO)/from_scratch $(DEMO)/finetuned

# What most changes touch, and what runs in seconds.
QUICK = tests/ops tests/models tests/tasks \
  tests/test_config.py tests/test_configs.py tests/test_imports.py

.PHONY: demo demo-pretrained demo-without demo-longer test check check-newest pytest test-beam lint
.PHONY: install clean

# XLA allocates what a step needs anew in every step: large pages make that quicker.
demo: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
demo: $(VENV)/.installed
	@echo "1 of 4. The game: patches move over videos, and a network learns to follow them."
	$(RUN) -m ctp_jax.prepare moving_shapes --data_dir $(DEMO)/data
	$(RUN) -m ctp_jax.main --config configs/demo.py --workdir $(DEMO)/run \
	  --config.data.data_dir $(DEMO)/data
	@echo
	@echo "2 of 4. Tracking: iou, above, is the overlap with the true boxes on held-out videos,"
	@echo "beside that of a box left where it is. Pictures, true boxes in colour and predicted"
	@echo "ones dashed: $(DEMO)/run/game.png and game.gif"
	@echo
	@echo "3 of 4. What it is good for: ten kinds of motion, chance is 10 %."
	@echo "The runs without pretraining go on beside these, and write to $(DEMO)/without.txt."
	$(MAKE) --jobs=2 demo-pretrained demo-without
	@echo
	$(REPORT)
	@echo "The same from scratch with as many steps as pretraining and finetuning together takes"
	@echo "some minutes more: make demo-longer"
	@echo
	@echo "4 of 4. Everything about a run is in its report, to be opened in a browser:"
	@echo "  $(DEMO)/run/report.html, $(DEMO)/finetuned/report.html, ..."

# Small networks leave cores idle: two runs at once take less time than one after the other.
demo-pretrained:
	$(RETRIEVE) --workdir $(DEMO)/retrieval_pretrained --config.init_from $(DEMO)/run
	$(FINETUNE) --workdir $(DEMO)/finetuned --config.init_from $(DEMO)/run

# From scratch, as many steps as pretraining and finetuning together.
demo-longer: demo
	$(FINETUNE) --workdir $(DEMO)/from_scratch_1650_steps --config.steps 1650
	$(REPORT) $(DEMO)/from_scratch_1650_steps

# In the other order, so that the two do not compile the same program at the same time.
demo-without:
	@($(FINETUNE) --workdir $(DEMO)/from_scratch && \
	  $(RETRIEVE) --workdir $(DEMO)/retrieval_random) > $(DEMO)/without.txt 2>&1 \
	  || { tail -n 20 $(DEMO)/without.txt; exit 1; }

test: $(VENV)/.installed-dev
	$(MAKE) --jobs=2 lint pytest

# While working; `make test` before a change is sent.
check: $(VENV)/.installed-dev
	$(MAKE) --jobs=2 lint pytest PYTEST='-m "not slow" $(QUICK)'

# The same with the newest Python that is supported, and so with the newest packages.
check-newest:
	$(MAKE) check PYTHON=$(NEWEST) VENV=.venv-newest

# Beside lint, most of whose time is one process of pyright.
pytest: $(VENV)/.installed-dev
	$(RUN) -m pytest $(PYTEST)

# In a venv of its own: Apache Beam holds other packages back.
test-beam: $(VENV)-beam/.installed
	$(VENV)-beam/bin/python -m pytest tests/prepare/test_beam.py

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(RUN)

install: $(VENV)/.installed

# Installed anew when what is to be installed changes.
$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[data]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable ".[data,dev]"
	touch $@

$(VENV)-beam/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --quiet --editable ".[data,dev,beam]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-beam .venv-newest $(DEMO)
