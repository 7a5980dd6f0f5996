"""The benchmark of the input: what its peer does, and that it runs."""

import json
import os
import pickle

import cv2
import numpy as np
import pytest

from benchmarks import input as benchmark
from benchmarks import usual_loader
from configs import common
from ctp_jax.errors import UserError
from ctp_jax.tasks import base, ctp
from tests import opencv_drawing
from tests.data import make_injuries as injuries


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("input")
    injuries.prepare(directory)
    return str(directory)


@pytest.fixture(scope="module")
def small(data_dir):
    """(config, pipeline) of 24-pixel clips of 6 frames."""
    config = common.pretrain(
        "pictures/jpeg", split="train", eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = data_dir, 1
    config.clip.size, config.clip.scales, config.clip.num_frames = 24, (24, 28), 6
    config.clip.strides, config.game.scales = (1,), (8.0,)
    config.batch_size = 4
    return config, base.open_pipeline(config, ctp.Task(config), True)


def test_data_that_is_not_prepared_is_named(tmp_path):
    with pytest.raises(UserError, match="ctp_jax.prepare moving_shapes --data_dir"):
        benchmark.main([f"--data_dir={tmp_path}"])


@pytest.fixture(scope="module")
def usual(small, tmp_path_factory):
    config, opened = small
    plans = usual_loader.plans_of([next(opened.train_batches())])
    assert len(plans) == config.batch_size
    folder = tmp_path_factory.mktemp("zips")
    zips = usual_loader.store_zips(opened.records, folder, videos=3)
    assert len(zips) == 3
    return usual_loader.Usual(config.clip, zips, plans)


def test_the_usual_loader_makes_clips(small, usual):
    clip, boxes = next(usual_loader.loop(usual, 4))
    assert clip.shape == (4, 3, 6, 24, 24) and clip.dtype == np.float32
    assert np.isfinite(clip).all() and -3 < clip.min() < clip.max() < 3
    plans = usual_loader.plans_of([next(small[1].train_batches())])
    np.testing.assert_array_equal(boxes, [plan["boxes"] for plan in plans])
    # A worker process gets it pickled and makes the same.
    there = pickle.loads(pickle.dumps(usual))
    np.testing.assert_array_equal(clip[2], there[2][0])
    frames = np.stack(usual.frames(0))
    assert frames.shape == (6, injuries.HEIGHT, injuries.WIDTH, 3)


def test_decoders_agree(usual):
    name, decoder = usual_loader.fastest_decoder()
    want, got = usual.frames(5), usual.frames(5, decoder)
    np.testing.assert_allclose(
        np.stack(want) * 1.0, np.stack(got), atol=4, err_msg=name
    )


@pytest.mark.parametrize("hue_saturation", [False, True])
def test_the_usual_drawing_is_the_exact_one_but_for_rounding(usual, hue_saturation):
    """Against floats: uint8 is cut off per patch, hues have steps of two degrees."""
    plan = usual._plans[0] | {"hue_saturation": hue_saturation, "hue": 11.0}
    frames = usual.frames(1)
    clip = [
        cv2.resize(frame, (24, 24), interpolation=cv2.INTER_AREA) for frame in frames
    ]
    got = usual_loader.change_colours(usual_loader.paste(clip, plan), plan)
    exact = np.stack(clip)[..., ::-1].astype(np.float32)
    exact = opencv_drawing.change_colours(opencv_drawing.paste(exact, plan), plan)
    difference = np.abs(np.stack(got)[..., ::-1] - exact)
    # At most a level for each of three patches; and a degree of hue is 255 / 60 levels.
    assert difference.max() < (9 if hue_saturation else 4)
    normal = usual_loader.normalise(got)
    red = np.stack(got)[..., 2] / 255
    np.testing.assert_allclose(normal[0], (red - 0.485) / 0.229, atol=1e-5)


def test_the_table(data_dir, tmp_path, capsys):
    path, before = tmp_path / "found.json", os.sched_getaffinity(0)
    flags = ["--name=pictures/jpeg", f"--data_dir={data_dir}", f"--json={path}"]
    try:
        benchmark.main([*flags, "--rounds=1", "--batches=1"])
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        os.sched_setaffinity(0, before)
    rates = json.loads(path.read_text())["clips per second"]
    assert {"ours", "loop", "no decoding"} <= rates.keys()
    assert any(side.startswith("decoding only, ") for side in rates)
    table = capsys.readouterr().out
    for side, (rate,) in rates.items():
        assert rate > 0 and side in table
