"""What takes the place of a record that cannot be read, and how many may be replaced."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from ctp_jax.data import bad_records, records, shuffle
from ctp_jax.errors import UserError
from tests.data.injured_sets import (
    STEPS,
    flip_bit,
    make_config,
    open_records,
    open_set,
    open_training,
    take,
)


def test_stand_ins_are_all_the_others_in_any_order():
    """Each other record comes at each place equally often."""
    total, first, positions = 6, 3, 800
    others = [n for n in range(total) if n != first]

    def stand_in(number, position):
        start = tf.constant(first, tf.int64)
        return shuffle.replacement(start, number, position, total, 0)

    numbers = tf.range(total - 1, dtype=tf.int64)

    @tf.autograph.experimental.do_not_convert
    def all_at(position):
        return tf.stack([stand_in(number, position) for number in tf.unstack(numbers)])

    found = tf.data.Dataset.range(positions).map(all_at).as_numpy_iterator()
    counts = np.zeros((total - 1, total))
    for row in found:
        assert sorted(row) == others
        counts[np.arange(total - 1), row] += 1
    expected = positions / (total - 1)
    chi2 = ((counts[:, others] - expected) ** 2 / expected).sum() / (total - 2) ** 2
    assert chi2 < 2  # 1 +- 0.35 if uniform


@pytest.mark.parametrize("bad", range(3))
def test_of_two_videos_the_good_one_stands_in(bad, injured):
    whole = open_records(injured)
    opened = records.select(whole, np.array([4, 11]))
    flip_bit(opened, bad % 2)
    if bad == 2:
        flip_bit(opened, 1)
    config = make_config(injured)
    train = open_training(config, opened)
    if bad == 2:
        with pytest.raises(UserError, match="of 2 videos tried for an example"):
            take(train, STEPS)
        return
    for batch in take(train, STEPS):
        assert set(batch["index"].tolist()) == {1 - bad}


def test_the_only_video_has_no_stand_in(injured):
    opened = records.select(open_records(injured), np.array([4]))
    flip_bit(opened, 0)
    config = make_config(injured)
    train = open_training(config, opened)
    with pytest.raises(UserError, match="of 1 video tried for an example"):
        take(train, 1)


@pytest.mark.parametrize(
    ("max_bad", "bad", "stops"),
    [
        (0.1, 2, False),
        (0.1, 3, True),
        (0.01, 1, False),
        (0.01, 2, True),
        (0.0, 1, True),
    ],
)
def test_the_share_that_stops_a_run(injured, max_bad, bad, stops):
    opened = open_records(injured)
    for number in range(bad):
        flip_bit(opened, number)

    def run():
        if max_bad == 0.1:  # of the limits, one in a pipeline
            assert len(take(open_set(injured, max_bad=max_bad), STEPS)) == STEPS
        else:
            found = bad_records.BadRecords(opened, len(opened), max_bad, "")
            found.add(range(bad))

    if not stops:
        return run()
    with pytest.raises(UserError) as caught:
        run()
    text = str(caught.value)
    assert f"{bad} of 20 videos of split 'train' cannot be read" in text
    assert f"config.data.max_bad = {max_bad:g} allows" in text
    assert "\n" not in text and "not those that were written" in text


def test_a_run_without_a_good_record_stops(injured):
    opened = open_records(injured)
    config = make_config(injured)
    train = open_training(config, opened)
    shutil.rmtree(injured)
    with pytest.raises(UserError, match=r"of 8 videos tried for an example of step 4,"):
        take(train, 1, start=3)
    assert 1 <= train.bad_records.records <= 8
    with pytest.raises(UserError, match=r"4 of 20 videos .* its file is gone; "):
        config.data.max_bad = 0.15
        take(open_training(config, opened), 1)


@pytest.mark.parametrize("train", [True, False])
def test_nothing_is_paid_for_stand_ins_until_one_is_needed(
    train, sound, injured, monkeypatch
):
    def batches_of(data_dir):
        opened = open_set(data_dir, train=train)
        return take(opened, STEPS) if train else list(opened.eval_batches())

    asked, first_success = [], bad_records.first_success
    monkeypatch.setattr(
        bad_records, "first_success", lambda *a: asked.append(a) or first_success(*a)
    )
    batches_of(sound)
    assert not asked
    flip_bit(open_records(injured, split="train" if train else "test"), 3)
    assert sum(batch["replaced"].sum() for batch in batches_of(injured)) > 0
    assert asked
