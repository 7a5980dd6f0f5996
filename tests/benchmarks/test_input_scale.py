"""Benchmark of a large input: the simulated data set is one that can be read."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import input_scale
from ctp_jax.data import index, reading, records
from ctp_jax.errors import UserError
from tests.data import make_injuries as injuries


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A small data set: its folder."""
    data_dir = tmp_path_factory.mktemp("real")
    injuries.prepare(data_dir)
    opened = records.open_records("pictures/jpeg", "all", str(data_dir))
    return opened.directory  # opened once, TFDS's data set has an index


def test_every_simulated_record_is_one_of_the_real_ones(real, tmp_path, monkeypatch):
    monkeypatch.setattr(input_scale, "FILES", 20)
    small, count = index.read(real), 99
    input_scale.simulate(small, real, count, tmp_path / "simulated" / "1.0.0")
    opened = records.open_records("simulated", "train", str(tmp_path))
    assert len(opened) == count and len(opened.files) == 20
    assert len(set(opened.ids.tolist())) == count
    assert len(set(opened.file_index.tolist())) > len(small.files)
    read = reading.read_features(opened)
    for number in range(count):
        source = number % len(small.offset)
        found = read(tf.constant(number, tf.int64))
        assert found["label"] == small.label[source]
        assert len(found["frames"]) == small.num_frames[source]


def test_growth_is_a_slope_of_the_later_half():
    assert input_scale.growth([900, 0, 5, 10, 12, 14, 16]) == pytest.approx(2)
    assert input_scale.growth([1, 50, 50, 50]) == pytest.approx(0)


def test_memory_is_that_of_this_process():
    before = input_scale.held()
    block = np.ones(64 << 17)  # 64 MB
    assert 50 < input_scale.held() - before < 80
    assert block.all()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="ctp_jax.prepare moving_shapes"):
        input_scale.main([f"--data_dir={tmp_path}"])
