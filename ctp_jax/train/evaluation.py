"""One pass over the held-out videos."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from ctp_jax.evaluators.base import Evaluator
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train.state import TrainState


def evaluate(
    eval_step: Callable,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    evaluators: Sequence[Evaluator],
    mesh: Mesh,
) -> dict[str, Any]:
    """Feeds every evaluator with every prediction; returns what they yield, by name."""
    for evaluator in evaluators:
        evaluator.reset()

    def update(done):
        batch, outputs = mesh_lib.to_host(done)
        for evaluator in evaluators:
            evaluator.update(batch, outputs)

    running = None
    for batch in batches:
        started = eval_step(state, mesh_lib.put(batch, mesh))
        # The device predicts this batch while the host looks at the one before.
        if running is not None:
            update(running)
        running = started
    if running is not None:
        update(running)
    results = {}
    for evaluator in evaluators:
        results.update(evaluator.results())
    return results


def split_results(
    results: Mapping[str, Any],
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Separates numbers, which are logged, from arrays, which are kept in a file."""
    numbers, arrays = {}, {}
    for name, value in results.items():
        array = np.asarray(value)
        if array.dtype == object:
            continue
        if array.ndim == 0 and array.dtype.kind in "biuf":
            numbers[name] = array.item()
        else:
            arrays[name] = array
    return numbers, arrays
