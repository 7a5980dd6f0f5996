"""Passes metrics on, as they are written, to what `config.metrics_to` names."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from ctp_jax import modules

PassOn = Callable[[int, dict[str, float]], Any]
"""Takes a step and its numbers, {'train/loss': 0.5}."""


@contextlib.contextmanager
def passing_on(config: ConfigDict, workdir: pathlib.Path) -> Iterator[PassOn | None]:
    """What `config.metrics_to` names, on process 0; None if it names nothing.

    Raises:
        UserError: there is no such module, see `ctp_jax.modules.load`.
    """
    name = str(config.get("metrics_to", ""))
    if not name or jax.process_index() != 0:
        yield None
        return
    needs = "pass_on"
    module = modules.load("config.metrics_to", "module", name, {}, needs)
    with getattr(module, needs)(config, workdir) as function:
        yield function
