"""Steps and epochs against exact fractions."""

import math
from fractions import Fraction

import pytest

from ctp_jax.train.epochs import Epochs


@pytest.mark.parametrize("num_examples,batch_size", [(100, 10), (101, 8), (7, 32)])
@pytest.mark.parametrize("every", ["1", "0.1", "2.5", "10"])
def test_events_are_the_first_steps_of_their_epochs(num_examples, batch_size, every):
    epochs = Epochs(num_examples, batch_size)
    step_size = Fraction(num_examples, batch_size) * Fraction(every)
    wanted = {math.ceil(k * step_size) for k in range(1, 4000)} & set(range(1, 60))
    found = {step for step in range(60) if epochs.passes(step, float(every))}
    assert found == wanted


def test_length():
    epochs = Epochs(100, 32)
    assert epochs.total_steps(300.0, 0) == 938
    assert epochs.total_steps(300.0, 5) == 5
    assert epochs.total_steps(0.001, 0) == 1
    assert epochs.at(25) == 8.0


def test_never():
    assert not any(Epochs(4, 2).passes(step, 0.0) for step in range(20))
