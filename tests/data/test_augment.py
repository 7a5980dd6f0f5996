"""The plan of colours against its description, over many draws."""

import numpy as np
import pytest
import tensorflow as tf

from configs import common
from ctp_jax.data import augment, draws

FRAMES, EXAMPLES = 16, 6000


@pytest.fixture(scope="module")
def plan():
    config = common.colour()
    count = draws.count_draws(lambda d: augment.sample_colour(d, config, FRAMES))
    numbers = np.random.default_rng(0).random((EXAMPLES, count), np.float32)
    plan = augment.sample_colour(draws.Draws(tf.constant(numbers)), config, FRAMES)
    return {name: value.numpy() for name, value in plan.items()}


def test_hue_and_saturation(plan):
    assert plan["hue_saturation"].mean() == pytest.approx(0.25, abs=0.02)
    for name, values, bound in (
        ("hue", plan["hue"], 24.0),
        ("saturation", np.log(plan["saturation"]), 0.1),
    ):
        assert np.abs(values).max() <= bound * 1.0001, name
        assert values.std() == pytest.approx(bound / 3**0.5, rel=0.03), name
        assert values.mean() == pytest.approx(0, abs=0.03 * bound), name


@pytest.mark.parametrize(("name", "delta"), [("brightness", 30.0), ("contrast", 0.12)])
def test_brightness_and_contrast_over_time(plan, name, delta):
    values = plan[name]
    values = np.log(values) if name == "contrast" else values
    changed = np.abs(values).max(axis=1) > 0
    assert changed.mean() == pytest.approx(0.5, abs=0.02)
    values = values[changed]
    assert np.abs(values).max() <= delta * 1.0001
    # Uniform at both ends, which are always key frames, and independent of each other.
    for frame in (0, -1):
        assert values[:, frame].std() == pytest.approx(delta / 3**0.5, rel=0.04)
    assert np.corrcoef(values[:, 0], values[:, -1])[0, 1] == pytest.approx(0, abs=0.05)
    # 0.7 have no inner key frame, so they move one way only.
    steps = np.sign(np.diff(values, axis=1))
    one_way = (steps.min(axis=1) == steps.max(axis=1)).mean()
    assert one_way == pytest.approx(0.7 + 0.3 / 3, abs=0.05)


def test_brightness_and_contrast_are_drawn_apart(plan):
    brightness = np.abs(plan["brightness"]).max(axis=1) > 0
    contrast = np.abs(plan["contrast"] - 1).max(axis=1) > 0
    assert (brightness & contrast).mean() == pytest.approx(0.25, abs=0.02)
