"""The plan of colours against its description, over many rng."""

import numpy as np
import pytest
import tensorflow as tf

from configs import common
from ctp_jax.data import rng
from ctp_jax.data.plans import colour

FRAMES, EXAMPLES = 16, 6000


@pytest.fixture(scope="module")
def plan():
    config = common.colour()
    count = rng.count_uniforms(lambda d: colour.sample_colour(d, config, FRAMES))
    numbers = np.random.default_rng(0).random((EXAMPLES, count), np.float32)
    plan = colour.sample_colour(rng.Rng(tf.constant(numbers)), config, FRAMES)
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


@pytest.fixture(scope="module")
def clip_plan():
    """Of recognition: what it does to the colours of `EXAMPLES` clips."""
    config = common.finetune(
        "none", split="", eval_split="", num_classes=0, epochs=1, milestones=()
    ).colour
    count = rng.count_uniforms(lambda d: colour.sample_clip_colour(d, config, FRAMES))
    numbers = np.random.default_rng(1).random((EXAMPLES, count), np.float32)
    numbers = rng.Rng(tf.constant(numbers))
    plan = colour.sample_clip_colour(numbers, config, FRAMES)
    return {name: value.numpy() for name, value in plan.items()}


# Five standard errors of a share, and of moments of a uniform variable.
def share_error(share):
    return 5 * np.sqrt(share * (1 - share) / EXAMPLES)


def assert_uniform(values, bound):
    """U(+-bound): its range, mean, deviation and fourth moment."""
    values, count = values / bound, len(values)
    assert np.abs(values).max() <= 1.0001 and np.abs(values).max() > 0.99
    assert abs(values.mean()) < 5 * np.sqrt(1 / 3 / count)
    assert abs((values**2).mean() - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / count)
    assert abs((values**4).mean() - 1 / 5) < 5 * np.sqrt((1 / 9 - 1 / 25) / count)


def test_recognition_changes_a_clip_as_one(clip_plan):
    for name in ("brightness", "contrast"):
        values = clip_plan[name]
        assert values.shape == (EXAMPLES, FRAMES) and values.dtype == np.float32
        np.testing.assert_array_equal(values, values[:, :1].repeat(FRAMES, axis=1))
    for name in ("hue", "saturation", "hue_saturation"):
        assert clip_plan[name].shape == (EXAMPLES,)


def test_recognition_draws_what_the_authors_draw(clip_plan):
    brightness = clip_plan["brightness"][:, 0]
    contrast = np.log(clip_plan["contrast"][:, 0])
    for values, bound in ((brightness, 32.0), (contrast, 0.2)):
        changed = values != 0
        assert abs(changed.mean() - 0.2) < share_error(0.2)
        assert_uniform(values[changed], bound)
    assert abs(clip_plan["hue_saturation"].mean() - 0.2) < share_error(0.2)
    assert_uniform(clip_plan["hue"], 24.0)
    assert_uniform(np.log(clip_plan["saturation"]), 0.1)


def test_recognition_draws_every_change_apart(clip_plan):
    changed = [
        clip_plan["brightness"][:, 0] != 0,
        clip_plan["contrast"][:, 0] != 1,
        clip_plan["hue_saturation"],
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = (changed[first] & changed[second]).mean()
        assert abs(both - 0.04) < share_error(0.04)
    both = changed[0] & changed[1]
    values = [
        clip_plan["brightness"][both, 0],
        clip_plan["contrast"][both, 0],
        clip_plan["hue"][both],
        clip_plan["saturation"][both],
    ]
    correlations = np.corrcoef(values)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(both.sum())


@pytest.mark.parametrize("per_frame", [True, False])
def test_jitter_draws_what_torchvision_draws(per_frame):
    config = common.jitter(
        0.8, 1.5, 0.4, 0.2, probability=0.7, grey=0.3, per_frame=per_frame
    )
    config.offset = 32.0
    count = rng.count_uniforms(lambda d: colour.sample_jitter(d, config, 2))
    numbers = np.random.default_rng(2).random((EXAMPLES, count), np.float32)
    plan = colour.sample_jitter(rng.Rng(tf.constant(numbers)), config, 2)
    plan = {name: value.numpy() for name, value in plan.items()}
    for name, values in plan.items():
        assert values.shape == (EXAMPLES, 2)
        # Independent in the frames of a clip, or the same.
        correlation = np.corrcoef(values.T)[0, 1]
        limit = 5 / np.sqrt(EXAMPLES)
        assert abs(correlation) < limit if per_frame else correlation > 0.999, name
    first = {name: values[:, 0] for name, values in plan.items()}
    assert_uniform(first["brightness"] - 1, 0.8)
    assert_uniform(first["contrast"] - 1.25, 1.25)  # from 0, not from -0.5
    assert_uniform(first["saturation"] - 1, 0.4)
    assert_uniform(first["hue"], 72.0)
    assert_uniform(first["offset"], 32.0)
    for name, share in (("jittered", 0.7), ("grey", 0.3)):
        assert abs(first[name].mean() - share) < share_error(share)
    shares = np.bincount(first["order"], minlength=24) / EXAMPLES
    assert len(shares) == 24
    assert np.abs(shares - 1 / 24).max() < share_error(1 / 24)
